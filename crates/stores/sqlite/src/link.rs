//! One connection to the file: opened, checked before every request, and opened anew when
//! another file lies in its place.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tenure_core::chance::Chance;
use tenure_core::cluster;
use tenure_core::identity::StoreId;
use tenure_core::{Error, ErrorKind, Operation};

use crate::answer::Asked;
use crate::errors::{Fault, Phase, closed, from_io, from_sqlite, is_busy};
use crate::gate::Gate;
use crate::ledger::{Ledger, Written};
use crate::place::{FileId, Place};
use crate::presence::{Presence, create_side, is_gone, sweep};
use crate::rows::{self, Remembered, StoreRow, TABLES};
use crate::shared::{Opened, Shared};
use crate::turn::{Turn, patiently};

/// How often opening starts again when the file is replaced meanwhile.
const OPENINGS_MAX: usize = 3;
/// How many side files one session locks, each after the one before was taken away.
const PRESENCES_MAX: usize = 16;
/// How many prepared statements a connection keeps: all of them.
const STATEMENTS_MAX: usize = 32;

/// The tables, as `init` and the first opening create them.
pub(crate) const SCHEMA: &str = include_str!("schema.sql");

/// A connection, and what its thread keeps beside it.
pub(crate) struct Link {
    pub(crate) shared: Arc<Shared>,
    pub(crate) chance: Chance,
    open: Option<Open>,
    remembered: Remembered,
    presences: Vec<Presence>,
}

/// An open connection to one file.
pub(crate) struct Open {
    pub(crate) connection: Connection,
    pub(crate) file: FileId,
    pub(crate) turn: Turn,
}

impl Link {
    /// A link that opens its connection when it is first used.
    pub(crate) fn new(shared: Arc<Shared>, chance: Chance) -> Self {
        Self {
            shared,
            chance,
            open: None,
            remembered: Remembered::default(),
            presences: Vec::new(),
        }
    }

    /// Lets go of the file.
    pub(crate) fn shut(&mut self) {
        self.open = None;
        self.presences.clear();
    }

    /// The connection, if it is open and its file still lies where it should.
    pub(crate) fn current(&self) -> Option<&Open> {
        let file = FileId::at(&self.shared.path).ok()?;
        self.open.as_ref().filter(|open| open.file == file)
    }

