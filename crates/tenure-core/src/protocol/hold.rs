//! The holder's machine: until when it may act, when it renews, and in what order it ends.

use std::time::Duration;

use crate::chance::Chance;
use crate::clock::{Instant, Reading};
use crate::error::ErrorKind;
use crate::identity::Successor;
use crate::protocol::standing::UNPROVEN;
pub use crate::protocol::standing::{Cause, Limits, Standing, cause_of_loss};
use crate::record::{Demand, Order};
use crate::timing::{Timing, observed};

/// What a holder is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The renewal that was asked for leaves; the reading was taken *before* it left.
    Sent(Reading),
    /// A renewal was answered.
    Answered {
        /// When that very renewal was sent.
        sent: Reading,
        /// What it came to.
        outcome: Outcome,
    },
    /// The store's clock was set: what it last confirmed may have ended early, so a renewal is due.
    StoreClockJumped,
    /// The holder's will: end the work, then give the name back.
    End(Ending),
    /// The work has ended, for whatever reason.
    WorkEnded,
    /// The release was answered: it is settled (given back, or not held any more) or not.
    ReleaseAnswered {
        /// Whether nothing remains to be done.
        settled: bool,
    },
    /// The store isn't what it was.
    StoreReset,
    /// Nobody waits for the work's end any more: renew it no longer.
    Abandon,
}

/// How a holder wants to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// In favour of whom: a transfer.
    pub successor: Option<Successor>,
    /// Don't wait for min-hold: the released record carries the rest of it.
    pub at_once: bool,
    /// Why, for the history.
    pub why: String,
}

/// What a renewal came to, in the holder's words.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Prolonged.
    Renewed,
    /// Prolonged, and asked to resign.
    Asked(Order),
    /// Final.
    NotHeld(Cause),
    /// Not known to have been done.
    Failed(ErrorKind),
}

/// What a holder does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put this hold into the next batch of renewals, now.
    Renew,
    /// The standing changed. Publish it, and the [`Limits`], before anything else is done.
    Announce(Standing),
    /// Stop the work: lost for this cause, or by will if there is none.
    StopWork(Option<Cause>),
    /// The work still runs at its deadline.
    Overrun,
    /// Give the name back. No renewal leaves any more.
    Release(Ending),
    /// Nothing remains to be done.
    Over,
}

/// One grant, from its arrival to its end.
///
/// **Invariant:** the deadline counts from the *sending* of a confirmed request, never from its
/// answer, and once the standing is `Lost` nothing raises it again.
#[derive(Clone, Debug)]
pub struct Holding {
    timing: Timing,
    /// In `run` and `elect`: how long a suspended hold may stay unproven before it is lost.
    suspended_max: Option<Duration>,
    /// When the last confirmed request was sent.
    confirmed: Reading,
    /// Nobody else is granted the name before: min-hold, counted from the grant's arrival.
    held_until: Instant,
    standing: Standing,
    lost: Option<Cause>,
    phase: Phase,
    /// The store itself says that it isn't held any more.
    gone: bool,
    work_ended: bool,
    overrun: bool,
    told_over: bool,
    renew_at: Instant,
    in_flight: Option<Instant>,
    failures: u32,
    suspended_since: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The work runs.
    Working,
    /// The holder wants to end: the work stops, then min-hold passes, while renewals go on.
    Ending(Ending),
    /// A release is on its way.
    Releasing { ending: Ending, retry_at: Instant, in_flight: bool },
    /// Nothing remains to be done.
    Over,
}

/// The shortest wait before a failed request is repeated.
pub const RETRY_MIN: Duration = Duration::from_millis(20);

impl Holding {
    /// A grant that has arrived. `sent` is when its claim was *first* sent.
    #[must_use]
    pub fn new(timing: Timing, sent: Reading, now: Reading, chance: &mut Chance) -> Self {
        Self {
            timing,
            suspended_max: None,
            confirmed: sent,
            held_until: now.elapsed + timing.min_hold(),
            standing: Standing::Held,
            lost: None,
            phase: Phase::Working,
            gone: false,
            work_ended: false,
            overrun: false,
            told_over: false,
            renew_at: sent.elapsed + interval(&timing, chance),
            in_flight: None,
            failures: 0,
            suspended_since: None,
        }
    }

