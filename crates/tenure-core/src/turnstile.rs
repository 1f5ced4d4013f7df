//! One at a time, in the order of arrival, without a runtime.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Lets one pass at a time. For saving requests, not for safety: nothing rests on it.
#[derive(Debug, Default)]
pub(crate) struct Turnstile(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    arrived: u64,
    /// Whose turn it is, and who waits behind.
    waiting: VecDeque<(u64, Option<Waker>)>,
}

/// A place in the queue; dropping it lets the next one pass.
#[derive(Debug)]
pub(crate) struct Turn<'t> {
    turnstile: &'t Turnstile,
    number: u64,
}

impl Turnstile {
    /// A place behind all that are there.
    pub(crate) fn queue(&self) -> Turn<'_> {
        let mut queue = self.locked();
        queue.arrived += 1;
        let number = queue.arrived;
        queue.waiting.push_back((number, None));
        drop(queue);
        Turn { turnstile: self, number }
    }

    fn locked(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Waits until all that came before are through.
    pub(crate) async fn comes(&self) {
        poll_fn(|context| {
            let mut queue = self.turnstile.locked();
            match queue.waiting.iter_mut().position(|(number, _)| *number == self.number) {
                Some(0) | None => Poll::Ready(()),
                Some(place) => {
                    queue.waiting[place].1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.turnstile.locked();
        queue.waiting.retain(|(number, _)| *number != self.number);
        let next = queue.waiting.front_mut().and_then(|(_, waker)| waker.take());
        drop(queue);
        if let Some(next) = next {
            next.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn one_passes_at_a_time_and_who_gives_up_blocks_nobody() {
        let turnstile = Turnstile::default();
        let mut context = Context::from_waker(Waker::noop());
        let [first, second, third] = [(); 3].map(|()| turnstile.queue());
        let mut is_through = |turn: &Turn<'_>| pin!(turn.comes()).poll(&mut context).is_ready();
        assert!(is_through(&first) && !is_through(&second) && !is_through(&third));
        drop(second);
        assert!(!is_through(&third));
        drop(first);
        assert!(is_through(&third));
    }
}
