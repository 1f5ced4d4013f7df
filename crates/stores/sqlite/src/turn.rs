//! Whose turn it is to write: a queue before SQLite's own lock, so that nobody starves.
//!
//! SQLite lets waiters poll, and whoever has just committed is the quickest to come back: under
//! sixteen busy processes its busy handler was seen to keep one waiting for four seconds. So
//! there is a gate (a `flock` on a side file) in front of the lock, and only the one in the gate
//! tries for the lock. A writer that comes back finds the gate taken by then, and those before
//! the gate look the more often the longer they have waited.
//!
//! The gate gives order, not safety: SQLite's lock alone excludes. Who can't get through the
//! gate for long (its owner was stopped, say) goes round it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tenure_core::Operation;
use tenure_core::chance::Chance;

use crate::errors::{Fault, is_busy, stayed_busy};
use crate::presence::hand_to;

/// Between two tries of the one in the gate: a fraction of what a commit to a disk takes.
const GATE_POLL: Duration = Duration::from_micros(150);
/// Between two looks at the gate of one who has just come.
const LOOK_FIRST: Duration = Duration::from_millis(3);
/// The age at which a waiter looks twice as often as at first.
const LOOK_AGE: Duration = Duration::from_millis(2);
/// The shortest pause between two looks, however long one has waited.
const LOOK_LEAST: Duration = Duration::from_micros(100);
/// The share of its patience after which a waiter goes round the gate.
const GATE_SHARE: u32 = 2;
/// The longest pause between two tries of one that SQLite itself keeps waiting.
const RETRY_MOST: Duration = Duration::from_millis(5);

/// The gate, and how long one waits before it and behind it.
pub(crate) struct Turn {
    gate: File,
    busy: Duration,
}

impl Turn {
    /// Opens the gate in the directory of side files.
    pub(crate) fn open(side: &Path, database: &Path, busy: Duration) -> io::Result<Self> {
        let path = side.join("gate");
        let of = std::fs::metadata(database)?;
        let gate = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(of.mode() & 0o666)
            .open(&path)?;
        hand_to(&path, of.uid(), of.gid());
        Ok(Self { gate, busy })
    }

    /// Begins a transaction that may write, when its turn has come.
    ///
    /// # Errors
    /// `Unavailable` when others kept the file for longer than the configuration allows.
    pub(crate) fn begin<'c>(
        &self,
        connection: &'c Connection,
        operation: Operation,
        chance: &mut Chance,
    ) -> Result<Transaction<'c>, Fault> {
        let came = Instant::now();
        let mut place = self.enter();
        loop {
            let waited = came.elapsed();
            if place.is_some() || waited >= self.busy / GATE_SHARE {
                match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
                    Ok(transaction) => return Ok(transaction),
                    Err(error) if is_busy(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if waited >= self.busy {
                return Err(stayed_busy(operation, self.busy).into());
            }
            sleep(if place.is_some() { jittered(GATE_POLL, chance) } else { look(waited, chance) });
            place = place.or_else(|| self.enter());
        }
    }

    fn enter(&self) -> Option<InGate<'_>> {
        self.gate.try_lock().is_ok().then_some(InGate(&self.gate))
    }
}

/// Being the next: left as soon as the transaction has begun, or was given up.
struct InGate<'a>(&'a File);

impl Drop for InGate<'_> {
    fn drop(&mut self) {
        // Only closing can fail worse than this; the kernel then drops the lock with the file.
        let _ = self.0.unlock();
    }
}

fn look(waited: Duration, chance: &mut Chance) -> Duration {
    let age = waited.as_nanos() / LOOK_AGE.as_nanos() + 1;
    let pause = LOOK_FIRST / u32::try_from(age).unwrap_or(u32::MAX);
    jittered(pause.max(LOOK_LEAST), chance)
}

/// Half to one and a half of a pause.
fn jittered(pause: Duration, chance: &mut Chance) -> Duration {
    chance.between(pause / 2, pause * 3 / 2)
}

/// Repeats what SQLite refuses as busy, at random intervals, for at most `busy`.
///
/// For what needs no turn: opening, reading, and looking for changes.
pub(crate) fn patiently<T>(
    busy: Duration,
    operation: Operation,
    chance: &mut Chance,
    mut act: impl FnMut() -> Result<T, rusqlite::Error>,
) -> Result<T, Fault> {
    let came = Instant::now();
    loop {
        match act() {
            Err(error) if is_busy(&error) => {}
            other => return other.map_err(Fault::from),
        }
        if came.elapsed() >= busy {
            return Err(stayed_busy(operation, busy).into());
        }
        sleep(chance.between(LOOK_LEAST, RETRY_MOST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_longer_looks_more_often_within_bounds() {
        let mut chance = Chance::seeded(1);
        let mut mean = |millis| {
            let pauses = (0..200).map(|_| look(Duration::from_millis(millis), &mut chance));
            pauses.sum::<Duration>() / 200
        };
        let (fresh, aged, old) = (mean(0), mean(8), mean(5000));
        assert!(fresh > aged * 4 && aged > old * 4, "{fresh:?} {aged:?} {old:?}");
        assert!(old >= LOOK_LEAST / 2);
    }
}
