//! The store itself: batches cut by bucket, sent in one go, and told item by item.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;
use tenure_core::batch;
use tenure_core::chance::Chance;
use tenure_core::decide;
use tenure_core::identity::{FencingToken, Name, Nonce};
use tenure_core::neighbour::{is_made_up, takes_no_orders};
use tenure_core::record::Record;
use tenure_core::store::{
    Acquired, Answer, Claim, Expiry, Grant, Hints, Hold, Level, OrderRequest, Ordered, Page,
    Prefix, Profile, Query, Release, Released, Renewed, Snapshot, Store, Wake,
};
use tenure_core::{Error, ErrorKind, Operation};

use crate::config::RedisConfig;
use crate::errors::unintelligible;
use crate::keys::BUCKETS;
use crate::layout::Layout;
use crate::list::Listing;
use crate::nature::Nature;
use crate::reply::{list, text};
use crate::rows::{self, Origin, Row, damaged, version};
use crate::script::{self, Call, Scripts};
use crate::session::{Calls, Session, Told};
use crate::watch::Watcher;

/// How often a waiter reads although no hint came, in case one was lost.
const POLL: Duration = Duration::from_secs(1);
/// How many items one script call carries: while it runs the server does nothing else, and this
/// many take it a few milliseconds.
const CALL_MAX: usize = 256;
/// How often an order is marked anew because the record changed under it.
const CONFLICTS_MAX: usize = 16;

/// Leases in Redis or Valkey, as one session sees them.
///
/// Connections are made when they are needed, on the tokio runtime of whoever asks. A batch is
/// cut by bucket and sent in one go to each server.
pub struct RedisStore {
    pub(crate) profile: Profile,
    pub(crate) session: Arc<Session>,
    watcher: Watcher,
}

/// A batch on its way: what it is, and how scripts are told of an item.
struct Batch<'a, I> {
    operation: Operation,
    scripts: Scripts,
    items: &'a [I],
    /// Names may come into the index, and gone ones go.
    changes_names: bool,
    name: fn(&I) -> &Name,
    tell: fn(&mut Call, &I),
}

/// Which items of a batch a call carries.
type Part = (usize, Vec<usize>);

impl RedisStore {
    /// Connects, and gives the store an id if it has none.
    ///
    /// `chance` draws that id. Call it on a tokio runtime with its I/O and time drivers.
    ///
    /// # Timing
    /// A few round trips; at most some seconds for each server that doesn't answer.
    ///
    /// # Errors
    /// - `Invalid`: the configuration's values.
    /// - `Misconfigured`: a server that is too old, another kind than the URL says, a newer
    ///   format, another cluster's mark. The message names the cure.
    /// - `Denied`: credentials, or a permission that tenure needs.
    /// - `Unavailable`: no server answers, or only a replica does.
    ///
    /// # Cancel safety
    /// Whatever was begun is done anew by the next opening.
    pub async fn open(config: RedisConfig, chance: Chance) -> Result<Self, Error> {
        config.check()?;
        let session = Arc::new(Session::new(config, chance));
        let located = |error: Error| error.with_store(Arc::clone(&session.location));
        session.route.check().await.map_err(located)?;
        let nature = Nature::ask(&session.route, Operation::Open).await.map_err(located)?;
        session.adopt(Operation::Open).await.map_err(located)?;
        session.try_layout(Operation::Open).await.map_err(located)?;
        let mut profile = Profile::new("redis", Arc::clone(&session.location));
        profile.level = nature.level();
        if session.config.layout.is_some() && profile.level > Level::Lease {
            profile.level = Level::Lease;
            profile.limited_by = Some(tenure_core::neighbour::LIMIT);
        }
        profile.expiry = Expiry::StoreClock;
        profile.wake = Wake::Push(POLL);
        Ok(Self { profile, watcher: Watcher::default(), session })
    }

    pub(crate) fn located(&self, error: Error) -> Error {
        error.with_store(Arc::clone(&self.session.location))
    }

