//! The lease over a record store: written once, for every store without a clock.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use crate::chance::Chance;
use crate::error::{Error, ErrorKind, Operation};
use crate::exchange::{
    Ask, Known, Reply, Step, acquire, listed_as, look, order, release, renew, same_store,
    store_bytes, store_id,
};
use crate::identity::{Name, StoreId};
use crate::record::Record;
use crate::record_store::{Expected, RecordStore, STORE_KEY, TOKENS_KEY, Written, store_key};
use crate::store::{
    Acquired, Answer, Claim, Expiry, Hints, Hold, OrderRequest, Ordered, Page, Prefix, Profile,
    Query, Release, Released, Renewed, Snapshot, Store, Version,
};
use crate::turnstile::Turnstile;

/// How many exchanges of one batch are under way at once.
const CONCURRENCY_MAX: usize = 32;

/// The lease over a record store: one implementation for all of them.
///
/// Contenders watch a record for a ttl instead of asking a clock; tombstones are never deleted;
/// tokens come from one counter beside the records, drawn before the swap.
pub struct RecordLeases<R> {
    records: R,
    state: Mutex<State>,
    /// Tokens are drawn one after the other: of two draws at once one is the other's conflict.
    draws: Turnstile,
}

struct State {
    chance: Chance,
    /// The id that this session believes in.
    store: StoreId,
    /// What we wrote last of what we hold, so that a renewal is one request.
    written: HashMap<Name, Known>,
}

impl<R: RecordStore> RecordLeases<R> {
    /// Opens the leases in `records`, giving the store an id if it has none.
    ///
    /// # Errors
    /// - [`Unavailable`](ErrorKind::Unavailable): the store couldn't be read or written.
    /// - [`Corrupt`](ErrorKind::Corrupt): its id can't be read.
    pub async fn open(records: R, mut chance: Chance) -> Result<Self, Error> {
        debug_assert_eq!(records.profile().expiry, Expiry::Observed, "records have no clock");
        let store = establish(&records, &mut chance).await?;
        let state = State { chance, store, written: HashMap::new() };
        Ok(Self { records, state: Mutex::new(state), draws: Turnstile::default() })
    }

    /// The records underneath.
    pub fn records(&self) -> &R {
        &self.records
    }

    /// The id of the store that this session believes in.
    pub fn store_id(&self) -> StoreId {
        self.state().store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, name: &Name) -> Option<Known> {
        self.state().written.get(name).cloned()
    }

    fn remember(&self, name: &Name, version: &Version, record: Option<Record>) {
        let mut state = self.state();
        match record {
            Some(record) => {
                let known = Known { version: version.clone(), record };
                state.written.insert(name.clone(), known);
            }
            None => {
                state.written.remove(name);
            }
        }
    }

    /// Runs an exchange to its end, request by request.
    async fn run<T>(&self, mut step: impl FnMut(Option<Reply>) -> Step<T>) -> T {
        let mut reply = None;
        let mut turn = None;
        loop {
            let step = step(reply.take());
            if !draws(&step) {
                turn = None;
            } else if turn.is_none() {
                let mine = self.draws.queue();
                mine.comes().await;
                turn = Some(mine);
            }
            match step {
                Step::Done(outcome) => return outcome,
                Step::Ask(Ask::Read(keys)) => {
                    reply = Some(match self.records.read(&keys).await {
                        Ok(stored) => Reply::Read(stored),
                        Err(error) => Reply::Failed(error),
                    });
                }
                Step::Ask(Ask::Write { key, bytes, expected }) => {
                    let expected = expected.as_ref().map_or(Expected::Absent, Expected::Version);
                    reply = Some(match self.records.write_if(&key, &bytes, expected).await {
                        Ok(Written::Written(version)) => Reply::Written(version),
                        Ok(Written::Conflict) => Reply::Conflict,
                        Err(error) => Reply::Failed(error),
                    });
                }
            }
        }
    }

    /// After a reset was met: believes in the id that the store has now, or gives it one, so that
    /// life goes on. The error is still the caller's answer.
    async fn settle(&self, error: &Error) {
        if error.kind() != ErrorKind::StoreReset {
            return;
        }
        let mut chance = {
            let mut state = self.state();
            Chance::seeded(state.chance.next_u64())
        };
        if let Ok(store) = establish(&self.records, &mut chance).await {
            let mut state = self.state();
            state.store = store;
            state.written.clear();
        }
    }

    async fn acquire_one(&self, claim: &Claim) -> Acquired {
        let store = self.state().store;
        let mut exchange = acquire::Exchange::new(store, claim.clone());
        let acquired = self.run(|reply| exchange.next(reply)).await;
        if let (Acquired::Granted(grant), Some(record)) = (&acquired, exchange.written()) {
            self.remember(&claim.name, &grant.version, Some(record));
        }
        if let Acquired::Failed(error) = &acquired {
            self.settle(error).await;
        }
        acquired
    }

