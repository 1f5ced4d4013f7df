//! The rules of expiry and take-over, once: a record and a request in, a verdict out.
//!
//! Every store that can run code inside its transaction calls these; one that can't says the
//! same in its one atomic statement, and the conformance suite holds it to that.

use std::time::Duration;

use crate::identity::{FencingToken, Instance};
use crate::record::{
    Demand, FORMAT, Happened, Order, Record, Reservation, State, Transition, reason,
};
use crate::store::{Claim, Hold, OrderRequest, Release, Snapshot};
use crate::timing::observed;

/// Whether a name can be had, and if not, for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupancy {
    /// Now.
    Free,
    /// By the store's clock, in so long.
    Left(Duration),
    /// No clock says: when the record has been seen unchanged for so long.
    Watch(Duration),
}

/// Whether `contender` could be granted what `snapshot` shows.
#[must_use]
pub fn occupancy(snapshot: &Snapshot, contender: &Instance) -> Occupancy {
    let lasts = blocks_for(snapshot, contender);
    match snapshot.age {
        _ if lasts.is_zero() => Occupancy::Free,
        Some(age) if age >= lasts => Occupancy::Free,
        Some(age) => Occupancy::Left(lasts - age),
        None => Occupancy::Watch(observed(lasts)),
    }
}

/// How long after its holder's last write a record keeps `contender` out.
#[must_use]
pub fn blocks_for(snapshot: &Snapshot, contender: &Instance) -> Duration {
    let record = &snapshot.record;
    let state = match &record.state {
        State::Held | State::Revoked if snapshot.holder_gone => Duration::ZERO,
        State::Held | State::Revoked => record.ttl,
        State::Released { reserved_for: Some(reservation) }
            if !reservation.successor.is(contender) =>
        {
            reservation.lasts
        }
        State::Released { .. } => Duration::ZERO,
    };
    state.max(record.not_before)
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It finds the grant that it was given before.
    Found(FencingToken),
    /// The name is free: write [`granted`] with a token above this, and above all others that
    /// the store has given for the name.
    Free {
        /// The highest token that is known to be used up.
        above: Option<FencingToken>,
    },
    /// Nothing is written.
    Refused,
}

/// Decides a claim.
///
/// Same name counts for nothing: only the claim's own id finds a grant, and only an unexpired,
/// held one. A tombstone refuses the last id it carries: that claim was granted and given back.
#[must_use]
pub fn claim(current: Option<&Snapshot>, claim: &Claim) -> Claimed {
    let Some(snapshot) = current else { return Claimed::Free { above: claim.above } };
    let record = &snapshot.record;
    if record.claim == claim.id {
        let expired = snapshot.age.unwrap_or(claim.unanswered_for) >= record.ttl;
        let ours = record.holder == claim.instance && record.state == State::Held;
        return if ours && !expired { Claimed::Found(record.token) } else { Claimed::Refused };
    }
    match occupancy(snapshot, &claim.instance) {
        Occupancy::Free => {}
        Occupancy::Watch(_) if claim.watched.as_ref() == Some(&snapshot.version) => {}
        Occupancy::Left(_) | Occupancy::Watch(_) => return Claimed::Refused,
    }
    Claimed::Free { above: claim.above.max(Some(record.token)) }
}

/// The record that grants `claim` with `token`.
#[must_use]
pub fn granted(current: Option<&Record>, claim: &Claim, token: FencingToken) -> Record {
    let mut record = Record {
        format: FORMAT,
        name: claim.name.clone(),
        holder: claim.instance.clone(),
        claim: claim.id,
        nonce: claim.nonce,
        token,
        ttl: claim.ttl,
        acquired_at: claim.at,
        state: State::Held,
        not_before: claim.min_hold,
        order: None,
        bound_to: claim.bound_to.clone(),
        metadata: claim.metadata.clone(),
        transitions: current.map(|record| record.transitions.clone()).unwrap_or_default(),
        unknown: current.map(|record| record.unknown.clone()).unwrap_or_default(),
    };
    let why = match current {
        None => "first grant",
        Some(Record { state: State::Released { .. }, .. }) => "it was free",
        Some(Record { state: State::Held | State::Revoked, .. }) => "the grant before had ended",
    };
    record.push(Transition {
        what: Happened::Granted,
        who: claim.instance.to_string(),
        at: claim.at,
        token,
        why: why.to_owned(),
    });
    record
}

/// Decides a renewal: the record to write.
///
/// # Errors
/// What is there instead of this grant in force. What is lost stays lost: the grant has expired
/// (even if nobody took the name), was revoked or released, or is another's.
pub fn renewed(current: Option<Snapshot>, hold: &Hold) -> Result<Record, Option<Box<Snapshot>>> {
    let Some(snapshot) = current else { return Err(None) };
    let record = &snapshot.record;
    let ours = record.holder == hold.instance
        && record.claim == hold.claim
        && record.token == hold.token
        && record.state == State::Held;
    // Where a store's clock and the holder's own both speak, the earlier end counts.
    let expired =
        snapshot.age.is_some_and(|age| age >= record.ttl) || hold.unconfirmed_for >= record.ttl;
    if !ours || expired {
        return Err(Some(Box::new(snapshot)));
    }
    let mut record = snapshot.record;
    record.nonce = hold.nonce;
    record.ttl = hold.ttl;
    record.not_before = hold.not_before;
    Ok(record)
}

