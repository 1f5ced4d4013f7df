//! No object is written more often than its store allows: Google's takes one write a second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use object_store::path::Path;
use tokio::time::Instant;

/// How many objects are kept before those whose time has passed are dropped.
const SWEEP_AT: usize = 4096;

/// When each object may be written next.
pub(crate) struct Pace {
    every: Duration,
    next: Mutex<HashMap<Path, Instant>>,
}

impl Pace {
    /// Zero: as often as one likes.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, next: Mutex::default() }
    }

    /// Waits until the object may be written, and takes that turn. Other processes' writes aren't
    /// known here; where two meet, the store refuses one.
    pub(crate) async fn turn(&self, object: &Path) {
        if !self.every.is_zero() {
            tokio::time::sleep_until(self.take(object, Instant::now())).await;
        }
    }

    fn take(&self, object: &Path, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.len() >= SWEEP_AT {
            next.retain(|_, at| *at > now);
        }
        let at = next.get(object).map_or(now, |at| (*at).max(now));
        next.insert(object.clone(), at + self.every);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_one_object_are_a_second_apart_and_others_don_t_wait() {
        let pace = Pace::new(Duration::from_secs(1));
        let (one, other) = (Path::from("one"), Path::from("other"));
        let now = Instant::now();
        assert_eq!(pace.take(&one, now), now);
        assert_eq!(pace.take(&one, now), now + Duration::from_secs(1));
        assert_eq!(pace.take(&one, now), now + Duration::from_secs(2));
        assert_eq!(pace.take(&other, now), now);
        let later = now + Duration::from_secs(10);
        assert_eq!(pace.take(&one, later), later);
    }
}
