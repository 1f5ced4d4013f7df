//! What a script tells of a lease, as a snapshot; and what a lease is written from.

use std::time::Duration;

use redis::Value;
use tenure_core::clock::Timestamp;
use tenure_core::decide::{self, asked};
use tenure_core::identity::{FencingToken, Instance, Name, Nonce, StoreId, Successor};
use tenure_core::neighbour::Neighbour;
use tenure_core::record::{FORMAT, Record, State};
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

    fn of_lease(fields: &[Value], name: &Name, store: StoreId) -> Result<Self, Error> {
        let [Value::BulkString(json), rest @ ..] = fields else { return Err(damaged(name)) };
        let mut record = Record::from_json(json).map_err(|error| error.with_name(name))?;
        if record.name != *name {
            let message =
                format!("its key holds the record of `{}`; somebody copied it", record.name);
            return Err(Error::new(ErrorKind::Corrupt, Operation::Read, message).with_name(name));
        }
        let fields: Option<Vec<&str>> = rest.iter().map(text).collect();
        let Some([nonce, ttl, not_before, age, writes]) = fields.as_deref() else {
            return Err(damaged(name));
        };
        let millis =
            |text: &str| text.parse().map(Duration::from_millis).map_err(|_| damaged(name));
        record.nonce = nonce.parse().map_err(|_| damaged(name))?;
        record.ttl = millis(ttl)?;
        record.not_before = millis(not_before)?;
        let age = age.parse().map(Duration::from_micros).map_err(|_| damaged(name))?;
        let version = version(writes, record.nonce);
        let snapshot = Snapshot { record, version, store, age: Some(age), holder_gone: false };
        Ok(Self { snapshot, writes: (*writes).to_owned() })
    }
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

/// A JSON object's text without its end, so that more can be added.
fn open_ended(object: &serde_json::Map<String, serde_json::Value>) -> String {
    let mut text = serde_json::Value::from(object.clone()).to_string();
    text.pop();
    text
}

/// What acquire.lua is told of a claim.
pub(crate) fn tell_claim(call: &mut Call, claim: &Claim) {
    let granted = decide::granted(None, claim, FencingToken::FIRST);
    let (mut record, mut transition) = (serde_json::Map::new(), serde_json::Map::new());
    if let Ok(serde_json::Value::Object(object)) = serde_json::to_value(&granted) {
        record = object;
    }
    // The token and the history are known there alone; the format stands first for a quick look.
    let transitions = record.remove("transitions");
    if let Some(serde_json::Value::Object(first)) =
        transitions.and_then(|mut all| all.get_mut(0).map(serde_json::Value::take))
    {
        transition = first;
    }
    for elsewhere in ["token", "format"] {
        record.remove(elsewhere);
    }
    for elsewhere in ["token", "why"] {
        transition.remove(elsewhere);
    }
    let record = open_ended(&record);
    let record = format!("{{\"format\":{FORMAT},{}", record.trim_start_matches('{'));
    call.arg(claim.name.as_str())
        .number(claim.id)
        .arg(holder(&claim.instance))
        .arg(anyone(claim.instance.name()))
        .number(whole_millis(claim.ttl))
        .number(whole_millis(claim.min_hold))
        .number(claim.nonce)
        .number(claim.above.map_or(0, FencingToken::get))
        .arg(record)
        .arg(open_ended(&transition));
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
    let (state, transition) = decide::released_as(release);
    call.arg(holder(&release.instance))
        .number(release.claim)
        .number(release.token)
        .number(release.nonce)
        .arg(json(&state))
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
    call.arg(&row.writes)
        .number(row.snapshot.record.nonce)
        .arg(marked.to_json())
        .number(marked.nonce)
        .number(whole_millis(marked.not_before))
        .arg(state)
        .arg(if asked(marked).is_some() { "resign" } else { "" });
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("every part of a record has a JSON form")
}
