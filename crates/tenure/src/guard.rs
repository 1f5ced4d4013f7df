//! The checking side of a token, where the resource is.
//!
//! `check()` tells a holder that it may act; only a guard at the resource stops the effect of a
//! holder that was paused in between. A guard remembers the highest token it has seen, and lets
//! no older one through. Here is one for resources without a database, kept in a small file. For
//! a resource in the database of the leases themselves, [`Lease::guard`] guards a whole
//! transaction: lease and effect are then one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
#[cfg(feature = "postgres")]
use std::pin::Pin;

use tenure_core::error::{Error, ErrorKind, Operation};
pub use tenure_core::guard::GuardError;
use tenure_core::guard::admit;
use tenure_core::identity::FencingToken;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::connect::TransactionGuard;
use crate::lease::{Lease, Proof};
#[cfg(feature = "postgres-sqlx")]
use crate::postgres::PgTransaction;

/// The longest content of a high-water file: the digits of a `u64`, and a line's end.
const CONTENT_MAX: u64 = 32;

/// The highest token that a resource has seen, in a file.
///
/// The number is compared and replaced under an exclusive lock of a file beside it, and is on
/// the disk before a newer token is let through. All that guard one resource must use the same
/// path on one machine's local file system.
#[derive(Clone, Debug)]
pub struct HighWaterFile {
    path: PathBuf,
}

impl HighWaterFile {
    /// The guard of the resource that this path stands for. The file is made at the first token.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Lets `token` through if no newer one has been here, and remembers it.
    ///
    /// What it guards must happen *within* `effect`: the lock is held until that returns, so a
    /// newer holder's effect comes after it or not at all.
    ///
    /// # Errors
    /// [`GuardError::Stale`]: `effect` did not run. [`GuardError::Failed`]: the file can't be
    /// read, locked or written; `effect` did not run.
    pub fn guard<T>(
        &self,
        token: FencingToken,
        effect: impl FnOnce() -> T,
    ) -> Result<T, GuardError> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(&self.path, ".lock"))
            .map_err(|error| self.failed("its lock file can't be opened", error))?;
        lock.lock().map_err(|error| self.failed("its lock can't be taken", error))?;
        let newest = self.newest()?;
        admit(newest, token)?;
        if newest != Some(token) {
            self.write(token).map_err(|error| self.failed("it can't be written", error))?;
        }
        Ok(effect())
    }

    /// The highest token that has been here, if any has.
    ///
    /// # Errors
    /// [`GuardError::Failed`]: the file can't be read.
    pub fn newest(&self) -> Result<Option<FencingToken>, GuardError> {
        let mut text = String::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("it can't be opened", error)),
            Ok(file) => file
                .take(CONTENT_MAX)
                .read_to_string(&mut text)
                .map_err(|error| self.failed("it can't be read", error))?,
        };
        let token = text.trim_end().parse().ok().and_then(FencingToken::new);
        token.map(Some).ok_or_else(|| {
            let message = format!(
                "the high-water file {} doesn't hold a token; nothing was let through, and \
                 nothing was overwritten",
                self.path.display()
            );
            GuardError::Failed(Error::new(ErrorKind::Corrupt, Operation::Guard, message))
        })
    }

    /// Replaces the number as a whole: a crash leaves the old one or the new one.
    fn write(&self, token: FencingToken) -> io::Result<()> {
        let fresh = beside(&self.path, ".new");
        let mut file = File::create(&fresh)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn failed(&self, what: &str, source: io::Error) -> GuardError {
        let message = format!(
            "the high-water file {} guards nothing now: {what} ({source}); nothing was let through",
            self.path.display()
        );
        let error = Error::new(ErrorKind::Unavailable, Operation::Guard, message);
        GuardError::Failed(error.with_source(source))
    }
}

/// A user's own transaction on the store that the leases are in, which a
/// [`Lease::guard`](crate::Lease::guard) can check within.
///
/// SQLite's transactions are checked at once; those of PostgreSQL when the verdict is awaited.
/// It can't be implemented elsewhere.
pub trait GuardedTransaction: sealed::Checks {}

impl<T: sealed::Checks> GuardedTransaction for T {}

pub(crate) mod sealed {
    /// How a kind of transaction is checked.
    pub trait Checks {
        /// `Result<(), GuardError>`, or a future of it.
        type Verdict;

        /// Whether the grant of `proof` is in force.
        fn check(self, proof: &crate::Proof) -> Self::Verdict;
    }
}

/// The answer for a transaction of another store than the session's.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn another_store(kind: &str, proof: &Proof) -> GuardError {
    let message = format!(
        "this session's leases aren't in {kind}, so no transaction of one is guarded by them; use \
         a high-water guard"
    );
    let error = Error::new(ErrorKind::Misconfigured, Operation::Guard, message);
    GuardError::Failed(error.with_name(proof.name()))
}

