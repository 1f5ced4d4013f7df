//! The world of one run: true time, its events, and everything that they happen to.

use std::collections::BTreeMap;
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::identity::{Name, StoreId};
use tenure_core::protocol::beat::{Due, gather};

use crate::config::Config;
use crate::guard::Guard;
use crate::instance::{Inbound, Life, Process};
use crate::lane::{Desk, Lane};
use crate::operation::{Purpose, Want};
use crate::oracle::{Breach, Invariant, Key, Moment, Oracle};
use crate::request::Call;
use crate::rules::Rules;
use crate::scenario::{Scenario, clock};
use crate::schedule::{Fault, Schedule};
use crate::store::Store;
use crate::work::Act;

/// How many events a run may have: far more than any needs.
const STEPS_MAX: u64 = 500_000;
/// How many lines of the course of a run are kept.
pub(crate) const COURSE_MAX: usize = 5_000;

/// What happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// A request reaches the store.
    Asked(Box<Packet>),
    /// Something reaches a process.
    Reached { who: usize, lives: u32, inbound: Inbound },
    /// A process's timer.
    Timer { who: usize, timer: u64 },
    /// The schedule.
    Fault(Fault),
    /// A pause may have ended.
    Resume { who: usize },
    /// A process starts again.
    Start { who: usize },
    /// It is fit to lead again.
    Fit { who: usize },
    /// The chaos is over.
    Calm,
    /// By now each name is held.
    Settled,
    /// A holder dies, if one is being waited for.
    Strike { tries: u32 },
    /// By now somebody else has its name.
    Due { since: Duration },
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) who: usize,
    pub(crate) key: Key,
    pub(crate) step: u32,
    pub(crate) lane: usize,
    pub(crate) opened: Option<StoreId>,
    pub(crate) purpose: Purpose,
    pub(crate) call: Call,
}

