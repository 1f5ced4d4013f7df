//! The candidate's machine: campaign, term, end, and campaign again.

use std::time::Duration;

use crate::clock::Instant;
use crate::identity::{FencingToken, Successor};
use crate::timing::Timing;

/// What a candidate is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// Whether this instance is fit to lead, by its own health gate.
    Healthy(bool),
    /// The campaign was won: a term begins.
    Elected(FencingToken),
    /// The campaign ended without the name, and may be begun again.
    CampaignFailed,
    /// The work of the term ended by itself.
    WorkEnded,
    /// Resign, in favour of `to` if it is named.
    Resign {
        /// The successor.
        to: Option<Successor>,
    },
    /// The term's hold is lost: its work must end.
    TermLost,
    /// The term is over: its work has ended, and the name is given back or lost.
    TermOver,
    /// Stand no more; a running term is ended.
    Withdraw,
}

/// What a candidate does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Contend for the name.
    Campaign,
    /// Contend no more.
    StopCampaign,
    /// Start the work of this term.
    StartWork(FencingToken),
    /// End the term: stop the work, then release the name.
    EndTerm {
        /// In favour of whom.
        successor: Option<Successor>,
        /// Why, for the history.
        why: &'static str,
    },
    /// Nothing remains to be done.
    Over,
}

/// One instance in an election.
///
/// An observer is no candidate: it only looks, and needs none of this.
#[derive(Clone, Debug)]
pub struct Candidate {
    timing: Timing,
    stage: Stage,
    healthy: bool,
    withdrawn: bool,
    /// Short terms in a row: each doubles the wait before the next campaign.
    short_terms: u32,
    backs_off: bool,
    told_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Neither leading nor contending. `until`: backing off.
    Idle { until: Instant },
    /// Contending.
    Campaigning,
    /// The work runs.
    Leading { since: Instant },
    /// The term is ending.
    Ending { since: Instant },
}

/// The shortest wait after a term that ended by will, so that another may lead.
pub const BACK_OFF_MIN: Duration = Duration::from_secs(2);

