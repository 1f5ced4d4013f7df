//! The answers that a user of the library gets: who holds a name, and why a hold is lost.

use std::fmt;
use std::time::Duration;

use tenure_core::decide::{Occupancy, occupancy};
use tenure_core::identity::{FencingToken, Instance, Name};
use tenure_core::protocol::hold::Cause;
use tenure_core::record::{Metadata, State};
use tenure_core::store::Snapshot;

/// Somebody else holds the name, or it is kept for somebody. An answer, not an error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HeldBy {
    /// The name.
    pub name: Name,
    /// Who holds it, or held it last.
    pub holder: Instance,
    /// With which token.
    pub token: FencingToken,
    /// How much longer, unless it is renewed or released before.
    pub left: TimeLeft,
    /// What the holder says of itself.
    pub metadata: Metadata,
    /// It was released, and is kept for a successor or for the rest of its min-hold.
    pub released: bool,
}

/// How much longer a name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLeft {
    /// By the store's clock.
    Known(Duration),
    /// No clock says; at most so long after it was last written.
    AtMost(Duration),
}

impl HeldBy {
    pub(crate) fn from_snapshot(snapshot: &Snapshot, seen_by: &Instance) -> Self {
        let record = &snapshot.record;
        let left = match occupancy(snapshot, seen_by) {
            Occupancy::Free => TimeLeft::Known(Duration::ZERO),
            Occupancy::Left(left) => TimeLeft::Known(left),
            Occupancy::Watch(whole) => TimeLeft::AtMost(whole),
        };
        Self {
            name: record.name.clone(),
            holder: record.holder.clone(),
            token: record.token,
            left,
            metadata: record.metadata.clone(),
            released: matches!(record.state, State::Released { .. }),
        }
    }
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, token) = (&self.name, self.token);
        if self.released {
            write!(f, "lease `{name}` was released by {} and is kept", self.holder.name())?;
        } else {
            write!(f, "lease `{name}` is held by {}", self.holder.name())?;
        }
        match self.left {
            TimeLeft::Known(left) => write!(f, " for {:.1} s more", left.as_secs_f64())?,
            TimeLeft::AtMost(left) => write!(f, " for up to {:.1} s more", left.as_secs_f64())?,
        }
        write!(f, " (token {token})")
    }
}

/// A hold that may not be acted under.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// What was held.
    pub name: Name,
    /// With which token.
    pub token: FencingToken,
    /// Why it may not be acted under. All but [`Cause::Suspended`] are final.
    pub cause: Cause,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease `{}` (token {}) is lost: {}", self.name, self.token, self.cause)
    }
}

impl std::error::Error for Lost {}