#[cfg(feature = "sqlite")]
impl sealed::Checks for &crate::sqlite::rusqlite::Transaction<'_> {
    type Verdict = Result<(), GuardError>;

    fn check(self, proof: &Proof) -> Self::Verdict {
        match proof.transaction_guard() {
            TransactionGuard::Sqlite(guard) => guard.check(self, proof.name(), proof.token()),
            _ => Err(another_store("an SQLite file", proof)),
        }
    }
}

#[cfg(feature = "postgres")]
impl<'t> sealed::Checks for &'t crate::postgres::tokio_postgres::Transaction<'_> {
    type Verdict = Pin<Box<dyn Future<Output = Result<(), GuardError>> + Send + 't>>;

    fn check(self, proof: &Proof) -> Self::Verdict {
        let proof = proof.clone();
        Box::pin(async move {
            match proof.transaction_guard() {
                TransactionGuard::Postgres(guard) => {
                    guard.check(self, proof.name(), proof.token()).await
                }
                _ => Err(another_store("PostgreSQL", &proof)),
            }
        })
    }
}

#[cfg(feature = "postgres-sqlx")]
impl<'t> sealed::Checks for &'t mut PgTransaction<'_> {
    type Verdict = Pin<Box<dyn Future<Output = Result<(), GuardError>> + Send + 't>>;

    fn check(self, proof: &Proof) -> Self::Verdict {
        let proof = proof.clone();
        Box::pin(async move {
            match proof.transaction_guard() {
                TransactionGuard::Postgres(guard) => {
                    guard.check_sqlx(self, proof.name(), proof.token()).await
                }
                _ => Err(another_store("PostgreSQL", &proof)),
            }
        })
    }
}

impl Lease {
    /// As [`Proof::guard`].
    pub fn guard<T: GuardedTransaction>(&self, transaction: T) -> T::Verdict {
        self.proof().guard(transaction)
    }
}

impl Proof {
    /// Lets a transaction on the store that holds the leases go on only while this grant is in
    /// force. What it then commits, it commits under the lease: no clock, no pause and no late
    /// effect can come between. The next grant of the name waits until it has ended.
    ///
    /// - `lease.guard(&rusqlite_transaction)?` on SQLite. Begin it as an immediate one, and keep
    ///   it shorter than `sqlite::GUARDED_TRANSACTION_MAX`: it is the file's one writer, and
    ///   nothing is renewed meanwhile.
    /// - `lease.guard(&postgres_transaction).await?` on PostgreSQL, for as long as it takes:
    ///   renewals go on. See `postgres::Guard`.
    /// - `lease.guard(&mut sqlx_transaction).await?`, likewise, with the feature `postgres-sqlx`.
    ///
    /// # Errors
    /// The verdict is a [`GuardError`]: `NotInForce`: roll back, another may act already;
    /// `Failed`: it couldn't be told; roll back, too.
    ///
    /// # Cancel safety
    /// A verdict that was dropped let nothing through: roll back.
    pub fn guard<T: GuardedTransaction>(&self, transaction: T) -> T::Verdict {
        transaction.check(self)
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64) -> FencingToken {
        FencingToken::new(number).expect("it is not 0")
    }

    fn fresh(name: &str) -> HighWaterFile {
        let directory = std::env::temp_dir().join(format!("tenure-guard-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        HighWaterFile::new(directory.join(name))
    }

    #[test]
    fn guard_rejects_older_accepts_equal_and_newer_and_survives_restart() {
        let guard = fresh("basic");
        assert_eq!(guard.guard(token(5), || "first").unwrap(), "first");
        assert_eq!(guard.guard(token(5), || "again").unwrap(), "again");
        let again = HighWaterFile::new(guard.path.clone());
        let refused = again.guard(token(4), || panic!("a stale holder's effect ran"));
        assert!(matches!(refused, Err(GuardError::Stale { newest, .. }) if newest == token(5)));
        again.guard(token(9), || ()).unwrap();
        assert_eq!(guard.newest().unwrap(), Some(token(9)));
    }

    #[test]
    fn what_is_no_token_lets_nothing_through() {
        let guard = fresh("corrupt");
        std::fs::write(&guard.path, "soon\n").unwrap();
        let refused = guard.guard(token(1), || panic!("it ran"));
        assert!(matches!(refused, Err(GuardError::Failed(e)) if e.kind() == ErrorKind::Corrupt));
        assert_eq!(std::fs::read_to_string(&guard.path).unwrap(), "soon\n");
    }

    #[test]
    fn a_directory_that_is_missing_is_an_error_that_names_it() {
        let guard = HighWaterFile::new("/nonexistent/tenure/high-water");
        let error = guard.guard(token(1), || ()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/tenure"), "{error}");
    }

    #[test]
    fn of_many_at_once_the_newest_remains() {
        let guard = fresh("race");
        std::thread::scope(|scope| {
            for number in 1..=16 {
                let guard = &guard;
                scope.spawn(move || {
                    let _ = guard.guard(token(number), || ());
                });
            }
        });
        assert_eq!(guard.newest().unwrap(), Some(token(16)));
    }
}
