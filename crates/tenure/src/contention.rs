//! Drives a contender: sends its claims and looks, and hands over what it wins.

use std::sync::{Arc, PoisonError};

use tenure_core::clock::{Instant, Reading};
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{Name, Nonce};
use tenure_core::protocol::contend::{Action, Contender, Event, GaveUp, Patience, Terms, Ticket};
use tenure_core::record::Metadata;
use tenure_core::store::{Acquired, Claim, Grant, Hints, Prefix, Release, Snapshot, Wake};
use tenure_core::timing::Timing;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::cell::Cell;
use crate::shared::{Reset, Shared, no_answer};

/// What is contended for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: Name,
    pub(crate) timing: Timing,
    pub(crate) metadata: Metadata,
    pub(crate) patience: Patience,
}

/// How a contention ends.
#[derive(Debug)]
pub(crate) enum Ended {
    Granted(Arc<Cell>),
    Refused(Box<Snapshot>),
    GaveUp(GaveUp),
}

/// A contention under way. Dropping it ends the wait and leaves no trace: a claim that is still
/// unknown is settled in the background.
#[derive(Debug)]
pub(crate) struct Contention {
    ended: oneshot::Receiver<Ended>,
    /// Closes when this is dropped, which is how the task hears of it.
    _alive: mpsc::Sender<()>,
}

impl Contention {
    /// Starts to contend.
    pub(crate) fn start(shared: &Arc<Shared>, wanted: Wanted) -> Self {
        let (done, ended) = oneshot::channel();
        let (alive, dropped) = mpsc::channel(1);
        let terms = Terms {
            instance: shared.instance.clone(),
            timing: wanted.timing,
            wake: shared.store.profile().wake,
            patience: wanted.patience,
        };
        let mut contender = Contender::new(terms);
        if let Some(Reset { noticed, above }) = shared.reset_of(&wanted.name) {
            contender = contender.after_reset(noticed, above);
        }
        let now = shared.time.now();
        let before = shared.observations.as_ref().and_then(|kept| kept.recall(&wanted.name, now));
        if let Some(before) = before {
            contender = contender.having_observed(before);
        }
        let runner = Runner {
            shared: Arc::clone(shared),
            contender,
            wanted,
            done: Some(done),
            requests: JoinSet::new(),
            hints: None,
        };
        tokio::spawn(runner.run(dropped));
        Self { ended, _alive: alive }
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; dropping the contention ends it.
    pub(crate) async fn ended(&mut self) -> Ended {
        match (&mut self.ended).await {
            Ok(ended) => ended,
            Err(_) => Ended::GaveUp(GaveUp::Failed(Error::new(
                ErrorKind::Unavailable,
                Operation::Acquire,
                "the runtime was shut down while this waited",
            ))),
        }
    }
}

struct Runner {
    shared: Arc<Shared>,
    contender: Contender,
    wanted: Wanted,
    done: Option<oneshot::Sender<Ended>>,
    requests: JoinSet<Event>,
    hints: Option<Hints>,
}

impl Runner {
    async fn run(mut self, mut dropped: mpsc::Receiver<()>) {
        let mut chance = self.shared.chance();
        let _contending = self.shared.contending();
        let mut event = Event::Tick;
        let mut cancelled = false;
        let shared = Arc::clone(&self.shared);
        let mut reset = shared.reset();
        loop {
            let now = self.shared.time.now();
            for action in self.contender.on(event, now, &mut chance) {
                self.act(action);
            }
            self.remember(now);
            if self.contender.is_over() {
                return;
            }
            self.listen().await;
            let wake_at = self.contender.wake_at();
            event = tokio::select! {
                Some(answer) = self.requests.join_next() => answer.unwrap_or(Event::Tick),
                () = sleep(&self.shared, wake_at) => Event::Tick,
                () = hint(&mut self.hints) => Event::Hint,
                Ok(()) = reset.changed() => Event::StoreReset,
                _ = dropped.recv(), if !cancelled => {
                    cancelled = true;
                    Event::Cancel
                }
                () = self.shared.closed(), if !cancelled => {
                    cancelled = true;
                    let error = Error::invalid("the session was closed while this waited");
                    self.end(Ended::GaveUp(GaveUp::Failed(error)));
                    Event::Cancel
                }
            };
        }
    }

    /// Keeps what was seen, where that outlives the process.
    fn remember(&self, now: Reading) {
        let Some(observations) = &self.shared.observations else { return };
        let kept = self.contender.observation().kept(now);
        if kept.is_some_and(|kept| observations.note(&self.wanted.name, kept)) {
            let observations = Arc::clone(observations);
            tokio::task::spawn_blocking(move || observations.save());
        }
    }

