//! The thread that watches deadlines. It does no I/O, so that nothing can hold up a loss.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tenure_core::clock::Instant;
use tenure_core::error::{Error, ErrorKind, Operation};

use crate::clock::Time;

/// The longest sleep while anything is held: within it a suspend or a clock's jump is noticed.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// The shortest sleep, so that a clock's granularity can't make it spin.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// The handle of the deadline thread.
#[derive(Clone)]
pub(crate) struct Deadlines {
    inner: Arc<Inner>,
}

struct Inner {
    /// When it planned to wake, in nanoseconds; `u64::MAX` while nothing is held.
    planned: AtomicU64,
    stopped: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                planned: AtomicU64::new(u64::MAX),
                stopped: AtomicBool::new(false),
                lock: Mutex::new(()),
                wake: Condvar::new(),
            }),
        }
    }

    /// Starts to watch: `look` tells every hold the time. It says nothing once the session is
    /// gone. A turned clock is watched from whoever turns it.
    pub(crate) fn start(
        &self,
        time: &Time,
        look: impl Fn() -> Option<Next> + Send + Sync + 'static,
    ) -> Result<(), Error> {
        if let Time::Turned(clock) = time {
            clock.listen(move || look().is_some());
            return Ok(());
        }
        let inner = Arc::clone(&self.inner);
        std::thread::Builder::new()
            .name("tenure-deadline".to_owned())
            .spawn(move || watch(&inner, look))
            .map(drop)
            .map_err(|error| {
                Error::new(
                    ErrorKind::Unavailable,
                    Operation::Open,
                    "the thread that watches deadlines could not be started",
                )
                .with_source(error)
            })
    }

    /// A hold is lost at `at` unless it is renewed: wakes the thread if that is sooner than it
    /// planned.
    pub(crate) fn expect(&self, at: Instant) {
        if at.as_nanos() < self.inner.planned.load(Ordering::SeqCst) {
            self.nudge();
        }
    }

    pub(crate) fn stop(&self) {
        self.inner.stopped.store(true, Ordering::SeqCst);
        self.nudge();
    }

    fn nudge(&self) {
        let _held = self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.planned.store(0, Ordering::SeqCst);
        self.inner.wake.notify_one();
    }
}

fn watch(inner: &Inner, look: impl Fn() -> Option<Next>) {
    while !inner.stopped.load(Ordering::SeqCst) {
        inner.planned.store(u64::MAX, Ordering::SeqCst);
        let Some(next) = look() else { return };
        let held = inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // A nudge that came since the look shows as a plan of 0.
        let plan = next.at.map_or(u64::MAX, Instant::as_nanos);
        let planned =
            inner.planned.compare_exchange(u64::MAX, plan, Ordering::SeqCst, Ordering::SeqCst);
        if planned.is_err() || inner.stopped.load(Ordering::SeqCst) {
            continue;
        }
        // The lock guards nothing but the order of nudge and sleep, so its poison says nothing.
        match next.at {
            Some(at) => {
                let sleep = at.since(next.now).clamp(LOOK_MIN, LOOK_MAX);
                drop(inner.wake.wait_timeout(held, sleep));
            }
            None => drop(inner.wake.wait(held)),
        }
    }
}

/// When a hold could be lost next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    /// None: nothing is held.
    pub(crate) at: Option<Instant>,
    /// When that was looked up.
    pub(crate) now: Instant,
}
