//! Requests to one store: each compares which store it is, so that none meets another unawares.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::identity::{Name, StoreId};
use tenure_core::{Error, ErrorKind, Operation};

use crate::all::{Job, all};
use crate::client::Client;
use crate::entry::Entry;
use crate::errors::{Effect, Failure, garbled};
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::wire::{
    Compare, KeyValue, PutRequest, RangeRequest, RangeResponse, Request, RequestOp, Response,
    ResponseHeader, TxnRequest, TxnResponse, path,
};

/// How many requests one Txn carries: `--max-txn-ops` is 128 unless set, and counts what is
/// nested within as well.
pub(crate) const TXN_OPS: usize = 100;

/// No leader's term.
pub(crate) const NO_TERM: u64 = 0;

/// The way to one store.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) location: Arc<str>,
    pub(crate) history: Duration,
    pub(crate) ledger: Ledger,
    believed: Mutex<Belief>,
    /// The highest revision that was seen of that store.
    highest: AtomicI64,
    /// Held while leases are granted, and while a reset is looked into.
    pub(crate) granting: tokio::sync::Mutex<()>,
    resetting: tokio::sync::Mutex<()>,
    chance: Mutex<Chance>,
}

/// The store that a session believes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Belief {
    pub(crate) store: StoreId,
    /// Tokens are the revisions that create their keys, and this much higher.
    pub(crate) floor: u64,
    /// The revision that wrote the floor; 0: none was ever needed.
    pub(crate) floor_revision: i64,
}

/// When and where an answer was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) revision: i64,
    /// The term of whoever leads the cluster. It is the same in two answers only if nobody else
    /// led when either was given.
    pub(crate) term: u64,
}

/// Why a write wasn't done.
pub(crate) enum Unwritten {
    /// The floor was raised meanwhile.
    FloorMoved,
    /// Everything else.
    Failed(Failure),
}

impl From<Error> for Unwritten {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Link {
    pub(crate) fn new(
        client: Client,
        keys: Keys,
        location: Arc<str>,
        history: Duration,
        belief: Belief,
        seen: Seen,
        chance: Chance,
    ) -> Self {
        let ledger = Ledger::default();
        ledger.led(seen.term);
        Self {
            client,
            keys,
            location,
            history,
            ledger,
            believed: Mutex::new(belief),
            highest: AtomicI64::new(seen.revision),
            granting: tokio::sync::Mutex::default(),
            resetting: tokio::sync::Mutex::default(),
            chance: Mutex::new(chance),
        }
    }

    /// The store that this session believes in.
    pub(crate) fn belief(&self) -> Belief {
        *self.believed()
    }

    fn believed(&self) -> MutexGuard<'_, Belief> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest revision that was seen.
    pub(crate) fn highest(&self) -> i64 {
        self.highest.load(Ordering::SeqCst)
    }

    /// Reads ranges, all at once, and beside them which store it is.
    ///
    /// Each is a request of its own, although one Txn could carry them: servers before 3.5.5
    /// panic when whoever sent a Txn that only reads gives up waiting (etcd issue 14110).
    ///
    /// # Errors
    /// `StoreReset`, once, when another store answers.
    pub(crate) async fn look(
        &self,
        operation: Operation,
        ranges: Vec<RangeRequest>,
    ) -> Result<Vec<(RangeResponse, Seen)>, Error> {
        let (belief, before) = (self.belief(), self.highest());
        let mut jobs: Vec<Job<'_, _>> = Vec::new();
        for range in std::iter::once(RangeRequest::one(self.keys.store())).chain(ranges) {
            jobs.push(Box::pin(self.range(range, operation)));
        }
        let mut answers = all(jobs).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let oldest = answers.iter().map(|(_, seen)| *seen).min_by_key(|seen| seen.revision);
        let (store, _) = answers.remove(0);
        if let Some(oldest) = oldest {
            self.compare(belief, one(store), before, oldest, operation).await?;
        }
        Ok(answers)
    }

