//! Watching who leads, without ever writing.

use std::sync::Arc;
use std::time::Duration;

use tenure_core::clock::{Instant, Timestamp};
use tenure_core::decide::{Occupancy, occupancy};
use tenure_core::error::Error;
use tenure_core::identity::{FencingToken, Instance, Name};
use tenure_core::protocol::observe::Observation;
use tenure_core::record::{Metadata, State};
use tenure_core::store::{Hints, Prefix, Snapshot};
use tokio::sync::watch;

use crate::clock::Time;
use crate::meter::Measured;
use crate::shared::Shared;

/// The metadata key of the address that a leader advertises.
pub const ADDRESS: &str = "address";
/// How long one look is waited for.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a look that failed the next one is made.
const RETRY: Duration = Duration::from_millis(500);

/// Who leads, as the store says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// The instance.
    pub instance: Instance,
    /// The token of its term.
    pub token: FencingToken,
    /// When the term began, by the leader's wall clock: for people.
    pub since: Timestamp,
    /// What it says of itself.
    pub metadata: Metadata,
}

impl Leader {
    /// The address that it advertises. A hint: the leader's own `check()` is the authority.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.metadata.get(ADDRESS)
    }
}

/// What is known of an election's leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The store has answered at least once.
    pub(crate) ready: bool,
    pub(crate) leader: Option<Leader>,
}

/// Follows an election. Clones share one look at the store.
#[derive(Clone, Debug)]
pub struct Observer {
    known: watch::Receiver<Known>,
}

impl Observer {
    /// Starts to look.
    pub(crate) fn start(shared: &Arc<Shared>, name: Name) -> Self {
        let (tell, known) = watch::channel(Known::default());
        let follower = Follower {
            time: shared.time.clone(),
            shared: Arc::downgrade(shared),
            name,
            tell,
            observation: Observation::default(),
            newest: None,
            leaderless_since: None,
            hints: None,
        };
        tokio::spawn(follower.follow());
        Self { known }
    }

    /// Who leads now, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<Leader> {
        self.known.borrow().leader.clone()
    }

    /// Waits for the first answer of the store.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ready(&self) {
        let mut known = self.known.clone();
        if known.wait_for(|known| known.ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The changes from now on. The latest value wins: who is slow misses what was in between.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes { known: self.known.clone(), last: None }
    }
}

/// A stream of leaders.
#[derive(Clone, Debug)]
pub struct Changes {
    known: watch::Receiver<Known>,
    last: Option<Option<Leader>>,
}

impl Changes {
    /// Waits for the next change, and says who leads then; the first call says who leads now.
    /// None at the outside: the session is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn next(&mut self) -> Option<Option<Leader>> {
        let last = self.last.clone();
        let known = self
            .known
            .wait_for(|known| known.ready && last.as_ref() != Some(&known.leader))
            .await
            .ok()?;
        let leader = known.leader.clone();
        drop(known);
        self.last = Some(leader.clone());
        Some(leader)
    }
}

struct Follower {
    time: Time,
    shared: std::sync::Weak<Shared>,
    name: Name,
    tell: watch::Sender<Known>,
    observation: Observation,
    /// The highest token seen: an answer that is older than that is dropped.
    newest: Option<FencingToken>,
    leaderless_since: Option<Instant>,
    hints: Option<Hints>,
}

impl Follower {
    async fn follow(mut self) {
        loop {
            let Some(shared) = self.shared.upgrade() else { return };
            let again = match self.look(&shared).await {
                Ok(again) => again,
                Err(error) => {
                    tracing::debug!(name = %self.name, %error, "the leader could not be read");
                    RETRY
                }
            };
            if self.hints.is_none() {
                let prefix = Prefix::from(&self.name);
                self.hints = shared.store.watch(&prefix).await.unwrap_or_default();
            }
            drop(shared);
            let until = self.time.now().elapsed + again;
            let hint = async {
                match &mut self.hints {
                    Some(hints) => hints.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                hinted = hint => if hinted.is_err() { self.hints = None },
                () = self.time.sleep_until(Some(until)) => {}
                () = self.tell.closed() => return,
            }
        }
    }

    /// Looks once, tells what changed, and says after what time to look again at the latest.
    async fn look(&mut self, shared: &Arc<Shared>) -> Result<Duration, Error> {
        let names = [self.name.clone()];
        let until = self.time.now().elapsed + LOOK_TIMEOUT;
        let read = tokio::select! {
            read = shared.store.read(&names) => read?,
            () = self.time.sleep_until(Some(until)) => return Ok(RETRY),
        };
        let snapshot = read.into_iter().next().flatten();
        let now = self.time.now().elapsed;
        let poll = shared.store.profile().wake.poll();
        let (leader, left) = self.judge(snapshot.as_ref(), &shared.instance, now);
        self.publish(shared, leader, now);
        Ok(left.map_or(poll, |left| left.min(poll)).max(Duration::from_millis(10)))
    }

    /// Who leads, and how long that is certain without another look.
    fn judge(
        &mut self,
        snapshot: Option<&Snapshot>,
        me: &Instance,
        now: Instant,
    ) -> (Option<Leader>, Option<Duration>) {
        let Some(snapshot) = snapshot else { return (None, None) };
        let record = &snapshot.record;
        if record.state != State::Held {
            return (None, None);
        }
        let left = match occupancy(snapshot, me) {
            Occupancy::Free => return (None, None),
            Occupancy::Left(left) => left,
            Occupancy::Watch(whole) => {
                let same_for = self.observation.note(snapshot, now);
                if same_for >= whole {
                    return (None, None);
                }
                whole - same_for
            }
        };
        let leader = Leader {
            instance: record.holder.clone(),
            token: record.token,
            since: record.acquired_at,
            metadata: record.metadata.clone(),
        };
        (Some(leader), Some(left))
    }

    fn publish(&mut self, shared: &Arc<Shared>, leader: Option<Leader>, now: Instant) {
        let token = leader.as_ref().map(|leader| leader.token);
        let stale = token.is_some() && token < self.newest;
        let leader = if stale { None } else { leader };
        self.newest = self.newest.max(token);
        match (&leader, self.leaderless_since) {
            (None, None) => self.leaderless_since = Some(now),
            (Some(_), Some(since)) => {
                shared.meter.record(Measured::Leaderless(now.since(since)));
                self.leaderless_since = None;
            }
            _ => {}
        }
        let known = Known { ready: true, leader };
        self.tell.send_if_modified(|before| {
            let changed = *before != known;
            *before = known;
            changed
        });
    }
}
