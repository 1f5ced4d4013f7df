//! The store itself: hands each request to one of two threads and tells what came of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tenure_core::batch;
use tenure_core::chance::Chance;
use tenure_core::clock::{self, Clock};
use tenure_core::identity::Name;
use tenure_core::store::{
    Acquired, Answer, Claim, Expiry, Hints, Hold, Level, OrderRequest, Ordered, Page, Prefix,
    Profile, Query, Release, Released, Renewed, Snapshot, Store, Wake,
};
use tenure_core::{Error, ErrorKind, Operation};

use crate::answer::Asked;
use crate::config::SqliteConfig;
use crate::errors::Fault;
use crate::guard::Guard;
use crate::ledger::Ledger;
use crate::link::Link;
use crate::place::Place;
use crate::shared::Shared;
use crate::watch::{Reader, Watching};
use crate::worker::{Job, Worker};

/// How often a waiter reads although no hint came, in case one was lost.
const POLL: Duration = Duration::from_secs(1);

/// Leases in an SQLite file, as one session sees them.
///
/// Two threads serve it, one that writes and one that reads, so that no read waits for the
/// file's write lock. A batch is one transaction. [`close`](Store::close) ends both threads;
/// dropping the store does so, too, without waiting for them.
pub struct SqliteStore {
    pub(crate) profile: Profile,
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Worker<Writer>,
    pub(crate) reader: Worker<Reader>,
}

/// The writing thread's job.
pub(crate) struct Writer {
    pub(crate) link: Link,
}

impl Job for Writer {}

impl SqliteStore {
    /// Opens the file, and creates it and tenure's tables in it if they aren't there.
    ///
    /// `clock` is this machine's interval clock, suspends included (CLOCK_BOOTTIME); all
    /// sessions of the file must pass the same one. `chance` draws the id of a new store, the
    /// name of this session's side file, and jitter.
    ///
    /// # Timing
    /// Milliseconds; at most the configuration's `busy` for each of a few steps.
    ///
    /// # Errors
    /// - `Invalid`: the configuration's values.
    /// - `Misconfigured`: no such directory, a directory or a device in place of the file, no
    ///   SQLite database, newer tables, another cluster's mark, an unsafe file system. The
    ///   message names it and the cure.
    /// - `Denied`: the file or its directory can't be written.
    /// - `Corrupt`: the file is damaged.
    /// - `Unavailable`: locked by others for too long, or the disk is full.
    pub async fn open(
        config: SqliteConfig,
        clock: Arc<dyn Clock>,
        mut chance: Chance,
    ) -> Result<Self, Error> {
        config.check()?;
        let path = std::path::absolute(&config.path)
            .map_err(|error| Error::invalid(format!("the path can't be used: {error}")))?;
        let location: Arc<str> = format!("sqlite:{}", path.display()).into();
        let located = |error: Error| error.with_store(Arc::clone(&location));
        let place = Place::look(&path).map_err(located)?;
        let identity = config.clock_identity.clone().or_else(clock::identity);
        // Where nothing tells one clock from another, none may be compared with ours.
        let identity = identity.unwrap_or_else(|| format!("{:032x}", chance.next_u128()));
        let shared =
            Arc::new(Shared::new(config, path, place, Arc::clone(&location), clock, identity));
        let other = Chance::seeded(chance.next_u64());
        let writer = Writer { link: Link::new(Arc::clone(&shared), chance) };
        let reader = Reader::new(Link::new(Arc::clone(&shared), other));
        let writer = Worker::start("tenure-sqlite-w", writer).map_err(located)?;
        let reader = Worker::start("tenure-sqlite-r", reader).map_err(located)?;
        let connect = |job: &mut Writer, _: &Asked<_>| job.link.connect(Operation::Open);
        writer.ask(Operation::Open, connect).await.map_err(located)?;
        Ok(Self { profile: profile(location), shared, writer, reader })
    }

    /// What checks a grant of this session inside a transaction of the user's own.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::new(Arc::clone(&self.shared))
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut Ledger<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Error> {
        let write = move |job: &mut Writer, asked: &Asked<_>| job.link.write(operation, asked, act);
        self.located(self.writer.ask(operation, write).await)
    }

