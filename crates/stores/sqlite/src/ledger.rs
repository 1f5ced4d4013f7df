//! The records as one transaction sees them: reads rows, asks the core's rules, writes rows.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Row as SqlRow, Transaction, params};
use tenure_core::clock::Instant;
use tenure_core::decide::{self, Claimed, token_above};
use tenure_core::identity::{FencingToken, Name, Nonce};
use tenure_core::record::{Record, State};
use tenure_core::store::{
    Acquired, Claim, Grant, Hold, OrderRequest, Ordered, Page, Prefix, Query, Release, Released,
    Renewed, Snapshot, Version,
};
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::Fault;
use crate::presence::is_gone;
use crate::rows::{Beat, Remembered, StoreRow, Stored};
use crate::shared::Shared;

const STORE_WRITE: &str =
    "UPDATE tenure_store SET last_token = ?1, transitions = ?2 WHERE only = 1";
const READ: &str = "SELECT rowid, writes, clock, written, mark, record, nonce, ttl, not_before \
                    FROM tenure_leases WHERE namespace = ?1 AND name = ?2";
const INSERT: &str = "INSERT INTO tenure_leases (namespace, name, writes, clock, written, mark, \
                      record, nonce, ttl, not_before) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const UPDATE: &str = "UPDATE tenure_leases SET writes = ?2, clock = ?3, written = ?4, mark = ?5, \
                      record = ?6, nonce = ?7, ttl = ?8, not_before = ?9 WHERE rowid = ?1";
const RENEW: &str = "UPDATE tenure_leases SET writes = ?2, clock = ?3, written = ?4, mark = ?5, \
                     nonce = ?6, ttl = ?7, not_before = ?8 WHERE rowid = ?1";
const LIST: &str = "SELECT rowid, writes, clock, written, mark, record, nonce, ttl, not_before, \
                    name FROM tenure_leases \
                    WHERE namespace = ?1 AND name >= ?2 AND name < ?3 ORDER BY name LIMIT ?4";

/// What a transaction works with.
pub(crate) struct Ledger<'a> {
    transaction: &'a Transaction<'a>,
    shared: &'a Shared,
    remembered: &'a mut Remembered,
    now: Instant,
    about: StoreRow,
    /// What grants of this session say of its process.
    mark: Option<String>,
    /// Whether the processes that were asked about are gone.
    gone: HashMap<String, bool>,
    /// What happened so far.
    written: Written,
}

/// What a transaction has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Anything at all.
    pub(crate) anything: bool,
    /// A grant, a release or an order, so that waiters should look.
    pub(crate) transition: bool,
}

/// A row of the table, read.
struct Row {
    rowid: i64,
    writes: i64,
    /// None: this session's own.
    clock: Option<String>,
    written: i64,
    mark: Option<String>,
    json: Vec<u8>,
    snapshot: Snapshot,
}

/// A row as it is stored.
struct RawRow {
    rowid: i64,
    writes: i64,
    clock: Option<String>,
    written: i64,
    mark: Option<String>,
    stored: Result<Stored, Error>,
}

impl RawRow {
    fn read(
        row: &SqlRow<'_>,
        own_clock: &str,
        known: impl FnOnce(&[u8]) -> Option<Stored>,
    ) -> Result<Self, rusqlite::Error> {
        let clock = row.get_ref(2)?.as_str()?;
        let json = row.get_ref(5)?.as_blob()?;
        let beat = Beat::read(row, 6)?;
        let stored = known(json).map_or_else(|| Stored::parse(json), Ok);
        Ok(Self {
            rowid: row.get(0)?,
            writes: row.get(1)?,
            clock: (clock != own_clock).then(|| clock.to_owned()),
            written: row.get(3)?,
            mark: row.get(4)?,
            stored: stored.map(|stored| beat.complete(stored)),
        })
    }
}

/// One item's record can't be read, or the whole transaction failed.
type PerItem<T> = Result<Result<T, Error>, Fault>;

impl<'a> Ledger<'a> {
    /// Opens the ledger of a store that is known to be the right one.
    pub(crate) fn new(
        transaction: &'a Transaction<'a>,
        shared: &'a Shared,
        remembered: &'a mut Remembered,
        about: StoreRow,
        mark: Option<String>,
    ) -> Self {
        Self {
            transaction,
            shared,
            remembered,
            now: shared.clock.now().elapsed,
            about,
            mark,
            gone: HashMap::new(),
            written: Written::default(),
        }
    }

