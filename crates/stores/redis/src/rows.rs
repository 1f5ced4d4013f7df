//! What a script tells of a lease, as a snapshot; and what a lease is written from.

use std::time::Duration;

use redis::Value;
use serde::Serialize;
use tenure_core::clock::Timestamp;
use tenure_core::decide;
use tenure_core::identity::{FencingToken, Instance, Name, Nonce, StoreId, Successor};
use tenure_core::neighbour::Neighbour;
use tenure_core::record::{Bound, Happened, Metadata, Record, Reservation, State};
use tenure_core::store::{Claim, Hold, Release, Snapshot, Version};
use tenure_core::timing::TTL_MAX;
use tenure_core::{Error, ErrorKind, Operation};

use crate::reply::{list, text};
use crate::script::Call;

/// How long a neighbour's key that doesn't end by itself is said to last.
const ENDLESS: Duration = TTL_MAX;

/// A lease as it was read, with what a swap compares.
pub(crate) struct Row {
    pub(crate) snapshot: Snapshot,
    pub(crate) writes: String,
}

/// Where a row was read.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) store: StoreId,
    /// The word of the layout, if there is one.
    pub(crate) layout: &'static str,
}

impl Row {
    /// Reads what `shown` of common.lua tells, or `foreign` of shared.lua. None: there is no such
    /// lease.
    pub(crate) fn read(value: &Value, name: &Name, origin: Origin) -> Result<Option<Self>, Error> {
        let Some(fields) = list(value) else { return Err(damaged(name)) };
        match fields {
            [] => Ok(None),
            [Value::BulkString(holder), left, until, row @ Value::Array(_)] => {
                let ours = Self::read(row, name, origin)?;
                let told = text(left).and_then(|left| left.parse().ok()).zip(text(until));
                let (left, until) = told.ok_or_else(|| damaged(name))?;
                Ok(Some(Self::of_neighbour(holder, left, until, ours.as_ref(), name, origin)))
            }
            fields => Self::of_lease(fields, name, origin.store).map(Some),
        }
    }

    /// A neighbour's hold, which has `left` ms; below 0, it doesn't end by itself.
    fn of_neighbour(
        holder: &[u8],
        left: i64,
        until: &str,
        ours: Option<&Self>,
        name: &Name,
        origin: Origin,
    ) -> Self {
        let holder = String::from_utf8_lossy(holder);
        let neighbour = Neighbour {
            layout: origin.layout,
            holder: &holder,
            left: u64::try_from(left).map_or(ENDLESS, Duration::from_millis),
            since: Timestamp::default(),
            version: Version::new(format!("{holder} until {until}")),
        };
        let ours = ours.map(|row| &row.snapshot.record);
        let snapshot = neighbour.snapshot(name, ours, origin.store);
        Self { snapshot, writes: String::new() }
    }

    /// A lease from its parts, in the order of common.lua; the last is its age.
    fn of_lease(parts: &[Value], name: &Name, store: StoreId) -> Result<Self, Error> {
        let part = |at: usize| parts.get(at).and_then(text);
        let is = |at: usize| part(at).ok_or_else(|| damaged(name));
        // What a newer release wrote may be of any shape: that is looked at first.
        let format = is(0)?;
        Record::from_json(format!(r#"{{"format":{format}}}"#).as_bytes())
            .err()
            .filter(|error| error.kind() == ErrorKind::Misconfigured)
            .map_or(Ok(()), |error| Err(error.with_name(name)))?;
        let (nonce, writes) = (is(2)?, is(6)?);
        let assembled = (|| {
            let mut record: Object = serde_json::from_str(part(1)?).ok()?;
            let number = |at: usize| serde_json::from_str(part(at)?).ok();
            let lines: Option<Vec<Json>> =
                part(14)?.lines().map(|line| serde_json::from_str(line).ok()).collect();
            let state = state(part(10)?, part(11)?, number(12)?)?;
            record.extend([
                ("format".to_owned(), number(0)?),
                ("nonce".to_owned(), nonce.into()),
                ("ttl_ms".to_owned(), number(3)?),
                ("not_before_ms".to_owned(), number(4)?),
                ("claim".to_owned(), part(8)?.into()),
                ("token".to_owned(), number(9)?),
                ("state".to_owned(), serde_json::to_value(state).ok()?),
                ("transitions".to_owned(), lines?.into()),
            ]);
            match part(13)? {
                "" => {}
                order => drop(record.insert("order".to_owned(), serde_json::from_str(order).ok()?)),
            }
            if let Some(extra) = part(15) {
                record.extend(serde_json::from_str::<Object>(extra).ok()?);
            }
            let age = Duration::from_micros(part(16)?.parse().ok()?);
            Some((serde_json::from_value::<Record>(Json::Object(record)).ok()?, age))
        })();
        let (record, age) = assembled.ok_or_else(|| damaged(name))?;
        if record.name != *name {
            let message =
                format!("its key holds the record of `{}`; somebody copied it", record.name);
            return Err(Error::new(ErrorKind::Corrupt, Operation::Read, message).with_name(name));
        }
        let version = version(writes, record.nonce);
        let snapshot = Snapshot { record, version, store, age: Some(age), holder_gone: false };
        Ok(Self { snapshot, writes: writes.to_owned() })
    }
}

type Json = serde_json::Value;
type Object = serde_json::Map<String, Json>;

/// A state from the words that scripts decide by. None: there is no such state.
fn state(word: &str, reserved_for: &str, lasts: Json) -> Option<State> {
    Some(match (word, reserved_for) {
        ("held", _) => State::Held,
        ("revoked", _) => State::Revoked,
        ("released", "") => State::Released { reserved_for: None },
        ("released", text) => {
            let (incarnation, name) = text.split_once(' ')?;
            let incarnation = match incarnation {
                "*" => None,
                incarnation => Some(incarnation.parse().ok()?),
            };
            let successor = Successor { name: name.parse().ok()?, incarnation };
            let lasts = Duration::from_millis(lasts.as_u64()?);
            State::Released { reserved_for: Some(Reservation { successor, lasts }) }
        }
        _ => return None,
    })
}

pub(crate) fn damaged(name: &Name) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        Operation::Read,
        "the lease's key can't be read; look at it (HGETALL) before anything overwrites it",
    )
    .with_name(name)
}

