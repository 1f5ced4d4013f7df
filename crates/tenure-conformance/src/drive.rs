//! Runs a store's answers to their end, without a runtime.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::harness::Harness;

/// What [`Harness::drive`] is given.
pub type Work<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, which sleeps while the future waits.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Runs a future as the harness wants it run: see [`Harness::drive`].
pub fn run<F: Future + Send>(harness: &dyn Harness, future: F) -> F::Output
where
    F::Output: Send,
{
    let mut output = None;
    harness.drive(pin!(async {
        output = Some(future.await);
    }));
    output.expect("`Harness::drive` runs the future to its end")
}

/// As [`run`], but gives up after `patience` of real time. None: it wasn't ready by then.
pub fn run_for<F: Future + Send>(
    harness: &dyn Harness,
    patience: Duration,
    future: F,
) -> Option<F::Output>
where
    F::Output: Send,
{
    let until = Instant::now() + patience;
    run(harness, async move {
        let mut future = pin!(future);
        let mut alarm = Alarm { until, armed: false };
        std::future::poll_fn(move |context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if alarm.is_over(context) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    })
}

/// Wakes a task at a point in real time, from a thread of its own.
struct Alarm {
    until: Instant,
    armed: bool,
}

impl Alarm {
    fn is_over(&mut self, context: &Context<'_>) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if !self.armed {
            self.armed = true;
            let waker = context.waker().clone();
            std::thread::spawn(move || {
                std::thread::sleep(left + Duration::from_millis(1));
                waker.wake();
            });
        }
        false
    }
}
