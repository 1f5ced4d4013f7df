//! What a contender wants, what it is told, and what it does: the words of its machine.

use crate::clock::{Instant, Reading};
use crate::error::Error;
use crate::identity::{ClaimId, FencingToken, Instance, Nonce};
use crate::store::{Acquired, Grant, Snapshot, Version, Wake};
use crate::timing::Timing;

/// What a contender wants, and how patient it is.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Who it is.
    pub instance: Instance,
    /// For how long it wants the name.
    pub timing: Timing,
    /// How the store tells of changes.
    pub wake: Wake,
    /// How long it waits for the name.
    pub patience: Patience,
}

/// How long a contender waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: refused is the answer.
    Try,
    /// Until then.
    Until(Instant),
    /// For ever.
    Forever,
}

/// What a contender is told.
#[derive(Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The store hinted at a change.
    Hint,
    /// A claim was answered.
    Claimed {
        /// Which claim.
        id: ClaimId,
        /// What it came to.
        outcome: Acquired,
    },
    /// A look was answered.
    Looked(Result<Option<Snapshot>, Error>),
    /// Some other operation of this session was told that the store isn't what it was.
    StoreReset,
    /// Whoever waited doesn't wait any more.
    Cancel,
}

/// What a contender does.
#[derive(Debug)]
pub enum Action {
    /// Send this claim. Its answer, or its timeout as
    /// [`OutcomeUnknown`](crate::error::ErrorKind::OutcomeUnknown), must come back as [`Event::Claimed`].
    Claim(Ticket),
    /// Read the record; the answer must come back as [`Event::Looked`].
    Look,
    /// The name is ours. `sent` is when the claim was first sent: the deadline counts from there.
    Granted {
        /// The claim that was granted.
        ticket: Ticket,
        /// The grant.
        grant: Grant,
    },
    /// Release this grant unused: it came too late, or nobody waits for it any more.
    GiveBack {
        /// The claim that was granted.
        ticket: Ticket,
        /// The grant.
        grant: Grant,
    },
    /// Held by another, and this contender doesn't wait.
    Refused(Box<Snapshot>),
    /// The wait is over without the name.
    GaveUp(GaveUp),
}

/// A claim as it is sent; a repeated one is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The claim's id.
    pub id: ClaimId,
    /// What its write carries.
    pub nonce: Nonce,
    /// When it was first sent.
    pub sent: Reading,
    /// The version that was watched until it expired.
    pub watched: Option<Version>,
    /// The highest token seen.
    pub above: Option<FencingToken>,
}

/// Why a wait ended.
#[derive(Clone, Debug)]
pub enum GaveUp {
    /// Its time was up; who holds the name, if that was seen.
    TimedOut(Option<Box<Snapshot>>),
    /// Nothing that waiting mends, or an outcome that stayed unknown.
    Failed(Error),
}
