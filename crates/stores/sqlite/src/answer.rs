//! An answer from a worker's thread to whoever awaits it: written once, read by a future.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// How far the work on an answer has come.
enum Slot<T> {
    Queued(Option<Waker>),
    Begun(Option<Waker>),
    Answered(T),
    /// The worker ended first.
    Dropped(Ended),
}

/// At which point a worker ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Before it began: certainly not done.
    BeforeItBegan,
    /// While it was at work: done or not.
    AtWork,
}

struct Shared<T>(Mutex<Slot<T>>);

impl<T> Shared<T> {
    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker's side.
pub(crate) struct Asked<T>(Arc<Shared<T>>);

/// The caller's side.
pub(crate) struct Awaited<T>(Arc<Shared<T>>);

/// Both sides of one answer.
pub(crate) fn answer<T>() -> (Asked<T>, Awaited<T>) {
    let shared = Arc::new(Shared(Mutex::new(Slot::Queued(None))));
    (Asked(Arc::clone(&shared)), Awaited(shared))
}

impl<T> Asked<T> {
    /// Whether anybody still waits for the answer.
    pub(crate) fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// From here on an end without an answer means that nobody knows what was done.
    pub(crate) fn begin(&self) {
        let mut slot = self.0.slot();
        if let Slot::Queued(waker) = &mut *slot {
            *slot = Slot::Begun(waker.take());
        }
    }

    /// Answers.
    pub(crate) fn send(self, answer: T) {
        self.settle(|_| Slot::Answered(answer));
    }

    fn settle(&self, to: impl FnOnce(Ended) -> Slot<T>) {
        let mut slot = self.0.slot();
        let (ended, waker) = match &mut *slot {
            Slot::Queued(waker) => (Ended::BeforeItBegan, waker.take()),
            Slot::Begun(waker) => (Ended::AtWork, waker.take()),
            Slot::Answered(_) | Slot::Dropped(_) => return,
        };
        *slot = to(ended);
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Asked<T> {
    fn drop(&mut self) {
        self.settle(Slot::Dropped);
    }
}

impl<T> Future for Awaited<T> {
    type Output = Result<T, Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.slot();
        match &mut *slot {
            Slot::Queued(waker) | Slot::Begun(waker) => {
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Slot::Dropped(ended) => return Poll::Ready(Err(*ended)),
            Slot::Answered(_) => {}
        }
        match std::mem::replace(&mut *slot, Slot::Dropped(Ended::AtWork)) {
            Slot::Answered(answer) => Poll::Ready(Ok(answer)),
            _ => unreachable!("looked at just now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<T>(awaited: &mut Awaited<T>) -> Poll<Result<T, Ended>> {
        Pin::new(awaited).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_end_before_the_work_began_is_certainly_not_done() {
        let (asked, mut awaited) = answer::<u8>();
        assert!(poll(&mut awaited).is_pending());
        drop(asked);
        assert_eq!(poll(&mut awaited), Poll::Ready(Err(Ended::BeforeItBegan)));
    }

    #[test]
    fn an_end_at_work_is_unknown_and_an_answer_is_itself() {
        let (asked, mut awaited) = answer::<u8>();
        asked.begin();
        drop(asked);
        assert_eq!(poll(&mut awaited), Poll::Ready(Err(Ended::AtWork)));

        let (asked, mut awaited) = answer::<u8>();
        assert!(asked.is_wanted());
        asked.begin();
        asked.send(7);
        assert_eq!(poll(&mut awaited), Poll::Ready(Ok(7)));
    }

    #[test]
    fn an_answer_that_nobody_awaits_is_not_wanted() {
        let (asked, awaited) = answer::<u8>();
        drop(awaited);
        assert!(!asked.is_wanted());
    }
}
