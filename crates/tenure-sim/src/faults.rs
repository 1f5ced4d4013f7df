//! What each fault of the schedule does to the world.

use std::time::Duration;

use tenure_core::clock::Timestamp;
use tenure_core::identity::{Nonce, Successor};
use tenure_core::record::{Demand, Order};
use tenure_core::store::OrderRequest;

use crate::instance::Life;
use crate::lane::Lane;
use crate::schedule::{Fault, What};
use crate::world::{Event, World};

impl World<'_> {
    /// Something goes wrong.
    pub(crate) fn strike(&mut self, fault: &Fault) {
        if fault.who >= self.processes.len() {
            return;
        }
        self.note(|| format!("fault  {fault}").replace('\n', " "));
        let who = fault.who;
        // The chaos ends for everybody at once.
        let end = self.scenario.schedule.chaos;
        let until = |lasts: Duration| (fault.at + lasts).min(end);
        match &fault.what {
            What::Pause(lasts) | What::Suspend(lasts) => self.pause(who, until(*lasts)),
            What::Stall(lasts) => self.stall(who, until(*lasts)),
            What::Freeze { lasts, seen } => self.freeze(who, until(*lasts), *seen),
            What::Crash(lasts) => self.crash(who, until(*lasts)),
            What::StepWall(by) => {
                let process = &mut self.processes[who];
                process.clock.step_wall(*by);
                if *by < 0 {
                    process.set_back_at = Some(fault.at);
                }
                self.set_timer(who);
            }
            What::Cut(lasts) => self.processes[who].link.cut_until = until(*lasts),
            What::LoseRequests(lasts) => {
                self.processes[who].link.requests_lost_until = until(*lasts);
            }
            What::LoseAnswers(lasts) => {
                self.processes[who].link.answers_lost_until = until(*lasts);
            }
            What::Slow { lasts, by } => {
                let link = &mut self.processes[who].link;
                (link.slow_until, link.slow_by) = (until(*lasts), *by);
            }
            What::Double(lasts) => self.processes[who].link.doubled_until = until(*lasts),
            What::Refuse(lasts) => self.processes[who].link.refused_until = until(*lasts),
            What::JumpStore(by) => self.store.jump(*by),
            What::ForgetStore => self.forget(),
            What::BackUpStore => self.store.back_up(),
            What::RestoreStore => {
                self.store.restore();
                self.forgot(false);
            }
            What::OrderResign(name) => self.order(*name, Demand::Resign { to: None }),
            What::Revoke(name) => self.order(*name, Demand::Revoke),
            What::RevokeNow(name) => self.order(*name, Demand::RevokeNow),
            What::Resign(name, handed) => self.resign(who, *name, *handed),
            What::EndWork(name) => self.at_lane(who, *name, Lane::end_work),
            What::Unhealthy(lasts) => self.unfit(who, until(*lasts)),
        }
    }

    fn at_lane(
        &mut self,
        who: usize,
        name: usize,
        act: impl FnOnce(&mut Lane, &mut crate::lane::Desk<'_>),
    ) {
        if self.processes[who].runs() {
            self.drive(who, name, act);
            self.set_timer(who);
        }
    }

    fn pause(&mut self, who: usize, until: Duration) {
        let process = &mut self.processes[who];
        let until = match process.life {
            Life::Dead => return,
            Life::Running => until,
            Life::Paused(before) => before.max(until),
        };
        process.life = Life::Paused(until);
        self.plan(until, Event::Resume { who });
    }

    /// Checks, and is paused before the effects.
    fn stall(&mut self, who: usize, until: Duration) {
        let process = &mut self.processes[who];
        if process.runs() {
            let reading = process.clock.reading(self.now);
            for lane in &process.lanes {
                if let Some(act) = lane.may_act(reading, self.rules) {
                    process.late.push((lane.name.clone(), act.token));
                }
            }
        }
        self.pause(who, until);
    }

    fn freeze(&mut self, who: usize, until: Duration, seen: bool) {
        let process = &mut self.processes[who];
        if process.life == Life::Running {
            process.clock.freeze(self.now);
            process.thaws_seen = Some(seen);
            self.pause(who, until);
        }
    }

    /// The process goes on: late effects first, then everything that waited, in any order.
    pub(crate) fn resume(&mut self, who: usize) {
        let now = self.now;
        let process = &mut self.processes[who];
        match process.life {
            Life::Paused(until) if until <= now => {}
            _ => return,
        }
        process.life = Life::Running;
        if let Some(seen) = process.thaws_seen.take() {
            process.clock.thaw(now, seen);
            process.frozen(now, seen);
        }
        for (name, token) in std::mem::take(&mut process.late) {
            let admitted = self.guard.admits(&name, token);
            let how = if admitted { "lets through" } else { "turns away" };
            self.note(|| format!("guard  {how} a late effect of i{who} under token {token}"));
        }
        self.note(|| format!("i{who}     goes on"));
        let process = &mut self.processes[who];
        // Work may be the first to run, before any timer or answer is looked at.
        let works_first = process.weather.one_in(2);
        let mut inbox = std::mem::take(&mut process.inbox);
        let ticks_at = process.weather.below(inbox.len() as u64 + 1) as usize;
        if works_first {
            for lane in 0..self.processes[who].lanes.len() {
                self.drive(who, lane, Lane::run_work);
            }
        }
        let mut taken = 0;
        while !inbox.is_empty() {
            if taken == ticks_at {
                self.tick(who);
            }
            taken += 1;
            let pick = self.processes[who].weather.below(inbox.len() as u64) as usize;
            let inbound = inbox.swap_remove(pick);
            self.take_in(who, inbound);
        }
        self.tick(who);
    }

    fn crash(&mut self, who: usize, until: Duration) {
        let process = &mut self.processes[who];
        if let Some(seen) = process.thaws_seen.take() {
            process.clock.thaw(self.now, seen);
        }
        process.die();
        self.plan(until, Event::Start { who });
    }

    pub(crate) fn start(&mut self, who: usize) {
        if self.processes[who].life == Life::Dead {
            self.note(|| format!("i{who}     starts again"));
            self.processes[who].start();
            self.set_timer(who);
        }
    }

    fn unfit(&mut self, who: usize, until: Duration) {
        for name in 0..self.names.len() {
            self.at_lane(who, name, |lane, desk| lane.healthy(false, desk));
        }
        self.plan(until, Event::Fit { who });
    }

    pub(crate) fn fit(&mut self, who: usize) {
        match self.processes[who].life {
            Life::Running => {}
            // It hears of it when it goes on.
            Life::Paused(until) => return self.plan(until, Event::Fit { who }),
            Life::Dead => return,
        }
        for name in 0..self.names.len() {
            self.at_lane(who, name, |lane, desk| lane.healthy(true, desk));
        }
    }

    fn resign(&mut self, who: usize, name: usize, handed: bool) {
        let next = (who + 1) % self.processes.len();
        let to = handed.then(|| Successor::from(self.processes[next].identity.clone()));
        self.at_lane(who, name, |lane, desk| lane.resign(to, desk));
    }

    fn order(&mut self, name: usize, demanded: Demand) {
        let Some(name) = self.names.get(name).cloned() else { return };
        let at = Timestamp::from_millis(self.now.as_millis() as i64);
        let carried_out = self.rules.demanded(demanded.clone());
        let order = Order::new(carried_out, "operator", "because", at);
        let request = OrderRequest { order, token: None, nonce: Nonce::draw(&mut self.chance) };
        if let Some(change) = self.store.order(&name, &request, self.now) {
            self.oracle.ordered(change, &demanded);
            self.hint(&name);
        }
    }

    fn forget(&mut self) {
        self.store.forget(&mut self.chance);
        self.forgot(true);
    }

    fn forgot(&mut self, everything: bool) {
        self.reset = Some((self.now, everything));
        let store = &self.store;
        self.oracle.forgot(|name| store.record(name).map(|record| record.token));
    }
}
