//! The raw statement: what an update of one row of the same size costs on the same file.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tenure::sqlite::rusqlite::{Connection, params};

/// As long as a record of ours is.
const RECORD: [u8; 600] = [b'x'; 600];

/// A table of plain rows beside the leases.
pub(crate) struct Raw(Connection);

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
        Ok(Self(connection))
    }

    /// One update, committed.
    pub(crate) fn update(&self, turn: usize) -> Result<()> {
        let mut update =
            self.0.prepare_cached("UPDATE raw SET written = ?2, record = ?3 WHERE name = ?1")?;
        update.execute(params!["one", turn as i64, RECORD])?;
        Ok(())
    }

    /// Two of them.
    pub(crate) fn take_and_give_back(&self, turn: usize) -> Result<()> {
        self.update(turn)?;
        self.update(turn)
    }

    /// Many in one transaction.
    pub(crate) fn update_many(&self, turn: usize, many: usize) -> Result<()> {
        let transaction = self.0.unchecked_transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO raw VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET written = excluded.written, record = excluded.record",
            )?;
            for n in 0..many {
                insert.execute(params![format!("many-{n}"), turn as i64, RECORD])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
