//! Runs a store's answers to their end, without a runtime.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub use crate::executor::{Work, block_on};
use crate::harness::Harness;

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
