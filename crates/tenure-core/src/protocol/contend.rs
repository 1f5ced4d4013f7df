//! The contender's machine: when it looks, when it claims, and what it does about lost answers.

use std::time::Duration;

use crate::chance::Chance;
use crate::clock::{Instant, Reading};
use crate::decide::{Occupancy, occupancy};
use crate::error::{Error, ErrorKind, Operation};
use crate::identity::{ClaimId, FencingToken, Instance, Nonce};
use crate::protocol::observe::Observation;
use crate::store::{Acquired, Grant, Snapshot, Version, Wake};
use crate::timing::{Timing, observed};

/// What a contender wants, and how patient it is.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Who it is.
    pub instance: Instance,
    /// For how long it wants the name.
    pub timing: Timing,
    /// How the store tells of changes.
    pub wake: Wake,
    /// How long it waits for the name.
    pub patience: Patience,
}

/// How long a contender waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: refused is the answer.
    Try,
    /// Until then.
    Until(Instant),
    /// For ever.
    Forever,
}

/// What a contender is told.
#[derive(Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The store hinted at a change.
    Hint,
    /// A claim was answered.
    Claimed {
        /// Which claim.
        id: ClaimId,
        /// What it came to.
        outcome: Acquired,
    },
    /// A look was answered.
    Looked(Result<Option<Snapshot>, Error>),
    /// Whoever waited doesn't wait any more.
    Cancel,
}

/// What a contender does.
#[derive(Debug)]
pub enum Action {
    /// Send this claim. Its answer, or its timeout as
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown), must come back as [`Event::Claimed`].
    Claim(Ticket),
    /// Read the record; the answer must come back as [`Event::Looked`].
    Look,
    /// The name is ours. `sent` is when the claim was first sent: the deadline counts from there.
    Granted {
        /// The claim that was granted.
        ticket: Ticket,
        /// The grant.
        grant: Grant,
    },
    /// Release this grant unused: it came too late, or nobody waits for it any more.
    GiveBack {
        /// The claim that was granted.
        ticket: Ticket,
        /// The grant.
        grant: Grant,
    },
    /// Held by another, and this contender doesn't wait.
    Refused(Box<Snapshot>),
    /// The wait is over without the name.
    GaveUp(GaveUp),
}

/// A claim as it is sent; a repeated one is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The claim's id.
    pub id: ClaimId,
    /// What its write carries.
    pub nonce: Nonce,
    /// When it was first sent.
    pub sent: Reading,
    /// The version that was watched until it expired.
    pub watched: Option<Version>,
    /// The highest token seen.
    pub above: Option<FencingToken>,
}

/// Why a wait ended.
#[derive(Clone, Debug)]
pub enum GaveUp {
    /// Its time was up; who holds the name, if that was seen.
    TimedOut(Option<Box<Snapshot>>),
    /// Nothing that waiting mends, or an outcome that stayed unknown.
    Failed(Error),
}

/// One contender for one name.
///
/// **Invariant:** no claim starts while another is unknown, so a grant that arrives is the
/// answer to the only claim there is.
#[derive(Debug)]
pub struct Contender {
    terms: Terms,
    stage: Stage,
    observation: Observation,
    last_seen: Option<Box<Snapshot>>,
    above: Option<FencingToken>,
    longest_ttl: Duration,
    /// A reset was noticed and is waited out, or has been, while tokens are below `above`.
    reset: bool,
    failures: u32,
    cancelled: bool,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was asked yet.
    Fresh,
    /// Until then there is nothing to do; a hint ends it.
    Waiting { until: Instant, then: Then },
    /// A failed request is repeated then; hints don't hurry it.
    Backing(Instant),
    /// A look is on its way. `again`: a hint came meanwhile.
    Looking { again: bool },
    /// A claim is on its way. `doubt`: an earlier copy of it was never answered.
    Claiming { ticket: Ticket, doubt: Option<Error> },
    /// A claim's outcome is unknown; it is repeated then.
    Unknown { ticket: Ticket, retry_at: Instant, error: Error },
    /// Nothing remains to be done.
    Over,
}