impl Candidate {
    /// A candidate that stands as soon as it is told the time.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            stage: Stage::Idle { until: Instant::default() },
            healthy: true,
            withdrawn: false,
            short_terms: 0,
            backs_off: false,
            told_over: false,
        }
    }

    /// When it wants to be told the time at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Idle { until } if self.healthy && !self.withdrawn => Some(until),
            _ => None,
        }
    }

    /// Takes in what happened, and says what to do, in this order.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::Healthy(healthy) => {
                self.healthy = healthy;
                if !healthy {
                    self.stop(None, "unhealthy", now, &mut actions);
                }
            }
            Event::Elected(token) => match self.stage {
                Stage::Campaigning => {
                    self.stage = Stage::Leading { since: now };
                    actions.push(Action::StartWork(token));
                }
                // Won after the campaign was called off.
                _ => {
                    self.stage = Stage::Ending { since: now };
                    actions
                        .push(Action::EndTerm { successor: None, why: "the campaign had ended" });
                }
            },
            Event::CampaignFailed => {
                if self.stage == Stage::Campaigning {
                    self.stage = Stage::Idle { until: now + self.timing.timeout() };
                }
            }
            Event::WorkEnded => {
                if let Stage::Leading { .. } = self.stage {
                    self.backs_off = true;
                    self.end(None, "the work ended", &mut actions);
                }
            }
            Event::Resign { to } => {
                if let Stage::Leading { .. } = self.stage {
                    self.backs_off = true;
                    self.end(to, "resigned", &mut actions);
                }
            }
            Event::TermLost => self.end(None, "lost", &mut actions),
            Event::TermOver => self.term_over(now),
            Event::Withdraw => {
                self.withdrawn = true;
                self.stop(None, "withdrawn", now, &mut actions);
            }
        }
        self.pass(now, &mut actions);
        actions
    }

    fn pass(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Stage::Idle { until } = self.stage else { return };
        if self.withdrawn {
            if !self.told_over {
                self.told_over = true;
                actions.push(Action::Over);
            }
        } else if self.healthy && now >= until {
            self.stage = Stage::Campaigning;
            actions.push(Action::Campaign);
        }
    }

    fn stop(
        &mut self,
        successor: Option<Successor>,
        why: &'static str,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        match self.stage {
            Stage::Campaigning => {
                self.stage = Stage::Idle { until: now };
                actions.push(Action::StopCampaign);
            }
            Stage::Leading { .. } => self.end(successor, why, actions),
            Stage::Idle { .. } | Stage::Ending { .. } => {}
        }
    }

    fn end(&mut self, successor: Option<Successor>, why: &'static str, actions: &mut Vec<Action>) {
        if let Stage::Leading { since } = self.stage {
            self.stage = Stage::Ending { since };
            actions.push(Action::EndTerm { successor, why });
        }
    }

    /// After a term that was lost it stands again at once; after one that it ended itself it
    /// lets others go first, longer each time that a term was short.
    fn term_over(&mut self, now: Instant) {
        let (Stage::Leading { since } | Stage::Ending { since }) = self.stage else { return };
        let lasted = now.since(since);
        self.short_terms = if lasted >= self.timing.ttl() { 0 } else { self.short_terms + 1 };
        let doublings = self.short_terms.saturating_sub(1).min(16);
        let wait = BACK_OFF_MIN.saturating_mul(1 << doublings);
        let wait = wait.min(self.timing.ttl().max(BACK_OFF_MIN));
        let until = if std::mem::take(&mut self.backs_off) { now + wait } else { now };
        self.stage = Stage::Idle { until };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn token(number: u64) -> FencingToken {
        FencingToken::new(number).unwrap()
    }

    fn leader() -> Candidate {
        let mut candidate = Candidate::new(Timing::default());
        assert_eq!(candidate.on(Event::Tick, at(100)), [Action::Campaign]);
        let actions = candidate.on(Event::Elected(token(7)), at(101));
        assert_eq!(actions, [Action::StartWork(token(7))]);
        candidate
    }

    #[test]
    fn campaigns_again_at_once_after_a_loss() {
        let mut candidate = leader();
        let lost = [Action::EndTerm { successor: None, why: "lost" }];
        assert_eq!(candidate.on(Event::TermLost, at(150)), lost);
        assert_eq!(candidate.on(Event::TermOver, at(150)), [Action::Campaign]);
    }

    #[test]
    fn lets_others_go_first_after_its_work_ended() {
        let mut candidate = leader();
        let ended = [Action::EndTerm { successor: None, why: "the work ended" }];
        assert_eq!(candidate.on(Event::WorkEnded, at(102)), ended);
        assert_eq!(candidate.on(Event::TermOver, at(103)), []);
        assert_eq!(candidate.wake_at(), Some(at(105)));
        assert_eq!(candidate.on(Event::Tick, at(104)), []);
        assert_eq!(candidate.on(Event::Tick, at(105)), [Action::Campaign]);
    }

    #[test]
    fn work_that_keeps_ending_early_waits_longer_and_longer() {
        let mut candidate = leader();
        let mut now = 102;
        let mut waits = Vec::new();
        for _ in 0..6 {
            candidate.on(Event::WorkEnded, at(now));
            candidate.on(Event::TermOver, at(now));
            let until = candidate.wake_at().unwrap();
            waits.push(until.since(at(now)).as_secs());
            now = until.as_nanos() / 1_000_000_000;
            candidate.on(Event::Tick, at(now));
            candidate.on(Event::Elected(token(now)), at(now));
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn unhealthy_leader_steps_down_and_never_campaigns() {
        let mut candidate = leader();
        let actions = candidate.on(Event::Healthy(false), at(110));
        assert_eq!(actions, [Action::EndTerm { successor: None, why: "unhealthy" }]);
        assert_eq!(candidate.on(Event::TermOver, at(111)), []);
        assert_eq!(candidate.on(Event::Tick, at(500)), []);
        assert_eq!(candidate.on(Event::Healthy(true), at(501)), [Action::Campaign]);
        let actions = candidate.on(Event::Healthy(false), at(502));
        assert_eq!(actions, [Action::StopCampaign]);
    }

    #[test]
    fn a_grant_that_comes_after_the_campaign_was_called_off_is_ended() {
        let mut candidate = Candidate::new(Timing::default());
        candidate.on(Event::Tick, at(1));
        candidate.on(Event::Healthy(false), at(2));
        let actions = candidate.on(Event::Elected(token(1)), at(3));
        assert!(matches!(actions[..], [Action::EndTerm { .. }]));
    }

    #[test]
    fn withdrawing_ends_the_term_first() {
        let mut candidate = leader();
        let actions = candidate.on(Event::Withdraw, at(110));
        assert_eq!(actions, [Action::EndTerm { successor: None, why: "withdrawn" }]);
        assert_eq!(candidate.on(Event::TermOver, at(111)), [Action::Over]);
        assert_eq!(candidate.on(Event::Tick, at(112)), []);
    }

    #[test]
    fn resigns_in_favour_of_a_successor() {
        let mut candidate = leader();
        let to: Successor = "api-3".parse().unwrap();
        let actions = candidate.on(Event::Resign { to: Some(to.clone()) }, at(110));
        assert_eq!(actions, [Action::EndTerm { successor: Some(to), why: "resigned" }]);
    }
}
