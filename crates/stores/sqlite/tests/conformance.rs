//! The suite on the SQLite store: real files, with a clock that is turned by hand.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tenure_conformance::harness::{Capability, GuardedBy, GuardedTransaction, Harness};
use tenure_core::clock::{Clock, Instant, ManualClock};
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::guard::GuardError;
use tenure_core::identity::{Name, Namespace};
use tenure_core::store::{Store, StoreAdmin};
use tenure_sqlite::{GUARDED_TRANSACTION_MAX, Guard, SqliteConfig, SqliteStore};

use common::{Scratch, clock, try_open};

tenure_conformance::conformance!(Sqlite::new);

const ROW: &str = "namespace = CAST(?1 AS BLOB) AND name = CAST(?2 AS BLOB)";

struct Sqlite {
    scratch: Scratch,
    clock: Arc<ManualClock>,
}

impl Sqlite {
    fn new() -> Self {
        Self { scratch: Scratch::new("conformance"), clock: clock() }
    }

    fn session(&self, namespace: &Namespace) -> SqliteStore {
        let mut config = SqliteConfig::new(self.scratch.db());
        config.namespace = namespace.clone();
        config.busy = Duration::from_secs(20);
        try_open(config, self.clock.clone()).unwrap()
    }

    /// A connection behind the store's back.
    fn by_hand(&self) -> Connection {
        by_hand(&self.scratch.db())
    }

    /// Deletes the database with all that SQLite keeps beside it.
    fn delete(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.scratch.db().display()));
        }
    }
}

fn by_hand(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
}

impl Harness for Sqlite {
    fn name(&self) -> &str {
        "sqlite"
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        Arc::new(self.session(namespace))
    }

    fn now(&self) -> Instant {
        self.clock.now().elapsed
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        match capability {
            Capability::ObservedExpiry => Some("the kernel's clock decides, for all on the host"),
            Capability::Records => Some("it decides in a transaction, without preconditions"),
            Capability::Purge => Some("it keeps its tombstones as yet"),
            Capability::Endpoints => Some("there is one file, without a server before it"),
            Capability::Restart => Some("it is embedded: it starts and ends with its sessions"),
            Capability::ConnectionFaults => Some("no connection lies between it and its sessions"),
            Capability::Credentials => Some("it asks for none; the file has an owner"),
            Capability::WatchFaults => Some("no connection carries its hints"),
            _ => None,
        }
    }

    fn forget(&self) {
        self.delete();
    }

    fn back_up(&self) {
        let copy = self.scratch.path.join("backup.db");
        self.by_hand().execute("VACUUM INTO ?1", [copy.to_str()]).unwrap();
    }

    fn restore_backup(&self) {
        self.delete();
        std::fs::rename(self.scratch.path.join("backup.db"), self.scratch.db()).unwrap();
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        let delete = format!("DELETE FROM tenure_leases WHERE {ROW}");
        let deleted = self.by_hand().execute(&delete, [namespace.as_str(), name.as_str()]).unwrap();
        assert_eq!(deleted, 1);
    }

    fn writes(&self) -> u64 {
        let count = "SELECT transitions + (SELECT total(writes) FROM tenure_leases) \
                     FROM tenure_store";
        self.by_hand().query_row(count, [], |row| row.get::<_, f64>(0)).unwrap() as u64
    }

    fn raw_read(&self, namespace: &Namespace, name: &Name) -> Option<Vec<u8>> {
        let read = format!("SELECT record FROM tenure_leases WHERE {ROW}");
        let key = [namespace.as_str(), name.as_str()];
        self.by_hand().query_row(&read, key, |row| row.get(0)).optional().unwrap()
    }

    fn raw_write(&self, namespace: &Namespace, name: &Name, json: &[u8]) {
        let write = format!("UPDATE tenure_leases SET record = ?3 WHERE {ROW}");
        let key = params![namespace.as_str(), name.as_str(), json];
        assert_eq!(self.by_hand().execute(&write, key).unwrap(), 1);
    }