    /// The same, losing a suspended hold that no renewal has proven within `max`.
    #[must_use]
    pub fn with_suspended_max(self, max: Duration) -> Self {
        Self { suspended_max: Some(max), ..self }
    }

    /// Its timing.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Its standing as last announced.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether nothing remains to be done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// When the last confirmed request was sent.
    #[must_use]
    pub fn confirmed(&self) -> Instant {
        self.confirmed.elapsed
    }

    /// When the next renewal is due, if any is: what beats are gathered by.
    #[must_use]
    pub fn renewal_due(&self) -> Option<Instant> {
        (self.renews() && self.in_flight.is_none()).then_some(self.renew_at)
    }

    /// What is left of min-hold.
    #[must_use]
    pub fn min_hold_left(&self, now: Instant) -> Duration {
        self.held_until.since(now)
    }

    /// What `check()` compares with the clock.
    #[must_use]
    pub fn limits(&self) -> Limits {
        // Whoever has ended may not act, also while min-hold keeps the name taken.
        let released =
            self.work_ended || matches!(self.phase, Phase::Releasing { .. } | Phase::Over);
        Limits {
            lost_at: self.timing.lost_at(self.confirmed.elapsed),
            deadline: self.timing.deadline(self.confirmed.elapsed),
            wall_offset_millis: match self.suspended_since {
                Some(_) => UNPROVEN,
                None => self.confirmed.wall_offset_millis(),
            },
            jump_max: self.timing.jump_max(),
            ended: self.lost.or(released.then_some(Cause::Released)),
        }
    }

