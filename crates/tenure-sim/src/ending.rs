//! The end of a run: the chaos is over, and the names must be held again, in time.

use std::time::Duration;

use tenure_core::timing::observed;

use crate::instance::Life;
use crate::network::GOOD_DELAY_MAX;
use crate::oracle::Invariant;
use crate::world::{Event, World};

/// How often a holder that somebody waits for is looked for, each tenth of a ttl.
const TRIES_MAX: u32 = 200;
/// How many messages may lie between a contender's timer and its grant: a look, a claim of four
/// requests, and one of each that met somebody else's.
const MESSAGES_MAX: u32 = 20;

impl World<'_> {
    /// Nothing goes wrong any more.
    pub(crate) fn calm_down(&mut self) {
        self.calm = true;
        self.note(|| "the chaos is over".to_owned());
        for who in 0..self.processes.len() {
            match self.processes[who].life {
                Life::Dead => self.start(who),
                Life::Paused(_) => self.resume(who),
                Life::Running => {}
            }
            self.fit(who);
        }
        let at = self.now + self.settles_within();
        self.plan(at, Event::Settled);
    }

    /// Generous: the last straggling message, a reset and a grant to nobody that are waited out,
    /// the rest of a min-hold, the longest back-off of a candidate.
    fn settles_within(&self) -> Duration {
        let ttl = self.scenario.bounds.ttl_max;
        ttl * 3 / 2 + observed(ttl) * 4 + ttl * 2 + Duration::from_secs(4)
    }

    /// By now each name was granted, or still is.
    pub(crate) fn settled(&mut self) {
        for name in self.names.clone() {
            let index = self.names.iter().position(|known| *known == name).unwrap_or_default();
            let since = self.now - self.settles_within();
            let granted = self.oracle.last_grant(&name).is_some_and(|last| last.at >= since);
            let acting = self.processes.iter().any(|process| {
                let reading = process.clock.reading(self.now);
                let lane = process.lanes.get(index);
                process.runs()
                    && lane.is_some_and(|lane| lane.may_act(reading, self.rules).is_some())
            });
            if !granted && !acting {
                let what = format!("nobody has got {name} since the chaos ended");
                self.oracle.breach(Invariant::Liveness, what);
            }
        }
        self.plan(self.now, Event::Strike { tries: 0 });
    }

    /// Kills the holder of the first name once somebody waits for it.
    pub(crate) fn strike_holder(&mut self, tries: u32) {
        let name = self.names[0].clone();
        let rules = self.rules;
        let now = self.now;
        let claim = self.oracle.last_grant(&name).map(|last| last.claim);
        let holder = self.processes.iter().position(|process| {
            let reading = process.clock.reading(now);
            let act = process.lanes.first().and_then(|lane| lane.may_act(reading, rules));
            process.runs() && act.is_some_and(|act| Some(act.claim) == claim)
        });
        let waits = |(who, process): (usize, &crate::instance::Process)| {
            Some(who) != holder && process.lanes.first().is_some_and(crate::lane::Lane::waits)
        };
        let waited_for = self.processes.iter().enumerate().any(waits);
        let (Some(holder), true) = (holder, waited_for) else {
            if tries >= TRIES_MAX {
                let what = format!("{name} is not held and waited for in calm");
                self.oracle.breach(Invariant::Liveness, what);
                return;
            }
            let at = now + self.scenario.bounds.ttl_min / 10;
            return self.plan(at, Event::Strike { tries: tries + 1 });
        };
        let by = now + self.taken_over_within();
        self.note(|| format!("i{holder}     dies for good; {name} is due at {by:?}"));
        self.processes[holder].die();
        self.plan(by, Event::Due { since: now });
    }

    /// Guarantee 4, in true time: both clocks may be slow by 1 %.
    fn taken_over_within(&self) -> Duration {
        let lasts = observed(self.oracle.blocks_for(&self.names[0]));
        let slow = lasts + lasts / 90;
        let ttl = self.scenario.bounds.ttl_max;
        let poll = self.scenario.wake.poll();
        slow + ttl / 150 + poll * 5 / 4 + GOOD_DELAY_MAX * MESSAGES_MAX
    }

    pub(crate) fn due(&mut self, since: Duration) {
        let name = self.names[0].clone();
        if self.oracle.last_grant(&name).is_none_or(|last| last.at <= since) {
            let what = format!(
                "nobody has got {name} within {:?} of its holder's death",
                self.now - since
            );
            self.oracle.breach(Invariant::Liveness, what);
        }
        self.finished = true;
    }
}
