//! What a seed draws besides the schedule: timings, clocks, habits.

use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::identity::Name;
use tenure_core::store::Wake;
use tenure_core::timing::Timing;

use crate::clock::{MachineClock, RATE_ERROR_PPM_MAX};
use crate::config::Config;
use crate::instance::{Make, Process};
use crate::rules::Acting;
use crate::schedule::{Bounds, Schedule};

/// The longest ttl that is drawn, as a multiple of the shortest.
const TTLS: [u64; 5] = [1_000, 2_000, 6_000, 6_000, 30_000];

/// Everything that one seed means.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) schedule: Schedule,
    pub(crate) bounds: Bounds,
    /// All instances have one ttl.
    pub(crate) uniform: bool,
    pub(crate) wake: Wake,
    ttl: Duration,
    min_hold: Duration,
    shares_name: bool,
}

impl Scenario {
    pub(crate) fn drawn(seed: u64, config: &Config) -> Self {
        let mut chance = Chance::seeded(seed);
        let ttl = Duration::from_millis(TTLS[chance.below(TTLS.len() as u64) as usize]);
        let uniform = !chance.one_in(4);
        let ttl_max = if uniform { ttl } else { ttl * 2 };
        let poll = chance.between(ttl / 30, (ttl / 4).min(Duration::from_secs(1)));
        let wake = if chance.one_in(2) { Wake::Push(poll) } else { Wake::Poll(poll) };
        let min_hold =
            if chance.one_in(4) { chance.between(ttl / 4, ttl * 2) } else { Duration::ZERO };
        let margin_min = preset(ttl).margin();
        let bounds = Bounds { ttl_min: ttl, ttl_max, margin_min, hypervisor: chance.one_in(4) };
        let shares_name = chance.one_in(3);
        let schedule = Schedule::drawn(config, &bounds, &mut chance);
        Self { seed, schedule, bounds, uniform, wake, ttl, min_hold, shares_name }
    }

    pub(crate) fn names(&self) -> Vec<Name> {
        let name = |index| Name::new(format!("n{index}")).expect("it is short");
        (0..self.schedule.names).map(name).collect()
    }

    /// A stream of chance of its own for each part, so that one part fewer leaves the others.
    pub(crate) fn chance_of(&self, part: u64) -> Chance {
        Chance::seeded(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(part + 1))
    }

    /// A machine with its process.
    pub(crate) fn process(&self, index: usize) -> Process {
        let mut chance = self.chance_of(100 + index as u64);
        let ttl = if self.uniform || chance.one_in(2) { self.ttl } else { self.ttl * 2 };
        let label = if self.shares_name && index < 2 { 0 } else { index };
        let make = Make {
            name: Name::new(format!("i{label}")).expect("it is short"),
            timing: timing(ttl, self.min_hold, &mut chance),
            wake: self.wake,
            acting: if chance.one_in(2) { Acting::Checked } else { Acting::Unchecked },
            election: chance.one_in(2),
            names: self.names(),
        };
        let clock = clock(&mut chance);
        Process::new(make, clock, chance)
    }
}

/// A clock whose rate is often as wrong as it may be.
pub(crate) fn clock(chance: &mut Chance) -> MachineClock {
    let start = chance.between(Duration::from_secs(50), Duration::from_secs(1_000_000));
    let rate = match chance.below(5) {
        0 | 1 => RATE_ERROR_PPM_MAX,
        2 | 3 => -RATE_ERROR_PPM_MAX,
        _ => chance.below(2 * RATE_ERROR_PPM_MAX as u64 + 1) as i64 - RATE_ERROR_PPM_MAX,
    };
    MachineClock::new(start, rate)
}

fn preset(ttl: Duration) -> Timing {
    Timing::of_ttl(ttl).expect("these are within bounds")
}

fn timing(ttl: Duration, min_hold: Duration, chance: &mut Chance) -> Timing {
    let timing = preset(ttl).with_min_hold(min_hold).expect("it is short");
    let longest = (timing.ttl() - timing.margin())
        .saturating_sub(timing.renew_interval() * 11 / 10)
        .saturating_sub(timing.timeout());
    let grace = match chance.below(3) {
        0 => Duration::ZERO,
        1 => timing.grace(),
        _ => longest,
    };
    timing.with_grace(grace).expect("it is not longer than the longest")
}
