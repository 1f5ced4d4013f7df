//! How long things last: every duration of the protocol, derived from ttl and grace.

use std::time::Duration;

use crate::clock::Instant;
use crate::error::Error;

/// The shortest ttl of all. A store may demand a longer one.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// The longest ttl: what nobody renews is free again within a day.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest min-hold.
pub const MIN_HOLD_MAX: Duration = TTL_MAX;
/// The longest grace that is chosen unasked.
pub const GRACE_DEFAULT_MAX: Duration = Duration::from_secs(10);
/// The smallest distance between a holder's deadline and the end of its grant.
pub const MARGIN_MIN: Duration = Duration::from_millis(250);
/// The longest time that a released name is kept for its successor.
pub const RESERVATION_MAX: Duration = Duration::from_secs(5);

/// How long a grant lasts, and how its holder uses that time.
///
/// ```text
/// send of the last confirmed renewal
/// |                                    lost                deadline      ttl
/// |------ renewals, every ttl/3 --------|------ grace -------|-- margin --|
/// ```
///
/// Two figures belong together: with the default grace a holder survives an outage of its
/// store of about 0.37 ttl, and the death of its machine costs the others a whole ttl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    ttl: Duration,
    grace: Duration,
    min_hold: Duration,
}

impl Timing {
    /// 6 s: quick failover on a store that is near.
    pub const FAST: Self = Self::preset(Duration::from_secs(6));
    /// 60 s: few requests, for stores that bill each one.
    pub const CHEAP: Self = Self::preset(Duration::from_secs(60));

    /// A ttl with the default grace (ttl/6, at most [`GRACE_DEFAULT_MAX`]) and no min-hold.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::ErrorKind::Invalid): outside [`TTL_MIN`] to [`TTL_MAX`].
    pub fn of_ttl(ttl: Duration) -> Result<Self, Error> {
        if ttl < TTL_MIN {
            return Err(Error::invalid(format!(
                "a ttl of {ttl:?} is too short; the shortest is {TTL_MIN:?}"
            )));
        }
        if ttl > TTL_MAX {
            return Err(Error::invalid(format!(
                "a ttl of {ttl:?} is too long; the longest is {} hours, since the name of a \
                 holder that died stays taken for as long",
                TTL_MAX.as_secs() / 3600
            )));
        }
        Ok(Self::preset(ttl))
    }

    const fn preset(ttl: Duration) -> Self {
        let sixth = Duration::from_nanos((ttl.as_nanos() / 6) as u64);
        let grace =
            if sixth.as_nanos() < GRACE_DEFAULT_MAX.as_nanos() { sixth } else { GRACE_DEFAULT_MAX };
        Self { ttl, grace, min_hold: Duration::ZERO }
    }

    /// The same ttl with another grace.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::ErrorKind::Invalid): so long that the lease would count as lost
    /// before its first renewal could be answered.
    pub fn with_grace(self, grace: Duration) -> Result<Self, Error> {
        // The latest first renewal leaves at 1.1 · ttl/3 and is given up ttl/6 later.
        let longest = (self.ttl - self.margin())
            .saturating_sub(self.renew_interval() * 11 / 10)
            .saturating_sub(self.timeout());
        if grace > longest {
            return Err(Error::invalid(format!(
                "a grace of {grace:?} leaves no time for a renewal within a ttl of {:?}; make it \
                 {longest:?} at most, or the ttl longer",
                self.ttl
            )));
        }
        Ok(Self { grace, ..self })
    }

    /// The same, but the name stays taken for at least so long after its grant, even if the
    /// work ends earlier. Only a transfer or an operator's `--now` shortens it.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::ErrorKind::Invalid): longer than [`MIN_HOLD_MAX`].
    pub fn with_min_hold(self, min_hold: Duration) -> Result<Self, Error> {
        if min_hold > MIN_HOLD_MAX {
            return Err(Error::invalid(format!(
                "a min-hold of {min_hold:?} is too long; the longest is {} hours",
                MIN_HOLD_MAX.as_secs() / 3600
            )));
        }
        Ok(Self { min_hold, ..self })
    }

