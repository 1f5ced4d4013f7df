//! Whose turn it is to write: a queue before SQLite's own lock, so that nobody starves.
//!
//! SQLite lets waiters poll, and whoever has just committed is the quickest to come back: under
//! sixteen busy processes its busy handler was seen to keep one waiting for four seconds. So
//! there is a [gate](crate::gate) in front of the lock, and only the one in the gate tries for
//! the lock. A writer that comes back finds the gate taken, and queues up behind the others.
//!
//! The gate gives order, not safety: SQLite's lock alone excludes. When nobody gets through the
//! gate any more (whoever is in it was stopped, say), the others go round it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tenure_core::Operation;
use tenure_core::chance::Chance;

use crate::errors::{Fault, is_busy, stayed_busy};
use crate::gate::Gate;
use crate::rows::data_version;

/// When nobody has committed for so long, nobody gets through the gate either. Less than the time
/// (ttl/6) that a session of the shortest ttl waits for its beat.
const GATE_STALL: Duration = Duration::from_millis(100);
/// How long one waits for the gate in all, even while others commit.
const GATE_MOST: Duration = Duration::from_millis(500);
/// The shortest pause between two tries for SQLite's lock.
const PAUSE_LEAST: Duration = Duration::from_micros(150);
/// The longest such pause.
const PAUSE_MOST: Duration = Duration::from_millis(4);
/// A pause is at most this part of the time waited before it.
const PAUSE_SHARE: u32 = 8;

/// The gate, and how long one waits in all.
pub(crate) struct Turn {
    gate: Gate,
    busy: Duration,
}

impl Turn {
    /// Turns at a gate, each waited for as long as `busy`.
    pub(crate) fn new(gate: Gate, busy: Duration) -> Self {
        Self { gate, busy }
    }

    /// Acts in the gate, if nobody is in it just now.
    pub(crate) fn if_nobody_waits<T>(&mut self, act: impl FnOnce() -> T) -> Option<T> {
        let entered = self.gate.enter_at_once();
        let acted = entered.then(act);
        self.gate.leave();
        acted
    }

    /// Begins a transaction that may write, when its turn has come.
    ///
    /// # Errors
    /// `Unavailable` when others kept the file for longer than the configuration allows.
    pub(crate) fn begin<'c>(
        &mut self,
        connection: &'c Connection,
        operation: Operation,
        chance: &mut Chance,
    ) -> Result<Transaction<'c>, Fault> {
        let came = Instant::now();
        if !self.gate.enter_at_once() {
            self.wait_for_gate(connection, came);
        }
        let begun = patiently_since(came, self.busy, operation, chance, || {
            Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
        });
        self.gate.leave();
        begun
    }

    /// Waits for the gate, for as long as others commit.
    fn wait_for_gate(&mut self, connection: &Connection, came: Instant) {
        let most = GATE_MOST.min(self.busy / 2);
        let mut seen = data_version(connection);
        while !self.gate.enter(GATE_STALL.min(most)) {
            let now = data_version(connection);
            if now == seen || came.elapsed() >= most {
                break;
            }
            seen = now;
        }
    }
}

/// Repeats what SQLite refuses as busy, at jittered intervals, for at most `busy`.
pub(crate) fn patiently<T>(
    busy: Duration,
    operation: Operation,
    chance: &mut Chance,
    act: impl FnMut() -> Result<T, rusqlite::Error>,
) -> Result<T, Fault> {
    patiently_since(Instant::now(), busy, operation, chance, act)
}

fn patiently_since<T>(
    came: Instant,
    busy: Duration,
    operation: Operation,
    chance: &mut Chance,
    mut act: impl FnMut() -> Result<T, rusqlite::Error>,
) -> Result<T, Fault> {
    let begun = Instant::now();
    loop {
        match act() {
            Err(error) if is_busy(&error) => {}
            other => return other.map_err(Fault::from),
        }
        let waited = came.elapsed();
        if waited >= busy {
            return Err(stayed_busy(operation, busy).into());
        }
        let pause = (begun.elapsed() / PAUSE_SHARE).clamp(PAUSE_LEAST, PAUSE_MOST);
        sleep(chance.between(pause / 2, pause * 3 / 2).min(busy - waited));
    }
}
