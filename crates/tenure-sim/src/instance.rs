//! One process on one machine: its clocks, its lanes, its operations, and whether it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::Instant;
use tenure_core::identity::{FencingToken, Incarnation, Instance, Name};
use tenure_core::protocol::observe::Kept;
use tenure_core::store::Wake;
use tenure_core::timing::Timing;

use crate::clock::MachineClock;
use crate::lane::Lane;
use crate::network::Link;
use crate::operation::Operation;
use crate::request::Answer;
use crate::rules::{Acting, Rules};

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// Until then, in true time.
    Paused(Duration),
    Dead,
}

/// What reaches a process.
#[derive(Clone, Debug)]
pub(crate) enum Inbound {
    Answer { operation: u64, step: u32, answer: Answer },
    Hint { lane: usize },
}

/// How a machine and its process are made; the same over all its lives.
#[derive(Clone, Debug)]
pub(crate) struct Make {
    pub(crate) name: Name,
    pub(crate) timing: Timing,
    pub(crate) wake: Wake,
    pub(crate) acting: Acting,
    pub(crate) election: bool,
    pub(crate) names: Vec<Name>,
}

/// One process on one machine.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) make: Make,
    pub(crate) clock: MachineClock,
    pub(crate) chance: Chance,
    /// The network's own chance, so that what one instance does leaves the others alone.
    pub(crate) weather: Chance,
    pub(crate) link: Link,
    pub(crate) identity: Instance,
    /// How often it was started.
    pub(crate) lives: u32,
    pub(crate) life: Life,
    pub(crate) lanes: Vec<Lane>,
    /// What its lanes had observed when it died, each in a file.
    observed: BTreeMap<Name, Kept>,
    pub(crate) operations: BTreeMap<u64, Operation>,
    pub(crate) next_operation: u64,
    pub(crate) inbox: Vec<Inbound>,
    /// Effects between whose check and themselves the process was paused.
    pub(crate) late: Vec<(Name, FencingToken)>,
    /// Which of the timers that were set is the latest.
    pub(crate) timer: u64,
    /// When it last noticed that the store had forgotten, in true time.
    pub(crate) noticed: Option<Duration>,
    /// How the freeze that it is in will end.
    pub(crate) thaws_seen: Option<bool>,
    /// When its wall clock was last set back, in true time.
    pub(crate) set_back_at: Option<Duration>,
    /// Claims that were first sent before this were shaken by a freeze.
    pub(crate) frozen_at: Option<Instant>,
}

impl Process {
    pub(crate) fn new(make: Make, clock: MachineClock, mut chance: Chance) -> Self {
        let weather = Chance::seeded(chance.next_u64());
        let identity = Instance::new(make.name.clone(), Incarnation::draw(&mut chance));
        let mut process = Self {
            make,
            clock,
            chance,
            weather,
            link: Link::default(),
            identity,
            lives: 0,
            life: Life::Dead,
            lanes: Vec::new(),
            observed: BTreeMap::new(),
            operations: BTreeMap::new(),
            next_operation: 0,
            inbox: Vec::new(),
            late: Vec::new(),
            timer: 0,
            noticed: None,
            thaws_seen: None,
            set_back_at: None,
            frozen_at: None,
        };
        process.start();
        process
    }

    /// Starts a new incarnation.
    pub(crate) fn start(&mut self) {
        self.lives += 1;
        self.life = Life::Running;
        self.noticed = None;
        self.identity = Instance::new(self.make.name.clone(), Incarnation::draw(&mut self.chance));
        let (make, observed) = (&self.make, &self.observed);
        self.lanes = make
            .names
            .iter()
            .map(|name| {
                let mut lane = Lane::new(
                    name.clone(),
                    self.identity.clone(),
                    make.timing,
                    make.wake,
                    make.acting,
                    make.election,
                );
                lane.observed = observed.get(name).cloned();
                lane
            })
            .collect();
    }

    /// Ends it, with everything that only it knew.
    pub(crate) fn die(&mut self) {
        self.life = Life::Dead;
        let seen =
            self.lanes.iter().filter_map(|lane| Some((lane.name.clone(), lane.observed.clone()?)));
        self.observed.extend(seen);
        self.lanes.clear();
        self.operations.clear();
        self.inbox.clear();
        self.late.clear();
    }

    /// It was frozen just now. Checked work notices where the wall clock shows it, and wasn't
    /// set back lately; all other work is outside assumption A until its next grant.
    pub(crate) fn frozen(&mut self, now: Duration, seen: bool) {
        let hidden = self.set_back_at.is_some_and(|at| at + self.make.timing.ttl() * 4 >= now);
        if !seen || hidden || self.make.acting == Acting::Unchecked {
            self.frozen_at = Some(self.clock.elapsed(now));
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.life == Life::Running
    }

    /// When it next wants to be told the time, by its own clock.
    pub(crate) fn wake_at(&self, rules: &dyn Rules) -> Option<Instant> {
        let lanes = self.lanes.iter().filter_map(|lane| lane.wake_at(rules));
        let timeouts = self.operations.values().filter(|operation| !operation.timed_out);
        lanes.chain(timeouts.map(|operation| operation.timeout_at)).min()
    }
}
