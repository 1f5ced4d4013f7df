//! The contender's machine: when it looks, when it claims, and what it does about lost answers.

use std::time::Duration;

use crate::chance::Chance;
use crate::clock::{Instant, Reading};
use crate::decide::{Occupancy, occupancy};
use crate::error::{Error, ErrorKind, Operation};
use crate::identity::{ClaimId, FencingToken, Nonce};
use crate::neighbour::is_made_up;
pub use crate::protocol::claim::{Action, Event, GaveUp, Patience, Terms, Ticket};
use crate::protocol::observe::Observation;
use crate::store::{Acquired, Grant, Snapshot, Version};
use crate::timing::observed;

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
    /// A reset was noticed while a claim was on its way: until when to wait once that is settled.
    shaken: Option<Instant>,
    /// A hint came while a claim was on its way.
    hinted: bool,
    failures: u32,
    cancelled: bool,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was asked yet, nor shall be before then.
    Fresh { not_before: Instant },
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
            stage: Stage::Fresh { not_before: Instant::default() },
            observation: Observation::default(),
            last_seen: None,
            above: None,
            longest_ttl,
            reset: false,
            shaken: None,
            hinted: false,
            failures: 0,
            cancelled: false,
        }
    }

    /// The same for whoever was told at `noticed` that the store was reset, by whatever operation.
    ///
    /// It waits from then for as long as one that was told so itself, and one that doesn't wait
    /// gives up until then: others may act under grants that the store has forgotten. `above` is
    /// the highest token that is known of from before.
    #[must_use]
    pub fn after_reset(self, noticed: Instant, above: Option<FencingToken>) -> Self {
        let not_before = noticed + observed(self.longest_ttl);
        Self { stage: Stage::Fresh { not_before }, reset: true, above, ..self }
    }

    /// The same for whoever has observed the record before, in a process that has ended perhaps:
    /// it looks before it claims.
    #[must_use]
    pub fn having_observed(self, observation: Observation) -> Self {
        Self { observation, ..self }
    }

    /// What it has observed.
    #[must_use]
    pub fn observation(&self) -> &Observation {
        &self.observation
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
            Stage::Fresh { .. } => Some(Instant::default()),
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
                // The change may be newer than what the claim finds.
                Stage::Claiming { .. } => self.hinted = true,
                _ => {}
            },
            Event::Claimed { id, outcome } => self.claimed(id, outcome, now, chance, &mut actions),
            Event::Looked(answer) => self.looked(answer, now, chance, &mut actions),
            Event::StoreReset => self.store_reset(now, &mut actions),
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
            Stage::Fresh { not_before } if now.elapsed >= *not_before => {
                if self.observation.is_empty() {
                    self.claim(None, now, chance, actions);
                } else {
                    self.look(actions);
                }
            }
            Stage::Fresh { .. } if self.terms.patience == Patience::Try => {
                self.stage = Stage::Over;
                actions.push(Action::GaveUp(GaveUp::Failed(waits_out_reset())));
            }
            Stage::Fresh { not_before } => self.stage = Stage::Backing(*not_before),
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
        self.settle(ticket, outcome, now, chance, actions);
        let settled = matches!(self.stage, Stage::Waiting { .. } | Stage::Backing(_));
        if let (Some(until), true) = (self.shaken, settled) {
            // Whatever that answer showed, the reset is waited out first.
            self.shaken = None;
            self.observation.forget();
            self.stage = Stage::Backing(until.max(now.elapsed));
        }
    }

    fn settle(
        &mut self,
        ticket: Ticket,
        outcome: Acquired,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        match outcome {
            Acquired::Granted(grant) => self.granted(ticket, grant, now, chance, actions),
            Acquired::Refused(by) => {
                self.failures = 0;
                if self.terms.patience == Patience::Try && !self.cancelled {
                    // For the next one, which may go on from here.
                    self.observation.note(&by, now.elapsed);
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
        // A store that has forgotten grants at once what another may still act under.
        if !self.cancelled && !slow && self.shaken.is_none() {
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
                let until = self.outlives_reset(now);
                self.stage = Stage::Backing(until);
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

    /// Notes a reset. Whoever held something may act until its grant would have run out.
    fn outlives_reset(&mut self, now: Reading) -> Instant {
        self.observation.forget();
        self.reset = true;
        now.elapsed + observed(self.longest_ttl)
    }

    /// Another operation met the reset. A claim that is on its way is settled first, but what it
    /// is granted isn't used.
    fn store_reset(&mut self, now: Reading, actions: &mut Vec<Action>) {
        let until = self.outlives_reset(now);
        match self.stage {
            Stage::Over => {}
            Stage::Claiming { .. } => self.shaken = Some(until),
            // What it is about, the store has forgotten, too.
            Stage::Unknown { .. } if self.cancelled => self.stage = Stage::Over,
            _ if self.terms.patience == Patience::Try => {
                self.stage = Stage::Over;
                actions.push(Action::GaveUp(GaveUp::Failed(forgot())));
            }
            _ => self.stage = Stage::Backing(until),
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
        // A neighbour's grant has no token, and what comes after it may be no record at all.
        let counts = !seen.as_ref().is_some_and(|snapshot| is_made_up(&snapshot.record));
        if counts && token < self.above && !self.reset {
            // Tokens went back, or the record is gone: the store forgot. What was granted before
            // may still be acted under.
            self.last_seen = seen.map(Box::new);
            return self.failed(forgot(), now, chance, actions);
        }
        if counts && token >= self.above {
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
        self.last_seen = Some(Box::new(snapshot.clone()));
        let ended = match occupied {
            Occupancy::Free => true,
            Occupancy::Left(_) => false,
            Occupancy::Watch(whole) => same_for >= whole,
        };
        if self.terms.patience == Patience::Try && !ended {
            // One that doesn't wait looks after a grant that came too late, or when it has
            // observed the record before.
            self.stage = Stage::Over;
            return actions.push(Action::Refused(Box::new(snapshot)));
        }
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
        self.stage = if std::mem::take(&mut self.hinted) {
            Stage::Waiting { until: now.elapsed, then: Then::Look }
        } else if left <= poll {
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

fn waits_out_reset() -> Error {
    let message = "the store was reset a short while ago, and whoever held the name before may \
                   still act; try again after a ttl";
    Error::new(ErrorKind::StoreReset, Operation::Acquire, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::identity::Instance;
    use crate::identity::{Incarnation, Name, StoreId, Successor};
    use crate::neighbour::Neighbour;
    use crate::record::tests::sample;
    use crate::record::{Record, Reservation, State};
    use crate::store::Wake;
    use crate::timing::Timing;

    struct Bench {
        clock: ManualClock,
        chance: Chance,
        contender: Contender,
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn token(number: u64) -> FencingToken {
        FencingToken::new(number).unwrap()
    }

    fn me() -> Instance {
        Instance::new(Name::new("api-1").unwrap(), Incarnation::from_u128(1))
    }

    impl Bench {
        fn of(patience: Patience, wake: Wake) -> Self {
            let clock = ManualClock::starting_at(Instant::from_nanos(1_000_000_000_000));
            let timing = Timing::default();
            let terms = Terms { instance: me(), timing, wake, patience };
            Self { clock, chance: Chance::seeded(9), contender: Contender::new(terms) }
        }

        /// One that waits for ever on a store that is polled every ten seconds.
        fn patient() -> Self {
            Self::of(Patience::Forever, Wake::Poll(secs(10)))
        }

        /// The same, whose first claim is on its way.
        fn claiming() -> (Self, Ticket) {
            let mut bench = Self::patient();
            let ticket = bench.first_claim();
            (bench, ticket)
        }

        fn first_claim(&mut self) -> Ticket {
            claim_in(self.on(Event::Tick))
        }

        fn on(&mut self, event: Event) -> Vec<Action> {
            self.contender.on(event, self.clock.now(), &mut self.chance)
        }

        fn after(&mut self, time: Duration) -> Vec<Action> {
            self.clock.advance(time);
            self.on(Event::Tick)
        }

        /// Lets time pass until it wants to be told, and tells it.
        fn wake(&mut self) -> Vec<Action> {
            let at = self.contender.wake_at().expect("it waits for nothing");
            self.after(at.since(self.clock.now().elapsed))
        }

        fn wakes_in(&self) -> Duration {
            let at = self.contender.wake_at().expect("it waits for nothing");
            at.since(self.clock.now().elapsed)
        }

        fn answer(&mut self, ticket: &Ticket, outcome: Acquired) -> Vec<Action> {
            self.on(Event::Claimed { id: ticket.id, outcome })
        }

        fn refused(&mut self, ticket: &Ticket, by: Snapshot) -> Vec<Action> {
            self.answer(ticket, Acquired::Refused(Box::new(by)))
        }

        fn failed(&mut self, ticket: &Ticket, kind: ErrorKind) -> Vec<Action> {
            self.answer(ticket, Acquired::Failed(error(kind)))
        }

        fn looked(&mut self, seen: Option<Snapshot>) -> Vec<Action> {
            self.on(Event::Looked(Ok(seen)))
        }
    }

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, Operation::Acquire, "as the test wants it")
    }

    fn granted(number: u64) -> Acquired {
        let store = StoreId::from_u128(1);
        Acquired::Granted(Grant { token: token(number), version: Version::new("1"), store })
    }

    /// Held by another under token 7, for 30 s; `age` by the store's clock, if it has one.
    fn held(age: Option<Duration>) -> Snapshot {
        let record = Record { token: token(7), ttl: secs(30), state: State::Held, ..sample() };
        let record = Record { not_before: Duration::ZERO, order: None, ..record };
        let store = StoreId::from_u128(1);
        Snapshot { record, version: Version::new("a"), store, age, holder_gone: false }
    }

    fn released() -> Snapshot {
        let mut snapshot = held(Some(Duration::ZERO));
        snapshot.record.state = State::Released { reserved_for: None };
        snapshot
    }

    fn claim_in(actions: Vec<Action>) -> Ticket {
        let claim = actions.into_iter().find_map(|action| match action {
            Action::Claim(ticket) => Some(ticket),
            _ => None,
        });
        claim.expect("it claims")
    }

    #[track_caller]
    fn assert_looks(actions: &[Action]) {
        assert!(matches!(actions, [Action::Look]), "{actions:?}");
    }

    #[test]
    fn the_first_attempt_claims_without_looking() {
        let (mut bench, ticket) = Bench::claiming();
        assert_eq!(ticket.watched, None);
        let actions = bench.answer(&ticket, granted(8));
        assert!(
            matches!(&actions[..], [Action::Granted { ticket: same, .. }] if *same == ticket),
            "{actions:?}"
        );
        assert!(bench.contender.is_over());
        assert_eq!(bench.contender.wake_at(), None);
    }

    #[test]
    fn a_neighbours_entry_that_goes_away_is_no_reset() {
        let (mut bench, ticket) = Bench::claiming();
        let entry = Neighbour {
            layout: "hamode",
            holder: "api-7",
            left: secs(40),
            since: Timestamp::default(),
            version: Version::new("n"),
        };
        let (store, name) = (StoreId::from_u128(1), sample().name);
        bench.refused(&ticket, entry.snapshot(&name, None, store));
        assert_looks(&bench.after(secs(15)));
        // It was released, and the name never had a record of ours.
        let ticket = claim_in(bench.looked(None));
        assert_eq!(ticket.above, None);
        assert!(matches!(&bench.answer(&ticket, granted(1))[..], [Action::Granted { .. }]));
    }

    #[test]
    fn who_does_not_wait_is_refused() {
        let mut bench = Bench::of(Patience::Try, Wake::Poll(secs(1)));
        let ticket = bench.first_claim();
        let actions = bench.refused(&ticket, held(Some(secs(1))));
        assert!(matches!(&actions[..], [Action::Refused(_)]), "{actions:?}");
        assert!(bench.contender.is_over());
    }

    #[test]
    fn on_a_store_with_a_clock_it_claims_when_the_grant_ends_and_writes_nothing_before() {
        let (mut bench, ticket) = Bench::claiming();
        assert!(bench.refused(&ticket, held(Some(secs(25)))).is_empty());
        let left = bench.wakes_in();
        assert!((secs(5)..secs(6)).contains(&left), "{left:?}");
        assert!(bench.after(secs(4)).is_empty());
        let next = claim_in(bench.wake());
        assert_ne!(next.id, ticket.id, "a refused claim is over");
        assert_ne!(next.nonce, ticket.nonce);
        assert_eq!(next.above, Some(token(7)));
    }

    #[test]
    fn while_the_grant_lasts_longer_than_a_poll_it_only_looks() {
        let (mut bench, ticket) = Bench::claiming();
        bench.refused(&ticket, held(Some(secs(1))));
        for _ in 0..2 {
            assert_looks(&bench.wake());
            assert!(bench.looked(Some(held(Some(secs(2))))).is_empty());
        }
    }

    #[test]
    fn without_a_clock_it_watches_for_the_whole_ttl_and_one_percent_from_the_receipt() {
        let (mut bench, ticket) = Bench::claiming();
        bench.refused(&ticket, held(None));
        let began = bench.clock.now().elapsed;
        let next = loop {
            match &bench.wake()[..] {
                [Action::Look] => assert!(bench.looked(Some(held(None))).is_empty()),
                [Action::Claim(next)] => break next.clone(),
                other => panic!("{other:?}"),
            }
        };
        let watched_for = bench.clock.now().elapsed.since(began);
        assert!(watched_for >= observed(secs(30)), "{watched_for:?}");
        assert!(watched_for <= observed(secs(30)) + secs(1), "{watched_for:?}");
        assert_eq!(next.watched, Some(Version::new("a")));
    }

    #[test]
    fn a_record_that_changed_is_watched_anew() {
        let (mut bench, ticket) = Bench::claiming();
        bench.refused(&ticket, held(None));
        bench.clock.advance(secs(29));
        assert_looks(&bench.on(Event::Tick));
        let renewed = Snapshot { version: Version::new("b"), ..held(None) };
        bench.looked(Some(renewed.clone()));
        for _ in 0..2 {
            assert_looks(&bench.wake());
            assert!(bench.looked(Some(renewed.clone())).is_empty());
        }
    }

    #[test]
    fn a_hint_makes_it_look_at_once_and_one_during_a_look_makes_it_look_again() {
        let (mut bench, ticket) = Bench::claiming();
        bench.refused(&ticket, held(Some(secs(1))));
        assert_looks(&bench.on(Event::Hint));
        assert!(bench.on(Event::Hint).is_empty(), "one look at a time");
        assert_looks(&bench.looked(Some(held(Some(secs(1))))));
        claim_in(bench.looked(Some(released())));
    }

    #[test]
    fn a_hint_that_crosses_the_answer_of_a_claim_makes_it_look_at_once() {
        let (mut bench, ticket) = Bench::claiming();
        assert!(bench.on(Event::Hint).is_empty());
        assert_looks(&bench.refused(&ticket, held(Some(secs(25)))));
        bench.looked(Some(held(Some(secs(25)))));
        assert!(bench.wakes_in() > secs(5), "once is enough");
    }

    #[test]
    fn a_failure_is_retried_later_each_time_and_hints_do_not_hurry_it() {
        let (mut bench, ticket) = Bench::claiming();
        assert!(bench.failed(&ticket, ErrorKind::Unavailable).is_empty());
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert!(bench.on(Event::Hint).is_empty());
            waits.push(bench.wakes_in());
            assert_looks(&bench.wake());
            bench.on(Event::Looked(Err(error(ErrorKind::Unavailable))));
        }
        assert!(waits[0] <= RETRY_MIN, "{waits:?}");
        assert!(waits[11] >= RETRY_MAX / 2 && waits[11] <= RETRY_MAX, "{waits:?}");
    }

    #[test]
    fn what_waiting_does_not_mend_ends_the_wait() {
        for kind in [ErrorKind::Corrupt, ErrorKind::Misconfigured, ErrorKind::Invalid] {
            let (mut bench, ticket) = Bench::claiming();
            let actions = bench.failed(&ticket, kind);
            assert!(
                matches!(&actions[..], [Action::GaveUp(GaveUp::Failed(error))]
                    if error.kind() == kind),
                "{actions:?}"
            );
            assert!(bench.contender.is_over());
        }
    }

    #[test]
    fn an_unknown_claim_is_repeated_as_it_was_and_no_other_starts() {
        let (mut bench, ticket) = Bench::claiming();
        bench.after(secs(5));
        assert!(bench.failed(&ticket, ErrorKind::OutcomeUnknown).is_empty());
        assert!(bench.on(Event::Hint).is_empty());
        assert_eq!(claim_in(bench.wake()), ticket);
        // Once unknown it stays so, whatever its copies came to, until the store has answered.
        assert!(bench.failed(&ticket, ErrorKind::Unavailable).is_empty());
        assert_eq!(claim_in(bench.wake()), ticket);
        let actions = bench.answer(&ticket, granted(8));
        assert!(
            matches!(&actions[..], [Action::Granted { ticket: same, .. }]
                if same.sent == ticket.sent),
            "it counts from its first send: {actions:?}"
        );
    }

    #[test]
    fn a_refusal_settles_an_unknown_claim_and_the_next_has_a_new_id() {
        let (mut bench, ticket) = Bench::claiming();
        bench.failed(&ticket, ErrorKind::OutcomeUnknown);
        bench.refused(&ticket, held(Some(secs(25))));
        let next = claim_in(bench.wake());
        assert_ne!(next.id, ticket.id);
        assert!(bench.answer(&ticket, granted(8)).is_empty(), "a late copy of a settled claim");
        assert!(matches!(&bench.answer(&next, granted(9))[..], [Action::Granted { .. }]));
    }

    #[test]
    fn a_grant_with_less_than_half_its_ttl_left_is_given_back() {
        let (mut bench, ticket) = Bench::claiming();
        bench.after(secs(15) + Duration::from_millis(1));
        let actions = bench.answer(&ticket, granted(8));
        assert!(matches!(&actions[..], [Action::GiveBack { .. }]), "{actions:?}");
        assert_looks(&bench.wake());
        let mut given_back = released();
        given_back.record.token = token(8);
        let next = claim_in(bench.looked(Some(given_back)));
        assert_ne!(next.id, ticket.id);
    }

    #[test]
    fn who_does_not_wait_is_refused_also_after_a_grant_that_came_too_late() {
        let mut bench = Bench::of(Patience::Try, Wake::Poll(secs(1)));
        let ticket = bench.first_claim();
        bench.clock.advance(secs(16));
        bench.answer(&ticket, granted(6));
        assert_looks(&bench.wake());
        let actions = bench.looked(Some(held(Some(secs(1)))));
        assert!(matches!(&actions[..], [Action::Refused(_)]), "{actions:?}");
        assert!(bench.contender.is_over());
    }

    #[test]
    fn who_does_not_wait_is_told_of_an_unknown_outcome_and_settles_it_behind() {
        let mut bench = Bench::of(Patience::Try, Wake::Poll(secs(1)));
        let ticket = bench.first_claim();
        let mut told = 0;
        while !bench.contender.is_over() {
            bench.clock.advance(secs(5));
            bench.failed(&ticket, ErrorKind::OutcomeUnknown);
            let actions = bench.wake();
            told += actions.iter().filter(|a| matches!(a, Action::GaveUp(_))).count();
        }
        assert_eq!(told, 1);
        let unanswered = bench.clock.now().elapsed.since(ticket.sent.elapsed);
        assert!(unanswered >= observed(secs(30)), "a grant to nobody would have run out");
    }

    #[test]
    fn a_wait_ends_in_time_and_leaves_nothing_behind() {
        let end = Instant::from_nanos(1_000_000_000_000) + secs(12);
        let mut bench = Bench::of(Patience::Until(end), Wake::Poll(secs(10)));
        let ticket = bench.first_claim();
        bench.refused(&ticket, held(Some(secs(1))));
        assert_looks(&bench.wake());
        assert!(bench.looked(Some(held(Some(secs(9))))).is_empty());
        assert_eq!(bench.contender.wake_at(), Some(end));
        let actions = bench.wake();
        assert!(matches!(&actions[..], [Action::GaveUp(GaveUp::TimedOut(Some(_)))]), "{actions:?}");
        assert!(bench.contender.is_over());
    }

    #[test]
    fn a_grant_that_nobody_waits_for_any_more_is_given_back() {
        let (mut bench, ticket) = Bench::claiming();
        assert!(bench.on(Event::Cancel).is_empty());
        assert!(!bench.contender.is_over(), "the claim must be settled");
        let actions = bench.answer(&ticket, granted(8));
        assert!(matches!(&actions[..], [Action::GiveBack { .. }]), "{actions:?}");
        assert!(bench.contender.is_over());
    }

    #[test]
    fn who_is_cancelled_before_it_asked_never_asks() {
        let mut bench = Bench::patient();
        assert!(bench.on(Event::Cancel).is_empty());
        assert!(bench.contender.is_over());
        assert!(bench.after(secs(60)).is_empty());
    }

    #[test]
    fn a_reservation_for_another_is_respected_and_ones_own_is_taken_at_once() {
        let kept_for = |successor: &str| {
            let successor: Successor = successor.parse().unwrap();
            let mut snapshot = released();
            snapshot.record.state =
                State::Released { reserved_for: Some(Reservation { successor, lasts: secs(5) }) };
            snapshot
        };
        let (mut bench, ticket) = Bench::claiming();
        bench.refused(&ticket, kept_for("api-2"));
        assert!(bench.wakes_in() >= secs(5));
        assert_looks(&bench.on(Event::Hint));
        claim_in(bench.looked(Some(kept_for("api-1"))));
    }

    #[test]
    fn a_refusal_by_what_looks_free_is_not_answered_at_once() {
        let (mut bench, ticket) = Bench::claiming();
        assert!(bench.refused(&ticket, released()).is_empty());
        assert!(!bench.wakes_in().is_zero());
        assert_looks(&bench.wake());
        claim_in(bench.looked(Some(released())));
    }

    #[test]
    fn a_reset_is_waited_out_and_the_next_claim_is_above_all_tokens_seen() {
        let (mut bench, ticket) = Bench::claiming();
        bench.refused(&ticket, held(Some(secs(1))));
        assert_looks(&bench.on(Event::Hint));
        assert!(bench.on(Event::Looked(Err(error(ErrorKind::StoreReset)))).is_empty());
        assert!(bench.on(Event::Hint).is_empty(), "no hint shortens it");
        assert_eq!(bench.wakes_in(), observed(secs(30)));
        assert_looks(&bench.wake());
        assert_eq!(claim_in(bench.looked(None)).above, Some(token(7)));
    }

    #[test]
    fn tokens_that_go_back_are_a_reset() {
        for seen in [None, Some(Snapshot { record: older(), ..held(Some(secs(40))) })] {
            let (mut bench, ticket) = Bench::claiming();
            bench.refused(&ticket, held(Some(secs(1))));
            assert_looks(&bench.on(Event::Hint));
            assert!(bench.looked(seen.clone()).is_empty());
            assert_eq!(bench.wakes_in(), observed(secs(30)));
            assert_looks(&bench.wake());
            assert_eq!(claim_in(bench.looked(seen)).above, Some(token(7)), "waited for once");
        }
    }

    fn older() -> Record {
        Record { token: token(3), ..held(None).record }
    }

    #[test]
    fn a_reset_that_another_operation_met_is_waited_out_too() {
        let (mut bench, ticket) = Bench::claiming();
        bench.refused(&ticket, held(Some(secs(1))));
        assert!(bench.on(Event::StoreReset).is_empty());
        assert_eq!(bench.wakes_in(), observed(secs(30)));
        assert_looks(&bench.wake());
        claim_in(bench.looked(None));
    }

    #[test]
    fn a_claim_that_meets_the_new_store_first_is_given_back() {
        let (mut bench, ticket) = Bench::claiming();
        assert!(bench.on(Event::StoreReset).is_empty());
        bench.clock.advance(secs(1));
        let actions = bench.answer(&ticket, granted(1));
        assert!(matches!(&actions[..], [Action::GiveBack { .. }]), "{actions:?}");
        assert_eq!(bench.wakes_in(), observed(secs(30)) - secs(1));
        assert_looks(&bench.wake());
        let next = claim_in(bench.looked(Some(released())));
        assert!(matches!(&bench.answer(&next, granted(8))[..], [Action::Granted { .. }]));
    }

    #[test]
    fn an_unknown_claim_is_not_repeated_to_a_store_that_has_forgotten_it() {
        let (mut bench, ticket) = Bench::claiming();
        bench.failed(&ticket, ErrorKind::OutcomeUnknown);
        assert!(bench.on(Event::StoreReset).is_empty());
        assert_eq!(bench.wakes_in(), observed(secs(30)));
        assert_looks(&bench.wake());

        let (mut bench, ticket) = Bench::claiming();
        bench.failed(&ticket, ErrorKind::OutcomeUnknown);
        bench.on(Event::Cancel);
        assert!(bench.on(Event::StoreReset).is_empty());
        assert!(bench.contender.is_over());
    }

    #[test]
    fn a_contender_made_after_a_reset_waits_for_the_rest_of_it() {
        let mut bench = Bench::patient();
        let noticed = bench.clock.now().elapsed;
        bench.contender = bench.contender.after_reset(noticed, Some(token(7)));
        bench.clock.advance(secs(10));
        assert!(bench.on(Event::Tick).is_empty());
        assert_eq!(bench.wakes_in(), observed(secs(30)) - secs(10));
        assert_looks(&bench.wake());
        assert_eq!(claim_in(bench.looked(None)).above, Some(token(7)));
    }

    #[test]
    fn an_impatient_contender_gives_up_until_a_reset_is_over_and_then_claims_above_what_was() {
        let noticed = Bench::patient().clock.now().elapsed;
        let impatient = |waited| {
            let mut bench = Bench::of(Patience::Try, Wake::Poll(secs(10)));
            bench.contender = bench.contender.after_reset(noticed, Some(token(7)));
            bench.clock.advance(waited);
            bench
        };
        let actions = impatient(secs(10)).on(Event::Tick);
        let [Action::GaveUp(GaveUp::Failed(error))] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(error.kind(), ErrorKind::StoreReset);

        let mut bench = impatient(observed(secs(30)));
        let ticket = claim_in(bench.on(Event::Tick));
        assert_eq!(ticket.above, Some(token(7)));
        let by = Snapshot { record: older(), ..held(Some(secs(1))) };
        assert!(matches!(&bench.refused(&ticket, by)[..], [Action::Refused(_)]), "no second reset");
    }

    #[test]
    fn a_hundred_contenders_do_not_wake_at_one_instant() {
        let mut wakes: Vec<Duration> = (0..100)
            .map(|seed| {
                let mut bench = Bench::patient();
                bench.chance = Chance::seeded(seed);
                let ticket = bench.first_claim();
                bench.refused(&ticket, held(Some(secs(25))));
                bench.wakes_in()
            })
            .collect();
        wakes.sort_unstable();
        wakes.dedup();
        assert!(wakes.len() > 90, "{}", wakes.len());
    }
}