    async fn renew_one(&self, hold: &Hold) -> Renewed {
        let known = self.known(&hold.name).filter(|known| known.version == hold.version);
        let store = self.state().store;
        let mut exchange = renew::Exchange::new(store, hold.clone(), known);
        let renewed = self.run(|reply| exchange.next(reply)).await;
        match &renewed {
            Renewed::Renewed(version) | Renewed::Asked(version, _) => {
                self.remember(&hold.name, version, exchange.written());
            }
            Renewed::NotHeld(_) => self.remember(&hold.name, &hold.version, None),
            Renewed::Failed(error) => self.settle(error).await,
        }
        renewed
    }

    async fn release_one(&self, request: &Release) -> Released {
        let known = self.known(&request.name).filter(|known| known.version == request.version);
        let store = self.state().store;
        let mut exchange = release::Exchange::new(store, request.clone(), known);
        let released = self.run(|reply| exchange.next(reply)).await;
        match &released {
            Released::Failed(error) => self.settle(error).await,
            Released::Released(_) | Released::NotHeld(_) => {
                self.remember(&request.name, &request.version, None);
            }
        }
        released
    }

    /// Runs one exchange an item, [`CONCURRENCY_MAX`] at once. None fails for another's sake.
    async fn each<'a, I, T, F>(
        &'a self,
        items: &'a [I],
        mut one: impl FnMut(&'a I) -> F,
    ) -> Result<Vec<T>, Error>
    where
        F: Future<Output = T>,
    {
        let mut answers = Vec::with_capacity(items.len());
        for chunk in items.chunks(CONCURRENCY_MAX) {
            answers.extend(join(chunk.iter().map(&mut one)).await);
        }
        Ok(answers)
    }
}

impl<R: RecordStore> Store for RecordLeases<R> {
    fn profile(&self) -> &Profile {
        self.records.profile()
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        Box::pin(self.each(claims, |claim| self.acquire_one(claim)))
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        Box::pin(self.each(holds, |hold| self.renew_one(hold)))
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        Box::pin(self.each(releases, |release| self.release_one(release)))
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        Box::pin(async move {
            let store = self.state().store;
            let mut exchange = look::Exchange::new(store, names.to_vec());
            let looked = self.run(|reply| exchange.next(reply)).await;
            if let Err(error) = &looked {
                self.settle(error).await;
            }
            looked
        })
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        Box::pin(async move {
            let mine = self.records.read(&[store_key()]).await?.pop().flatten();
            let store = self.state().store;
            if let Err(error) = same_store(store, mine) {
                self.settle(&error).await;
                return Err(error.during(Operation::List));
            }
            // Reserved records are tenure's own; a page of nothing but them still goes on.
            let listed = self.records.list(&query.prefix, after, query.limit).await?;
            let next = (listed.len() == query.limit)
                .then(|| listed.last().map(|(name, _)| name.clone()))
                .flatten();
            let snapshots = listed
                .into_iter()
                .filter(|(name, _)| name.as_str() != STORE_KEY && name.as_str() != TOKENS_KEY)
                .map(|(_, stored)| listed_as(store, stored))
                .collect::<Result<_, _>>()?;
            Ok(Page { snapshots, next })
        })
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        Box::pin(async move {
            let store = self.state().store;
            let mut exchange = order::Exchange::new(store, name.clone(), request.clone());
            let ordered = self.run(|reply| exchange.next(reply)).await;
            if let Ordered::Failed(error) = &ordered {
                self.settle(error).await;
            }
            Ok(ordered)
        })
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        self.records.watch(prefix)
    }
}

/// Whether a step is one of drawing a token.
fn draws<T>(step: &Step<T>) -> bool {
    match step {
        Step::Ask(Ask::Read(keys)) => matches!(&keys[..], [key] if key.as_str() == TOKENS_KEY),
        Step::Ask(Ask::Write { key, .. }) => key.as_str() == TOKENS_KEY,
        Step::Done(_) => false,
    }
}

/// Reads the store's id, or writes a drawn one where there is none.
async fn establish<R: RecordStore>(records: &R, chance: &mut Chance) -> Result<StoreId, Error> {
    let keys = [store_key()];
    let drawn = StoreId::draw(chance);
    let fresh = store_bytes(drawn);
    let read = || async {
        let stored = records.read(&keys).await?.pop().flatten();
        stored.map(|stored| store_id(&stored)).transpose()
    };
    if let Some(found) = read().await? {
        return Ok(found);
    }
    // Somebody may be faster, and our own answer may be lost: what is read back counts.
    let written = records.write_if(&keys[0], &fresh, Expected::Absent).await;
    read().await?.ok_or_else(|| {
        // Why it could not be written says more.
        written.err().map_or_else(
            || {
                let message = "the store's id could not be written; try again";
                Error::new(ErrorKind::Unavailable, Operation::Open, message)
            },
            |error| error.during(Operation::Open),
        )
    })
}

/// Waits for all of a bounded number of futures, in order.
pub(crate) async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut outputs: Vec<_> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
