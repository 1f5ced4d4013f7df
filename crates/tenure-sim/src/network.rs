//! The network between one instance and the store: what happens to each message.

use std::time::Duration;

use tenure_core::chance::Chance;

/// The longest delay while nothing is wrong.
pub(crate) const GOOD_DELAY_MAX: Duration = Duration::from_millis(15);

/// One instance's way to the store and back. Each trouble lasts until a true time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) cut_until: Duration,
    pub(crate) requests_lost_until: Duration,
    pub(crate) answers_lost_until: Duration,
    pub(crate) slow_until: Duration,
    pub(crate) slow_by: Duration,
    pub(crate) doubled_until: Duration,
    pub(crate) refused_until: Duration,
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the store.
    Request,
    /// Back.
    Answer,
}

impl Link {
    /// When each copy of a message arrives: none if it is lost, two if it is doubled.
    pub(crate) fn arrivals(&self, way: Way, now: Duration, chance: &mut Chance) -> Vec<Duration> {
        let lost_until = match way {
            Way::Request => self.requests_lost_until,
            Way::Answer => self.answers_lost_until,
        };
        let copies = 1 + usize::from(now < self.doubled_until && chance.one_in(2));
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let lost = now < lost_until && !chance.one_in(3);
            let delay = self.delay(now, chance);
            if !lost && now >= self.cut_until {
                arrivals.push(now + delay);
            }
        }
        arrivals
    }

    fn delay(&self, now: Duration, chance: &mut Chance) -> Duration {
        let good = chance.between(Duration::from_micros(200), GOOD_DELAY_MAX);
        if now < self.slow_until && chance.one_in(2) {
            return good + chance.between(Duration::ZERO, self.slow_by);
        }
        good
    }

    /// Whether the store can't be connected to at all: certainly nothing was sent.
    pub(crate) fn refuses(&self, now: Duration) -> bool {
        now < self.refused_until
    }
}
