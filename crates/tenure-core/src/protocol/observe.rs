//! Watching a record until it has expired, without any clock but one's own.

use std::time::Duration;

use crate::clock::Instant;
use crate::identity::{Nonce, StoreId};
use crate::store::{Snapshot, Version};

/// What a contender has seen of one record, and since when it has looked the same.
///
/// The rule is that of client-go's leader election and of the DynamoDB lock client: two
/// machines' clocks are never compared, only how long something has not changed.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    seen: Option<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    store: StoreId,
    version: Version,
    nonce: Nonce,
    first_received: Instant,
}

impl Observation {
    /// Notes what an answer showed, and says for how long it has looked just like that.
    ///
    /// `received` is when the answer had *arrived*. Counting from when it was asked for would
    /// count time in which the record could still change: the holder's renewal may land between
    /// the question's leaving and its being answered.
    pub fn note(&mut self, snapshot: &Snapshot, received: Instant) -> Duration {
        let same = self.seen.as_ref().is_some_and(|seen| {
            seen.store == snapshot.store
                && seen.version == snapshot.version
                && seen.nonce == snapshot.record.nonce
        });
        if !same {
            self.seen = Some(Seen {
                store: snapshot.store,
                version: snapshot.version.clone(),
                nonce: snapshot.record.nonce,
                first_received: received,
            });
        }
        self.seen.as_ref().map_or(Duration::ZERO, |seen| received.since(seen.first_received))
    }

    /// Forgets what was seen: after a reset nothing that was seen before proves anything.
    pub fn forget(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;

    fn snapshot(version: &str, nonce: u128) -> Snapshot {
        let mut record = sample();
        record.nonce = Nonce::from_u128(nonce);
        let store = StoreId::from_u128(1);
        Snapshot { record, version: Version::new(version), store, age: None, holder_gone: false }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn only_the_unchanged_grows_old() {
        let mut observation = Observation::default();
        assert_eq!(observation.note(&snapshot("7", 1), at(10)), Duration::ZERO);
        assert_eq!(observation.note(&snapshot("7", 1), at(25)), Duration::from_secs(15));
        assert_eq!(observation.note(&snapshot("8", 2), at(26)), Duration::ZERO);
        assert_eq!(observation.note(&snapshot("8", 2), at(30)), Duration::from_secs(4));
        // A store whose versions are made of the content alone still changes its nonce.
        assert_eq!(observation.note(&snapshot("8", 3), at(31)), Duration::ZERO);
        let mut elsewhere = snapshot("8", 3);
        elsewhere.store = StoreId::from_u128(2);
        assert_eq!(observation.note(&elsewhere, at(40)), Duration::ZERO);
    }
}
