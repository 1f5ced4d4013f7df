//! The interval clock that counts suspended time, and an alarm on it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of CLOCK_BOOTTIME.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

/// `duration` in nanoseconds, at most 292 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).map_or(u64::MAX >> 1, |nanos| nanos.min(u64::MAX >> 1))
}

/// Wakes a poll at a time that mostly moves away before it comes.
pub(super) struct Alarm {
    fd: OwnedFd,
    armed: Option<u64>,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { fd: rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?, armed: None })
    }

    /// Wakes at `at` or before: an alarm that is set for earlier stays, for each renewal moves the
    /// deadline and none should cost a system call or a wakeup here.
    pub(super) fn set(&mut self, at: Option<u64>) -> io::Result<()> {
        let Some(at) = at else { return Ok(()) };
        if self.armed.is_some_and(|armed| armed <= at) {
            return Ok(());
        }
        // Zero would disarm it.
        let at = at.max(1);
        let it_value = Timespec { tv_sec: (at / SECOND) as i64, tv_nsec: (at % SECOND) as _ };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = Itimerspec { it_interval, it_value };
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &time)?;
        self.armed = Some(at);
        Ok(())
    }

    /// Takes note of a wakeup.
    pub(super) fn hush(&mut self) {
        let mut count = [0_u8; 8];
        if rustix::io::read(&self.fd, &mut count).is_ok() {
            self.armed = None;
        }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
