//! One hold as the whole session shares it: the machine, and what is published of it.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenure_core::clock::{Instant, Reading};
use tenure_core::identity::{ClaimId, FencingToken, Name};
use tenure_core::protocol::hold::{Cause, Holding, Limits, Standing};
use tenure_core::store::Version;
use tokio::sync::watch;

use crate::answer::Lost;

/// One hold.
///
/// **Invariant:** what is published in the atomics never allows more than the machine does:
/// a torn read of a half-published renewal fails or falls back to the earlier deadline.
#[derive(Debug)]
pub(crate) struct Cell {
    /// Which grant of this session: a reply for another is dropped.
    pub(crate) epoch: u64,
    pub(crate) name: Name,
    pub(crate) token: FencingToken,
    pub(crate) claim: ClaimId,
    pub(crate) jump_max: Duration,
    lost_at: AtomicU64,
    deadline: AtomicU64,
    wall_offset: AtomicI64,
    ended: AtomicU8,
    machine: Mutex<Machine>,
    seen: watch::Sender<Seen>,
}

/// What only the session itself changes.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) holding: Holding,
    pub(crate) version: Version,
    /// How many `run`s are under way.
    pub(crate) running: u32,
    /// Whether the holder's handle is gone or given up.
    pub(crate) let_go: bool,
    /// How the last release came out, if it was settled.
    pub(crate) released: bool,
}

/// What waiters see change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) standing: Standing,
    /// The work shall stop: lost for this cause, or by will.
    pub(crate) stop: Option<Option<Cause>>,
    /// Nothing remains to be done.
    pub(crate) over: bool,
    /// How many renewals were confirmed, so that each can be waited for.
    pub(crate) confirmed: Instant,
}

impl Cell {
    pub(crate) fn new(
        epoch: u64,
        name: Name,
        token: FencingToken,
        claim: ClaimId,
        holding: Holding,
        version: Version,
    ) -> Self {
        let limits = holding.limits();
        let seen = Seen {
            standing: Standing::Held,
            stop: None,
            over: false,
            confirmed: holding.confirmed(),
        };
        let cell = Self {
            epoch,
            name,
            token,
            claim,
            jump_max: limits.jump_max,
            lost_at: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            wall_offset: AtomicI64::new(0),
            ended: AtomicU8::new(0),
            machine: Mutex::new(Machine {
                holding,
                version,
                running: 0,
                let_go: false,
                released: false,
            }),
            seen: watch::Sender::new(seen),
        };
        cell.publish(&limits);
        cell
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the limits visible to every `check()`. Called with the machine locked.
    pub(crate) fn publish(&self, limits: &Limits) {
        // An end must be seen before anything else of it; a longer deadline last.
        self.ended.store(code(limits.ended), Ordering::SeqCst);
        self.wall_offset.store(limits.wall_offset_millis, Ordering::SeqCst);
        self.deadline.store(limits.deadline.as_nanos(), Ordering::SeqCst);
        self.lost_at.store(limits.lost_at.as_nanos(), Ordering::SeqCst);
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            lost_at: Instant::from_nanos(self.lost_at.load(Ordering::SeqCst)),
            deadline: Instant::from_nanos(self.deadline.load(Ordering::SeqCst)),
            wall_offset_millis: self.wall_offset.load(Ordering::SeqCst),
            jump_max: self.jump_max,
            ended: cause(self.ended.load(Ordering::SeqCst)),
        }
    }

    pub(crate) fn check(&self, now: Reading) -> Result<Duration, Lost> {
        self.limits().check(now).map_err(|cause| self.lost(cause))
    }

    pub(crate) fn lost(&self, cause: Cause) -> Lost {
        Lost { name: self.name.clone(), token: self.token, cause }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Tells waiters, if there is anything new to tell.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_if_modified(|seen| {
            let before = *seen;
            change(seen);
            *seen != before
        });
    }

    pub(crate) fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Waits until what waiters see is as `wanted`.
    pub(crate) async fn until(&self, wanted: impl FnMut(&Seen) -> bool) -> Seen {
        let mut watch = self.watch();
        match watch.wait_for(wanted).await {
            Ok(seen) => *seen,
            Err(_) => unreachable!("the sender lives in the cell that is borrowed here"),
        }
    }
}

const CAUSES: [Cause; 5] =
    [Cause::Expired, Cause::Revoked, Cause::Released, Cause::StoreReset, Cause::Suspended];

fn code(cause: Option<Cause>) -> u8 {
    let Some(cause) = cause else { return 0 };
    CAUSES.iter().position(|known| *known == cause).map_or(1, |index| index as u8 + 1)
}

fn cause(code: u8) -> Option<Cause> {
    usize::from(code).checked_sub(1).and_then(|index| CAUSES.get(index)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_survive_their_codes() {
        assert_eq!(cause(code(None)), None);
        for known in CAUSES {
            assert_eq!(cause(code(Some(known))), Some(known));
        }
    }
}
