//! What the parts of one session share: calls under one belief, and what a reset changes of it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use redis::Value;
use tenure_core::chance::Chance;
use tenure_core::cluster;
use tenure_core::hint::HintBoard;
use tenure_core::identity::{Name, StoreId};
use tenure_core::{Error, ErrorKind, Operation};

use crate::belief::{Belief, Beliefs};
use crate::config::{Place, RedisConfig};
use crate::errors::{closed, unintelligible};
use crate::keys::{BUCKETS, Keys};
use crate::reply::{Said, list, text};
use crate::route::Route;
use crate::script::{Call, OPEN, Script, TRIAL, carry_out};

/// The format of the keys that this release writes.
const FORMAT: &str = "1";

/// What the parts of one session share.
pub(crate) struct Session {
    pub(crate) config: RedisConfig,
    pub(crate) keys: Keys,
    pub(crate) route: Route,
    pub(crate) board: HintBoard,
    pub(crate) closed: AtomicBool,
    pub(crate) location: Arc<str>,
    /// What the server's clock said first, in µs since 1970, and when by ours.
    heard: OnceLock<(i64, Instant)>,
    /// What it said last, as tests have turned it; 0 before it said anything.
    shown: AtomicI64,
    beliefs: Beliefs,
    /// One at a time finds out what a reset left.
    adopting: tokio::sync::Mutex<()>,
    chance: Mutex<Chance>,
    /// Names to look at with the next write to a bucket, whether their leases are gone.
    drawn: Mutex<[Vec<Name>; BUCKETS]>,
}

/// Calls that are made under one belief.
pub(crate) struct Calls {
    generation: u64,
    beliefs: [Option<Belief>; BUCKETS],
    calls: Vec<Call>,
}

/// What one call said.
pub(crate) struct Told {
    /// The store that it was carried out in.
    pub(crate) store: StoreId,
    pub(crate) answers: Vec<Value>,
}

impl Session {
    pub(crate) fn new(config: RedisConfig, chance: Chance) -> Self {
        Self {
            keys: Keys::new(&config.prefix, config.namespace.clone()),
            route: Route::new(config.place.clone()),
            board: HintBoard::default(),
            closed: AtomicBool::new(false),
            location: config.place.to_string().into(),
            heard: OnceLock::new(),
            shown: AtomicI64::new(0),
            beliefs: Beliefs::default(),
            adopting: tokio::sync::Mutex::default(),
            chance: Mutex::new(chance),
            drawn: Mutex::default(),
            config,
        }
    }

    /// No calls as yet.
    pub(crate) fn calls(&self) -> Calls {
        let (generation, beliefs) = self.beliefs.all();
        Calls { generation, beliefs, calls: Vec::new() }
    }

    /// The neighbour's key of a name, where it is shared.
    pub(crate) fn entry(&self, name: &Name) -> Option<String> {
        self.config.layout.as_ref()?.entry(name)
    }

    /// Tries what a layout takes the permission for.
    pub(crate) async fn try_layout(&self, operation: Operation) -> Result<(), Error> {
        let Some(layout) = &self.config.layout else { return Ok(()) };
        let call = Call::new(0, &TRIAL, &[layout.trial().to_owned()]);
        let replies = carry_out(&self.route, operation, &[call]).await;
        replies.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
    }