/// The world of one run.
pub(crate) struct World<'a> {
    pub(crate) rules: &'a dyn Rules,
    pub(crate) config: &'a Config,
    pub(crate) scenario: &'a Scenario,
    pub(crate) now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    pub(crate) processes: Vec<Process>,
    pub(crate) store: Store,
    pub(crate) chance: Chance,
    pub(crate) oracle: Oracle,
    pub(crate) guard: Guard,
    pub(crate) names: Vec<Name>,
    pub(crate) calm: bool,
    pub(crate) finished: bool,
    /// When the store last forgot, and whether it forgot everything.
    pub(crate) reset: Option<(Duration, bool)>,
    pub(crate) steps: u64,
    course: Option<Vec<String>>,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        scenario: &'a Scenario,
        config: &'a Config,
        rules: &'a dyn Rules,
        recorded: bool,
    ) -> Self {
        let mut chance = scenario.chance_of(0);
        let store = Store::new(config.store.has_clock(), clock(&mut chance), &mut chance);
        let Schedule { instances, chaos, faults, .. } = &scenario.schedule;
        let mut world = Self {
            rules,
            config,
            scenario,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            processes: (0..*instances).map(|index| scenario.process(index)).collect(),
            store,
            chance,
            oracle: Oracle::default(),
            guard: Guard::default(),
            names: scenario.names(),
            calm: false,
            finished: false,
            reset: None,
            steps: 0,
            course: recorded.then(Vec::new),
        };
        for fault in faults {
            world.plan(fault.at, Event::Fault(fault.clone()));
        }
        world.plan(*chaos, Event::Calm);
        for who in 0..*instances {
            world.set_timer(who);
        }
        world
    }

    /// Runs to the end, or to the first breach that the configuration watches for.
    pub(crate) fn run(&mut self) -> Result<(), Breach> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.steps += 1;
            self.happen(event);
            for breach in self.oracle.breaches() {
                if self.config.watches(breach.invariant) {
                    self.note(|| format!("broken: {}: {}", breach.invariant, breach.what));
                    return Err(breach);
                }
            }
            if self.finished {
                return Ok(());
            }
            if self.steps > STEPS_MAX {
                let what = format!("it doesn't end within {STEPS_MAX} steps");
                return Err(Breach { invariant: Invariant::Liveness, what });
            }
        }
        Ok(())
    }

    /// What happened, if it was recorded.
    pub(crate) fn course(self) -> Vec<String> {
        self.course.unwrap_or_default()
    }

    pub(crate) fn plan(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.as_secs_f64();
        if let Some(course) = &mut self.course
            && course.len() < COURSE_MAX
        {
            course.push(format!("{now:9.3} s  {}", line()));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Asked(packet) => self.asked(*packet),
            Event::Reached { who, lives, inbound } => self.reached(who, lives, inbound),
            Event::Timer { who, timer } => {
                if self.processes[who].timer == timer && self.processes[who].runs() {
                    self.tick(who);
                }
            }
            Event::Fault(fault) => self.strike(&fault),
            Event::Resume { who } => self.resume(who),
            Event::Start { who } => self.start(who),
            Event::Fit { who } => self.fit(who),
            Event::Calm => self.calm_down(),
            Event::Settled => self.settled(),
            Event::Strike { tries } => self.strike_holder(tries),
            Event::Due { since } => self.due(since),
        }
    }

    /// A grant to somebody who has noticed the reset promises that all grants before it have
    /// ended.
    pub(crate) fn is_cautious(&self, who: usize, lives: u32) -> bool {
        let Some((at, everything)) = self.reset else { return true };
        let process = &self.processes[who];
        let noticed = process.lives == lives && process.noticed.is_some_and(|when| when >= at);
        everything && self.scenario.uniform && noticed
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment { now: self.now, shown: self.store.shows(self.now) }
    }

    /// Right after a grant: whoever could still act under another breaks the guarantee.
    pub(crate) fn everybody_acts(&mut self, name: &Name) {
        for who in 0..self.processes.len() {
            let process = &self.processes[who];
            let Some(index) = self.names.iter().position(|known| known == name) else { return };
            if !process.runs() {
                continue;
            }
            let reading = process.clock.reading(self.now);
            if let Some(act) =
                process.lanes.get(index).and_then(|lane| lane.may_act(reading, self.rules))
            {
                self.could_act(who, name, act);
            }
        }
    }

    fn could_act(&mut self, who: usize, name: &Name, act: Act) {
        let process = &self.processes[who];
        // A freeze that nothing shows is outside assumption A.
        if process.frozen_at.is_none_or(|at| act.sent > at) {
            self.oracle.acts(&format!("i{who}"), name, act.claim, act.token);
        }
    }

    fn reached(&mut self, who: usize, lives: u32, inbound: Inbound) {
        let process = &mut self.processes[who];
        if process.lives != lives {
            return;
        }
        match process.life {
            Life::Dead => {}
            Life::Paused(_) => process.inbox.push(inbound),
            Life::Running => {
                self.take_in(who, inbound);
                self.set_timer(who);
            }
        }
    }

    /// Drives one lane, and does what it leaves to be done.
    pub(crate) fn drive(
        &mut self,
        who: usize,
        lane: usize,
        act: impl FnOnce(&mut Lane, &mut Desk<'_>),
    ) {
        let process = &mut self.processes[who];
        let mut desk = Desk {
            now: process.clock.reading(self.now),
            chance: &mut process.chance,
            rules: self.rules,
            calm: self.calm,
            wants: Vec::new(),
            acts: Vec::new(),
            notes: Vec::new(),
            met_reset: false,
        };
        let Some(driven) = process.lanes.get_mut(lane) else { return };
        act(driven, &mut desk);
        let (wants, acts, notes, met_reset) = (desk.wants, desk.acts, desk.notes, desk.met_reset);
        let name = self.names[lane].clone();
        for note in notes {
            self.note(|| format!("i{who} {name}  {note}"));
        }
        for act in acts {
            self.effect(who, &name, act);
        }
        self.listen(who, lane, &name);
        if met_reset {
            self.processes[who].noticed = Some(self.now);
            for other in (0..self.names.len()).filter(|other| *other != lane) {
                self.drive(who, other, Lane::reset_told);
            }
        }
        let renews = wants.iter().any(|want| matches!(want, Want::Renew(..)));
        for want in wants {
            self.begin(who, lane, want);
        }
        if renews {
            self.beat(who);
        }
    }

    /// One renewal leaves: those of the other names that are nearly due go along.
    fn beat(&mut self, who: usize) {
        let process = &self.processes[who];
        let dues: Vec<Due<usize>> = process
            .lanes
            .iter()
            .enumerate()
            .filter_map(|(key, lane)| {
                let at = lane.held.as_ref()?.holding.renewal_due()?;
                Some(Due { key, at, ttl: lane.timing().ttl() })
            })
            .collect();
        let now = process.clock.elapsed(self.now);
        for batch in gather(dues.iter().copied(), now, 100) {
            for lane in batch.keys {
                self.drive(who, lane, Lane::renew);
            }
        }
    }

    /// An effect: checked just now, and had at once.
    fn effect(&mut self, who: usize, name: &Name, act: Act) {
        self.could_act(who, name, act);
        let admitted = self.guard.admits(name, act.token);
        let rightful = self.oracle.last_grant(name).is_some_and(|last| last.claim == act.claim);
        if !admitted && rightful {
            self.oracle.turned_away(&format!("i{who}"), name, act.token);
        }
    }

    /// Hears what the lane's `check()` says, and holds it to that.
    fn listen(&mut self, who: usize, lane: usize, name: &Name) {
        let process = &mut self.processes[who];
        let reading = process.clock.reading(self.now);
        let Some(lane) = process.lanes.get_mut(lane) else { return };
        let timing = *lane.timing();
        let Some(said) = lane.report(reading) else { return };
        let who = format!("i{who} ({name})");
        if said.revived {
            self.oracle.revived(&who);
        }
        if said.leads {
            let lasts = timing.ttl() - timing.margin();
            self.oracle.leads(&who, said.claim, reading.elapsed, lasts);
        }
    }

    /// A process is told the time: its timeouts, then its lanes.
    pub(crate) fn tick(&mut self, who: usize) {
        let process = &mut self.processes[who];
        let now = process.clock.elapsed(self.now);
        let due: Vec<u64> = process
            .operations
            .iter()
            .filter(|(_, operation)| !operation.timed_out && operation.timeout_at <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            self.time_out(who, number);
        }
        for lane in 0..self.processes[who].lanes.len() {
            self.drive(who, lane, Lane::tick);
        }
        self.set_timer(who);
    }

    pub(crate) fn set_timer(&mut self, who: usize) {
        let process = &mut self.processes[who];
        process.timer += 1;
        let timer = process.timer;
        if !process.runs() {
            return;
        }
        if let Some(at) = process.wake_at(self.rules) {
            // A timer is never early, and a little late.
            let late = Duration::from_micros(process.weather.below(2_000));
            let at = process.clock.when(at).max(self.now) + late;
            self.plan(at, Event::Timer { who, timer });
        }
    }
}
