//! The clocks of this machine, and waiting on them: the only place that reads time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenure_core::clock::{Clock, Instant, ManualClock, Reading, Timestamp};
use tokio::sync::Notify;

/// The longest uninterrupted sleep. Tokio's timers stand still while the machine is suspended,
/// so a wait is cut into pieces and the suspend-aware clock looked at in between.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// The system's clocks: CLOCK_BOOTTIME, which counts suspends, and the wall clock.
///
/// Elsewhere than on Linux the interval clock is the one nearest to it (CLOCK_MONOTONIC): a
/// suspend is then seen only by the wall clock's running ahead.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(unix)]
    fn now(&self) -> Reading {
        use rustix::time::{ClockId, clock_gettime};
        #[cfg(target_os = "linux")]
        const INTERVAL: ClockId = ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const INTERVAL: ClockId = ClockId::Monotonic;

        let elapsed = clock_gettime(INTERVAL);
        let wall = clock_gettime(ClockId::Realtime);
        Reading {
            elapsed: Instant::from_nanos(
                elapsed.tv_sec as u64 * 1_000_000_000 + elapsed.tv_nsec as u64,
            ),
            wall: Timestamp::from_millis(
                wall.tv_sec as i64 * 1000 + wall.tv_nsec as i64 / 1_000_000,
            ),
        }
    }

    #[cfg(not(unix))]
    fn now(&self) -> Reading {
        use std::sync::OnceLock;
        use std::time::{Instant as Monotonic, SystemTime, UNIX_EPOCH};
        static START: OnceLock<Monotonic> = OnceLock::new();

        let elapsed = START.get_or_init(Monotonic::now).elapsed();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Reading {
            // Never zero, so that "an hour before" can be said of any instant.
            elapsed: Instant::from_nanos(elapsed.as_nanos() as u64) + Duration::from_secs(1 << 20),
            wall: Timestamp::from_millis(wall.as_millis() as i64),
        }
    }
}

/// A clock that tests turn by hand; whoever waits on it wakes when it is turned far enough.
#[derive(Debug)]
pub struct TurnedClock {
    manual: ManualClock,
    turned: Notify,
    listeners: Mutex<Vec<Listener>>,
}

struct Listener(Box<dyn Fn() -> bool + Send + Sync>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

impl TurnedClock {
    /// A clock that stands.
    #[must_use]
    pub fn new() -> Self {
        Self {
            manual: ManualClock::starting_at(Instant::from_nanos(1 << 50)),
            turned: Notify::new(),
            listeners: Mutex::default(),
        }
    }

    /// Turns both clocks forward, and tells whoever waits.
    pub fn advance(&self, by: Duration) {
        self.manual.advance(by);
        self.tell();
    }

    /// Sets the wall clock ahead (or back); the interval clock stays.
    pub fn step_wall(&self, by_millis: i64) {
        self.manual.step_wall(by_millis);
        self.tell();
    }

    /// Calls `listener` at each turn, from the turning thread, until it says false.
    pub(crate) fn listen(&self, listener: impl Fn() -> bool + Send + Sync + 'static) {
        self.listeners().push(Listener(Box::new(listener)));
    }

    fn tell(&self) {
        let mut listeners = std::mem::take(&mut *self.listeners());
        listeners.retain(|listener| listener.0());
        self.listeners().append(&mut listeners);
        self.turned.notify_waiters();
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for TurnedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TurnedClock {
    fn now(&self) -> Reading {
        self.manual.now()
    }
}

/// Time as a session has it: the system's, or a turned one.
#[derive(Clone, Debug)]
pub(crate) enum Time {
    System,
    Turned(Arc<TurnedClock>),
}

impl Time {
    /// Both clocks, now.
    pub(crate) fn now(&self) -> Reading {
        match self {
            Self::System => SystemClock.now(),
            Self::Turned(clock) => clock.now(),
        }
    }

    /// The clock, as a store wants it.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        match self {
            Self::System => Arc::new(SystemClock),
            Self::Turned(clock) => Arc::clone(clock) as Arc<dyn Clock>,
        }
    }

    /// Waits until then; for ever, if there is no then.
    pub(crate) async fn sleep_until(&self, at: Option<Instant>) {
        let Some(at) = at else { return std::future::pending().await };
        loop {
            match self {
                Self::System => {
                    let left = at.since(self.now().elapsed);
                    if left.is_zero() {
                        return;
                    }
                    // Tokio's timers count whole milliseconds.
                    tokio::time::sleep(left.min(SLEEP_MAX)).await;
                }
                Self::Turned(clock) => {
                    let turned = clock.turned.notified();
                    tokio::pin!(turned);
                    // Registered before the clock is looked at, so that no turn is missed.
                    turned.as_mut().enable();
                    if clock.now().elapsed >= at {
                        return;
                    }
                    turned.await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_goes_forward() {
        let first = SystemClock.now();
        std::thread::sleep(Duration::from_millis(5));
        let second = SystemClock.now();
        assert!(second.elapsed.since(first.elapsed) >= Duration::from_millis(5));
        assert!(second.wall >= first.wall);
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_turned_far_enough() {
        let clock = Arc::new(TurnedClock::new());
        let time = Time::Turned(Arc::clone(&clock));
        let until = time.now().elapsed + Duration::from_secs(10);
        let sleeper = tokio::spawn(async move { time.sleep_until(Some(until)).await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
    }
}