    /// When it wants to be told the time at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let limits = self.limits();
        let mut wakes = [None; 4];
        match &self.phase {
            Phase::Over => return None,
            Phase::Releasing { retry_at, in_flight, .. } => {
                wakes[0] = if *in_flight { None } else { Some(*retry_at) };
                wakes[1] = Some(self.given_up_at());
            }
            Phase::Working | Phase::Ending(_) if self.lost.is_some() => {
                wakes[0] = (!self.overrun && !self.work_ended).then_some(limits.deadline);
            }
            Phase::Working | Phase::Ending(_) => {
                wakes[0] = Some(limits.lost_at);
                wakes[1] = match self.in_flight {
                    Some(sent) => Some(sent + self.timing.timeout()),
                    None => Some(self.renew_at),
                };
                wakes[2] = (self.standing == Standing::Held).then(|| self.overdue_at());
                wakes[3] = match &self.phase {
                    Phase::Ending(_) if self.work_ended => Some(self.held_until),
                    _ => {
                        self.suspended_since.zip(self.suspended_max).map(|(since, max)| since + max)
                    }
                };
            }
        }
        wakes.into_iter().flatten().min()
    }

    /// Takes in what happened, and says what to do, in this order.
    pub fn on(&mut self, event: Event, now: Reading, chance: &mut Chance) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.renews() && now.elapsed >= self.limits().lost_at {
            // Before anything else is heard: after a pause an answer may be at hand before any
            // timer is, and what has expired isn't revived.
            self.lose(Cause::Expired, &mut actions);
        }
        match event {
            Event::Tick => {}
            Event::Sent(sent) => {
                if self.renews() {
                    self.in_flight = Some(sent.elapsed);
                }
            }
            Event::Answered { sent, outcome } => {
                self.answered(sent, outcome, now, chance, &mut actions);
            }
            Event::End(ending) => self.end(ending, &mut actions),
            Event::WorkEnded => self.work_ended = true,
            Event::ReleaseAnswered { settled } => self.release_answered(settled, now, chance),
            Event::Abandon => self.lose(Cause::Released, &mut actions),
            Event::StoreClockJumped => self.renew_at = self.renew_at.min(now.elapsed),
            Event::StoreReset => {
                self.gone = true;
                self.lose(Cause::StoreReset, &mut actions);
            }
        }
        self.pass(now, chance, &mut actions);
        actions
    }

    /// Whether renewals go on: until it is lost or a release was sent.
    fn renews(&self) -> bool {
        self.lost.is_none() && matches!(self.phase, Phase::Working | Phase::Ending(_))
    }

    fn answered(
        &mut self,
        sent: Reading,
        outcome: Outcome,
        now: Reading,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        if self.in_flight.is_some_and(|in_flight| in_flight <= sent.elapsed) {
            self.in_flight = None;
        }
        if !self.renews() {
            return;
        }
        match outcome {
            Outcome::Renewed => self.confirm(sent, now, chance),
            Outcome::Asked(order) => {
                self.confirm(sent, now, chance);
                if let Demand::Resign { to } = order.demand {
                    let why = format!("asked by {}: {}", order.by, order.reason);
                    self.end(Ending { successor: to, at_once: false, why }, actions);
                }
            }
            Outcome::NotHeld(cause) => {
                // A revoked grant is in force until it is released or runs out.
                self.gone = cause != Cause::Revoked;
                self.lose(cause, actions);
            }
            Outcome::Failed(_) => self.retry(now.elapsed, chance),
        }
    }

    /// A success counts from its own send, however late it is told, and never moves back.
    fn confirm(&mut self, sent: Reading, now: Reading, chance: &mut Chance) {
        if sent.elapsed < self.confirmed.elapsed {
            return;
        }
        self.confirmed = sent;
        self.failures = 0;
        self.suspended_since = self.suspended_since.filter(|since| sent.elapsed < *since);
        // One that was sent before the clocks parted proves nothing: the next leaves at once.
        self.renew_at = if self.limits().jumped(now) {
            now.elapsed
        } else {
            sent.elapsed + interval(&self.timing, chance)
        };
    }

    /// A failure changes nothing but when to try again: soon, then a little later each time.
    fn retry(&mut self, now: Instant, chance: &mut Chance) {
        self.renew_at = now + self.backoff(chance);
    }

    fn backoff(&mut self, chance: &mut Chance) -> Duration {
        let longest = self.timing.timeout();
        let shortest = (self.timing.ttl() / 60).max(RETRY_MIN).min(longest);
        let wait = shortest.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures += 1;
        chance.between(wait / 2, wait)
    }

    fn end(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Working => {
                self.phase = Phase::Ending(ending);
                if !self.work_ended && self.lost.is_none() {
                    actions.push(Action::StopWork(None));
                }
            }
            // A later will may name a successor or be in a hurry, not take either back.
            Phase::Ending(before) if before.successor.is_none() => {
                let at_once = before.at_once || ending.at_once;
                *before = Ending { at_once, ..ending };
            }
            Phase::Ending(_) | Phase::Releasing { .. } | Phase::Over => {}
        }
    }

    fn lose(&mut self, cause: Cause, actions: &mut Vec<Action>) {
        if self.lost.is_some() || matches!(self.phase, Phase::Releasing { .. } | Phase::Over) {
            return;
        }
        self.lost = Some(cause);
        self.standing = Standing::Lost;
        self.in_flight = None;
        actions.push(Action::Announce(Standing::Lost));
        if !self.work_ended {
            actions.push(Action::StopWork(Some(cause)));
        }
    }

    fn release_answered(&mut self, settled: bool, now: Reading, chance: &mut Chance) {
        let wait = self.backoff(chance);
        if let Phase::Releasing { retry_at, in_flight: in_flight @ true, .. } = &mut self.phase {
            *in_flight = false;
            *retry_at = now.elapsed + wait;
            if settled {
                self.phase = Phase::Over;
            }
        }
    }

    /// What the passing of time brings.
    fn pass(&mut self, now: Reading, chance: &mut Chance, actions: &mut Vec<Action>) {
        let limits = self.limits();
        if self.renews() {
            if now.elapsed >= limits.lost_at {
                self.lose(Cause::Expired, actions);
            } else {
                self.doubt(now, &limits, actions);
            }
        }
        if self.renews() {
            if self.in_flight.is_some_and(|sent| now.elapsed >= sent + self.timing.timeout()) {
                // Unanswered: a late success still counts, from its own send.
                self.in_flight = None;
                self.retry(now.elapsed, chance);
            }
            if self.in_flight.is_none() && now.elapsed >= self.renew_at {
                actions.push(Action::Renew);
            }
        }
        self.finish(now, actions);
    }

    /// Jeopardy, and back. It is advisory: only [`Limits::check`] forbids.
    fn doubt(&mut self, now: Reading, limits: &Limits, actions: &mut Vec<Action>) {
        let jumped = limits.jumped(now);
        if jumped && self.suspended_since.is_none() {
            self.suspended_since = Some(now.elapsed);
            // Whatever is on its way was sent before the jump and proves nothing.
            self.in_flight = None;
            self.renew_at = now.elapsed;
        }
        if let (Some(since), Some(max)) = (self.suspended_since, self.suspended_max)
            && now.elapsed >= since + max
        {
            return self.lose(Cause::Suspended, actions);
        }
        let standing = if jumped || now.elapsed >= self.overdue_at() {
            Standing::Jeopardy
        } else {
            Standing::Held
        };
        if standing != self.standing {
            self.standing = standing;
            actions.push(Action::Announce(standing));
        }
    }

    /// The end of things: overrun, release, over.
    fn finish(&mut self, now: Reading, actions: &mut Vec<Action>) {
        let deadline = self.limits().deadline;
        if self.lost.is_some() && !self.work_ended && !self.overrun && now.elapsed >= deadline {
            self.overrun = true;
            actions.push(Action::Overrun);
        }
        if self.work_ended {
            self.leave(now, actions);
        }
        let given_up = now.elapsed >= self.given_up_at();
        match &mut self.phase {
            Phase::Releasing { .. } if given_up => self.phase = Phase::Over,
            Phase::Releasing { in_flight, retry_at, ending }
                if !*in_flight && now.elapsed >= *retry_at =>
            {
                *in_flight = true;
                actions.push(Action::Release(ending.clone()));
            }
            _ => {}
        }
        if self.phase == Phase::Over && !self.told_over {
            self.told_over = true;
            actions.push(Action::Over);
        }
    }

    /// The work has ended: gives the name back as soon as it may.
    fn leave(&mut self, now: Reading, actions: &mut Vec<Action>) {
        let ending = match &self.phase {
            Phase::Ending(ending) => ending.clone(),
            Phase::Working => {
                Ending { successor: None, at_once: false, why: "the work ended".to_owned() }
            }
            Phase::Releasing { .. } | Phase::Over => return,
        };
        let waits = ending.successor.is_none() && !ending.at_once;
        let held_on = waits && now.elapsed < self.held_until;
        match self.lost {
            // The store has said so itself, or isn't the one that granted it.
            Some(_) if self.gone => self.phase = Phase::Over,
            None if held_on => self.phase = Phase::Ending(ending),
            Some(_) => {
                self.phase = Phase::Releasing { ending, retry_at: now.elapsed, in_flight: false }
            }
            None => {
                self.standing = Standing::Lost;
                self.phase = Phase::Releasing { ending, retry_at: now.elapsed, in_flight: false };
                actions.push(Action::Announce(Standing::Lost));
            }
        }
    }

    /// When a renewal is overdue: the latest was given up, and none came through.
    fn overdue_at(&self) -> Instant {
        self.confirmed.elapsed + self.timing.renew_interval() * 11 / 10 + self.timing.timeout()
    }

    /// When a release that is never answered needs no answer any more: the grant has run out.
    fn given_up_at(&self) -> Instant {
        self.confirmed.elapsed + observed(self.timing.ttl())
    }
}