/// The order that a renewal's answer must pass on: only a request to resign leaves the grant
/// in force.
#[must_use]
pub fn asked(record: &Record) -> Option<&Order> {
    record.order.as_ref().filter(|order| matches!(order.demand, Demand::Resign { .. }))
}

/// Decides a release: the tombstone to write. None: not held by this grant any more.
///
/// An expired grant that nobody took may still be released: that extends nothing and frees the
/// name. Min-hold lives on in the tombstone, unless a successor is named.
#[must_use]
pub fn released(current: Option<&Snapshot>, release: &Release) -> Option<Record> {
    let snapshot = current?;
    let record = &snapshot.record;
    let ours = record.holder == release.instance
        && record.claim == release.claim
        && record.token == release.token
        && !matches!(record.state, State::Released { .. });
    if !ours {
        return None;
    }
    let mut tombstone = record.clone();
    tombstone.nonce = release.nonce;
    tombstone.order = None;
    tombstone.not_before = match &release.successor {
        Some(_) => Duration::ZERO,
        None => record.not_before.saturating_sub(snapshot.age.unwrap_or_default()),
    };
    let (state, transition) = released_as(release);
    tombstone.state = state;
    tombstone.push(transition);
    Some(tombstone)
}

/// What a release makes of a record: its state, and what happened.
#[must_use]
pub fn released_as(release: &Release) -> (State, Transition) {
    let (what, why, reserved_for) = match &release.successor {
        Some(reserved) => {
            let successor = reserved.successor.clone();
            let why = format!("to {successor}: {}", release.why);
            let reservation = Reservation { successor, lasts: reserved.lasts };
            (Happened::Transferred, why, Some(reservation))
        }
        None => (Happened::Released, release.why.clone(), None),
    };
    let transition = Transition {
        what,
        who: release.instance.to_string(),
        at: release.at,
        token: release.token,
        why: reason(&why),
    };
    (State::Released { reserved_for }, transition)
}

/// Decides an order: the record to write. None: nobody holds the name, or not by that token.
#[must_use]
pub fn ordered(current: Option<&Snapshot>, request: &OrderRequest) -> Option<Record> {
    let snapshot = current?;
    let record = &snapshot.record;
    let meant = request.token.is_none_or(|token| token == record.token);
    let expired = snapshot.age.is_some_and(|age| age >= record.ttl.max(record.not_before));
    if !meant || expired || matches!(record.state, State::Released { .. }) {
        return None;
    }
    let order = &request.order;
    let what = match order.demand {
        // A revoked grant has nothing left to be asked.
        Demand::Resign { .. } if record.state != State::Held => return None,
        Demand::Resign { .. } => Happened::Asked,
        Demand::Revoke => Happened::Revoked,
        Demand::RevokeNow => Happened::RevokedNow,
    };
    let mut marked = record.clone();
    marked.nonce = request.nonce;
    marked.order = Some(order.clone());
    match order.demand {
        Demand::Resign { .. } => {}
        Demand::Revoke => marked.state = State::Revoked,
        Demand::RevokeNow => {
            marked.state = State::Released { reserved_for: None };
            marked.not_before = Duration::ZERO;
        }
    }
    marked.push(Transition {
        what,
        who: reason(&order.by),
        at: order.at,
        token: record.token,
        why: reason(&order.reason),
    });
    Some(marked)
}

/// Whether the grant with `token` is in force, as a guard asks that reads the record in its own
/// transaction.
///
/// `age` is by the store's clock; without one nothing proves that the grant hasn't expired. A
/// revoked grant guards nothing: its holder is being stopped.
///
/// # Errors
/// Why it isn't, in a clause.
pub fn in_force(record: &Record, token: FencingToken, age: Option<Duration>) -> Result<(), String> {
    if record.token != token {
        return Err(format!("the grant in force has token {}", record.token));
    }
    match (&record.state, age) {
        (State::Held, Some(age)) if age < record.ttl => Ok(()),
        (State::Held, Some(age)) => {
            Err(format!("the grant expired {:?} ago", age.saturating_sub(record.ttl)))
        }
        (State::Held, None) => Err("the grant was written by another clock than this".to_owned()),
        (State::Revoked, _) => Err("an operator has revoked the grant".to_owned()),
        (_, _) => Err("the grant was given back".to_owned()),
    }
}

/// A token above all that are known to be used up.
///
/// # Errors
/// [`Corrupt`](crate::error::ErrorKind::Corrupt): there is none left.
pub fn token_above(
    above: Option<FencingToken>,
    counted: Option<FencingToken>,
) -> Result<FencingToken, crate::error::Error> {
    above.max(counted).map_or(Ok(FencingToken::FIRST), FencingToken::next)
}
