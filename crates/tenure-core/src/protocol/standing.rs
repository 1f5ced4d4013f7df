//! How a hold stands: its limits on the clock, and why it is over.

use std::fmt;
use std::time::Duration;

use crate::clock::{Instant, Reading};
use crate::identity::FencingToken;
use crate::record::{Demand, State};
use crate::store::Snapshot;

/// A wall offset that every reading is ahead of: a jump that was noticed stays one, wherever the
/// wall clock is set to, until a renewal that was sent afterwards succeeds.
pub(crate) const UNPROVEN: i64 = i64::MIN;

/// A hold's state as its holder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// Renewals come through.
    Held,
    /// A renewal is overdue, or the clocks have parted: start no new side effects.
    Jeopardy,
    /// Final for this grant: stop.
    Lost,
}

impl Standing {
    /// As one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Jeopardy => "jeopardy",
            Self::Lost => "lost",
        }
    }
}

/// Why a hold is lost, or may not be acted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// No renewal came through in time, or the store says that it had expired.
    Expired,
    /// An operator ended it.
    Revoked,
    /// It was given back.
    Released,
    /// The store forgot what it had acknowledged, or is another.
    StoreReset,
    /// The machine stood still, or its clock was set: nothing proves the hold until a renewal
    /// that was sent afterwards succeeds.
    Suspended,
}

impl Cause {
    /// As one lower-case word, for logs, metrics and `--json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Released => "released",
            Self::StoreReset => "store_reset",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "it expired: no renewal came through in time",
            Self::Revoked => "an operator revoked it",
            Self::Released => "it was released",
            Self::StoreReset => "the store was reset or replaced",
            Self::Suspended => "this machine stood still or its clock was set",
        })
    }
}

/// The limits of a hold, as `check()` compares them with the clock: a small plain value, so
/// that it can be published without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From here on the hold is lost.
    pub lost_at: Instant,
    /// By here the work must be dead.
    pub deadline: Instant,
    /// How far the wall clock stood ahead when the last confirmed request was sent.
    pub wall_offset_millis: i64,
    /// How much further ahead it may run before the hold must be proven again.
    pub jump_max: Duration,
    /// Why it is over, if it is.
    pub ended: Option<Cause>,
}

impl Limits {
    /// Whether the holder may act now, and for how much longer at most without another renewal.
    ///
    /// # Errors
    /// Why it may not. [`Cause::Suspended`] can still be mended by a renewal; the others are
    /// final.
    pub fn check(&self, now: Reading) -> Result<Duration, Cause> {
        if let Some(cause) = self.ended {
            return Err(cause);
        }
        if now.elapsed >= self.lost_at {
            return Err(Cause::Expired);
        }
        if self.jumped(now) {
            return Err(Cause::Suspended);
        }
        Ok(self.lost_at.since(now.elapsed))
    }

    pub(crate) fn jumped(&self, now: Reading) -> bool {
        let ahead = now.wall_offset_millis().saturating_sub(self.wall_offset_millis);
        u64::try_from(ahead).is_ok_and(|ahead| Duration::from_millis(ahead) > self.jump_max)
    }
}

/// Why a hold with `token` is over, given what the store shows in its place.
///
/// A record that is gone, or whose token went back, was forgotten by its store: records of held
/// names are never deleted.
#[must_use]
pub fn cause_of_loss(token: FencingToken, seen: Option<&Snapshot>) -> Cause {
    let Some(Snapshot { record, .. }) = seen else { return Cause::StoreReset };
    let revoked = record
        .order
        .as_ref()
        .is_some_and(|order| matches!(order.demand, Demand::Revoke | Demand::RevokeNow));
    match record.state {
        _ if record.token < token => Cause::StoreReset,
        _ if record.token == token && revoked => Cause::Revoked,
        State::Released { .. } if record.token == token => Cause::Released,
        _ => Cause::Expired,
    }
}
