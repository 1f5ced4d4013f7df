//! The lease over compare-and-swap, request by request: what to ask next, given the last reply.
//!
//! These are state machines without I/O, so that the record stores and the simulator run the
//! same ones.

pub mod acquire;
pub mod look;
pub mod order;
pub mod release;
pub mod renew;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Operation};
use crate::identity::{FencingToken, Name, StoreId};
use crate::record::Record;
use crate::record_store::Stored;
use crate::store::{Snapshot, Version};

/// How often one exchange meets a conflict before it gives up: each means that somebody else
/// succeeded.
pub const CONFLICTS_MAX: u32 = 16;

/// A request to the record store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read these keys.
    Read(Vec<Name>),
    /// Write if the key has this version, or is absent.
    Write {
        /// Which key.
        key: Name,
        /// What.
        bytes: Vec<u8>,
        /// Its version, or none for an absent key.
        expected: Option<Version>,
    },
}

/// The record store's reply.
#[derive(Clone, Debug)]
pub enum Reply {
    /// What each key holds.
    Read(Vec<Option<Stored>>),
    /// Written, with this version now.
    Written(Version),
    /// Not as expected; nothing was written.
    Conflict,
    /// It failed, as the error's kind says.
    Failed(Error),
}

/// What an exchange does next.
#[derive(Debug)]
pub enum Step<T> {
    /// Ask the store.
    Ask(Ask),
    /// It is over.
    Done(T),
}

/// A record that we wrote, and its version.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its version.
    pub version: Version,
    /// What we wrote.
    pub record: Record,
}

/// How a store's id is kept.
#[must_use]
pub fn store_bytes(id: StoreId) -> Vec<u8> {
    format!("{{\"format\":1,\"store\":\"{id}\"}}").into_bytes()
}

/// Reads a store's id.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt): it isn't one.
pub fn store_id(stored: &Stored) -> Result<StoreId, Error> {
    serde_json::from_slice::<serde_json::Value>(&stored.bytes)
        .ok()
        .and_then(|value| value.get("store")?.as_str()?.parse().ok())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                Operation::Open,
                "the store's id (`@store`) can't be read; nothing was overwritten",
            )
        })
}

/// A record as these stores keep it: with the id of the store that it was written in, so that a
/// look at what is there is one read.
#[must_use]
pub fn record_bytes(store: StoreId, record: &Record) -> Vec<u8> {
    #[derive(Serialize)]
    struct Marked<'a> {
        store: StoreId,
        #[serde(flatten)]
        record: &'a Record,
    }
    serde_json::to_vec(&Marked { store, record }).expect("every part of it has a JSON form")
}

/// Reads a record, and the id that it was written with.
fn record_of(stored: &Stored) -> Result<(Record, Option<StoreId>), Error> {
    let mut record = Record::from_json(&stored.bytes)?;
    let mark = record.unknown.remove("store");
    let mark = mark.and_then(|mark| mark.as_str()?.parse().ok());
    Ok((record, mark))
}

/// Refuses a store that isn't the one this session opened.
///
/// # Errors
/// [`StoreReset`](ErrorKind::StoreReset): another id, or none.
pub fn same_store(opened: StoreId, stored: Option<Stored>) -> Result<(), Error> {
    let now = stored.as_ref().map(store_id).transpose()?;
    match now {
        Some(now) if now == opened => Ok(()),
        Some(now) => Err(reset(format!("the store's id changed from {opened} to {now}"))),
        None => Err(reset(format!("the store's id {opened} vanished"))),
    }
}

fn reset(fact: String) -> Error {
    let message = format!("{fact}: it was wiped, restored or replaced; what was held is lost");
    Error::new(ErrorKind::StoreReset, Operation::Read, message)
}

/// What the reads of an exchange say: the record as a snapshot, in the store that was opened.
fn seen(opened: StoreId, mut read: Vec<Option<Stored>>) -> Result<Option<Snapshot>, Error> {
    let record = if read.len() > 1 { read.swap_remove(1) } else { None };
    same_store(opened, read.into_iter().next().flatten())?;
    record.map(|stored| listed_as(opened, stored)).transpose()
}

/// A record of this store that was listed.
///
/// # Errors
/// As [`Record::from_json`].
pub(crate) fn listed_as(store: StoreId, stored: Stored) -> Result<Snapshot, Error> {
    let (record, _) = record_of(&stored)?;
    Ok(snapshot(store, record, stored.version))
}

fn snapshot(store: StoreId, record: Record, version: Version) -> Snapshot {
    Snapshot { record, version, store, age: None, holder_gone: false }
}

/// The keys that every exchange reads first that may write.
fn first_keys(name: &Name) -> Vec<Name> {
    vec![crate::record_store::store_key(), name.clone()]
}

/// Reads the token counter.
fn counted(stored: Option<&Stored>) -> Result<Option<FencingToken>, Error> {
    let Some(stored) = stored else { return Ok(None) };
    serde_json::from_slice::<serde_json::Value>(&stored.bytes)
        .ok()
        .and_then(|value| FencingToken::new(value.get("last")?.as_u64()?))
        .map(Some)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                Operation::Acquire,
                "the token counter (`@tokens`) can't be read; nothing was overwritten",
            )
        })
}

/// How the token counter is kept. `by` makes two writers' equal counts different bytes.
fn counter_bytes(last: FencingToken, by: impl std::fmt::Display) -> Vec<u8> {
    format!("{{\"format\":1,\"last\":{last},\"by\":\"{by}\"}}").into_bytes()
}

fn too_busy(operation: Operation) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        operation,
        format!("others changed the record {CONFLICTS_MAX} times in a row; try again"),
    )
}

/// A write met a conflict, and what it was with couldn't be read: perhaps a copy of itself, which
/// the network made and which won.
fn in_doubt(error: Error) -> Error {
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    let message = "the store did not say whether the write that met a conflict was done; repeat it";
    Error::new(ErrorKind::OutcomeUnknown, error.operation(), message).with_source(error)
}

fn out_of_turn(operation: Operation) -> Error {
    Error::new(ErrorKind::Corrupt, operation, "the store's reply doesn't fit the request")
}
