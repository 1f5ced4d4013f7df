//! The thread that watches deadlines. It does no I/O, so that nothing can hold up a loss.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use tenure_core::clock::Instant;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::protocol::hold::Event;

use crate::clock::Time;
use crate::session::Shared;

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

    /// Starts to watch. A turned clock is watched from whoever turns it.
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<(), Error> {
        let weak = Arc::downgrade(shared);
        if let Time::Turned(clock) = &shared.time {
            clock.listen(move || look(&weak).is_some());
            return Ok(());
        }
        let inner = Arc::clone(&shared.deadlines.inner);
        std::thread::Builder::new()
            .name("tenure-deadline".to_owned())
            .spawn(move || watch(&inner, &weak))
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

fn watch(inner: &Inner, shared: &Weak<Shared>) {
    while !inner.stopped.load(Ordering::SeqCst) {
        inner.planned.store(u64::MAX, Ordering::SeqCst);
        let Some(next) = look(shared) else { return };
        let held = inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // A nudge that came since the look shows as a plan of 0.
        let nudged = inner
            .planned
            .compare_exchange(
                u64::MAX,
                next.at.map_or(u64::MAX, Instant::as_nanos),
                Ordering::SeqCst,
                Ordering::SeqCst,
            )
            .is_err();
        if nudged || inner.stopped.load(Ordering::SeqCst) {
            continue;
        }
        // The lock guards nothing but the order of nudge and sleep, so its poison says nothing.
        match next.sleep {
            Some(sleep) => drop(inner.wake.wait_timeout(held, sleep)),
            None => drop(inner.wake.wait(held)),
        }
    }
}

/// When to look next.
struct Next {
    at: Option<Instant>,
    sleep: Option<Duration>,
}

/// Tells every hold the time. None: the session is gone.
fn look(shared: &Weak<Shared>) -> Option<Next> {
    let shared = shared.upgrade()?;
    let mut at: Option<Instant> = None;
    for cell in shared.cells() {
        shared.on(&cell, Event::Tick);
        let limits = cell.limits();
        let now = shared.time.now().elapsed;
        let next = if limits.ended.is_none() { limits.lost_at } else { limits.deadline };
        if next > now {
            at = Some(at.map_or(next, |at| at.min(next)));
        }
    }
    let now = shared.time.now().elapsed;
    let sleep = at.map(|at| at.since(now).clamp(LOOK_MIN, LOOK_MAX));
    Some(Next { at, sleep })
}
