//! What lies in the file beside the records themselves: the store's own row, and what a session
//! remembers so that it needn't read it anew.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row as SqlRow};
use tenure_core::identity::{FencingToken, Name, Nonce, StoreId};
use tenure_core::record::Record;
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::{Fault, is_missing_table};

/// The format of the tables that this release writes.
pub(crate) const TABLES: i64 = 1;
/// How many records a session remembers to save itself reading them anew.
const REMEMBERED_MAX: usize = 16_384;

const STORE: &str =
    "SELECT format, store, cluster, last_token, transitions FROM tenure_store WHERE only = 1";
/// The row about the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreRow {
    pub(crate) store: StoreId,
    pub(crate) cluster: Option<String>,
    pub(crate) last_token: Option<FencingToken>,
    pub(crate) transitions: i64,
}

impl StoreRow {
    /// Reads it; none if the file has no such row, or no such table.
    pub(crate) fn read(connection: &Connection) -> Result<Option<Self>, Fault> {
        let read = |row: &SqlRow<'_>| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                row.get(2)?,
                row.get::<_, i64>(3)?,
                row.get(4)?,
            ))
        };
        let found = match connection.prepare_cached(STORE) {
            Ok(mut statement) => statement.query_row([], read).optional()?,
            Err(error) if is_missing_table(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some((format, store, cluster, last_token, transitions)) = found else {
            return Ok(None);
        };
        if format > TABLES {
            return Err(Error::new(
                ErrorKind::Misconfigured,
                Operation::Open,
                format!(
                    "the tables are in format {format}, and this release reads up to {TABLES}; \
                     upgrade tenure here"
                ),
            )
            .into());
        }
        let store = store.parse().map_err(|error: Error| {
            Error::new(
                ErrorKind::Corrupt,
                Operation::Open,
                "the store's id can't be read; restore the file",
            )
            .with_source(error)
        })?;
        let last_token = FencingToken::new(last_token.cast_unsigned());
        Ok(Some(Self { store, cluster, last_token, transitions }))
    }
}

/// A number that moves with every commit of another connection. None: it can't be told just now.
pub(crate) fn data_version(connection: &Connection) -> Option<i64> {
    let mut statement = connection.prepare_cached("PRAGMA data_version").ok()?;
    statement.query_row([], |row| row.get(0)).ok()
}

/// Every side file that a grant names, whatever its namespace.
pub(crate) fn marks(connection: &Connection) -> rusqlite::Result<HashSet<String>> {
    let mut statement =
        connection.prepare("SELECT DISTINCT mark FROM tenure_leases WHERE mark IS NOT NULL")?;
    let marks = statement.query_map([], |row| row.get(0))?;
    marks.collect()
}

/// What every renewal writes anew of a record, in columns of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) nonce: Nonce,
    ttl_ms: i64,
    not_before_ms: i64,
}

impl Beat {
    /// What `record` says.
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            nonce: record.nonce,
            ttl_ms: whole_millis(record.ttl),
            not_before_ms: whole_millis(record.not_before),
        }
    }

    /// Reads its three columns, `nonce, ttl, not_before`, from `first` on.
    pub(crate) fn read(row: &SqlRow<'_>, first: usize) -> rusqlite::Result<Self> {
        let nonce = Nonce::from_u128(u128::from_be_bytes(row.get(first)?));
        Ok(Self { nonce, ttl_ms: row.get(first + 1)?, not_before_ms: row.get(first + 2)? })
    }

    /// Their values.
    pub(crate) fn values(&self) -> ([u8; 16], i64, i64) {
        (self.nonce.as_u128().to_be_bytes(), self.ttl_ms, self.not_before_ms)
    }

    /// The record that they stand beside, with them.
    pub(crate) fn complete(&self, mut stored: Stored) -> Stored {
        let millis = |ms: i64| Duration::from_millis(ms.cast_unsigned());
        stored.record.nonce = self.nonce;
        stored.record.ttl = millis(self.ttl_ms);
        stored.record.not_before = millis(self.not_before_ms);
        stored
    }
}

/// Rounded up: a grant must not look shorter than it is.
fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// A record's JSON, and the record.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) json: Vec<u8>,
    pub(crate) record: Record,
}

impl Stored {
    /// Reads the JSON.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, Error> {
        Ok(Self { json: json.to_vec(), record: Record::from_json(json)? })
    }
}

/// What a session remembers of the records that it wrote last.
///
/// A row whose bytes are the remembered ones needs no parsing, which is most of a renewal's cost.
#[derive(Default)]
pub(crate) struct Remembered(HashMap<Name, Stored>);

impl Remembered {
    /// Takes out what a row means, if its bytes are those that were written last.
    pub(crate) fn take(&mut self, name: &Name, json: &[u8]) -> Option<Stored> {
        self.0.remove(name).filter(|stored| stored.json == json)
    }

    /// Remembers what was written. Should that be rolled back, the bytes will tell.
    pub(crate) fn remember(&mut self, stored: Stored) {
        let name = &stored.record.name;
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(name) {
            self.0.clear();
        }
        self.0.insert(name.clone(), stored);
    }
}