    /// Writes what the whole transaction has changed of the store's own row.
    pub(crate) fn finish(self) -> Result<(Written, StoreRow), Fault> {
        let Self { transaction, mut about, written, .. } = self;
        if written.transition {
            about.transitions = about.transitions.wrapping_add(1);
            let last_token = about.last_token.map_or(0, FencingToken::get).cast_signed();
            transaction
                .prepare_cached(STORE_WRITE)?
                .execute(params![last_token, about.transitions])?;
        }
        Ok((written, about))
    }

    /// The count that moves with every grant, release and order.
    pub(crate) fn transitions(&self) -> i64 {
        self.about.transitions
    }

    fn key(&self) -> &'a [u8] {
        self.shared.namespace.as_str().as_bytes()
    }

    fn row(&mut self, name: &Name) -> PerItem<Option<Row>> {
        let (key, own_clock) = (self.key(), &self.shared.clock_identity);
        let known = |json: &[u8]| self.remembered.take(name, json);
        let raw = self
            .transaction
            .prepare_cached(READ)?
            .query_row(params![key, name.as_str().as_bytes()], |row| {
                RawRow::read(row, own_clock, known)
            })
            .optional()?;
        Ok(raw.map(|raw| self.understood(name, raw)).transpose())
    }

    fn understood(&mut self, name: &Name, raw: RawRow) -> Result<Row, Error> {
        let RawRow { rowid, writes, clock, written, mark, stored } = raw;
        let Stored { json, record } = stored.map_err(|error| error.with_name(name))?;
        if record.name != *name {
            return Err(Error::new(
                ErrorKind::Corrupt,
                Operation::Read,
                format!("its row holds the record of `{}`; somebody copied it", record.name),
            )
            .with_name(name));
        }
        let same_clock = clock.is_none();
        let age = same_clock.then(|| self.now.since(Instant::from_nanos(written.cast_unsigned())));
        let holder_gone = same_clock
            && matches!(record.state, State::Held | State::Revoked)
            && mark.as_deref().is_some_and(|mark| self.is_gone(mark));
        let version = version(writes, record.nonce);
        let store = self.about.store;
        let snapshot = Snapshot { record, version, store, age, holder_gone };
        Ok(Row { rowid, writes, clock, written, mark, json, snapshot })
    }

    fn is_gone(&mut self, mark: &str) -> bool {
        if self.mark.as_deref() == Some(mark) {
            return false;
        }
        if let Some(gone) = self.gone.get(mark) {
            return *gone;
        }
        let gone = is_gone(&self.shared.place().side, mark);
        self.gone.insert(mark.to_owned(), gone);
        gone
    }

    /// Reads one record.
    pub(crate) fn read(&mut self, name: &Name) -> PerItem<Option<Snapshot>> {
        Ok(self.row(name)?.map(|row| row.map(|row| row.snapshot)))
    }

    /// What a claim comes to, if nothing needs to be written for it.
    pub(crate) fn look(&mut self, claim: &Claim) -> Result<Option<Acquired>, Fault> {
        let row = match self.row(&claim.name)? {
            Ok(row) => row,
            Err(error) => return Ok(Some(Acquired::Failed(error.during(Operation::Acquire)))),
        };
        Ok(match (decide::claim(row.as_ref().map(|row| &row.snapshot), claim), row) {
            (Claimed::Found(token), row) => Some(found(token, row.map(|row| row.snapshot))),
            (Claimed::Refused, row) => Some(refused(row.map(|row| row.snapshot))),
            (Claimed::Free { .. }, None) => None,
            // It is about to be read once more, to be written.
            (Claimed::Free { .. }, Some(Row { json, snapshot, .. })) => {
                self.remembered.remember(Stored { json, record: snapshot.record });
                None
            }
        })
    }

    /// Carries out a claim.
    pub(crate) fn acquire(&mut self, claim: &Claim) -> Result<Acquired, Fault> {
        let row = match self.row(&claim.name)? {
            Ok(row) => row,
            Err(error) => return Ok(Acquired::Failed(error.during(Operation::Acquire))),
        };
        let current = row.as_ref().map(|row| &row.snapshot);
        let above = match decide::claim(current, claim) {
            Claimed::Free { above } => above,
            Claimed::Found(token) => return Ok(found(token, row.map(|row| row.snapshot))),
            Claimed::Refused => return Ok(refused(row.map(|row| row.snapshot))),
        };
        let token = match token_above(above, self.about.last_token) {
            Ok(token) => token,
            Err(error) => return Ok(Acquired::Failed(error.with_name(&claim.name))),
        };
        self.about.last_token = Some(token);
        self.written.transition = true;
        let before = row.as_ref().map(|row| &row.snapshot.record);
        let record = decide::granted(before, claim, token);
        let mark = if claim.ends_with_process { self.mark.clone() } else { None };
        let version = self.write(row.as_ref(), record, Stamp::now(self, mark))?;
        Ok(Acquired::Granted(Grant { token, version, store: self.about.store }))
    }

    /// Carries out a renewal.
    pub(crate) fn renew(&mut self, hold: &Hold) -> Result<Renewed, Fault> {
        let row = match self.row(&hold.name)? {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Renewed::NotHeld(None)),
            Err(error) => return Ok(Renewed::Failed(error.during(Operation::Renew))),
        };
        let Row { rowid, writes, mark, json, snapshot, .. } = row;
        let record = match decide::renewed(Some(snapshot), hold) {
            Ok(record) => record,
            Err(instead) => return Ok(Renewed::NotHeld(instead)),
        };
        let asked = decide::asked(&record).cloned();
        // Whoever renews is who lives: a mark that it can't vouch for any more goes.
        let mark = if mark.is_some() { self.mark.clone() } else { None };
        let stored = Stored { json, record };
        let version = self.prolong(rowid, writes.wrapping_add(1), mark, stored)?;
        Ok(match asked {
            Some(order) => Renewed::Asked(version, Box::new(order)),
            None => Renewed::Renewed(version),
        })
    }

    /// Carries out a release.
    pub(crate) fn release(&mut self, release: &Release) -> Result<Released, Fault> {
        let row = match self.row(&release.name)? {
            Ok(row) => row,
            Err(error) => return Ok(Released::Failed(error.during(Operation::Release))),
        };
        let current = row.as_ref().map(|row| &row.snapshot);
        let Some(tombstone) = decide::released(current, release) else {
            return Ok(Released::NotHeld(row.map(|row| Box::new(row.snapshot))));
        };
        self.written.transition = true;
        let version = self.write(row.as_ref(), tombstone, Stamp::now(self, None))?;
        Ok(Released::Released(version))
    }

    /// Carries out an order. It leaves the grant's age and mark as they are.
    pub(crate) fn order(&mut self, name: &Name, request: &OrderRequest) -> Result<Ordered, Fault> {
        let row = match self.row(name)? {
            Ok(row) => row,
            Err(error) => return Ok(Ordered::Failed(error.during(Operation::Order))),
        };
        let current = row.as_ref().map(|row| &row.snapshot);
        let (Some(marked), Some(row)) = (decide::ordered(current, request), row.as_ref()) else {
            return Ok(Ordered::NotHeld(row.map(|row| Box::new(row.snapshot))));
        };
        self.written.transition = true;
        let stamp =
            Stamp { clock: row.clock.clone(), written: row.written, mark: row.mark.clone() };
        let version = self.write(Some(row), marked.clone(), stamp)?;
        let snapshot = Snapshot { record: marked, version, ..row.snapshot.clone() };
        Ok(Ordered::Ordered(Box::new(snapshot)))
    }

    /// Lists a page of records.
    pub(crate) fn list(&mut self, query: &Query, after: Option<&Name>) -> Result<Page, Fault> {
        let limit = i64::try_from(query.limit.clamp(1, Query::LIMIT_MAX) + 1).unwrap_or(i64::MAX);
        let first = first_of(&query.prefix, after);
        let Self { transaction, shared, .. } = *self;
        let mut statement = transaction.prepare_cached(LIST)?;
        let rows = statement.query_map(
            params![self.key(), first, end_of(&query.prefix), limit],
            |row| {
                let raw = RawRow::read(row, &shared.clock_identity, |_| None)?;
                Ok((raw, row.get::<_, Vec<u8>>(9)?))
            },
        )?;
        let mut page = Page::default();
        for row in rows {
            let (raw, name) = row?;
            if page.snapshots.len() == query.limit {
                page.next = page.snapshots.last().map(|last| last.record.name.clone());
                break;
            }
            page.snapshots.push(self.understood(&named(name)?, raw)?.snapshot);
        }
        Ok(page)
    }

    /// Writes a record that was renewed: its JSON stays as it is.
    fn prolong(
        &mut self,
        rowid: i64,
        writes: i64,
        mark: Option<String>,
        stored: Stored,
    ) -> Result<Version, Fault> {
        let clock = &self.shared.clock_identity;
        let written = self.now.as_nanos().cast_signed();
        let (nonce, ttl, not_before) = Beat::of(&stored.record).values();
        self.transaction
            .prepare_cached(RENEW)?
            .execute(params![rowid, writes, clock, written, mark, nonce, ttl, not_before])?;
        Ok(self.has_written(writes, stored))
    }

    fn write(&mut self, row: Option<&Row>, record: Record, stamp: Stamp) -> Result<Version, Fault> {
        let stored = Stored { json: record.to_json(), record };
        let json = &stored.json;
        let writes = row.map_or(1, |row| row.writes.wrapping_add(1));
        let Stamp { clock, written, mark } = stamp;
        let clock = clock.as_ref().unwrap_or(&self.shared.clock_identity);
        let (nonce, ttl, not_before) = Beat::of(&stored.record).values();
        match row {
            Some(row) => self.transaction.prepare_cached(UPDATE)?.execute(params![
                row.rowid, writes, clock, written, mark, json, nonce, ttl, not_before
            ])?,
            None => self.transaction.prepare_cached(INSERT)?.execute(params![
                self.key(),
                stored.record.name.as_str().as_bytes(),
                writes,
                clock,
                written,
                mark,
                json,
                nonce,
                ttl,
                not_before,
            ])?,
        };
        Ok(self.has_written(writes, stored))
    }

    fn has_written(&mut self, writes: i64, stored: Stored) -> Version {
        self.written.anything = true;
        let version = version(writes, stored.record.nonce);
        // Only what is held will be renewed.
        if stored.record.state == State::Held {
            self.remembered.remember(stored);
        }
        version
    }
}