pub(crate) fn version(writes: &str, nonce: Nonce) -> Version {
    Version::new(format!("{writes}-{nonce}"))
}

/// Rounded up: a grant must not look shorter than it is.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// An instance as scripts compare it.
fn holder(instance: &Instance) -> String {
    format!("{} {}", instance.incarnation(), instance.name())
}

/// Any instance of a name.
fn anyone(name: &Name) -> String {
    format!("* {name}")
}

fn successor(successor: &Successor) -> String {
    match successor.incarnation {
        Some(incarnation) => format!("{incarnation} {}", successor.name),
        None => anyone(&successor.name),
    }
}

/// What a grant says that no script decides by.
#[derive(Serialize)]
struct Granted<'a> {
    name: &'a Name,
    holder: &'a Instance,
    acquired_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_to: Option<&'a Bound>,
    metadata: &'a Metadata,
}

/// A grant's transition, without what the script alone knows: the token, and what was before.
#[derive(Serialize)]
struct Happening<'a> {
    what: Happened,
    who: &'a str,
    at: Timestamp,
}

/// What acquire.lua is told of a claim.
pub(crate) fn tell_claim(call: &mut Call, claim: &Claim) {
    let granted = Granted {
        name: &claim.name,
        holder: &claim.instance,
        acquired_at: claim.at,
        bound_to: claim.bound_to.as_ref(),
        metadata: &claim.metadata,
    };
    let who = claim.instance.to_string();
    let mut transition = json(&Happening { what: Happened::Granted, who: &who, at: claim.at });
    transition.pop();
    call.arg(claim.name.as_str())
        .number(claim.id)
        .arg(holder(&claim.instance))
        .arg(anyone(claim.instance.name()))
        .number(whole_millis(claim.ttl))
        .number(whole_millis(claim.min_hold))
        .number(claim.nonce)
        .number(claim.above.map_or(0, FencingToken::get))
        .arg(json(&granted))
        .arg(transition);
}

/// What renew.lua is told of a hold.
pub(crate) fn tell_hold(call: &mut Call, hold: &Hold) {
    let unconfirmed = u64::try_from(hold.unconfirmed_for.as_micros()).unwrap_or(u64::MAX);
    call.arg(holder(&hold.instance))
        .number(hold.claim)
        .number(hold.token)
        .number(whole_millis(hold.ttl))
        .number(whole_millis(hold.not_before))
        .number(hold.nonce)
        .number(unconfirmed);
}

/// What release.lua is told of a release.
pub(crate) fn tell_release(call: &mut Call, release: &Release) {
    let (_, transition) = decide::released_as(release);
    call.arg(holder(&release.instance))
        .number(release.claim)
        .number(release.token)
        .number(release.nonce)
        .arg(json(&transition))
        .arg(release.successor.as_ref().map(|to| successor(&to.successor)).unwrap_or_default())
        .number(release.successor.as_ref().map_or(0, |to| whole_millis(to.lasts)));
}

/// What swap.lua is told of a record that an order has marked.
pub(crate) fn tell_marked(call: &mut Call, row: &Row, marked: &Record) {
    let state = match marked.state {
        State::Held => "held",
        State::Revoked => "revoked",
        _ => "released",
    };
    let past: Vec<String> = marked.transitions.iter().map(|line| json(line) + "\n").collect();
    call.arg(&row.writes)
        .number(row.snapshot.record.nonce)
        .number(marked.nonce)
        .number(whole_millis(marked.not_before))
        .arg(state)
        .arg(marked.order.as_ref().map(json).unwrap_or_default())
        .arg(past.concat());
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("every part of a record has a JSON form")
}