/// What follows a wait.
#[derive(Clone, Debug)]
enum Then {
    /// The slow poll, or a hint: look before writing.
    Look,
    /// The computed end of the grant: claim, which writes nothing if it is held after all.
    Claim(Option<Version>),
}

/// The shortest and the longest wait before a failed request is repeated.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The shortest wait between two looks at a name whose end is computed.
const LOOK_MIN: Duration = Duration::from_millis(10);

impl Contender {
    /// A contender that hasn't asked yet: [`Event::Tick`] sets it going.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        let longest_ttl = terms.timing.ttl();
        Self {
            terms,
            stage: Stage::Fresh,
            observation: Observation::default(),
            last_seen: None,
            above: None,
            longest_ttl,
            reset: false,
            failures: 0,
            cancelled: false,
        }
    }

    /// The same, knowing that a token this high was seen for the name.
    #[must_use]
    pub fn with_above(self, above: Option<FencingToken>) -> Self {
        Self { above, ..self }
    }

    /// Whether nothing remains to be done. After a wait has ended, an unknown claim may still
    /// have to be settled.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// The record that was last seen.
    #[must_use]
    pub fn last_seen(&self) -> Option<&Snapshot> {
        self.last_seen.as_deref()
    }

    /// When it wants to be told the time at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let stage = match &self.stage {
            Stage::Over => return None,
            Stage::Fresh => Some(Instant::default()),
            Stage::Waiting { until: at, .. }
            | Stage::Backing(at)
            | Stage::Unknown { retry_at: at, .. } => Some(*at),
            Stage::Looking { .. } | Stage::Claiming { .. } => None,
        };
        let end = match self.terms.patience {
            Patience::Until(end) if !self.cancelled => Some(end),
            _ => None,
        };
        stage.into_iter().chain(end).min()
    }

    /// Takes in what happened, and says what to do, in this order.
    pub fn on(&mut self, event: Event, now: Reading, chance: &mut Chance) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::Hint => match &mut self.stage {
                Stage::Waiting { until, then } => {
                    *until = now.elapsed;
                    *then = Then::Look;
                }
                Stage::Looking { again } => *again = true,
                _ => {}
            },
            Event::Claimed { id, outcome } => self.claimed(id, outcome, now, chance, &mut actions),
            Event::Looked(answer) => self.looked(answer, now, chance, &mut actions),
            Event::Cancel => self.cancel(),
        }
        self.pass(now, chance, &mut actions);
        actions
    }

    fn pass(&mut self, now: Reading, chance: &mut Chance, actions: &mut Vec<Action>) {
        if let Patience::Until(end) = self.terms.patience
            && now.elapsed >= end
            && !self.cancelled
            && !self.is_over()
        {
            let seen = self.last_seen.clone();
            actions.push(Action::GaveUp(match &self.stage {
                Stage::Unknown { error, .. } => GaveUp::Failed(error.clone()),
                _ => GaveUp::TimedOut(seen),
            }));
            self.cancel();
        }
        match &self.stage {
            Stage::Fresh => self.claim(None, now, chance, actions),
            Stage::Waiting { until, then } if now.elapsed >= *until => match then.clone() {
                Then::Look => self.look(actions),
                Then::Claim(watched) => self.claim(watched, now, chance, actions),
            },
            Stage::Backing(at) if now.elapsed >= *at => self.look(actions),
            Stage::Unknown { retry_at, .. } if now.elapsed >= *retry_at => {
                self.repeat(now, actions);
            }
            _ => {}
        }
    }

    /// The answer to an unknown outcome: the same claim again.
    fn repeat(&mut self, now: Reading, actions: &mut Vec<Action>) {
        let Stage::Unknown { ticket, error, .. } = &self.stage else { return };
        let (ticket, error) = (ticket.clone(), error.clone());
        let unanswered_for = now.elapsed.since(ticket.sent.elapsed);
        if self.cancelled && unanswered_for >= observed(self.terms.timing.ttl()) {
            // If it was granted after all, that grant has run out by now.
            self.stage = Stage::Over;
            return;
        }
        let impatient = self.terms.patience == Patience::Try && !self.cancelled;
        if impatient && unanswered_for >= self.terms.timing.slow_after() {
            actions.push(Action::GaveUp(GaveUp::Failed(error.clone())));
            self.cancelled = true;
        }
        actions.push(Action::Claim(ticket.clone()));
        self.stage = Stage::Claiming { ticket, doubt: Some(error) };
    }

    fn look(&mut self, actions: &mut Vec<Action>) {
        self.stage = Stage::Looking { again: false };
        actions.push(Action::Look);
    }

    /// A new claim, with a new id: the one before has been answered.
    fn claim(
        &mut self,
        watched: Option<Version>,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        let ticket = Ticket {
            id: ClaimId::draw(chance),
            nonce: Nonce::draw(chance),
            sent: now,
            watched,
            above: self.above,
        };
        actions.push(Action::Claim(ticket.clone()));
        self.stage = Stage::Claiming { ticket, doubt: None };
    }

    fn claimed(
        &mut self,
        id: ClaimId,
        outcome: Acquired,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        let ticket = match &self.stage {
            Stage::Claiming { ticket, .. } | Stage::Unknown { ticket, .. } if ticket.id == id => {
                ticket.clone()
            }
            // The answer to a copy of a claim that is settled.
            _ => return,
        };
        match outcome {
            Acquired::Granted(grant) => self.granted(ticket, grant, now, chance, actions),
            Acquired::Refused(by) => {
                self.failures = 0;
                if self.terms.patience == Patience::Try && !self.cancelled {
                    self.stage = Stage::Over;
                    actions.push(Action::Refused(by));
                } else if self.cancelled {
                    self.stage = Stage::Over;
                } else {
                    self.seen(Some(*by), true, now, chance, actions);
                }
            }
            Acquired::Failed(error) => self.claim_failed(ticket, error, now, chance, actions),
        }
    }

    fn granted(
        &mut self,
        ticket: Ticket,
        grant: Grant,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        self.above = self.above.max(Some(grant.token));
        let slow = now.elapsed.since(ticket.sent.elapsed) > self.terms.timing.slow_after();
        if !self.cancelled && !slow {
            self.stage = Stage::Over;
            actions.push(Action::Granted { ticket, grant });
            return;
        }
        actions.push(Action::GiveBack { ticket, grant });
        self.stage = if self.cancelled {
            Stage::Over
        } else {
            Stage::Backing(now.elapsed + self.backoff(chance))
        };
    }

    fn claim_failed(
        &mut self,
        ticket: Ticket,
        error: Error,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        // Once unknown, unknown it stays until the store has answered that very claim.
        let doubt = !matches!(&self.stage, Stage::Claiming { doubt: None, .. });
        if error.kind() == ErrorKind::OutcomeUnknown
            || doubt && error.kind() != ErrorKind::StoreReset
        {
            let retry_at = now.elapsed + self.backoff(chance);
            self.stage = Stage::Unknown { ticket, retry_at, error };
        } else {
            self.failed(error, now, chance, actions);
        }
    }

    /// A request that certainly did nothing.
    fn failed(
        &mut self,
        error: Error,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        if self.cancelled {
            self.stage = Stage::Over;
            return;
        }
        let waits = self.terms.patience != Patience::Try;
        match error.kind() {
            ErrorKind::StoreReset if waits => {
                // Whoever held something may act until its grant would have run out.
                self.observation.forget();
                self.reset = true;
                self.stage = Stage::Backing(now.elapsed + observed(self.longest_ttl));
            }
            kind if waits && kind.is_transient() => {
                self.stage = Stage::Backing(now.elapsed + self.backoff(chance));
            }
            _ => {
                self.stage = Stage::Over;
                actions.push(Action::GaveUp(GaveUp::Failed(error)));
            }
        }
    }

    fn looked(
        &mut self,
        answer: Result<Option<Snapshot>, Error>,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        let Stage::Looking { again } = self.stage else { return };
        match answer {
            Ok(seen) => {
                self.failures = 0;
                self.seen(seen, false, now, chance, actions);
                if let (true, Stage::Waiting { until, then }) = (again, &mut self.stage) {
                    *until = now.elapsed;
                    *then = Then::Look;
                }
            }
            Err(error) => self.failed(error, now, chance, actions),
        }
    }

    /// What a record that was just seen means. `refused`: by a claim that found it like this.
    fn seen(
        &mut self,
        seen: Option<Snapshot>,
        refused: bool,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        let token = seen.as_ref().map(|snapshot| snapshot.record.token);
        if token < self.above && !self.reset {
            // Tokens went back, or the record is gone: the store forgot. What was granted before
            // may still be acted under.
            self.last_seen = seen.map(Box::new);
            return self.failed(forgot(), now, chance, actions);
        }
        if token >= self.above {
            self.above = token;
            self.reset = false;
        }
        let Some(snapshot) = seen else {
            self.last_seen = None;
            return self.free(None, refused, now, chance, actions);
        };
        self.longest_ttl = self.longest_ttl.max(snapshot.record.ttl);
        let same_for = self.observation.note(&snapshot, now.elapsed);
        let occupied = occupancy(&snapshot, &self.terms.instance);
        let version = snapshot.version.clone();
        self.last_seen = Some(Box::new(snapshot));
        match occupied {
            Occupancy::Free => self.free(None, refused, now, chance, actions),
            Occupancy::Left(left) => self.wait(left, None, now, chance),
            Occupancy::Watch(whole) if same_for >= whole => {
                self.free(Some(version), refused, now, chance, actions);
            }
            Occupancy::Watch(whole) => self.wait(whole - same_for, Some(version), now, chance),
        }
    }

    fn free(
        &mut self,
        watched: Option<Version>,
        refused: bool,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        if refused {
            // It looked free and yet refused: a copy of an old claim, or a race. Not at once.
            self.stage = Stage::Backing(now.elapsed + self.backoff(chance));
        } else {
            self.claim(watched, now, chance, actions);
        }
    }

    /// Until the name ends by the clock, or the slow poll that heals lost hints.
    fn wait(
        &mut self,
        left: Duration,
        watched: Option<Version>,
        now: Reading,
        chance: &mut Chance,
    ) {
        // All contenders compute the same end: a little chance keeps them from one instant.
        let spread = chance.between(Duration::ZERO, self.terms.timing.ttl() / 200);
        let left = left.max(LOOK_MIN).saturating_add(spread);
        let poll = self.terms.wake.poll();
        let poll = chance.between(poll * 4 / 5, poll * 6 / 5);
        self.stage = if left <= poll {
            Stage::Waiting { until: now.elapsed + left, then: Then::Claim(watched) }
        } else {
            Stage::Waiting { until: now.elapsed + poll, then: Then::Look }
        };
    }

    fn backoff(&mut self, chance: &mut Chance) -> Duration {
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        let wait = wait.min(RETRY_MAX).min(self.terms.timing.ttl() / 6);
        chance.between(wait / 2, wait)
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        match self.stage {
            Stage::Claiming { .. } | Stage::Unknown { .. } => {}
            _ => self.stage = Stage::Over,
        }
    }
}

fn forgot() -> Error {
    let message = "the record's token went back: the store forgot what it had acknowledged";
    Error::new(ErrorKind::StoreReset, Operation::Read, message)
}