    async fn range(
        &self,
        range: RangeRequest,
        operation: Operation,
    ) -> Result<(RangeResponse, Seen), Error> {
        let answer: RangeResponse =
            self.client.ask(path::RANGE, &range, Effect::Reads, operation).await?;
        let seen = seen(answer.header, operation, Effect::Reads)?;
        self.ledger.led(seen.term);
        Ok((answer, seen))
    }

    /// Reads the floor anew.
    async fn read_floor(&self, operation: Operation) -> Result<(u64, i64), Error> {
        let (answer, _) = self.range(RangeRequest::one(self.keys.floor()), operation).await?;
        Ok(read_floor(one(answer).as_ref()))
    }

    /// Reads everything of each name.
    pub(crate) async fn entries(
        &self,
        operation: Operation,
        names: &[Name],
    ) -> Result<Vec<(Result<Entry, Error>, Seen)>, Error> {
        let ours = names.iter().map(|name| self.keys.all_of(name).into());
        let theirs = names.iter().filter_map(|name| self.keys.entry(name)).map(RangeRequest::one);
        let mut answers = self.look(operation, ours.chain(theirs).collect()).await?;
        let mut theirs = answers.split_off(names.len());
        if !theirs.is_empty() {
            self.read_at_once(operation, names, &mut answers, &mut theirs).await?;
        }
        for ((answer, seen), (theirs, theirs_seen)) in answers.iter_mut().zip(theirs) {
            answer.kvs.extend(theirs.kvs);
            // What two leaders have said proves nothing.
            if theirs_seen.term != seen.term {
                seen.term = NO_TERM;
            }
        }
        Ok(names
            .iter()
            .zip(answers)
            .map(|(name, (answer, seen))| (Entry::read(name, &self.keys, &answer.kvs), seen))
            .collect())
    }

    /// Reads anew, as of one revision, what was written between the look at a name's own keys and
    /// the look at its neighbour's: else a grant that came just then would look like a
    /// neighbour's, or as if its entry had been taken away.
    async fn read_at_once(
        &self,
        operation: Operation,
        names: &[Name],
        ours: &mut [(RangeResponse, Seen)],
        theirs: &mut [(RangeResponse, Seen)],
    ) -> Result<(), Error> {
        let is_torn = |at: &usize| {
            let later = |(range, _): &(RangeResponse, Seen), than: Seen| {
                range.kvs.iter().any(|key| key.mod_revision > than.revision)
            };
            later(&ours[*at], theirs[*at].1) || later(&theirs[*at], ours[*at].1)
        };
        let torn: Vec<usize> = (0..names.len()).filter(is_torn).collect();
        if torn.is_empty() {
            return Ok(());
        }
        let anew = torn.iter().filter_map(|at| {
            let (name, revision) = (&names[*at], ours[*at].1.revision.max(theirs[*at].1.revision));
            let range = if ours[*at].1.revision < revision {
                self.keys.all_of(name).into()
            } else {
                RangeRequest::one(self.keys.entry(name)?)
            };
            Some(RangeRequest { revision, ..range })
        });
        let answers = self.look(operation, anew.collect()).await?;
        for (at, (answer, mut seen)) in torn.into_iter().zip(answers) {
            seen.revision = ours[at].1.revision.max(theirs[at].1.revision);
            let older = if ours[at].1.revision < seen.revision { &mut *ours } else { &mut *theirs };
            older[at] = (answer, seen);
        }
        Ok(())
    }