/// ttl/3, give or take a tenth.
fn interval(timing: &Timing, chance: &mut Chance) -> Duration {
    let third = timing.renew_interval();
    chance.between(third * 9 / 10, third * 11 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};

    struct Bench {
        clock: ManualClock,
        chance: Chance,
        holding: Holding,
    }

    impl Bench {
        fn granted(timing: Timing) -> Self {
            let clock = ManualClock::starting_at(Instant::from_nanos(1_000_000_000_000));
            let mut chance = Chance::seeded(5);
            let now = clock.now();
            let holding = Holding::new(timing, now, now, &mut chance);
            Self { clock, chance, holding }
        }

        fn on(&mut self, event: Event) -> Vec<Action> {
            self.holding.on(event, self.clock.now(), &mut self.chance)
        }

        fn after(&mut self, time: Duration) -> Vec<Action> {
            self.clock.advance(time);
            self.on(Event::Tick)
        }

        fn check(&self) -> Result<Duration, Cause> {
            self.holding.limits().check(self.clock.now())
        }

        fn renewal(&mut self, takes: Duration) -> Vec<Action> {
            let sent = self.clock.now();
            self.on(Event::Sent(sent));
            self.clock.advance(takes);
            self.on(Event::Answered { sent, outcome: Outcome::Renewed })
        }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn release(why: &str) -> Action {
        Action::Release(Ending { successor: None, at_once: false, why: why.to_owned() })
    }

    #[test]
    fn a_jump_of_the_stores_clock_makes_a_renewal_due() {
        let mut bench = Bench::granted(Timing::FAST);
        bench.after(secs(1));
        bench.on(Event::StoreClockJumped);
        assert_eq!(bench.holding.renewal_due(), Some(bench.clock.now().elapsed));
    }

    #[test]
    fn deadline_counts_from_the_send_of_the_renewal() {
        let mut bench = Bench::granted(Timing::default());
        assert!(bench.after(secs(11)).contains(&Action::Renew));
        // The answer takes 10 s; what it gives counts from before it left.
        bench.renewal(secs(10));
        assert_eq!(bench.check(), Ok(secs(22 - 10)));
        assert!(bench.after(secs(11)).contains(&Action::Renew));
        assert_eq!(
            bench.after(secs(1)),
            [Action::Announce(Standing::Lost), Action::StopWork(Some(Cause::Expired))]
        );
        assert_eq!(bench.check(), Err(Cause::Expired));
    }

    #[test]
    fn a_failed_renewal_changes_nothing_and_is_tried_again() {
        let mut bench = Bench::granted(Timing::default());
        bench.after(secs(11));
        let sent = bench.clock.now();
        bench.on(Event::Sent(sent));
        let failed = Outcome::Failed(ErrorKind::Unavailable);
        assert_eq!(bench.on(Event::Answered { sent, outcome: failed }), []);
        assert_eq!(bench.check(), Ok(secs(11)));
        assert!(bench.after(secs(1)).contains(&Action::Renew));
    }

    #[test]
    fn a_hung_renewal_does_not_delay_the_loss() {
        let mut bench = Bench::granted(Timing::default());
        bench.after(secs(11));
        let sent = bench.clock.now();
        bench.on(Event::Sent(sent));
        let actions = bench.after(secs(11));
        assert_eq!(actions[0], Action::Announce(Standing::Lost));
        // What is lost stays lost, also when the answer comes after all.
        bench.on(Event::Answered { sent, outcome: Outcome::Renewed });
        assert_eq!(bench.check(), Err(Cause::Expired));
        assert_eq!(bench.holding.standing(), Standing::Lost);
    }

    #[test]
    fn what_has_expired_is_not_revived_by_an_answer_that_is_handled_first() {
        let mut bench = Bench::granted(Timing::default());
        bench.after(secs(11));
        let sent = bench.clock.now();
        bench.on(Event::Sent(sent));
        // The process is stopped. When it goes on, the answer is at hand before any timer.
        bench.clock.advance(secs(12));
        assert_eq!(bench.check(), Err(Cause::Expired));
        let actions = bench.on(Event::Answered { sent, outcome: Outcome::Renewed });
        assert_eq!(bench.check(), Err(Cause::Expired), "lost is final");
        assert_eq!(
            actions,
            [Action::Announce(Standing::Lost), Action::StopWork(Some(Cause::Expired))]
        );
    }

    #[test]
    fn an_overdue_renewal_is_jeopardy_until_one_succeeds() {
        let mut bench = Bench::granted(Timing::default());
        bench.after(secs(11));
        bench.on(Event::Sent(bench.clock.now()));
        let actions = bench.after(secs(6));
        assert!(actions.contains(&Action::Announce(Standing::Jeopardy)));
        assert!(bench.check().is_ok(), "jeopardy is advisory");
        let actions = bench.renewal(secs(1));
        assert!(actions.contains(&Action::Announce(Standing::Held)));
    }

    #[test]
    fn a_wall_clock_that_runs_ahead_must_be_answered_by_a_renewal_sent_after_it() {
        let mut bench = Bench::granted(Timing::default());
        bench.after(secs(11));
        let sent_before = bench.clock.now();
        bench.on(Event::Sent(sent_before));
        bench.clock.step_wall(3_600_000);
        assert_eq!(bench.check(), Err(Cause::Suspended));
        let actions = bench.on(Event::Tick);
        assert!(actions.contains(&Action::Announce(Standing::Jeopardy)));
        assert!(actions.contains(&Action::Renew), "it is proven again at once");
        bench.on(Event::Answered { sent: sent_before, outcome: Outcome::Renewed });
        assert_eq!(bench.check(), Err(Cause::Suspended), "that one was sent before the jump");
        bench.renewal(secs(1));
        assert!(bench.check().is_ok());
    }

    #[test]
    fn a_jump_that_was_noticed_is_not_undone_by_setting_the_wall_clock_back() {
        let mut bench = Bench::granted(Timing::default());
        bench.after(secs(5));
        bench.clock.step_wall(3_600_000);
        assert!(bench.on(Event::Tick).contains(&Action::Announce(Standing::Jeopardy)));
        bench.clock.step_wall(-3_600_000);
        assert_eq!(bench.check(), Err(Cause::Suspended), "only a renewal proves the hold");
        assert!(!bench.on(Event::Tick).contains(&Action::Announce(Standing::Held)));
        bench.renewal(secs(1));
        assert!(bench.check().is_ok());
        assert_eq!(bench.holding.standing(), Standing::Held);
    }

    #[test]
    fn a_wall_clock_set_back_is_nothing() {
        let mut bench = Bench::granted(Timing::default());
        bench.clock.step_wall(-3_600_000);
        assert!(bench.check().is_ok());
        assert_eq!(bench.on(Event::Tick), []);
    }

    #[test]
    fn a_suspended_command_loses_its_hold_unless_it_is_proven_soon() {
        let mut bench = Bench::granted(Timing::default());
        bench.holding = bench.holding.clone().with_suspended_max(secs(5));
        bench.clock.step_wall(3_600_000);
        bench.on(Event::Tick);
        assert!(!bench.after(secs(4)).contains(&Action::Announce(Standing::Lost)));
        assert!(
            bench.after(secs(1)).contains(&Action::StopWork(Some(Cause::Suspended))),
            "ttl/6 without a renewal counts as the deadline"
        );
    }

    #[test]
    fn renewals_go_on_while_the_work_ends_and_none_leaves_after_the_release() {
        let mut bench = Bench::granted(Timing::default());
        let ending = Ending { successor: None, at_once: false, why: "asked".to_owned() };
        assert_eq!(bench.on(Event::End(ending)), [Action::StopWork(None)]);
        assert!(bench.after(secs(11)).contains(&Action::Renew));
        bench.renewal(secs(1));
        assert!(bench.check().is_ok(), "the work is still ending");
        assert_eq!(
            bench.on(Event::WorkEnded),
            [Action::Announce(Standing::Lost), release("asked")]
        );
        assert_eq!(bench.check(), Err(Cause::Released));
        assert!(!bench.after(secs(11)).contains(&Action::Renew));
        assert_eq!(bench.on(Event::ReleaseAnswered { settled: true }), [Action::Over]);
    }

    #[test]
    fn an_unanswered_release_is_repeated_until_the_grant_has_run_out() {
        let mut bench = Bench::granted(Timing::default());
        bench.on(Event::End(Ending::default()));
        bench.on(Event::WorkEnded);
        let mut repeated = 0;
        for _ in 0..400 {
            let actions = bench.on(Event::ReleaseAnswered { settled: false });
            if actions.contains(&Action::Over) {
                break;
            }
            repeated += bench.after(Duration::from_millis(200)).len();
        }
        assert!(repeated > 3, "{repeated}");
        assert!(bench.holding.is_over());
    }

    #[test]
    fn min_hold_keeps_renewing_after_the_work_has_ended() {
        let timing = Timing::default().with_min_hold(secs(60)).unwrap();
        let mut bench = Bench::granted(timing);
        assert_eq!(bench.on(Event::WorkEnded), []);
        for _ in 0..59 {
            if bench.after(secs(1)).contains(&Action::Renew) {
                bench.renewal(Duration::ZERO);
            }
            assert_eq!(bench.holding.standing(), Standing::Held);
            assert_eq!(bench.check(), Err(Cause::Released), "held on, but not to act under");
        }
        assert_eq!(
            bench.after(secs(1)),
            [Action::Announce(Standing::Lost), release("the work ended")]
        );
    }

    #[test]
    fn a_transfer_does_not_wait_for_min_hold() {
        let timing = Timing::default().with_min_hold(secs(60)).unwrap();
        let mut bench = Bench::granted(timing);
        let successor: Successor = "api-3".parse().unwrap();
        let ending =
            Ending { successor: Some(successor), at_once: false, why: "deploy".to_owned() };
        bench.on(Event::End(ending.clone()));
        let actions = bench.on(Event::WorkEnded);
        assert_eq!(actions, [Action::Announce(Standing::Lost), Action::Release(ending)]);
    }

    #[test]
    fn on_loss_the_store_is_told_only_after_the_work_has_ended() {
        let mut bench = Bench::granted(Timing::default());
        let actions = bench.after(secs(22));
        assert_eq!(
            actions,
            [Action::Announce(Standing::Lost), Action::StopWork(Some(Cause::Expired))]
        );
        assert_eq!(bench.after(secs(4)), []);
        assert_eq!(bench.after(secs(1)), [Action::Overrun]);
        assert_eq!(bench.on(Event::WorkEnded), [release("the work ended")]);
    }

    #[test]
    fn an_order_to_resign_ends_the_work_in_favour_of_the_successor() {
        let mut bench = Bench::granted(Timing::default());
        bench.after(secs(11));
        let sent = bench.clock.now();
        bench.on(Event::Sent(sent));
        let to: Successor = "api-3".parse().unwrap();
        let order = Order {
            demand: Demand::Resign { to: Some(to.clone()) },
            by: "op".to_owned(),
            reason: "drain".to_owned(),
            at: Timestamp::default(),
        };
        let actions = bench.on(Event::Answered { sent, outcome: Outcome::Asked(order) });
        assert_eq!(actions, [Action::StopWork(None)]);
        let actions = bench.on(Event::WorkEnded);
        assert!(
            matches!(&actions[1], Action::Release(Ending { successor: Some(s), .. }) if *s == to)
        );
    }

    #[test]
    fn what_the_store_took_is_not_released() {
        let mut bench = Bench::granted(Timing::default());
        bench.after(secs(11));
        let sent = bench.clock.now();
        bench.on(Event::Sent(sent));
        bench.on(Event::Answered { sent, outcome: Outcome::NotHeld(Cause::Expired) });
        assert_eq!(bench.on(Event::WorkEnded), [Action::Over]);
    }

    #[test]
    fn a_revoked_hold_is_released_when_its_work_has_ended() {
        let mut bench = Bench::granted(Timing::default());
        bench.after(secs(11));
        let sent = bench.clock.now();
        bench.on(Event::Sent(sent));
        bench.on(Event::Answered { sent, outcome: Outcome::NotHeld(Cause::Revoked) });
        assert_eq!(bench.check(), Err(Cause::Revoked));
        assert_eq!(bench.on(Event::WorkEnded), [release("the work ended")]);
    }
}