    pub(crate) async fn look<T: Send + 'static>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut Ledger<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Error> {
        let read = move |job: &mut Reader, _: &Asked<_>| job.link.read(operation, act);
        self.located(self.reader.ask(operation, read).await)
    }

    pub(crate) fn located<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.map_err(|error| error.with_store(Arc::clone(&self.shared.location)))
    }
}

fn profile(location: Arc<str>) -> Profile {
    let mut profile = Profile::new("sqlite", location);
    profile.level = Level::FencedTx;
    profile.expiry = Expiry::StoreClock;
    profile.wake = Wake::Push(POLL);
    profile
}

impl Store for SqliteStore {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Acquire, claims.len())?;
            let owned = claims.to_vec();
            let write = move |job: &mut Writer, asked: &Asked<_>| job.acquire(&owned, asked);
            let outcome = self.located(self.writer.ask(Operation::Acquire, write).await);
            batch::each(outcome, claims.len(), Acquired::Failed)
        })
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Renew, holds.len())?;
            let owned = holds.to_vec();
            let outcome = self
                .write(Operation::Renew, move |ledger| {
                    owned.iter().map(|hold| ledger.renew(hold)).collect()
                })
                .await;
            batch::each(outcome, holds.len(), Renewed::Failed)
        })
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Release, releases.len())?;
            let owned = releases.to_vec();
            let outcome = self
                .write(Operation::Release, move |ledger| {
                    owned.iter().map(|release| ledger.release(release)).collect()
                })
                .await;
            batch::each(outcome, releases.len(), Released::Failed)
        })
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Read, names.len())?;
            let names = names.to_vec();
            self.look(Operation::Read, move |ledger| {
                names.iter().map(|name| Ok(ledger.read(name)??)).collect()
            })
            .await
        })
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        Box::pin(async move {
            let (query, after) = (query.clone(), after.cloned());
            self.look(Operation::List, move |ledger| ledger.list(&query, after.as_ref())).await
        })
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        Box::pin(async move {
            let (name, request) = (name.clone(), request.clone());
            let outcome =
                self.write(Operation::Order, move |ledger| ledger.order(&name, &request)).await;
            match outcome {
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                    Ok(Ordered::Failed(error))
                }
                other => other,
            }
        })
    }

    /// Hints come for every name of the file, not only for those under the prefix.
    fn watch<'a>(&'a self, _prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        Box::pin(async move {
            let shared = Arc::clone(&self.shared);
            let listener = shared.board.listen();
            let begin = |job: &mut Reader, _: &Asked<_>| job.begin_listening();
            self.located(self.reader.ask(Operation::Watch, begin).await)?;
            Ok(Some(Hints::new(Watching { listener, shared })))
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.writer.close(|job| job.link.shut()).await;
            self.reader.close(|job| job.link.shut()).await;
            self.shared.closed.store(true, Ordering::SeqCst);
            self.shared.board.changed();
            Ok(())
        })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The threads end by themselves; whoever still listens must hear of it.
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.board.changed();
    }
}

impl Writer {
    fn acquire(
        &mut self,
        claims: &[Claim],
        asked: &Asked<Result<Vec<Acquired>, Error>>,
    ) -> Result<Vec<Acquired>, Error> {
        // Most claims of contenders are refused: that takes no lock and writes nothing.
        let look = |ledger: &mut Ledger<'_>| {
            claims.iter().map(|claim| ledger.look(claim)).collect::<Result<Option<Vec<_>>, _>>()
        };
        let act = |ledger: &mut Ledger<'_>| {
            claims.iter().map(|claim| ledger.acquire(claim)).collect::<Result<Vec<_>, _>>()
        };
        let unsaid = !self.link.is_present() && claims.iter().any(|claim| claim.ends_with_process);
        let outcome = if unsaid {
            self.link.read(Operation::Acquire, look)?
        } else {
            self.link.read_then_write(Operation::Acquire, asked, look, act)?
        };
        if let Some(answers) = outcome {
            return Ok(answers);
        }
        if unsaid {
            self.link.be_present();
        }
        self.link.write(Operation::Acquire, asked, act)
    }
}
