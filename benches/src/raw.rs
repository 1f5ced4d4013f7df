//! The raw statement: what an update of one row of the same size costs on the same file.

use std::cell::Cell;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use tenure::sqlite::rusqlite::{Connection, params};
use tokio::sync::oneshot;

/// As long as a record of ours is.
const RECORD: [u8; 600] = [b'x'; 600];

/// A table of plain rows beside the leases.
pub(crate) struct Raw {
    connection: Connection,
    /// New in every update: SQLite leaves a page alone whose bytes stay the same.
    written: Cell<i64>,
}

impl Raw {
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS raw (name TEXT PRIMARY KEY, written INTEGER, record BLOB) \
             WITHOUT ROWID;
             INSERT OR IGNORE INTO raw VALUES ('one', 0, x'');",
        )?;
        Ok(Self { connection, written: Cell::new(fresh()) })
    }

    fn next(&self) -> i64 {
        self.written.set(self.written.get() + 1);
        self.written.get()
    }

    /// One update, committed.
    pub(crate) fn update(&self) -> Result<()> {
        let mut update = self
            .connection
            .prepare_cached("UPDATE raw SET written = ?2, record = ?3 WHERE name = ?1")?;
        update.execute(params!["one", self.next(), RECORD])?;
        Ok(())
    }

    /// Has a thread of its own carry out what is sent to it, as every asynchronous caller must.
    pub(crate) fn on_a_thread(self) -> Threaded {
        let (jobs, received) = mpsc::channel::<oneshot::Sender<Result<()>>>();
        std::thread::spawn(move || {
            for answer in received {
                // Whoever has stopped waiting needs no answer.
                let _ = answer.send(self.update());
            }
        });
        Threaded(jobs)
    }

    /// Many in one transaction.
    pub(crate) fn update_many(&self, many: usize) -> Result<()> {
        let written = self.next();
        let transaction = self.connection.unchecked_transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO raw VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET written = excluded.written, record = excluded.record",
            )?;
            for n in 0..many {
                insert.execute(params![format!("many-{n}"), written, RECORD])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// A number that no connection has begun with before.
fn fresh() -> i64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as i64)
}

/// The same, behind a thread.
pub(crate) struct Threaded(mpsc::Sender<oneshot::Sender<Result<()>>>);

impl Threaded {
    /// One update, committed.
    pub(crate) async fn update(&self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer)?;
        answered.await?
    }
}
