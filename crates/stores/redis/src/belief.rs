//! Which store a session believes in, bucket by bucket, and the highest tokens that it has seen.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tenure_core::identity::StoreId;

use crate::keys::BUCKETS;

/// What a session believes of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Belief {
    pub(crate) id: StoreId,
    /// The highest count of tokens that the bucket has told.
    pub(crate) tokens: u64,
}

/// What a session believes of all of them.
#[derive(Debug, Default)]
pub(crate) struct Beliefs(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Moves when another store is believed in.
    generation: u64,
    buckets: [Option<Belief>; BUCKETS],
}

impl Beliefs {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often another store was believed in, and what is believed now.
    pub(crate) fn all(&self) -> (u64, [Option<Belief>; BUCKETS]) {
        let inner = self.inner();
        (inner.generation, inner.buckets)
    }

    /// A bucket told its count of tokens.
    pub(crate) fn told(&self, bucket: usize, id: StoreId, tokens: u64) {
        if let Some(belief) = self.inner().buckets[bucket].as_mut().filter(|known| known.id == id) {
            belief.tokens = belief.tokens.max(tokens);
        }
    }

    /// Believes in these from now on. Whether it believed in others before.
    pub(crate) fn believe(&self, buckets: [Belief; BUCKETS]) -> bool {
        let mut inner = self.inner();
        let known = inner.buckets.iter().zip(&buckets);
        let reset = known.filter(|(old, new)| old.is_some_and(|old| old.id != new.id)).count() > 0;
        inner.generation += 1;
        inner.buckets = buckets.map(Some);
        reset
    }
}