    fn open_mortal(&self, namespace: &Namespace) -> (Arc<dyn Store>, Box<dyn FnOnce() + Send>) {
        let store = self.open(namespace);
        let kept = Arc::clone(&store);
        let side = self.scratch.side();
        let die = move || {
            // As the kernel does when it ends a process: the lock goes, and the file stays. (The
            // death of real processes is in tests/processes.rs.)
            unlock_all(&side);
            std::mem::forget(kept);
        };
        (store, Box::new(die))
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(self.session(&Namespace::default()))
    }

    fn begin_guarded(
        &self,
        namespace: &Namespace,
        grant: &GuardedBy,
    ) -> Result<Box<dyn GuardedTransaction>, Error> {
        let guard = self.session(namespace).guard();
        let (path, grant) = (self.scratch.db(), grant.clone());
        Ok(Box::new(Guarded::begin(move |asked, told| {
            serve(&path, &guard, &grant, &asked, &told);
        })?))
    }

    fn read_guarded(&self) -> Option<String> {
        let read = "SELECT value FROM guarded";
        self.by_hand().query_row(read, [], |row| row.get(0)).optional().ok().flatten()
    }
}

/// Drops the locks on all side files of holders in this process, without their owners' help.
fn unlock_all(side: &Path) {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(path) = std::fs::read_link(entry.path()) else { continue };
        if path.starts_with(side) && path.to_string_lossy().contains("holder-") {
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            let same = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).unwrap();
            rustix::fs::flock(&same, rustix::fs::FlockOperation::Unlock).unwrap();
        }
    }
}

/// What a guarded transaction is asked.
enum Asked {
    Write(String),
    Commit,
}

/// A user's transaction, on a thread of its own that keeps to the guard's bound: it is rolled
/// back when it lasts for too long.
struct Guarded {
    asked: Sender<Asked>,
    told: Receiver<Result<(), Error>>,
    thread: Option<JoinHandle<()>>,
}

impl Guarded {
    fn begin(
        serve: impl FnOnce(Receiver<Asked>, Sender<Result<(), Error>>) + Send + 'static,
    ) -> Result<Self, Error> {
        let ((asked, received), (tell, told)) = (channel(), channel());
        let thread = std::thread::spawn(move || serve(received, tell));
        let guarded = Self { asked, told, thread: Some(thread) };
        guarded.answer()?;
        Ok(guarded)
    }

    fn answer(&self) -> Result<(), Error> {
        self.told.recv().unwrap_or_else(|_| Err(rejected("the transaction lasted for too long")))
    }

    fn ask(&self, what: Asked) -> Result<(), Error> {
        let _ = self.asked.send(what);
        self.answer()
    }
}

impl GuardedTransaction for Guarded {
    fn write(&mut self, value: &str) -> Result<(), Error> {
        self.ask(Asked::Write(value.to_owned()))
    }

    fn commit(self: Box<Self>) -> Result<(), Error> {
        self.ask(Asked::Commit)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // The thread ends when nobody can ask any more; its transaction is over then.
        self.asked = channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    path: &Path,
    guard: &Guard,
    grant: &GuardedBy,
    asked: &Receiver<Asked>,
    told: &Sender<Result<(), Error>>,
) {
    let mut connection = by_hand(path);
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS guarded (only INTEGER PRIMARY KEY, value TEXT)")
        .unwrap();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let until = std::time::Instant::now() + GUARDED_TRANSACTION_MAX;
    if told.send(checked(guard, &transaction, grant)).is_err() {
        return;
    }
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        match asked.recv_timeout(left) {
            Err(_) => return,
            Ok(Asked::Write(value)) => {
                let write = "INSERT OR REPLACE INTO guarded VALUES (1, ?1)";
                transaction.execute(write, [value]).unwrap();
                let _ = told.send(Ok(()));
            }
            Ok(Asked::Commit) => {
                let verdict = checked(guard, &transaction, grant);
                if verdict.is_ok() {
                    transaction.commit().unwrap();
                }
                let _ = told.send(verdict);
                return;
            }
        }
    }
}

fn checked(guard: &Guard, transaction: &Transaction<'_>, by: &GuardedBy) -> Result<(), Error> {
    guard.check(transaction, &by.name, by.token).map_err(|error| match error {
        GuardError::Failed(error) => error,
        other => rejected(&other.to_string()),
    })
}

fn rejected(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, Operation::Guard, why)
}