fn version(writes: i64, nonce: Nonce) -> Version {
    Version::new(format!("{writes}-{nonce}"))
}

/// When a row was written by its holder, on which clock, and what proves the holder dead.
struct Stamp {
    /// None: this session's own.
    clock: Option<String>,
    written: i64,
    mark: Option<String>,
}

impl Stamp {
    fn now(ledger: &Ledger<'_>, mark: Option<String>) -> Self {
        let written = ledger.now.as_nanos().cast_signed();
        Self { clock: None, written, mark }
    }
}

fn found(token: FencingToken, snapshot: Option<Snapshot>) -> Acquired {
    let Snapshot { version, store, .. } = snapshot.expect("only a record can be found");
    Acquired::Granted(Grant { token, version, store })
}

fn refused(snapshot: Option<Snapshot>) -> Acquired {
    Acquired::Refused(Box::new(snapshot.expect("only a record refuses")))
}

/// The least key under a prefix that is greater than `after`.
fn first_of(prefix: &Prefix, after: Option<&Name>) -> Vec<u8> {
    let first = prefix.as_str().as_bytes().to_vec();
    let Some(after) = after else { return first };
    let mut next = after.as_str().as_bytes().to_vec();
    next.push(0);
    first.max(next)
}

/// The least key that is greater than all names under a prefix.
fn end_of(prefix: &Prefix) -> Vec<u8> {
    let mut end = prefix.as_str().as_bytes().to_vec();
    match end.last_mut() {
        // No byte of UTF-8 is 0xff, so there is always a next one.
        Some(last) => *last += 1,
        None => end.push(0xff),
    }
    end
}

fn named(bytes: Vec<u8>) -> Result<Name, Error> {
    let name = String::from_utf8(bytes).ok().and_then(|text| Name::try_from(text).ok());
    name.ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            Operation::List,
            "a row of `tenure_leases` has a name that is none; look at the table",
        )
    })
}