    /// Carries a batch out. `understand` says what an item's answer means, `failed` what an item
    /// comes to whose part of the batch failed.
    async fn carry_out<I, T>(
        &self,
        request: Batch<'_, I>,
        understand: impl Fn(&I, Origin, &Value) -> Result<T, Error>,
        failed: impl Fn(Error) -> T,
    ) -> Result<Vec<T>, Error> {
        let Batch { operation, items, .. } = request;
        batch::check(&self.profile, operation, items.len())?;
        let (parts, calls) = self.cut(&request);
        let layout = self.session.config.layout.as_ref().map_or("", Layout::word);
        let outcomes = self.session.run(operation, calls).await;
        // `Err` means that nothing was done.
        let undone = |outcome: &Result<Told, Error>| {
            outcome.as_ref().is_err_and(|error| error.kind() != ErrorKind::OutcomeUnknown)
        };
        if let (true, Some(Err(error))) = (outcomes.iter().all(undone), outcomes.first()) {
            return Err(self.located(error.clone()));
        }
        let failed = |error: Error| failed(self.located(error.during(operation)));
        let mut answers: Vec<Option<T>> = items.iter().map(|_| None).collect();
        for ((_, part), outcome) in parts.iter().zip(outcomes) {
            let outcome = outcome.and_then(|told| {
                let whole = told.answers.len() == part.len();
                if whole { Ok(told) } else { Err(unintelligible(operation)) }
            });
            for (at, n) in part.iter().enumerate() {
                answers[*n] = Some(match &outcome {
                    Ok(told) => {
                        let origin = Origin { store: told.store, layout };
                        understand(&items[*n], origin, &told.answers[at]).unwrap_or_else(&failed)
                    }
                    Err(error) => failed(error.clone()),
                });
            }
        }
        let unsaid = || failed(unintelligible(operation));
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(unsaid)).collect())
    }

    /// Cuts a batch into calls: each of one bucket, none too long.
    fn cut<I>(&self, batch: &Batch<'_, I>) -> (Vec<Part>, Calls) {
        let Batch { items, name, tell, .. } = batch;
        let session = &self.session;
        // Those that are shared, and those that aren't, have scripts of their own.
        let mut buckets: [[Vec<usize>; 2]; BUCKETS] = Default::default();
        for (n, item) in items.iter().enumerate() {
            let shared = usize::from(session.entry(name(item)).is_some());
            buckets[session.keys.bucket(name(item))][shared].push(n);
        }
        let mut calls = session.calls();
        let mut parts = Vec::new();
        for (bucket, of_bucket) in buckets.iter().enumerate() {
            let [alone, shared] = of_bucket;
            for part in alone.chunks(CALL_MAX) {
                let call = self.call(batch, &mut calls, bucket, part, Vec::new());
                part.iter().for_each(|n| tell(call, &items[*n]));
                parts.push((bucket, part.to_vec()));
            }
            for part in shared.chunks(CALL_MAX) {
                let entries = part.iter().filter_map(|n| session.entry(name(&items[*n])));
                let call = self.call(batch, &mut calls, bucket, part, entries.collect());
                part.iter().for_each(|n| tell(call, &items[*n]));
                call.number(part.len());
                parts.push((bucket, part.to_vec()));
            }
        }
        (parts, calls)
    }

    /// A call with its keys: those of the items' leases, and the neighbour's behind all others.
    fn call<'c, I>(
        &self,
        batch: &Batch<'_, I>,
        calls: &'c mut Calls,
        bucket: usize,
        part: &[usize],
        entries: Vec<String>,
    ) -> &'c mut Call {
        let Batch { scripts, items, name, .. } = batch;
        let session = &self.session;
        let script = if entries.is_empty() { scripts.alone } else { scripts.shared };
        let leases = part.iter().map(|n| session.keys.lease(bucket, name(&items[*n])));
        if !batch.changes_names {
            return session.add(calls, script, bucket, leases.chain(entries));
        }
        let drawn = session.drawn(bucket);
        let swept = drawn.iter().map(|name| session.keys.lease(bucket, name));
        let index = std::iter::once(session.keys.names(bucket));
        let keys = index.chain(leases).chain(swept).chain(entries);
        let call = session.add(calls, script, bucket, keys);
        call.number(drawn.len());
        for name in &drawn {
            call.arg(name.as_str());
        }
        call
    }

    /// Reads leases, with what a swap compares.
    pub(crate) async fn rows(
        &self,
        operation: Operation,
        names: &[Name],
    ) -> Result<Vec<Option<Row>>, Error> {
        let batch = Batch {
            operation,
            scripts: script::read(),
            items: names,
            changes_names: false,
            name: |name| name,
            tell: |_, _| {},
        };
        let understand = |name: &Name, origin, answer: &Value| Ok(Row::read(answer, name, origin));
        let rows = self.carry_out(batch, understand, Err).await?;
        rows.into_iter()
            .map(|row| row.map_err(|error| self.located(error.during(operation))))
            .collect()
    }

    /// One try to put an order on a record. None: it changed meanwhile.
    async fn mark(&self, row: &Row, marked: &Record) -> Result<Option<Snapshot>, Error> {
        let session = &self.session;
        let name = &marked.name;
        let bucket = session.keys.bucket(name);
        let mut calls = session.calls();
        let (lease, entry) = (session.keys.lease(bucket, name), session.entry(name));
        let shared = entry.is_some();
        let script = if shared { script::swap().shared } else { script::swap().alone };
        let call = session.add(&mut calls, script, bucket, [lease].into_iter().chain(entry));
        rows::tell_marked(call, row, marked);
        if shared {
            call.number(1);
        }
        let told = session.run(Operation::Order, calls).await;
        let told = told.into_iter().next();
        let told = told.unwrap_or_else(|| Err(unintelligible(Operation::Order)))?;
        Ok(told.answers.first().and_then(text).map(|writes| Snapshot {
            record: marked.clone(),
            version: version(writes, marked.nonce),
            store: told.store,
            ..row.snapshot.clone()
        }))
    }

    async fn give_order(&self, name: &Name, request: &OrderRequest) -> Result<Ordered, Error> {
        let mut request = request.clone();
        for _ in 0..CONFLICTS_MAX {
            let row = match self.rows(Operation::Order, std::slice::from_ref(name)).await {
                Ok(rows) => rows.into_iter().next().flatten(),
                Err(error) if error.name().is_some() => return Ok(Ordered::Failed(error)),
                Err(error) => return Err(error),
            };
            let current = row.as_ref().map(|row| &row.snapshot);
            if let Some(theirs) = current.filter(|current| is_made_up(&current.record)) {
                return Ok(Ordered::Failed(self.located(takes_no_orders(&theirs.record))));
            }
            let (Some(marked), Some(row)) = (decide::ordered(current, &request), row.as_ref())
            else {
                return Ok(Ordered::NotHeld(row.map(|row| Box::new(row.snapshot))));
            };
            match self.mark(row, &marked).await {
                Ok(Some(snapshot)) => return Ok(Ordered::Ordered(Box::new(snapshot))),
                Ok(None) => request.nonce = request.nonce.next(),
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                    return Ok(Ordered::Failed(self.located(error)));
                }
                Err(error) => return Err(self.located(error)),
            }
        }
        let message =
            format!("others changed the record {CONFLICTS_MAX} times in a row; try again");
        Err(self.located(Error::new(ErrorKind::Unavailable, Operation::Order, message)))
    }
}

