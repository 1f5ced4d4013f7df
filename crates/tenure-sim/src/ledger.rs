//! The true history of one name: its grants, and what its record last said.

use std::time::Duration;

use tenure_core::clock::Instant;
use tenure_core::identity::{ClaimId, FencingToken, Instance};
use tenure_core::record::{Record, State};

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) grants: Vec<Granted>,
    pub(crate) current: Option<Current>,
    pub(crate) newest: Option<FencingToken>,
}

/// One grant.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) at: Duration,
    pub(crate) token: FencingToken,
    pub(crate) claim: ClaimId,
    pub(crate) holder: Instance,
    /// How often the store had forgotten before.
    pub(crate) resets: u32,
    /// Whether a grant to this holder after a reset promises anything about those before it.
    pub(crate) cautious: bool,
    /// Whether anybody has acted under it: a grant may be given back unused.
    pub(crate) used: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) record: Record,
    pub(crate) written_at: Duration,
    pub(crate) shown_at: Option<Instant>,
}

impl Current {
    /// How long the record's rule still keeps `who` out.
    pub(crate) fn left(&self, who: &Instance, now: Duration, shown: Option<Instant>) -> Duration {
        let record = &self.record;
        let state = match &record.state {
            State::Held | State::Revoked => record.ttl,
            State::Released { reserved_for: Some(kept) } if !kept.successor.is(who) => kept.lasts,
            _ => Duration::ZERO,
        };
        state.max(record.not_before).saturating_sub(self.age(now, shown))
    }

    pub(crate) fn age(&self, now: Duration, shown: Option<Instant>) -> Duration {
        match (self.shown_at, shown) {
            (Some(then), Some(shown)) => shown.since(then),
            // A clock's reading is rounded to a nanosecond.
            _ => now - self.written_at + Duration::from_micros(1),
        }
    }
}
