//! Several requests at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// How many requests of one call are on their way at once.
const AT_ONCE: usize = 32;

/// One of several requests.
pub(crate) type Job<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries out all, some at a time, and returns what they came to, in their order.
pub(crate) async fn all<T>(jobs: Vec<Job<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = jobs.iter().map(|_| None).collect();
    let mut waiting = jobs.into_iter().enumerate();
    let mut running: Vec<(usize, Job<'_, T>)> = Vec::new();
    poll_fn(|context| {
        loop {
            running.extend(waiting.by_ref().take(AT_ONCE.saturating_sub(running.len())));
            let before = running.len();
            running.retain_mut(|(place, job)| match job.as_mut().poll(context) {
                Poll::Ready(output) => {
                    done[*place] = Some(output);
                    false
                }
                Poll::Pending => true,
            });
            if running.is_empty() && waiting.len() == 0 {
                return Poll::Ready(());
            }
            // Whatever was begun just now has been polled; the next begins when one is ready.
            if running.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_carried_out_and_keep_their_order() {
        let later = |number: u32| -> Job<'static, u32> {
            Box::pin(async move {
                if number.is_multiple_of(3) {
                    tokio::task::yield_now().await;
                }
                number
            })
        };
        let numbers: Vec<u32> = (0..200).collect();
        assert_eq!(all(numbers.iter().map(|number| later(*number)).collect()).await, numbers);
        assert!(all(Vec::<Job<'_, ()>>::new()).await.is_empty());
    }
}
