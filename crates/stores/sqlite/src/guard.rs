//! The checking side of a token: inside a transaction on the lease's own file, or beside any
//! other resource.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params};
use tenure_core::clock::Instant;
use tenure_core::decide;
use tenure_core::guard::{GuardError, admit};
use tenure_core::identity::{FencingToken, Name};
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::{Fault, Phase, from_sqlite, is_missing_table};
use crate::rows::{Beat, StoreRow, Stored};
use crate::shared::Shared;

/// How long a guarded transaction should last at most.
///
/// It is the file's one writer: while it lasts nobody acquires, renews or releases anything in
/// the file, its own session included. A session of the shortest ttl (1 s) gives up a renewal
/// after ttl/6; this leaves it time for another try.
pub const GUARDED_TRANSACTION_MAX: Duration = Duration::from_millis(100);

const READ: &str = "SELECT clock, written, record, nonce, ttl, not_before FROM tenure_leases \
                    WHERE namespace = ?1 AND name = ?2";
/// Changes nothing, but takes the file's write lock, or fails if the transaction has read an
/// older state than the newest.
const TAKE_TURN: &str = "UPDATE tenure_store SET only = only WHERE only = 0";

/// Lets a transaction on the lease's own file go on only while a grant is in force.
///
/// The check takes the file's write lock, so a take-over waits until the transaction has ended:
/// what it commits, it commits under the lease. Keep it shorter than [`GUARDED_TRANSACTION_MAX`];
/// other holds aren't renewed meanwhile.
///
/// Give the connection a busy timeout, and begin with `TransactionBehavior::Immediate`.
#[derive(Clone)]
pub struct Guard {
    shared: Arc<Shared>,
}

impl Guard {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Fails unless `name` is granted with exactly `token`, unexpired and not revoked.
    ///
    /// # Errors
    /// [`GuardError::NotInForce`]: roll back; another may act already.
    /// [`GuardError::Failed`]: it couldn't be told; roll back, too. `Misconfigured` if the
    /// transaction isn't on the file that this session's leases are in.
    pub fn check(
        &self,
        transaction: &Transaction<'_>,
        name: &Name,
        token: FencingToken,
    ) -> Result<(), GuardError> {
        let failed = |error: Error| {
            let error = error.with_name(name).with_store(Arc::clone(&self.shared.location));
            GuardError::Failed(error)
        };
        let verdict = self.verdict(transaction, name, token).map_err(|fault| {
            failed(match fault {
                Fault::Sqlite(error) => from_sqlite(error, Operation::Guard, Phase::BeforeCommit),
                Fault::Told(error) => error.during(Operation::Guard),
                Fault::Unmarked => Error::new(
                    ErrorKind::Misconfigured,
                    Operation::Guard,
                    "the transaction is on another file than the leases; begin it on this one",
                ),
            })
        })?;
        verdict.map_err(|why| GuardError::not_in_force(token, why))
    }

    fn verdict(
        &self,
        transaction: &Transaction<'_>,
        name: &Name,
        token: FencingToken,
    ) -> Result<Result<(), String>, Fault> {
        let turn = transaction.prepare_cached(TAKE_TURN);
        turn.map_err(
            |error| if is_missing_table(&error) { Fault::Unmarked } else { error.into() },
        )?
        .execute([])?;
        let about = StoreRow::read(transaction)?.ok_or(Fault::Unmarked)?;
        if self.shared.store() != Some(about.store) {
            return Err(Fault::Unmarked);
        }
        let row = transaction
            .prepare_cached(READ)?
            .query_row(
                params![self.shared.namespace.as_str().as_bytes(), name.as_str().as_bytes()],
                |row| {
                    let stored = Stored::parse(row.get_ref(2)?.as_blob()?);
                    let beat = Beat::read(row, 3)?;
                    let stored = stored.map(|stored| beat.complete(stored));
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, stored))
                },
            )
            .optional()?;
        let Some((clock, written, stored)) = row else {
            return Ok(Err(format!("`{name}` was never granted")));
        };
        let Stored { record, .. } = stored?;
        let written = Instant::from_nanos(written.cast_unsigned());
        let age = (clock == self.shared.clock_identity)
            .then(|| self.shared.clock.now().elapsed.since(written));
        Ok(decide::in_force(&record, token, age))
    }
}

/// The highest token that each resource has seen, in any SQLite database.
///
/// For a resource that isn't in the lease's own file: it lets nobody through whose token is
/// older than one it has let through before.
#[derive(Clone, Copy, Debug, Default)]
pub struct HighWater;

impl HighWater {
    /// The table that it needs, as an operator would create it.
    pub const SCHEMA: &'static str = "CREATE TABLE IF NOT EXISTS tenure_high_water (\n    \
         resource BLOB PRIMARY KEY,\n    token INTEGER NOT NULL\n) STRICT;\n";

    /// Creates its table, if that isn't there.
    ///
    /// # Errors
    /// What SQLite says, as an [`Error`] of its kind.
    pub fn create(connection: &rusqlite::Connection) -> Result<Self, Error> {
        connection
            .execute_batch(Self::SCHEMA)
            .map_err(|error| from_sqlite(error, Operation::Guard, Phase::BeforeCommit))?;
        Ok(Self)
    }

    /// Lets a token through that is at least as new as all before it, and remembers it when the
    /// transaction commits.
    ///
    /// # Errors
    /// [`GuardError::Stale`]: a newer token was here already; roll back.
    /// [`GuardError::Failed`]: it couldn't be told; roll back, too.
    pub fn admit(
        &self,
        transaction: &Transaction<'_>,
        resource: &str,
        token: FencingToken,
    ) -> Result<(), GuardError> {
        let failed =
            |error| GuardError::Failed(from_sqlite(error, Operation::Guard, Phase::BeforeCommit));
        let newest = raise(transaction, resource.as_bytes(), token).map_err(failed)?;
        admit(Some(newest), token)
    }
}

/// Raises a resource's token, if `token` is higher, and says which is the highest then.
fn raise(
    transaction: &Transaction<'_>,
    resource: &[u8],
    token: FencingToken,
) -> rusqlite::Result<FencingToken> {
    let number = token.get().cast_signed();
    // Inserted first, so that the transaction is the writer before it reads.
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO tenure_high_water (resource, token) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute(params![resource, number])?;
    if inserted > 0 {
        return Ok(token);
    }
    let seen: i64 = transaction
        .prepare_cached("SELECT token FROM tenure_high_water WHERE resource = ?1")?
        .query_row([resource], |row| row.get(0))?;
    // Compared here and not in SQL, where a token beyond 2^63 would look negative.
    let seen = FencingToken::new(seen.cast_unsigned()).unwrap_or(FencingToken::FIRST);
    if token > seen {
        transaction
            .prepare_cached("UPDATE tenure_high_water SET token = ?2 WHERE resource = ?1")?
            .execute(params![resource, number])?;
    }
    Ok(token.max(seen))
}