    /// How long a grant lasts from the store's point of view unless it is renewed.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// What work gets for stopping after a loss.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// How long the name stays taken at least.
    #[must_use]
    pub fn min_hold(&self) -> Duration {
        self.min_hold
    }

    /// The distance between the holder's deadline and the end of its grant: a tenth of the ttl,
    /// at least [`MARGIN_MIN`]. It pays for a clock whose rate is wrong by 1 %.
    #[must_use]
    pub fn margin(&self) -> Duration {
        (self.ttl / 10).max(MARGIN_MIN)
    }

    /// When the work must be dead. `sent` was read *before* the confirmed request left.
    #[must_use]
    pub fn deadline(&self, sent: Instant) -> Instant {
        sent + (self.ttl - self.margin())
    }

    /// When the hold is lost and its work is told to stop: grace before the deadline.
    #[must_use]
    pub fn lost_at(&self, sent: Instant) -> Instant {
        self.deadline(sent) - self.grace
    }

    /// Between two renewals, before jitter: ttl/3.
    #[must_use]
    pub fn renew_interval(&self) -> Duration {
        self.ttl / 3
    }

    /// How long one request to the store is waited for: ttl/6.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.ttl / 6
    }

    /// How far the wall clock may run ahead of the interval clock before a hold must be proven
    /// again: half the margin.
    #[must_use]
    pub fn jump_max(&self) -> Duration {
        self.margin() / 2
    }

    /// How long a claim's grant may take to arrive before it is given back unused: half a ttl
    /// from its first send.
    #[must_use]
    pub fn slow_after(&self) -> Duration {
        self.ttl / 2
    }

    /// How long a released name is kept for a successor.
    #[must_use]
    pub fn reservation(&self) -> Duration {
        (self.ttl / 3).min(RESERVATION_MAX)
    }
}

impl Default for Timing {
    /// ttl 30 s, renewed every 10 s, grace 5 s.
    fn default() -> Self {
        Self::preset(Duration::from_secs(30))
    }
}

/// How long a contender without the store's clock watches something that lasts `duration`
/// on its writer's clock: 1 % more, which is what the two rates may differ by.
#[must_use]
pub fn observed(duration: Duration) -> Duration {
    duration + duration / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_defaults_are_those_of_the_docs() {
        let timing = Timing::default();
        assert_eq!(timing.renew_interval(), Duration::from_secs(10));
        assert_eq!(timing.grace(), Duration::from_secs(5));
        assert_eq!(timing.margin(), Duration::from_secs(3));
        assert_eq!(Timing::CHEAP.grace(), GRACE_DEFAULT_MAX);
    }

    #[test]
    fn impossible_timings_are_refused_with_a_sentence() {
        for ttl in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(86_401)] {
            assert!(Timing::of_ttl(ttl).is_err(), "{ttl:?}");
        }
        let error = Timing::default().with_grace(Duration::from_secs(13)).unwrap_err();
        assert!(error.to_string().contains("leaves no time for a renewal"), "{error}");
        assert!(Timing::default().with_min_hold(Duration::from_secs(90_000)).is_err());
    }

    proptest! {
        #[test]
        fn every_ttl_has_room_for_a_renewal_before_it_is_lost(
            millis in TTL_MIN.as_millis() as u64..=TTL_MAX.as_millis() as u64
        ) {
            let timing = Timing::of_ttl(Duration::from_millis(millis)).unwrap();
            prop_assert!(timing.with_grace(timing.grace()).is_ok(), "the default grace is refused");
            let sent = Instant::from_nanos(0);
            let latest_answer = timing.renew_interval() * 11 / 10 + timing.timeout();
            prop_assert!(timing.lost_at(sent) >= sent + latest_answer);
            // A holder whose clock is 1 % slow stops before a store whose clock is 1 % fast
            // gives the name away.
            let stopped = (timing.ttl() - timing.margin()).as_secs_f64() * 1.01;
            prop_assert!(stopped < timing.ttl().as_secs_f64() * 0.99);
        }
    }
}