    /// Carries out Txns of independent keys, each by its own comparisons, all in one request:
    /// at most [`TXN_OPS`].
    ///
    /// `floor`: the floor is compared, too, since tokens are made with it.
    pub(crate) async fn write(
        &self,
        operation: Operation,
        txns: Vec<TxnRequest>,
        belief: Belief,
        floor: bool,
    ) -> Result<(Vec<TxnResponse>, Seen), Unwritten> {
        let wanted = txns.len();
        let mut compare = vec![Compare::says(self.keys.store(), belief.store.to_string().into())];
        if floor {
            compare.push(Compare::written(self.keys.floor(), belief.floor_revision));
        }
        let question = TxnRequest {
            compare,
            success: txns.into_iter().map(|txn| Request::Txn(txn).into()).collect(),
            failure: vec![range(RangeRequest::one(self.keys.store()))],
        };
        let before = self.highest();
        let answer: TxnResponse =
            self.txn(&question, Effect::Writes, operation).await.map_err(Unwritten::Failed)?;
        let seen = seen(answer.header, operation, Effect::Writes)?;
        self.ledger.led(seen.term);
        if !answer.succeeded {
            let store = answer.responses.into_iter().find_map(ranged).and_then(one);
            self.compare(belief, store, before, seen, operation).await?;
            let floor = self.read_floor(operation).await?;
            let mut believed = self.believed();
            if believed.store == belief.store {
                // It never sinks, even if somebody deleted it.
                believed.floor = believed.floor.max(floor.0);
                believed.floor_revision = floor.1;
            }
            return Err(Unwritten::FloorMoved);
        }
        if seen.revision < before {
            // What was just done stands in another history; a look says which.
            self.look(operation, Vec::new()).await?;
        }
        self.highest.fetch_max(seen.revision, Ordering::SeqCst);
        let answers: Vec<_> = answer.responses.into_iter().filter_map(nested).collect();
        if answers.len() == wanted {
            Ok((answers, seen))
        } else {
            Err(garbled(operation, Effect::Writes).into())
        }
    }

    async fn txn(
        &self,
        question: &TxnRequest,
        effect: Effect,
        operation: Operation,
    ) -> Result<TxnResponse, Failure> {
        self.client.ask(path::TXN, question, effect, operation).await
    }

    /// Compares what an answer says of the store with what was believed when it was asked.
    async fn compare(
        &self,
        belief: Belief,
        store: Option<KeyValue>,
        before: i64,
        seen: Seen,
        operation: Operation,
    ) -> Result<(), Error> {
        let id = store.as_ref().and_then(|key| std::str::from_utf8(&key.value).ok());
        let id = id.and_then(|id| id.parse::<StoreId>().ok());
        if id == Some(belief.store) && seen.revision >= before {
            self.highest.fetch_max(seen.revision, Ordering::SeqCst);
            return Ok(());
        }
        let _one_at_a_time = self.resetting.lock().await;
        if self.belief().store == belief.store {
            let floor = self.read_floor(operation).await?;
            let (store, floor) = match id {
                // Somebody else was told of the reset before, and has given it another id.
                Some(other) if other != belief.store => (other, floor),
                same => {
                    let found = same.map_or(0, |_| store.map_or(0, |key| key.mod_revision));
                    self.mark_anew(belief, found, floor, seen, operation).await?
                }
            };
            self.ledger.clear();
            self.highest.store(seen.revision, Ordering::SeqCst);
            *self.believed() = Belief { store, floor: floor.0, floor_revision: floor.1 };
        }
        let message = if id == Some(belief.store) {
            format!(
                "etcd's revision went back from {before} to {}: a backup was restored, and what \
                 was held is lost; claim it anew",
                seen.revision
            )
        } else {
            format!(
                "the store's id changed from {} to {}: what was held is lost; claim it anew",
                belief.store,
                self.belief().store
            )
        };
        let error = Error::new(ErrorKind::StoreReset, operation, message);
        Err(error.with_store(Arc::clone(&self.location)))
    }

