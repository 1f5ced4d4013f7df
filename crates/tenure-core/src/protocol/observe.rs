//! Watching a record until it has expired, without any clock but one's own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Instant, Reading, Timestamp};
use crate::identity::{Nonce, StoreId};
use crate::store::{Snapshot, Version};

/// How far the two clocks may have gone apart while an observation was kept, beside the 1 % that
/// their rates may differ by.
const APART_MAX: Duration = Duration::from_secs(2);

/// What a contender has seen of one record, and since when it has looked the same.
///
/// The rule is that of client-go's leader election and of the DynamoDB lock client: two
/// machines' clocks are never compared, only how long something has not changed.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    seen: Option<Seen>,
}

/// An [`Observation`] between two processes: a cold contender would have to watch for a whole ttl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    store: StoreId,
    version: String,
    nonce: Nonce,
    /// When the first answer that showed it had arrived, by the interval clock.
    seen_ns: u64,
    /// Both clocks when this was kept.
    kept_ns: u64,
    kept_at: Timestamp,
}

impl Kept {
    /// The wall clock when it was kept, which tells the oldest of many.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.kept_at
    }

    /// Whether both are of the same write of a record.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.store, &self.version, self.nonce) == (other.store, &other.version, other.nonce)
    }
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

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_none()
    }

    /// What was seen, so that it outlives this process.
    #[must_use]
    pub fn kept(&self, now: Reading) -> Option<Kept> {
        self.seen.as_ref().map(|seen| Kept {
            store: seen.store,
            version: seen.version.as_str().to_owned(),
            nonce: seen.nonce,
            seen_ns: seen.first_received.as_nanos(),
            kept_ns: now.elapsed.as_nanos(),
            kept_at: now.wall,
        })
    }

    /// Goes on from what was kept. None: the clocks say that `now` isn't later by the same clock.
    ///
    /// A record that still has the nonce was not written in between, however long that was. What
    /// could be wrong is how long: the interval clock must be the same one (the caller's to know,
    /// see [`clock::identity`](crate::clock::identity)), and must not have been set back with the
    /// machine that it counts on, which the wall clock shows.
    #[must_use]
    pub fn resumed(kept: &Kept, now: Reading) -> Option<Self> {
        let (seen, then) = (Instant::from_nanos(kept.seen_ns), Instant::from_nanos(kept.kept_ns));
        if seen > then || then > now.elapsed {
            return None;
        }
        let elapsed = now.elapsed.since(then);
        let by_wall = now.wall.as_millis().checked_sub(kept.kept_at.as_millis())?;
        let by_wall = Duration::from_millis(u64::try_from(by_wall).ok()?);
        let allowed = elapsed / 100 + APART_MAX;
        if by_wall.abs_diff(elapsed) > allowed {
            return None;
        }
        Some(Self {
            seen: Some(Seen {
                store: kept.store,
                version: Version::new(kept.version.as_str()),
                nonce: kept.nonce,
                first_received: seen,
            }),
        })
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

    #[test]
    fn what_was_kept_counts_on_unless_the_clocks_disagree() {
        let reading = |elapsed: u64, wall: i64| Reading {
            elapsed: at(elapsed),
            wall: Timestamp::from_millis(wall * 1000),
        };
        let mut observation = Observation::default();
        observation.note(&snapshot("7", 1), at(10));
        let kept = observation.kept(reading(15, 1015)).unwrap();
        let resumed = |now| Observation::resumed(&kept, now);
        let mut later = resumed(reading(40, 1040)).unwrap();
        assert_eq!(later.note(&snapshot("7", 1), at(41)), Duration::from_secs(31));
        assert_eq!(later.note(&snapshot("7", 2), at(41)), Duration::ZERO);
        // Set back with the machine; a wall clock that says so; one that was set.
        for now in [reading(14, 1014), reading(16, 1500), reading(500, 1016), reading(16, 900)] {
            assert!(resumed(now).is_none(), "{now:?}");
        }
    }
}