    /// Makes sure that the connection is to the file that lies at the path now.
    ///
    /// # Errors
    /// `StoreReset`, once for each session, when that is another store than it believed in; it
    /// believes in the new one from then on.
    pub(crate) fn connect(&mut self, operation: Operation) -> Result<(), Error> {
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(closed(operation));
        }
        if self.current().is_some() {
            return Ok(());
        }
        let vanished = FileId::at(&self.shared.path).is_err();
        self.open = None;
        let (open, about) = self.reopen().map_err(|error| error.during(operation))?;
        let opened = Opened { store: about.store, file: open.file };
        self.open = Some(open);
        self.shared.believe(opened, vanished, operation)
    }

    fn reopen(&mut self) -> Result<(Open, StoreRow), Error> {
        for _ in 0..OPENINGS_MAX {
            let before = FileId::at(&self.shared.path).ok();
            let place =
                Place::look(&self.shared.path).map_err(|error| self.may_come_back(error))?;
            let (connection, about) = self.open_at(&place)?;
            create_side(&place.side, &place.file)
                .map_err(|error| from_io(&place.side, "creating", error))?;
            let gate = Gate::open(&place.side, &place.file)
                .map_err(|error| from_io(&place.side.join("gate"), "opening", error))?;
            let turn = Turn::new(gate, self.shared.busy);
            // SQLite has opened the file that lies at the path if that was there before and
            // after. A file that was just created is opened once more.
            let after = FileId::at(&self.shared.path).ok();
            if let (Some(file), true) = (after, before == after) {
                self.shared.moved_to(place);
                return Ok((Open { connection, file, turn }, about));
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            Operation::Open,
            format!("the file `{}` is being replaced; try again", self.shared.path.display()),
        ))
    }

    /// What was fit once, and isn't there now, may come back.
    fn may_come_back(&self, error: Error) -> Error {
        let known = self.shared.store().is_some();
        if !known || error.kind() != ErrorKind::Misconfigured {
            return error;
        }
        Error::new(ErrorKind::Unavailable, Operation::Open, error.to_string())
    }

    fn open_at(&mut self, place: &Place) -> Result<(Connection, StoreRow), Error> {
        let told = |fault| told(fault, Operation::Open, Phase::BeforeCommit);
        let busy = self.shared.busy;
        let opened = (|| {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&place.file, flags)?;
            connection.busy_timeout(Duration::ZERO)?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
            let chance = &mut self.chance;
            let mode: String = patiently(busy, Operation::Open, chance, || {
                connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            })?;
            if mode != "wal" {
                return Err(Fault::Told(Error::new(
                    ErrorKind::Misconfigured,
                    Operation::Open,
                    format!("the file stays in journal mode `{mode}`; tenure needs `wal`"),
                )));
            }
            connection.pragma_update(None, "synchronous", "FULL")?;
            let about = patiently_told(busy, chance, || StoreRow::read(&connection))?;
            Ok((connection, about))
        })();
        let (connection, about) = opened.map_err(told)?;
        let about = match about {
            Some(about) => about,
            None => self.create(&connection).map_err(told)?,
        };
        cluster::compare(self.shared.cluster.as_deref(), about.cluster.as_deref())?;
        Ok((connection, about))
    }

    fn create(&mut self, connection: &Connection) -> Result<StoreRow, Fault> {
        let fresh = StoreId::draw(&mut self.chance);
        let cluster = self.shared.cluster.clone();
        let transaction = patiently(self.shared.busy, Operation::Open, &mut self.chance, || {
            Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
        })?;
        transaction.execute_batch(SCHEMA)?;
        transaction.execute(
            "INSERT INTO tenure_store (only, format, store, cluster, last_token, transitions) \
             VALUES (1, ?1, ?2, ?3, 0, 0) ON CONFLICT DO NOTHING",
            (TABLES, fresh.to_string(), cluster),
        )?;
        let about = StoreRow::read(&transaction)?.ok_or(Fault::Unmarked)?;
        transaction.commit()?;
        Ok(about)
    }

    /// What grants of this session say of its process: a side file that is locked and in place.
    fn mark(&mut self) -> Option<String> {
        if let Some(mark) = self.presences.last()?.mark() {
            return Some(mark.to_string());
        }
        self.begin_presence();
        self.presences.last()?.mark().map(ToString::to_string)
    }

    /// Whether the grants of this session say what proves its process dead.
    pub(crate) fn is_present(&self) -> bool {
        !self.presences.is_empty()
    }

    /// Has the grants of this session say so from now on.
    pub(crate) fn be_present(&mut self) {
        if self.presences.is_empty() && self.open.is_some() {
            self.begin_presence();
        }
    }

    /// Locks a side file. Without one, grants say nothing, and end with their ttl.
    ///
    /// Older ones stay locked: whoever took them away may bring them back.
    fn begin_presence(&mut self) {
        if self.presences.len() >= PRESENCES_MAX {
            return;
        }
        let place = self.shared.place();
        let begun = create_side(&place.side, &place.file)
            .and_then(|()| Presence::begin(&place.side, &mut self.chance));
        if let Ok(presence) = begun {
            self.presences.push(presence);
            self.sweep(&place);
        }
    }

    /// Clears away the side files of dead sessions.
    fn sweep(&self, place: &Place) {
        let Some(open) = &self.open else { return };
        let named = OnceCell::new();
        sweep(&place.side, |mark| match named.get_or_init(|| rows::marks(&open.connection)) {
            Ok(named) => named.contains(mark),
            Err(_) => true,
        });
    }

    /// The open connection, for the operator's side.
    pub(crate) fn parts(
        &mut self,
        operation: Operation,
    ) -> Result<(&mut Open, &mut Chance), Error> {
        let Self { open, chance, .. } = self;
        open.as_mut().map(|open| (open, chance)).ok_or_else(|| closed(operation))
    }

    /// Whether the lock of this session's side file is seen as held, as it must be.
    pub(crate) fn proves_death(&self) -> Option<bool> {
        let mark = self.presences.last()?.mark()?.to_string();
        Some(!is_gone(&self.shared.place().side, &mark))
    }

    /// Reads within one snapshot of the file, without its write lock.
    pub(crate) fn read<T>(
        &mut self,
        operation: Operation,
        act: impl FnOnce(&mut Ledger<'_>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.connect(operation)?;
        let outcome = self.in_snapshot(operation, act);
        self.settled(operation, Phase::BeforeCommit, outcome)
    }

    fn in_snapshot<T>(
        &mut self,
        operation: Operation,
        act: impl FnOnce(&mut Ledger<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let Self { shared, chance, open, remembered, presences, .. } = self;
        let open = open.as_ref().ok_or_else(|| closed(operation))?;
        let (transaction, about) = snapshot(shared, chance, &open.connection)?;
        let mark = presences.last().and_then(Presence::mark).map(ToString::to_string);
        act(&mut Ledger::new(&transaction, shared, remembered, about, mark))
    }

    /// Reads without the write lock, and tells what `look` finds if that is an answer already.
    ///
    /// If it isn't, `act` goes on in the same transaction, provided that nobody else is writing
    /// or waits for a turn. None: somebody is, and nothing is done.
    pub(crate) fn read_then_write<T, A>(
        &mut self,
        operation: Operation,
        asked: &Asked<A>,
        look: impl FnOnce(&mut Ledger<'_>) -> Result<Option<T>, Fault>,
        act: impl FnOnce(&mut Ledger<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Error> {
        self.connect(operation)?;
        let mark = self.mark();
        let mut phase = Phase::BeforeCommit;
        let outcome = self.at_once(asked, operation, mark, &mut phase, look, act);
        match outcome {
            Err(Fault::Sqlite(error)) if phase == Phase::BeforeCommit && is_busy(&error) => {
                Ok(None)
            }
            outcome => self.settled(operation, phase, outcome),
        }
    }

    fn at_once<T, A>(
        &mut self,
        asked: &Asked<A>,
        operation: Operation,
        mark: Option<String>,
        phase: &mut Phase,
        look: impl FnOnce(&mut Ledger<'_>) -> Result<Option<T>, Fault>,
        act: impl FnOnce(&mut Ledger<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let Self { shared, chance, open, remembered, .. } = self;
        let Open { connection, turn, .. } = open.as_mut().ok_or_else(|| closed(operation))?;
        let (transaction, about) = snapshot(shared, chance, connection)?;
        let mut ledger = Ledger::new(&transaction, shared, remembered, about, mark);
        if let Some(found) = look(&mut ledger)? {
            return Ok(Some(found));
        }
        if !asked.is_wanted() {
            return Err(closed(operation).into());
        }
        let Some(acted) = turn.if_nobody_waits(|| act(&mut ledger)) else { return Ok(None) };
        let outcome = acted?;
        let written = ledger.finish()?;
        commit(transaction, shared, written, phase)?;
        Ok(Some(outcome))
    }

    /// Reads and writes in one transaction: all of it is done, or nothing.
    ///
    /// Nothing is done, either, if nobody waits for the answer any more when the turn has come.
    pub(crate) fn write<T, A>(
        &mut self,
        operation: Operation,
        asked: &Asked<A>,
        act: impl FnOnce(&mut Ledger<'_>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.connect(operation)?;
        let mark = self.mark();
        let mut phase = Phase::BeforeCommit;
        let outcome = self.in_turn(operation, asked, mark, &mut phase, act);
        self.settled(operation, phase, outcome)
    }

    fn in_turn<T, A>(
        &mut self,
        operation: Operation,
        asked: &Asked<A>,
        mark: Option<String>,
        phase: &mut Phase,
        act: impl FnOnce(&mut Ledger<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let Self { shared, chance, open, remembered, .. } = self;
        let Open { connection, turn, .. } = open.as_mut().ok_or_else(|| closed(operation))?;
        let transaction = turn.begin(connection, operation, chance)?;
        if !asked.is_wanted() {
            return Err(closed(operation).into());
        }
        let about = expected(shared, StoreRow::read(&transaction)?)?;
        let mut ledger = Ledger::new(&transaction, shared, remembered, about, mark);
        let outcome = act(&mut ledger)?;
        let written = ledger.finish()?;
        commit(transaction, shared, written, phase)?;
        Ok(outcome)
    }

    /// What a transaction came to, once it is known that the file is still the one at the path.
    fn settled<T>(
        &mut self,
        operation: Operation,
        phase: Phase,
        outcome: Result<T, Fault>,
    ) -> Result<T, Error> {
        match outcome {
            Ok(outcome) if self.current().is_some() => Ok(outcome),
            // What was committed to a file that lies elsewhere now is done in no store.
            Ok(_) => Err(self.replaced(operation, phase)),
            Err(Fault::Unmarked) => {
                self.open = None;
                self.connect(operation)?;
                // The row is back, with the same id: somebody was at work on it.
                Err(Error::new(
                    ErrorKind::Unavailable,
                    operation,
                    "the store's row was away for a moment; try again",
                ))
            }
            Err(fault) => Err(told(fault, operation, phase)),
        }
    }

    /// The file was replaced while a transaction ran.
    fn replaced(&mut self, operation: Operation, phase: Phase) -> Error {
        let (kind, why) = match self.connect(operation) {
            Err(error) if error.kind() == ErrorKind::StoreReset => return error,
            Err(error) if phase == Phase::Commit => (ErrorKind::OutcomeUnknown, error.to_string()),
            Err(error) => return error,
            Ok(()) if phase == Phase::Commit => (ErrorKind::StoreReset, "claim it anew".to_owned()),
            Ok(()) => (ErrorKind::Unavailable, "try again".to_owned()),
        };
        let path = self.shared.path.display();
        let message = format!("the file `{path}` was replaced during the request; {why}");
        Error::new(kind, operation, message)
    }
}

/// Begins to read, within one snapshot of the file.
fn snapshot<'c>(
    shared: &Shared,
    chance: &mut Chance,
    connection: &'c Connection,
) -> Result<(Transaction<'c>, StoreRow), Fault> {
    let (transaction, about) = patiently_told(shared.busy, chance, || {
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
        let about = StoreRow::read(&transaction)?;
        Ok((transaction, about))
    })?;
    Ok((transaction, expected(shared, about)?))
}

/// Commits, if there is anything to commit.
fn commit(
    transaction: Transaction<'_>,
    shared: &Shared,
    (Written { anything, transition }, about): (Written, StoreRow),
    phase: &mut Phase,
) -> Result<(), Fault> {
    if anything {
        *phase = Phase::Commit;
        transaction.commit()?;
    }
    if transition {
        shared.transitions_are(about.transitions);
    }
    Ok(())
}

/// The store's row, if it is that of the store which this session believes in.
fn expected(shared: &Shared, found: Option<StoreRow>) -> Result<StoreRow, Fault> {
    let found = found.ok_or(Fault::Unmarked)?;
    if shared.store().is_some_and(|store| store != found.store) {
        Err(Fault::Unmarked)
    } else {
        Ok(found)
    }
}

fn patiently_told<T>(
    busy: Duration,
    chance: &mut Chance,
    mut act: impl FnMut() -> Result<T, Fault>,
) -> Result<T, Fault> {
    patiently(busy, Operation::Open, chance, || match act() {
        Err(Fault::Sqlite(error)) => Err(error),
        other => Ok(other),
    })?
}

/// A fault as an error of an operation.
pub(crate) fn told(fault: Fault, operation: Operation, phase: Phase) -> Error {
    match fault {
        Fault::Sqlite(error) => from_sqlite(error, operation, phase),
        Fault::Told(error) => error.during(operation),
        Fault::Unmarked => Error::new(
            ErrorKind::Unavailable,
            operation,
            "the store's row vanished while it was written; try again",
        ),
    }
}
