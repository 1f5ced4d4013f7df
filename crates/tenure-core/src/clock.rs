//! The clock as a value: what time it is comes from outside, and so can be turned.

use std::ops::{Add, Sub};
use std::sync::Mutex;
use std::time::Duration;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

/// A point on one machine's interval clock, which counts suspends: CLOCK_BOOTTIME on Linux.
///
/// Two instants may be compared only within one machine and one boot. Nothing in tenure
/// compares those of two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// From nanoseconds since the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to here; zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A wall-clock time, in milliseconds since 1970, for people to read.
///
/// **Invariant:** no decision compares one of these with another machine's clock.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970, UTC.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970, UTC.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, by Howard Hinnant's `civil_from_days`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, millis) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_index = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_index + 2) / 5 + 1;
        let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
        let (second, milli) = (millis / 1000 % 60, millis % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// Both clocks of a machine, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reading {
    /// The interval clock: what every deadline counts on.
    pub elapsed: Instant,
    /// The wall clock: only how far it runs ahead of the interval clock is ever used.
    pub wall: Timestamp,
}

impl Reading {
    /// How far the wall clock stands ahead of the interval clock, in milliseconds. Only the
    /// difference of two of these means anything: it grows when a clock was set, or when the
    /// whole machine stood still without its interval clock seeing it.
    #[must_use]
    pub fn wall_offset_millis(self) -> i64 {
        self.wall.0 - i64::try_from(self.elapsed.0 / 1_000_000).unwrap_or(i64::MAX)
    }
}

/// Where time comes from. The runtime reads the system's clocks; tests turn one by hand.
pub trait Clock: Send + Sync + 'static {
    /// Both clocks, now.
    fn now(&self) -> Reading;
}

/// What tells this machine's interval clock from any other: the kernel's boot and the time
/// namespace, whose offset the clock carries.
///
/// None: the system doesn't say, so no two processes may compare their clocks.
#[must_use]
pub fn identity() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    // Kernels before 5.6 have one time for all.
    let namespace = fs::read_link("/proc/self/ns/time")
        .map_or_else(|_| "time:[0]".to_owned(), |link| link.to_string_lossy().into_owned());
    Some(format!("{} {namespace}", boot.trim()))
}

/// A clock that stands still until it is turned.
#[derive(Debug, Default)]
pub struct ManualClock {
    reading: Mutex<Reading>,
}

impl ManualClock {
    /// Starts at `elapsed`, with the wall clock in the year 2026.
    #[must_use]
    pub fn starting_at(elapsed: Instant) -> Self {
        let wall = Timestamp(1_767_225_600_000 + (elapsed.0 / 1_000_000) as i64);
        Self { reading: Mutex::new(Reading { elapsed, wall }) }
    }

    /// Turns both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.change(|reading| {
            reading.elapsed = reading.elapsed + by;
            reading.wall = Timestamp(reading.wall.0 + by.as_millis() as i64);
        });
    }

    /// Sets the wall clock ahead (or back) by so many milliseconds; the interval clock stays.
    pub fn step_wall(&self, by_millis: i64) {
        self.change(|reading| reading.wall = Timestamp(reading.wall.0 + by_millis));
    }

    fn change(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.reading.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Reading {
        *self.reading.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_709_210_096_789).to_string(), "2024-02-29T12:34:56.789Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Timestamp(1_767_225_600_000).to_string(), "2026-01-01T00:00:00.000Z");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_identity_stays_the_same() {
        assert_eq!(identity(), identity());
        assert!(identity().is_some());
    }

    #[test]
    fn the_wall_offset_moves_only_when_the_clocks_part() {
        let clock = ManualClock::starting_at(Instant::from_nanos(5_000_000_000));
        let before = clock.now().wall_offset_millis();
        clock.advance(Duration::from_secs(3600));
        assert_eq!(clock.now().wall_offset_millis(), before);
        clock.step_wall(1500);
        assert_eq!(clock.now().wall_offset_millis(), before + 1500);
    }
}
