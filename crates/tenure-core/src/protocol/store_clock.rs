//! Whether a store's own clock goes as time does: assumption B of the protocol, measured.

use std::time::Duration;

use crate::clock::Instant;
use crate::timing::{Timing, observed};

/// Compares the time that has passed for a store with the time that has passed for us.
///
/// A store whose clock is set ahead gives away what its holders still believe in; up to half a
/// margin within a ttl the protocol allows for. More is noticed here, at the next answer, and
/// then every hold must be proven anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreClock {
    since: Option<Shown>,
}

/// What a store's clock showed at some instant between the sending and the receipt.
#[derive(Clone, Copy, Debug)]
struct Shown {
    sent: Instant,
    received: Instant,
    at: Duration,
}

/// How a store's clock differs from the time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// It is at least so much further than it should be: grants ended early.
    Ahead(Duration),
    /// It is at least so much back: grants last longer. That costs time, not safety.
    Back(Duration),
}

impl StoreClock {
    /// Takes in what the clock showed in the answer to a request. A jump is told once.
    ///
    /// Small steps add up: they are compared over a ttl, for which the protocol allows half a
    /// margin in sum.
    pub fn note(
        &mut self,
        sent: Instant,
        received: Instant,
        at: Duration,
        timing: &Timing,
    ) -> Option<Jump> {
        let now = Shown { sent, received, at };
        let Some(since) = self.since else {
            self.since = Some(now);
            return None;
        };
        let allowed = timing.jump_max();
        let most = observed(received.since(since.sent)) + allowed;
        let least = sent.since(since.received).saturating_sub(allowed);
        let (ahead, back) = (at.checked_sub(since.at), since.at.checked_sub(at));
        let jump = match (ahead, back) {
            (Some(passed), _) if passed > most => Some(Jump::Ahead(passed - most)),
            (Some(passed), _) if passed < least => Some(Jump::Back(least - passed)),
            (None, Some(back)) => Some(Jump::Back(least + back)),
            _ => None,
        };
        if jump.is_some() || sent.since(since.sent) >= timing.ttl() {
            self.since = Some(now);
        }
        jump
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers that take 10 ms, and a clock that starts at an hour.
    struct Bench {
        clock: StoreClock,
        timing: Timing,
        now: Duration,
        shown: Duration,
    }

    impl Bench {
        fn new() -> Self {
            let timing = Timing::of_ttl(Duration::from_secs(30)).unwrap();
            let shown = Duration::from_secs(3600);
            Self { clock: StoreClock::default(), timing, now: Duration::ZERO, shown }
        }

        /// So long after, the clock has gone on by this much.
        fn after(&mut self, ours: Duration, theirs: i64) -> Option<Jump> {
            self.now += ours;
            self.shown = self.shown.saturating_add_signed(theirs);
            let sent = Instant::default() + self.now;
            let received = sent + Duration::from_millis(10);
            self.clock.note(sent, received, self.shown, &self.timing)
        }
    }

    trait AddSigned {
        fn saturating_add_signed(self, millis: i64) -> Self;
    }

    impl AddSigned for Duration {
        fn saturating_add_signed(self, millis: i64) -> Self {
            let by = Self::from_millis(millis.unsigned_abs());
            if millis < 0 { self.saturating_sub(by) } else { self + by }
        }
    }

    const TEN: Duration = Duration::from_secs(10);

    #[test]
    fn a_clock_that_goes_as_time_does_is_no_news() {
        let mut bench = Bench::new();
        for _ in 0..100 {
            assert_eq!(bench.after(TEN, 10_000), None);
        }
        // Nor is one that is 1 % off, or a step of half a margin (1.5 s of 30 s).
        assert_eq!(bench.after(TEN, 10_100), None);
        assert_eq!(bench.after(TEN, 11_400), None);
    }

    #[test]
    fn a_jump_is_told_once_and_in_its_direction() {
        let mut bench = Bench::new();
        bench.after(TEN, 10_000);
        let jump = bench.after(TEN, 130_000);
        assert!(matches!(jump, Some(Jump::Ahead(by)) if by > Duration::from_secs(117)), "{jump:?}");
        assert_eq!(bench.after(TEN, 10_000), None);
        let jump = bench.after(TEN, -50_000);
        assert!(matches!(jump, Some(Jump::Back(by)) if by > Duration::from_secs(57)), "{jump:?}");
        assert_eq!(bench.after(TEN, 10_000), None);
        let jump = bench.after(TEN, 2_000);
        assert!(matches!(jump, Some(Jump::Back(_))), "a clock that stood still: {jump:?}");
    }

    #[test]
    fn small_steps_add_up_within_a_ttl() {
        let mut bench = Bench::new();
        bench.after(TEN, 10_000);
        assert_eq!(bench.after(TEN, 10_800), None);
        assert!(bench.after(TEN, 11_200).is_some(), "two steps of a second");
    }
}