    /// One call more: the keys beside the store's own, and what all scripts are told first.
    pub(crate) fn add<'c>(
        &self,
        calls: &'c mut Calls,
        script: &'static Script,
        bucket: usize,
        keys: impl IntoIterator<Item = String>,
    ) -> &'c mut Call {
        let mut all = vec![self.keys.store(bucket)];
        all.extend(keys);
        let mut call = Call::new(bucket, script, &all);
        let belief = calls.beliefs[bucket];
        call.arg(belief.map(|belief| belief.id.to_string()).unwrap_or_default())
            .number(belief.map_or(0, |belief| belief.tokens))
            .number(self.config.offset())
            .arg(self.keys.channel());
        calls.calls.push(call);
        let last = calls.calls.len() - 1;
        &mut calls.calls[last]
    }

    /// Names that are to be looked at with a write to this bucket, once.
    pub(crate) fn drawn(&self, bucket: usize) -> Vec<Name> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut drawn[bucket])
    }

    fn draw(&self, bucket: usize, drawn: Vec<Value>) {
        if drawn.is_empty() {
            return;
        }
        let names = drawn.iter().filter_map(text).map(|name| Name::try_from(name.to_owned()));
        let names = names.filter_map(Result::ok).collect();
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)[bucket] = names;
    }

    /// Carries calls out, and tells what came of each.
    ///
    /// A store that was reset is believed in from then on; `StoreReset` is told once.
    pub(crate) async fn run(&self, operation: Operation, calls: Calls) -> Vec<Result<Told, Error>> {
        let Calls { generation, beliefs, calls } = calls;
        if self.closed.load(Ordering::SeqCst) {
            return calls.iter().map(|_| Err(closed(operation))).collect();
        }
        let replies = carry_out(&self.route, operation, &calls).await;
        let mut reset = None;
        let mut told = Vec::with_capacity(calls.len());
        for (call, reply) in calls.iter().zip(replies) {
            let bucket = call.bucket;
            told.push(match (reply.map(Said::read), beliefs[bucket]) {
                (Ok(Some(Said::Done { tokens, now, answers, drawn })), Some(Belief { id, .. })) => {
                    self.draw(bucket, drawn);
                    self.beliefs.told(bucket, id, tokens);
                    self.heard.get_or_init(|| (now - self.config.offset(), Instant::now()));
                    self.shown.store(now, Ordering::SeqCst);
                    Ok(Told { store: id, answers })
                }
                (Ok(Some(Said::Reset)), _) => {
                    if reset.is_none() {
                        reset = Some(self.reset(operation, generation).await);
                    }
                    Err(reset.clone().unwrap_or_else(|| unintelligible(operation)))
                }
                (Ok(_), _) => Err(unintelligible(operation)),
                (Err(error), _) => Err(error),
            });
        }
        if let Some(reset) = reset.filter(|error| error.kind() == ErrorKind::StoreReset) {
            // It is told once, so no lesser failure beside it may hide it.
            let reads = matches!(operation, Operation::Read | Operation::List);
            for outcome in &mut told {
                if outcome
                    .as_ref()
                    .is_err_and(|error| reads || error.kind() != ErrorKind::OutcomeUnknown)
                {
                    *outcome = Err(reset.clone());
                }
            }
        }
        told
    }

    /// Finds out what is there instead of the store that was believed in.
    async fn reset(&self, operation: Operation, generation: u64) -> Error {
        let _turn = self.adopting.lock().await;
        let meanwhile = self.beliefs.all().0 != generation;
        let told = |kind, message: &str| Error::new(kind, operation, message);
        if meanwhile {
            return told(
                ErrorKind::Unavailable,
                "another request found the store reset meanwhile; try again",
            );
        }
        match self.adopt(operation).await {
            Err(error) => error,
            Ok(false) => {
                told(ErrorKind::Unavailable, "the store's id was away for a moment; try again")
            }
            Ok(true) => {
                // Whoever waits for something in the old one should look.
                self.board.changed();
                told(
                    ErrorKind::StoreReset,
                    "the store forgot what it had acknowledged (it was wiped, restored, or failed \
                     over to a replica that was behind): what was held is lost; claim it anew",
                )
            }
        }
    }

    /// Believes in what is there. Whether that is another store than before: from here to the
    /// answer nothing is awaited, so that whoever is told of it can't have gone.
    pub(crate) async fn adopt(&self, operation: Operation) -> Result<bool, Error> {
        let found = self.look(operation).await?;
        Ok(self.beliefs.believe(found))
    }

    /// Reads the ids of all buckets, and gives one to those without.
    pub(crate) async fn look(&self, operation: Operation) -> Result<[Belief; BUCKETS], Error> {
        let (_, before) = self.beliefs.all();
        let fresh = StoreId::draw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner));
        let cluster = self.config.cluster.as_deref().unwrap_or_default();
        let calls: Vec<Call> = (0..BUCKETS)
            .map(|bucket| {
                let keys =
                    [self.keys.store(bucket), self.keys.names(bucket), self.keys.no_lease(bucket)];
                let mut call = Call::new(bucket, &OPEN, &keys);
                let belief = before[bucket];
                call.number(fresh)
                    .arg(cluster)
                    .arg(belief.map(|belief| belief.id.to_string()).unwrap_or_default())
                    .number(belief.map_or(0, |belief| belief.tokens));
                call
            })
            .collect();
        let replies = carry_out(&self.route, operation, &calls).await;
        let mut found = Vec::with_capacity(BUCKETS);
        for reply in replies {
            found.push(self.about(&reply?, operation)?);
        }
        found.try_into().map_err(|_| unintelligible(operation))
    }

    /// What open.lua told of a bucket, if this session may use it.
    fn about(&self, reply: &Value, operation: Operation) -> Result<Belief, Error> {
        let fields: Option<Vec<&str>> =
            list(reply).and_then(|fields| fields.iter().map(text).collect());
        let Some([format, id, cluster, tokens]) = fields.as_deref() else {
            return Err(unintelligible(operation));
        };
        if *format != FORMAT {
            let message = format!(
                "the keys are in format {format}, and this release reads {FORMAT}; upgrade tenure \
                 here"
            );
            return Err(Error::new(ErrorKind::Misconfigured, operation, message));
        }
        let mark = Some(*cluster).filter(|mark| !mark.is_empty());
        cluster::compare(self.config.cluster.as_deref(), mark)?;
        match (id.parse(), tokens.parse()) {
            (Ok(id), Ok(tokens)) => Ok(Belief { id, tokens }),
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                operation,
                "the store's id can't be read; nothing was overwritten",
            )),
        }
    }

    /// By how much the server's clock was set since this session heard of it first, in µs, if it
    /// says `now`. None: nothing was heard as yet.
    pub(crate) fn stepped(&self, now: i64) -> Option<i64> {
        let (first, at) = self.heard.get()?;
        let passed = i64::try_from(at.elapsed().as_micros()).unwrap_or(i64::MAX);
        Some(now.saturating_sub(*first).saturating_sub(passed))
    }

    /// What the server's clock said last, since 1970. The servers of a cluster have one each,
    /// which can't be compared.
    pub(crate) fn clock_shown(&self) -> Option<Duration> {
        let micros = u64::try_from(self.shown.load(Ordering::SeqCst)).ok()?;
        let one = !matches!(self.config.place, Place::Cluster(_)) && micros > 0;
        one.then(|| Duration::from_micros(micros))
    }

    /// The id of the store that is believed in, as its first bucket bears it.
    pub(crate) fn store(&self) -> Option<StoreId> {
        self.beliefs.all().1[0].map(|belief| belief.id)
    }
}