    /// Gives a store that has forgotten another id, and a floor that keeps its tokens above all
    /// that were seen.
    async fn mark_anew(
        &self,
        before: Belief,
        found: i64,
        (floor, floor_revision): (u64, i64),
        seen: Seen,
        operation: Operation,
    ) -> Result<(StoreId, (u64, i64)), Error> {
        let fresh = self.draw();
        let highest = before.floor.saturating_add(self.highest().unsigned_abs());
        let floor = floor.max(highest.saturating_sub(seen.revision.unsigned_abs()));
        let success = [put(self.keys.store(), fresh.to_string().into(), 0)]
            .into_iter()
            .chain((floor > 0).then(|| put(self.keys.floor(), floor.to_string().into(), 0)));
        let question = TxnRequest {
            compare: vec![
                Compare::written(self.keys.store(), found),
                Compare::written(self.keys.floor(), floor_revision),
            ],
            success: success.collect(),
            failure: Vec::new(),
        };
        let answer = self.txn(&question, Effect::Writes, operation).await?;
        let revision = crate::link::seen(answer.header, operation, Effect::Writes)?.revision;
        if !answer.succeeded {
            return Err(Error::new(
                ErrorKind::Unavailable,
                operation,
                "the store was reset, and somebody else is looking into it; try again",
            ));
        }
        Ok((fresh, (floor, if floor > 0 { revision } else { 0 })))
    }

    /// Raises the floor, so that the next token is above `above`.
    pub(crate) async fn raise_floor(
        &self,
        above: u64,
        belief: Belief,
        operation: Operation,
    ) -> Result<(), Error> {
        let floor = above.saturating_sub(self.highest().unsigned_abs());
        let question = TxnRequest {
            compare: vec![
                Compare::says(self.keys.store(), belief.store.to_string().into()),
                Compare::written(self.keys.floor(), belief.floor_revision),
            ],
            success: vec![put(self.keys.floor(), floor.to_string().into(), 0)],
            failure: Vec::new(),
        };
        self.txn(&question, Effect::Writes, operation).await?;
        // Whether by us or by another: it is what is read now.
        let (floor, floor_revision) = self.read_floor(operation).await?;
        let mut believed = self.believed();
        if believed.store == belief.store && believed.floor < floor {
            (believed.floor, believed.floor_revision) = (floor, floor_revision);
        }
        Ok(())
    }

    fn draw(&self) -> StoreId {
        StoreId::draw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A put of a value, on a lease or (0) on none.
pub(crate) fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> RequestOp {
    Request::Put(PutRequest { key, value, lease, ..PutRequest::default() }).into()
}

/// The deletion of one key, if it is there.
pub(crate) fn delete(key: Vec<u8>) -> RequestOp {
    Request::Delete(crate::wire::DeleteRangeRequest { key }).into()
}

/// A range as a part of a Txn.
pub(crate) fn range(range: impl Into<RangeRequest>) -> RequestOp {
    Request::Range(range.into()).into()
}

/// The keys that the ranges in a Txn found.
pub(crate) fn found(answer: TxnResponse) -> Vec<KeyValue> {
    answer.responses.into_iter().filter_map(ranged).flat_map(|range| range.kvs).collect()
}

/// What a part of a Txn answered that asked for a range.
pub(crate) fn ranged(answer: crate::wire::ResponseOp) -> Option<RangeResponse> {
    match answer.response {
        Some(Response::Range(range)) => Some(range),
        _ => None,
    }
}

fn nested(answer: crate::wire::ResponseOp) -> Option<TxnResponse> {
    match answer.response {
        Some(Response::Txn(txn)) => Some(txn),
        _ => None,
    }
}

pub(crate) fn one(range: RangeResponse) -> Option<KeyValue> {
    range.kvs.into_iter().next()
}

/// The floor, and the revision that wrote it.
pub(crate) fn read_floor(key: Option<&KeyValue>) -> (u64, i64) {
    let read = |key: &KeyValue| {
        let floor = std::str::from_utf8(&key.value).ok()?.parse().ok()?;
        Some((floor, key.mod_revision))
    };
    key.and_then(read).unwrap_or_default()
}

pub(crate) fn seen(
    header: Option<ResponseHeader>,
    operation: Operation,
    effect: Effect,
) -> Result<Seen, Error> {
    let header = header.ok_or_else(|| garbled(operation, effect))?;
    Ok(Seen { revision: header.revision, term: header.raft_term })
}
