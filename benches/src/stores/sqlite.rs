//! SQLite: an update of one row of the same size, on the same file.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Result;
use tenure::Session;
use tenure::sqlite::rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::beside::{self, Raw};
use crate::measure::Report;

/// As long as a record of ours is.
const RECORD: [u8; 600] = [b'x'; 600];

/// A table of plain rows beside the leases, and a thread that writes it: as every asynchronous
/// caller needs one.
struct Rows(mpsc::Sender<(Work, oneshot::Sender<Result<()>>)>);

enum Work {
    One(usize),
    Many(usize),
}

impl Rows {
    fn open(file: &Path) -> Result<Self> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE raw (name TEXT PRIMARY KEY, written INTEGER, record BLOB) WITHOUT ROWID",
        )?;
        let (jobs, received) = mpsc::channel::<(Work, oneshot::Sender<Result<()>>)>();
        std::thread::spawn(move || {
            for (work, answer) in received {
                // Whoever has stopped waiting needs no answer.
                let _ = answer.send(match work {
                    Work::One(task) => write(&connection, &format!("task-{task}")),
                    Work::Many(many) => write_many(&connection, many),
                });
            }
        });
        Ok(Self(jobs))
    }

    async fn send(&self, work: Work) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.0.send((work, answer))?;
        answered.await?
    }
}

/// New in every write: SQLite leaves a page alone whose bytes stay the same.
fn fresh() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

fn write(connection: &Connection, name: &str) -> Result<()> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO raw VALUES (?1, ?2, ?3) \
         ON CONFLICT DO UPDATE SET written = excluded.written, record = excluded.record",
    )?;
    upsert.execute(params![name, fresh(), RECORD])?;
    Ok(())
}

fn write_many(connection: &Connection, many: usize) -> Result<()> {
    let transaction = connection.unchecked_transaction()?;
    for n in 0..many {
        write(connection, &format!("many-{n}"))?;
    }
    transaction.commit()?;
    Ok(())
}

impl Raw for Rows {
    async fn write(&self, task: usize) -> Result<()> {
        self.send(Work::One(task)).await
    }

    async fn write_many(&self, many: usize) -> Result<()> {
        self.send(Work::Many(many)).await
    }
}

pub(crate) async fn bench(report: &mut Report, file: &Path, turns: usize) -> Result<()> {
    let url = format!("sqlite:{}", file.display());
    let session = Session::open(url.as_str()).await?;
    let raw = Arc::new(Rows::open(file)?);
    report.heading("sqlite", "a raw upsert on the same file, committed, behind a thread");
    beside::single(report, "sqlite", &session, &raw, turns).await?;
    beside::beats(report, "sqlite", &session, &raw).await?;
    let waiter = Session::open(url).await?;
    beside::wakes(report, &session, &waiter).await?;
    waiter.close().await?;
    session.close().await?;
    Ok(())
}