/// What a script says of an item: a word, and what belongs to it.
fn worded(answer: &Value) -> Option<(&str, &[Value])> {
    let (word, rest) = list(answer)?.split_first()?;
    Some((text(word)?, rest))
}

fn shown(rest: &[Value], name: &Name, origin: Origin) -> Result<Box<Snapshot>, Error> {
    let row = rest.first().map(|row| Row::read(row, name, origin)).transpose()?.flatten();
    row.map(|row| Box::new(row.snapshot)).ok_or_else(|| damaged(name))
}

fn acquired(claim: &Claim, origin: Origin, answer: &Value) -> Result<Acquired, Error> {
    match worded(answer) {
        Some(("granted", [token, writes, nonce])) => {
            let granted = (|| {
                let token = text(token)?.parse().ok().and_then(FencingToken::new)?;
                let nonce: Nonce = text(nonce)?.parse().ok()?;
                Some(Grant { token, version: version(text(writes)?, nonce), store: origin.store })
            })();
            granted.map(Acquired::Granted).ok_or_else(|| unintelligible(Operation::Acquire))
        }
        Some(("refused", rest)) => Ok(Acquired::Refused(shown(rest, &claim.name, origin)?)),
        Some(("spent", _)) => Err(Error::new(
            ErrorKind::Corrupt,
            Operation::Acquire,
            "the count of tokens has come to its end; somebody set it (see `tenure doctor`)",
        )
        .with_name(&claim.name)),
        _ => Err(unintelligible(Operation::Acquire)),
    }
}

