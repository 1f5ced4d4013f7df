//! The beat: which renewals leave together.

use std::time::Duration;

use crate::clock::Instant;

/// What a batch is gathered from: one hold that may be renewed.
#[derive(Clone, Copy, Debug)]
pub struct Due<K> {
    /// Whose renewal.
    pub key: K,
    /// When it is due.
    pub at: Instant,
    /// Its ttl.
    pub ttl: Duration,
}

/// Renewals that leave in one request: all of one ttl, so that one timeout fits them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<K> {
    /// The ttl that they share.
    pub ttl: Duration,
    /// Whose renewals.
    pub keys: Vec<K>,
}

/// Gathers what leaves now.
///
/// Once one hold of a ttl is due, all of that ttl that would be due within the next fifth of
/// their interval go along: they then share a send, and stay together from there on. So a
/// session beats once every ttl/3 for each ttl, however many names it holds.
pub fn gather<K: Copy>(
    holds: impl Iterator<Item = Due<K>> + Clone,
    now: Instant,
    batch_max: usize,
) -> Vec<Batch<K>> {
    let mut ttls: Vec<Duration> =
        holds.clone().filter(|due| due.at <= now).map(|due| due.ttl).collect();
    ttls.sort_unstable();
    ttls.dedup();
    let mut batches = Vec::new();
    for ttl in ttls {
        let along = now + ttl / 15;
        let keys: Vec<K> = holds
            .clone()
            .filter(|due| due.ttl == ttl && due.at <= along)
            .map(|due| due.key)
            .collect();
        for part in keys.chunks(batch_max.max(1)) {
            batches.push(Batch { ttl, keys: part.to_vec() });
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(key: u32, at: u64, ttl: u64) -> Due<u32> {
        Due { key, at: Instant::from_nanos(at * 1_000_000_000), ttl: Duration::from_secs(ttl) }
    }

    #[test]
    fn nothing_leaves_before_it_is_due() {
        let holds = [due(1, 11, 30), due(2, 12, 30)];
        let now = Instant::from_nanos(10_000_000_000);
        assert!(gather(holds.into_iter(), now, 100).is_empty());
    }

    #[test]
    fn those_of_one_ttl_that_are_nearly_due_go_along() {
        let holds = [due(1, 10, 30), due(2, 12, 30), due(3, 13, 30), due(4, 10, 6), due(5, 11, 6)];
        let now = Instant::from_nanos(10_000_000_000);
        let batches = gather(holds.into_iter(), now, 100);
        assert_eq!(
            batches,
            [
                Batch { ttl: Duration::from_secs(6), keys: vec![4] },
                Batch { ttl: Duration::from_secs(30), keys: vec![1, 2] },
            ]
        );
    }

    #[test]
    fn a_batch_is_bounded() {
        let holds: Vec<_> = (0..10).map(|key| due(key, 1, 30)).collect();
        let batches = gather(holds.into_iter(), Instant::from_nanos(2_000_000_000), 4);
        assert_eq!(batches.iter().map(|batch| batch.keys.len()).collect::<Vec<_>>(), [4, 4, 2]);
    }
}
