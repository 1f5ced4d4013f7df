//! One machine's clocks in true time: a rate that is wrong, steps, jumps, and standing still.

use std::time::Duration;

use tenure_core::clock::{Instant, Reading, Timestamp};

/// How wrong a clock's rate may be: assumption A.
pub(crate) const RATE_ERROR_PPM_MAX: i64 = 10_000;
const MILLION: i64 = 1_000_000;

/// A machine's clocks. True time is what has passed since the run began.
#[derive(Clone, Debug)]
pub(crate) struct MachineClock {
    /// What the interval clock shows at the beginning.
    start: u64,
    rate_ppm: i64,
    /// How long the machine stood still without its interval clock seeing it.
    stood: Duration,
    frozen_at: Option<Duration>,
    wall_steps_millis: i64,
}

impl MachineClock {
    pub(crate) fn new(start: Duration, rate_ppm: i64) -> Self {
        debug_assert!(rate_ppm.abs() <= RATE_ERROR_PPM_MAX, "outside assumption A");
        Self {
            start: start.as_nanos() as u64,
            rate_ppm,
            stood: Duration::ZERO,
            frozen_at: None,
            wall_steps_millis: 0,
        }
    }

    /// What the interval clock shows.
    pub(crate) fn elapsed(&self, now: Duration) -> Instant {
        let ran = (self.frozen_at.unwrap_or(now) - self.stood).as_nanos();
        let shown = ran * (MILLION + self.rate_ppm) as u128 / MILLION as u128;
        Instant::from_nanos(self.start + shown as u64)
    }

    /// What both clocks show. The wall clock is kept right from outside, but for its steps.
    pub(crate) fn reading(&self, now: Duration) -> Reading {
        let wall = 1_767_225_600_000 + now.as_millis() as i64 + self.wall_steps_millis;
        Reading { elapsed: self.elapsed(now), wall: Timestamp::from_millis(wall) }
    }

    /// The earliest true time at which the interval clock shows `instant` or more.
    pub(crate) fn when(&self, instant: Instant) -> Duration {
        let shown = u128::from(instant.as_nanos().saturating_sub(self.start));
        let ran = (shown * MILLION as u128).div_ceil((MILLION + self.rate_ppm) as u128);
        Duration::from_nanos(ran.min(u128::from(u64::MAX / 4)) as u64) + self.stood
    }

    /// Sets the wall clock.
    pub(crate) fn step_wall(&mut self, by_millis: i64) {
        self.wall_steps_millis += by_millis;
    }

    /// Sets the interval clock itself: only a store's, which is a wall clock in truth.
    pub(crate) fn jump(&mut self, by_millis: i64) {
        self.start = self.start.saturating_add_signed(by_millis * MILLION);
    }

    /// The hypervisor stops the machine.
    pub(crate) fn freeze(&mut self, now: Duration) {
        self.frozen_at.get_or_insert(now);
    }

    /// It goes on. `seen`: its wall clock is right again at once; else nothing shows it.
    pub(crate) fn thaw(&mut self, now: Duration, seen: bool) {
        if let Some(since) = self.frozen_at.take() {
            self.stood += now - since;
            if !seen {
                self.wall_steps_millis -= (now - since).as_millis() as i64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_due_when_its_clock_shows_its_time_and_not_before() {
        for rate in [-10_000, -1, 0, 37, 10_000] {
            let clock = MachineClock::new(Duration::from_secs(77), rate);
            for nanos in [1_u64, 999, 1_234_567_891] {
                let instant = Instant::from_nanos(77_000_000_000 + nanos);
                let due = clock.when(instant);
                assert!(clock.elapsed(due) >= instant, "{rate} {nanos}");
                assert!(clock.elapsed(due - Duration::from_nanos(1)) < instant, "{rate} {nanos}");
            }
        }
    }

    #[test]
    fn a_freeze_is_seen_by_the_wall_clock_alone() {
        let mut clock = MachineClock::new(Duration::from_secs(1), 0);
        let second = Duration::from_secs(1);
        let before = clock.reading(second).wall_offset_millis();
        clock.freeze(second);
        clock.thaw(second * 5, true);
        assert_eq!(clock.reading(second * 5).wall_offset_millis() - before, 4000);
        clock.freeze(second * 6);
        clock.thaw(second * 8, false);
        assert_eq!(clock.reading(second * 8).wall_offset_millis() - before, 4000);
    }
}
