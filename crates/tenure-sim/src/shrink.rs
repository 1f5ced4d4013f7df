//! Shrinking: the least schedule that still breaks the same guarantee.

use std::time::Duration;

use crate::scenario::Scenario;
use crate::schedule::{Fault, What};

/// How many runs one violation may cost.
const RUNS_MAX: usize = 400;

/// Delta debugging (Zeller and Hildebrandt) over the faults, then over what takes part, then
/// over how long things last. `fails` says when a candidate breaks the guarantee, if it does.
pub(crate) fn shrunk(
    scenario: Scenario,
    fails: impl Fn(&Scenario) -> Option<Duration>,
) -> Scenario {
    let mut shrinking = Shrinking { best: scenario, runs: 0, fails };
    shrinking.end_early();
    loop {
        let before = shrinking.best.schedule.clone();
        shrinking.fewer_faults();
        shrinking.fewer_instances();
        shrinking.shorter_faults();
        shrinking.end_early();
        if shrinking.best.schedule == before || shrinking.runs >= RUNS_MAX {
            break;
        }
    }
    shrinking.best
}

struct Shrinking<F> {
    best: Scenario,
    runs: usize,
    fails: F,
}

impl<F: Fn(&Scenario) -> Option<Duration>> Shrinking<F> {
    /// Keeps a candidate that still fails.
    fn keeps(&mut self, candidate: Scenario) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let failed = (self.fails)(&candidate).is_some();
        if failed {
            self.best = candidate;
        }
        failed
    }

    fn with_faults(&self, faults: Vec<Fault>) -> Scenario {
        let mut candidate = self.best.clone();
        candidate.schedule.faults = faults;
        candidate
    }

    /// What comes after the violation has no part in it.
    fn end_early(&mut self) {
        let Some(at) = (self.fails)(&self.best) else { return };
        let faults = self.best.schedule.faults.iter().filter(|fault| fault.at <= at);
        let candidate = self.with_faults(faults.cloned().collect());
        self.keeps(candidate);
    }

    fn fewer_faults(&mut self) {
        let mut size = self.best.schedule.faults.len().div_ceil(2);
        while size > 0 {
            let mut start = 0;
            while start < self.best.schedule.faults.len() {
                let mut faults = self.best.schedule.faults.clone();
                faults.drain(start..(start + size).min(faults.len()));
                let candidate = self.with_faults(faults);
                if !self.keeps(candidate) {
                    start += size;
                }
            }
            size /= 2;
        }
    }

    fn fewer_instances(&mut self) {
        while self.best.schedule.instances > 2 {
            let mut candidate = self.best.clone();
            candidate.schedule.instances -= 1;
            let instances = candidate.schedule.instances;
            candidate.schedule.faults.retain(|fault| fault.who < instances);
            if !self.keeps(candidate) {
                break;
            }
        }
        if self.best.schedule.names > 1 {
            let mut candidate = self.best.clone();
            candidate.schedule.names = 1;
            self.keeps(candidate);
        }
    }

    fn shorter_faults(&mut self) {
        for index in 0..self.best.schedule.faults.len() {
            for _ in 0..3 {
                let mut candidate = self.best.clone();
                let halved = halve(&mut candidate.schedule.faults[index].what);
                if !halved || !self.keeps(candidate) {
                    break;
                }
            }
        }
    }
}

/// Halves how long a fault lasts. Says whether it lasts at all.
fn halve(what: &mut What) -> bool {
    let (What::Pause(lasts)
    | What::Stall(lasts)
    | What::Suspend(lasts)
    | What::Freeze { lasts, .. }
    | What::Crash(lasts)
    | What::Cut(lasts)
    | What::LoseRequests(lasts)
    | What::LoseAnswers(lasts)
    | What::Slow { lasts, .. }
    | What::Double(lasts)
    | What::Refuse(lasts)
    | What::Unhealthy(lasts)) = what
    else {
        return false;
    };
    *lasts /= 2;
    *lasts > Duration::from_millis(1)
}
