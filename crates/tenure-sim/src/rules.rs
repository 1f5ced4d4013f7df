//! The rules that live outside the machines: in the runtime that drives them and in the store.

use std::time::Duration;

use tenure_core::clock::Reading;
use tenure_core::error::ErrorKind;
use tenure_core::protocol::hold::Limits;
use tenure_core::record::Demand;
use tenure_core::store::{Acquired, Claim};

/// How work acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acting {
    /// It asks `check()` before each effect.
    Checked,
    /// It asks nobody, like the command of `tenure run`, and is killed at its deadline.
    Unchecked,
}

/// What the driver and the modelled store do where a rule of the protocol depends on them.
///
/// Each method does the right thing. A test overrides one, and the simulation must find out.
pub trait Rules: Sync {
    /// The moment that a confirmed request counts from. `late`: it was answered after its
    /// timeout.
    fn counted_from(&self, sent: Reading, answered: Reading, late: bool) -> Reading {
        let _ = (answered, late);
        sent
    }

    /// The moment that an observation counts from.
    fn observed_at(&self, asked: Reading, received: Reading) -> Reading {
        let _ = asked;
        received
    }

    /// Whether work may act now. `renewing`: a renewal is on its way.
    fn may_act(&self, limits: &Limits, now: Reading, acting: Acting, renewing: bool) -> bool {
        let _ = renewing;
        match acting {
            Acting::Checked => limits.check(now).is_ok(),
            Acting::Unchecked => now.elapsed < limits.deadline,
        }
    }

    /// Whether the holder is told the time although a renewal is on its way.
    fn tells_time_while_renewing(&self) -> bool {
        true
    }

    /// What a claim came to that nobody answered.
    fn unanswered_claim(&self) -> ErrorKind {
        ErrorKind::OutcomeUnknown
    }

    /// How the store answers a claim, given what it decided.
    fn claimed(&self, claim: &Claim, decided: Acquired) -> Acquired {
        let _ = claim;
        decided
    }

    /// What an order demands of the record.
    fn demanded(&self, demand: Demand) -> Demand {
        demand
    }

    /// For how long a holder's last write counts as unconfirmed, by the store's clock.
    fn age_at_renewal(&self, age: Duration) -> Duration {
        age
    }

    /// Whether a released record stays, with its token.
    fn keeps_tombstones(&self) -> bool {
        true
    }

    /// Whether whoever was told of a reset waits before it contends again.
    fn waits_after_reset(&self) -> bool {
        true
    }
}

/// The rules as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sound;

impl Rules for Sound {}