fn renewed(hold: &Hold, origin: Origin, answer: &Value) -> Result<Renewed, Error> {
    let now = |writes: &Value| text(writes).map(|writes| version(writes, hold.nonce));
    match worded(answer) {
        Some(("absent", _)) => Ok(Renewed::NotHeld(None)),
        Some(("not_held", rest)) => Ok(Renewed::NotHeld(Some(shown(rest, &hold.name, origin)?))),
        Some(("renewed", [writes])) => {
            now(writes).map(Renewed::Renewed).ok_or_else(|| unintelligible(Operation::Renew))
        }
        Some(("asked", [writes, Value::BulkString(json)])) => {
            let version = now(writes).ok_or_else(|| unintelligible(Operation::Renew))?;
            let order = serde_json::from_slice(json).map_err(|_| damaged(&hold.name))?;
            Ok(Renewed::Asked(version, Box::new(order)))
        }
        _ => Err(unintelligible(Operation::Renew)),
    }
}

fn released(release: &Release, origin: Origin, answer: &Value) -> Result<Released, Error> {
    match worded(answer) {
        Some(("absent", _)) => Ok(Released::NotHeld(None)),
        Some(("not_held", rest)) => {
            Ok(Released::NotHeld(Some(shown(rest, &release.name, origin)?)))
        }
        Some(("released", [writes])) => text(writes)
            .map(|writes| Released::Released(version(writes, release.nonce)))
            .ok_or_else(|| unintelligible(Operation::Release)),
        _ => Err(unintelligible(Operation::Release)),
    }
}

impl Store for RedisStore {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        Box::pin(async move {
            if let Some(layout) = &self.session.config.layout {
                claims.iter().try_for_each(|claim| layout.admit(&claim.name))?;
            }
            let batch = Batch {
                operation: Operation::Acquire,
                scripts: script::acquire(),
                items: claims,
                changes_names: true,
                name: |claim| &claim.name,
                tell: rows::tell_claim,
            };
            self.carry_out(batch, acquired, Acquired::Failed).await
        })
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        Box::pin(async move {
            let batch = Batch {
                operation: Operation::Renew,
                scripts: script::renew(),
                items: holds,
                changes_names: false,
                name: |hold| &hold.name,
                tell: rows::tell_hold,
            };
            self.carry_out(batch, renewed, Renewed::Failed).await
        })
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        Box::pin(async move {
            let batch = Batch {
                operation: Operation::Release,
                scripts: script::release(),
                items: releases,
                changes_names: true,
                name: |release| &release.name,
                tell: rows::tell_release,
            };
            self.carry_out(batch, released, Released::Failed).await
        })
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        Box::pin(async move {
            let rows = self.rows(Operation::Read, names).await?;
            Ok(rows.into_iter().map(|row| row.map(|row| row.snapshot)).collect())
        })
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        Box::pin(async move {
            let mut listing = Listing::new(&self.session, query, after);
            loop {
                let names = listing.wanted().await.map_err(|error| self.located(error))?;
                let rows = self.rows(Operation::List, &names).await?;
                if let Some(page) = listing.take(names, rows) {
                    return Ok(page);
                }
            }
        })
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        Box::pin(self.give_order(name, request))
    }

    /// Hints come for every name of the namespace, not only for those under the prefix.
    fn watch<'a>(&'a self, _prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        Box::pin(async move {
            let watching = self.watcher.watch(&self.session).await;
            watching.map(|watching| Some(Hints::new(watching))).map_err(|error| self.located(error))
        })
    }

    fn clock_shown(&self) -> Option<Duration> {
        self.session.clock_shown()
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.end();
            self.session.route.close().await;
            Ok(())
        })
    }
}

impl RedisStore {
    /// Whoever still listens hears of it.
    fn end(&self) {
        self.session.closed.store(true, Ordering::SeqCst);
        self.watcher.end();
        self.session.board.changed();
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.end();
    }
}
