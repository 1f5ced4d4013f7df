//! The operator's side: what `init` creates and what `doctor` finds.

use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tenure_core::cluster;
use tenure_core::identity::StoreId;
use tenure_core::store::{Answer, Finding, InitOptions, StoreAdmin, Verdict};
use tenure_core::{Error, Operation};

use crate::errors::{Phase, from_sqlite};
use crate::link::{Link, SCHEMA};
use crate::store::SqliteStore;

/// How many commits `doctor` times.
const COMMITS: u32 = 8;
/// A commit that is quicker than this can hardly have reached a disk.
const COMMIT_LEAST: Duration = Duration::from_micros(20);
/// A commit that is slower than this makes a short ttl hard to keep.
const COMMIT_MOST: Duration = Duration::from_millis(100);

impl StoreAdmin for SqliteStore {
    fn setup(&self) -> String {
        format!("-- in {}\nPRAGMA journal_mode = WAL;\n{SCHEMA}", self.shared.path.display())
    }

    /// Opening has created the file and its tables; this adds the mark.
    fn init<'a>(&'a self, options: &'a InitOptions) -> Answer<'a, StoreId> {
        Box::pin(async move {
            if options.observed {
                return self.located(Err(Error::invalid(
                    "an SQLite file's expiry is decided by the clock of its one host; there is \
                     nothing to observe",
                )));
            }
            let cluster = options.cluster.clone();
            if let Some(cluster) = &cluster {
                self.located(cluster::check(cluster))?;
            }
            let init = move |job: &mut crate::store::Writer, _: &crate::answer::Asked<_>| {
                job.link.connect(Operation::Init)?;
                job.link.init(cluster.as_deref())
            };
            self.located(self.writer.ask(Operation::Init, init).await)
        })
    }

    fn diagnose(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async move {
            let diagnose = |job: &mut crate::store::Writer, _: &crate::answer::Asked<_>| {
                job.link.connect(Operation::Diagnose)?;
                job.link.diagnose()
            };
            self.located(self.writer.ask(Operation::Diagnose, diagnose).await)
        })
    }
}

impl Link {
    fn init(&mut self, cluster: Option<&str>) -> Result<StoreId, Error> {
        let failed = |error| from_sqlite(error, Operation::Init, Phase::BeforeCommit);
        let told = |fault| crate::link::told(fault, Operation::Init, Phase::BeforeCommit);
        let (open, chance) = self.parts(Operation::Init)?;
        let transaction =
            open.turn.begin(&open.connection, Operation::Init, chance).map_err(told)?;
        transaction.execute_batch(SCHEMA).map_err(failed)?;
        if let Some(cluster) = cluster {
            let marked = "UPDATE tenure_store SET cluster = ?1 \
                          WHERE only = 1 AND (cluster IS NULL OR cluster = ?1)";
            if transaction.execute(marked, [cluster]).map_err(failed)? == 0 {
                return Err(cluster::taken(cluster));
            }
        }
        transaction.commit().map_err(|error| from_sqlite(error, Operation::Init, Phase::Commit))?;
        self.shared.store().ok_or_else(|| crate::errors::closed(Operation::Init))
    }

    fn diagnose(&mut self) -> Result<Vec<Finding>, Error> {
        let place = self.shared.place();
        let clock = self.shared.clock_identity.clone();
        self.be_present();
        let presence = self.presence_finding();
        let (open, chance) = self.parts(Operation::Diagnose)?;
        let failed = |error| from_sqlite(error, Operation::Diagnose, Phase::BeforeCommit);
        let mut findings = vec![
            Finding::new("file_system", Verdict::Good, format!("it is {}", place.file_system)),
            setting(&open.connection, "journal_mode", "wal").map_err(failed)?,
            setting(&open.connection, "synchronous", "2").map_err(failed)?,
            integrity(&open.connection).map_err(failed)?,
            tokens(&open.connection).map_err(failed)?,
            clock_finding(&clock),
        ];
        findings.extend(presence);
        let mut slowest = Duration::ZERO;
        for _ in 0..COMMITS {
            let begun = Instant::now();
            let transaction =
                open.turn.begin(&open.connection, Operation::Diagnose, chance).map_err(
                    |fault| crate::link::told(fault, Operation::Diagnose, Phase::BeforeCommit),
                )?;
            // A page is written, and nothing is changed.
            transaction
                .execute("UPDATE tenure_store SET format = format WHERE only = 1", [])
                .map_err(failed)?;
            transaction.commit().map_err(failed)?;
            slowest = slowest.max(begun.elapsed());
        }
        findings.push(durability(slowest));
        Ok(findings)
    }

    fn presence_finding(&mut self) -> Option<Finding> {
        let (verdict, detail) = match self.proves_death() {
            Some(true) => (Verdict::Good, "the kernel keeps and tells locks on side files".into()),
            Some(false) => (
                Verdict::Bad,
                "a held lock on a side file looks free; the kernel can't be believed here".into(),
            ),
            None => (
                Verdict::Limited,
                format!(
                    "no side file can be locked in `{}`; a holder's death costs the ttl",
                    self.shared.place().side.display()
                ),
            ),
        };
        Some(Finding::new("death", verdict, detail))
    }
}

fn setting(connection: &Connection, name: &str, wanted: &str) -> rusqlite::Result<Finding> {
    let found: String = connection.query_row(&format!("PRAGMA {name}"), [], |row| {
        row.get_ref(0).map(|value| match value {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        })
    })?;
    let verdict = if found == wanted { Verdict::Good } else { Verdict::Bad };
    Ok(Finding::new(name, verdict, format!("it is {found}, and should be {wanted}")))
}

fn integrity(connection: &Connection) -> rusqlite::Result<Finding> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok(if found == "ok" {
        Finding::new("integrity", Verdict::Good, "SQLite finds nothing wrong")
    } else {
        Finding::new("integrity", Verdict::Bad, format!("{found}; restore the file"))
    })
}

/// Whether the floor of all tokens is as high as the tokens of the records.
fn tokens(connection: &Connection) -> rusqlite::Result<Finding> {
    let transaction =
        rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
    let below: i64 = transaction.query_row(
        "SELECT count(*) FROM tenure_leases WHERE json_extract(CAST(record AS TEXT), '$.token') > \
         (SELECT last_token FROM tenure_store WHERE only = 1)",
        [],
        |row| row.get(0),
    )?;
    Ok(if below == 0 {
        Finding::new("tokens", Verdict::Good, "every token lies at or below the store's counter")
    } else {
        Finding::new(
            "tokens",
            Verdict::Bad,
            format!("{below} records have tokens above the store's counter: it was set back"),
        )
    })
}

fn clock_finding(identity: &str) -> Finding {
    if identity.contains(' ') {
        Finding::new("clock", Verdict::Good, format!("it is that of boot {identity}"))
    } else {
        Finding::new(
            "clock",
            Verdict::Limited,
            "the system doesn't say which boot this is; other processes' grants end by observation",
        )
    }
}

fn durability(slowest: Duration) -> Finding {
    let detail = format!("the slowest of {COMMITS} commits took {slowest:?}");
    if slowest < COMMIT_LEAST {
        Finding::new("durability", Verdict::Limited, format!("{detail}: hardly on a disk"))
    } else if slowest > COMMIT_MOST {
        Finding::new("durability", Verdict::Limited, format!("{detail}: use a longer ttl"))
    } else {
        Finding::new("durability", Verdict::Good, detail)
    }
}