    /// Opens the hints as soon as there is something to wait for.
    async fn listen(&mut self) {
        let pushes = matches!(self.shared.store.profile().wake, Wake::Push(_));
        let waits = self.contender.last_seen().is_some() && self.wanted.patience != Patience::Try;
        if self.hints.is_none() && pushes && waits {
            let prefix = Prefix::from(&self.wanted.name);
            // Without hints the slow poll still finds every change.
            self.hints = self.shared.store.watch(&prefix).await.unwrap_or_default();
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Claim(ticket) => self.claim(ticket),
            Action::Look => self.look(),
            Action::Granted { ticket, grant } => {
                let Some(done) = self.done.take() else { return };
                let name = self.wanted.name.clone();
                let cell = self.shared.keep(name, (ticket, grant), self.wanted.timing);
                if let Err(Ended::Granted(cell)) = done.send(Ended::Granted(cell)) {
                    // Nobody waits any more: given back like a lease that is dropped.
                    self.shared.let_go_at_once(&cell, "nobody waited for it any more");
                }
            }
            Action::GiveBack { ticket, grant } => self.give_back(ticket, grant),
            Action::Refused(snapshot) => self.end(Ended::Refused(snapshot)),
            Action::GaveUp(why) => self.end(Ended::GaveUp(why)),
        }
    }

    fn end(&mut self, ended: Ended) {
        if let Some(done) = self.done.take() {
            // Whoever dropped the contention doesn't wait for its end.
            let _ = done.send(ended);
        }
    }

    fn claim(&mut self, ticket: Ticket) {
        let shared = Arc::clone(&self.shared);
        let sent = shared.time.now();
        let id = ticket.id;
        let claim = Claim {
            name: self.wanted.name.clone(),
            instance: shared.instance.clone(),
            id,
            nonce: ticket.nonce,
            ttl: self.wanted.timing.ttl(),
            min_hold: self.wanted.timing.min_hold(),
            metadata: self.wanted.metadata.clone(),
            bound_to: None,
            at: ticket.sent.wall,
            unanswered_for: sent.elapsed.since(ticket.sent.elapsed),
            watched: ticket.watched,
            above: ticket.above,
            ends_with_process: shared.ends_with_process,
        };
        let until = sent.elapsed + self.wanted.timing.timeout();
        self.requests.spawn(async move {
            let claims = [claim];
            let answer = tokio::select! {
                answer = shared.store.acquire(&claims) => answer,
                () = shared.time.sleep_until(Some(until)) => Err(no_answer(Operation::Acquire)),
            };
            let outcome = match answer {
                Ok(mut answers) => {
                    answers.pop().unwrap_or_else(|| Acquired::Failed(no_answer(Operation::Acquire)))
                }
                Err(error) => Acquired::Failed(error),
            };
            // It gets its name before it is shared: a change of what is shared makes a second one.
            let (outcome, failed) = match outcome {
                Acquired::Failed(error) => {
                    let error = error.with_name(&claims[0].name);
                    (Acquired::Failed(error.clone()), Some(error))
                }
                other => (other, None),
            };
            shared.measure(Operation::Acquire, sent, failed.as_ref().map(Error::kind));
            *shared.failed_claim.lock().unwrap_or_else(PoisonError::into_inner) = failed;
            Event::Claimed { id, outcome }
        });
    }

    fn look(&mut self) {
        let shared = Arc::clone(&self.shared);
        let name = self.wanted.name.clone();
        let sent = shared.time.now();
        let until = sent.elapsed + self.wanted.timing.timeout();
        self.requests.spawn(async move {
            let names = [name];
            let answer = tokio::select! {
                answer = shared.store.read(&names) => answer,
                () = shared.time.sleep_until(Some(until)) => Err(no_answer(Operation::Read)),
            };
            shared.measure(Operation::Read, sent, answer.as_ref().err().map(Error::kind));
            Event::Looked(answer.map(|mut read| read.pop().flatten()))
        });
    }

    /// Releases a grant that was never used. Lost, it runs out by itself: nobody renews it.
    fn give_back(&self, ticket: Ticket, grant: Grant) {
        let shared = Arc::clone(&self.shared);
        let name = self.wanted.name.clone();
        tracing::info!(%name, token = %grant.token, "a grant is given back unused");
        let contending = shared.contending();
        tokio::spawn(async move {
            let _contending = contending;
            let release = Release {
                name,
                instance: shared.instance.clone(),
                claim: ticket.id,
                token: grant.token,
                version: grant.version,
                nonce: Nonce::draw(&mut shared.chance()),
                successor: None,
                why: "never used".to_owned(),
                at: shared.time.now().wall,
            };
            if let Err(error) = shared.store.release(&[release]).await {
                tracing::warn!(%error, "a grant that was not used could not be given back");
            }
        });
    }
}

async fn sleep(shared: &Arc<Shared>, until: Option<Instant>) {
    shared.time.sleep_until(until).await;
}

/// The next hint. A source that broke is dropped: polls go on, and the next wait opens another.
async fn hint(hints: &mut Option<Hints>) {
    match hints {
        Some(open) => {
            if open.next().await.is_err() {
                *hints = None;
            }
        }
        None => std::future::pending().await,
    }
}
