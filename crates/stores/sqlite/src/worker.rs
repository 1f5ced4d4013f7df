//! A thread that owns one connection and carries out what is sent to it, one after the other.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tenure_core::{Error, ErrorKind, Operation};

use crate::answer::{Asked, answer};
use crate::errors::{closed, ended};

/// How many requests may wait for one thread; more are refused at once.
const WAITING_MAX: usize = 4096;

/// What a worker's thread owns.
pub(crate) trait Job: Send + 'static {
    /// Looks around between two requests, if there is anything to look for: after so long.
    fn idle(&mut self) -> Option<Duration> {
        None
    }
}

type Request<J> = Box<dyn FnOnce(&mut J) -> Next + Send>;

/// Whether a worker goes on after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Go,
    End,
}

/// The way to a worker's thread, which ends when this is dropped.
pub(crate) struct Worker<J> {
    requests: SyncSender<Request<J>>,
    /// A forked copy of the process has no such thread.
    process: u32,
}

impl<J: Job> Worker<J> {
    /// Starts a thread that owns `job`.
    pub(crate) fn start(name: &str, job: J) -> Result<Self, Error> {
        let (requests, received) = sync_channel(WAITING_MAX);
        let started =
            thread::Builder::new().name(name.to_owned()).spawn(move || run(job, &received));
        started.map(|_| Self { requests, process: std::process::id() }).map_err(|error| {
            let message = "no thread could be started; look at the limit on processes";
            Error::new(ErrorKind::Unavailable, Operation::Open, message).with_source(error)
        })
    }

    /// Has the thread carry out `act`, unless nobody waits for it any more when its turn comes.
    ///
    /// `act` is told of the waiting, so that it can look again just before it writes.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut J, &Asked<Result<T, Error>>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (asked, awaited) = answer();
        self.send(
            operation,
            Box::new(move |job| {
                if asked.is_wanted() {
                    asked.begin();
                    let outcome = act(job, &asked);
                    asked.send(outcome);
                }
                Next::Go
            }),
        )?;
        awaited.await.unwrap_or_else(|end| Err(ended(end, operation)))
    }

    /// Ends the thread and drops its job; answers when that is done. Doing it twice is no error.
    pub(crate) async fn close(&self, mut finish: impl FnMut(&mut J) + Send + 'static) {
        let (asked, awaited) = answer();
        let end = move |job: &mut J| {
            finish(job);
            asked.send(());
            Next::End
        };
        // Unlike a request, the end waits for a place in the queue; a forked copy has none to end.
        if std::process::id() == self.process && self.requests.send(Box::new(end)).is_ok() {
            // An end without an answer is an end, too.
            let _ = awaited.await;
        }
    }

    fn send(&self, operation: Operation, request: Request<J>) -> Result<(), Error> {
        if std::process::id() != self.process {
            return Err(Error::new(
                ErrorKind::Misconfigured,
                operation,
                "the store was opened before this process was forked; open it after the fork",
            ));
        }
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Disconnected(_) => closed(operation),
            TrySendError::Full(_) => Error::new(
                ErrorKind::Unavailable,
                operation,
                format!("{WAITING_MAX} requests wait already; send fewer and larger ones"),
            ),
        })
    }
}

fn run<J: Job>(mut job: J, received: &Receiver<Request<J>>) {
    loop {
        let request = match job.idle() {
            None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(pause) => received.recv_timeout(pause),
        };
        match request {
            Ok(request) => {
                if request(&mut job) == Next::End {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::block_on;
    use std::future::Future;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Waker};

    struct Flag(Arc<AtomicBool>);

    impl Job for Flag {}

    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_dropped_request_that_has_not_begun_is_never_carried_out() {
        let worker = Worker::start("test", Flag(Arc::default())).unwrap();
        let (open, gate) = sync_channel::<()>(0);
        let ran = Arc::new(AtomicBool::new(false));
        let mut context = Context::from_waker(Waker::noop());
        let mut first = Box::pin(worker.ask(Operation::Read, move |_, _| {
            let _ = gate.recv();
            Ok(())
        }));
        assert!(first.as_mut().poll(&mut context).is_pending());
        let seen = Arc::clone(&ran);
        let mut second = Box::pin(worker.ask(Operation::Read, move |_, _| {
            seen.store(true, Ordering::SeqCst);
            Ok(())
        }));
        assert!(second.as_mut().poll(&mut context).is_pending());
        drop(second);
        drop(open);
        block_on(first).unwrap();
        block_on(worker.ask(Operation::Read, |_, _| Ok(()))).unwrap();
        assert!(!ran.load(Ordering::SeqCst));
    }

    #[test]
    fn a_closed_worker_answers_unavailable_and_closes_twice() {
        let dropped = Arc::new(AtomicBool::new(false));
        let worker = Worker::start("test", Flag(Arc::clone(&dropped))).unwrap();
        block_on(worker.close(|_| {}));
        block_on(worker.close(|_| {}));
        let error = block_on(worker.ask(Operation::Read, |_, _| Ok(()))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        while !dropped.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    }

    #[test]
    fn a_panic_at_work_is_an_unknown_outcome() {
        let worker = Worker::start("test", Flag(Arc::default())).unwrap();
        let error = block_on(worker.ask::<()>(Operation::Renew, |_, _| panic!("on purpose")));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }
}
