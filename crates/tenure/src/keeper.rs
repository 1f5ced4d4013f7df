//! The keeper: renews all that a session holds, in batches, and gives back what has ended.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tenure_core::clock::{Instant, Reading};
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::Nonce;
use tenure_core::protocol::beat::{Batch, Due, gather};
use tenure_core::protocol::hold::{Ending, Event, Outcome, cause_of_loss};
use tenure_core::store::{Hold, Release, Released, Renewed, Reserved};
use tokio::sync::Notify;

use crate::cell::Cell;
use crate::clock::Time;
use crate::meter::Measured;
use crate::shared::{Shared, no_answer};

/// Starts the keeper's task. It ends when the session is gone.
pub(crate) fn start(shared: &Arc<Shared>) {
    let (weak, wake, time) =
        (Arc::downgrade(shared), Arc::clone(&shared.wake), shared.time.clone());
    tokio::spawn(keep(weak, wake, time));
}

async fn keep(shared: Weak<Shared>, wake: Arc<Notify>, time: Time) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        // Without a plan, whoever changes something from here on stores a wake-up.
        strong.planned.store(u64::MAX, Ordering::SeqCst);
        let next = beat(&strong);
        strong.planned.store(next.map_or(u64::MAX, Instant::as_nanos), Ordering::SeqCst);
        drop(strong);
        tokio::select! {
            () = wake.notified() => {}
            () = time.sleep_until(next) => {}
        }
    }
}

/// Sends what is due, and says when to look again.
fn beat(shared: &Arc<Shared>) -> Option<Instant> {
    let cells = shared.cells();
    for cell in &cells {
        shared.on(cell, Event::Tick);
    }
    let releases = shared.take_outbox();
    if !releases.is_empty() {
        tokio::spawn(release(Arc::clone(shared), releases));
    }
    let due: Vec<Due<usize>> = cells
        .iter()
        .enumerate()
        .filter_map(|(key, cell)| {
            let holding = &cell.machine().holding;
            let ttl = holding.timing().ttl();
            holding.renewal_due().map(|at| Due { key, at, ttl })
        })
        .collect();
    let batch_max = shared.store.profile().batch_max;
    for batch in gather(due.iter().copied(), shared.time.now().elapsed, batch_max) {
        send(shared, &cells, &batch);
    }
    let wakes = cells.iter().filter_map(|cell| cell.machine().holding.wake_at());
    wakes.min()
}

/// Sends one batch of renewals; its time is read before it leaves.
fn send(shared: &Arc<Shared>, cells: &[Arc<Cell>], batch: &Batch<usize>) {
    let sent = shared.time.now();
    let mut chance = shared.chance();
    let mut holds = Vec::with_capacity(batch.keys.len());
    let mut renewed = Vec::with_capacity(batch.keys.len());
    for key in &batch.keys {
        let cell = &cells[*key];
        shared.on(cell, Event::Sent(sent));
        let machine = cell.machine();
        holds.push(Hold {
            name: cell.name.clone(),
            instance: shared.instance.clone(),
            claim: cell.claim,
            token: cell.token,
            ttl: batch.ttl,
            not_before: machine.holding.min_hold_left(sent.elapsed),
            version: machine.version.clone(),
            nonce: Nonce::draw(&mut chance),
            unconfirmed_for: sent.elapsed.since(machine.holding.confirmed()),
        });
        drop(machine);
        renewed.push(Arc::clone(cell));
    }
    tokio::spawn(renew(Arc::clone(shared), renewed, holds, sent, batch.ttl));
}

/// Awaits one batch. Long after the machine has given it up its answer is still taken in: a
/// late success counts, from its own send.
async fn renew(
    shared: Arc<Shared>,
    cells: Vec<Arc<Cell>>,
    holds: Vec<Hold>,
    sent: Reading,
    ttl: Duration,
) {
    let answer = tokio::select! {
        answer = shared.store.renew(&holds) => answer,
        () = shared.time.sleep_until(Some(sent.elapsed + ttl)) => Err(no_answer(Operation::Renew)),
    };
    let failed = answer.as_ref().err().map(Error::kind);
    shared.measure(Operation::Renew, sent, failed);
    match answer {
        Ok(answers) => {
            watch_clock(&shared, sent, cells.first());
            for (cell, answer) in cells.iter().zip(answers) {
                renewed(&shared, cell, sent, answer);
            }
        }
        // The whole session has been told already.
        Err(error) if error.kind() == ErrorKind::StoreReset => {}
        Err(error) => {
            tracing::warn!(%error, holds = cells.len(), "renewal failed");
            for cell in &cells {
                failed_renewal(&shared, cell, sent, &error);
            }
        }
    }
    shared.wake.notify_one();
}

/// Compares the store's clock with ours. If it was set, every hold is proven anew.
fn watch_clock(shared: &Arc<Shared>, sent: Reading, of: Option<&Arc<Cell>>) {
    let (Some(shown), Some(cell)) = (shared.store.clock_shown(), of) else { return };
    let timing = *cell.machine().holding.timing();
    let received = shared.time.now().elapsed;
    let jump = shared.store_clock().note(sent.elapsed, received, shown, &timing);
    let Some(jump) = jump else { return };
    shared.meter.record(Measured::StoreClockJump(jump));
    tracing::warn!(instance = %shared.instance, ?jump, "the store's clock was set");
    for cell in shared.cells() {
        shared.on(&cell, Event::StoreClockJumped);
    }
}

fn renewed(shared: &Arc<Shared>, cell: &Arc<Cell>, sent: Reading, answer: Renewed) {
    let outcome = match answer {
        Renewed::Renewed(version) => {
            cell.machine().version = version;
            Outcome::Renewed
        }
        Renewed::Asked(version, order) => {
            cell.machine().version = version;
            Outcome::Asked(*order)
        }
        Renewed::NotHeld(seen) => Outcome::NotHeld(cause_of_loss(cell.token, seen.as_deref())),
        Renewed::Failed(error) => return failed_renewal(shared, cell, sent, &error),
        _ => Outcome::Failed(ErrorKind::OutcomeUnknown),
    };
    shared.on(cell, Event::Answered { sent, outcome });
}

fn failed_renewal(shared: &Arc<Shared>, cell: &Arc<Cell>, sent: Reading, error: &Error) {
    if error.kind() == ErrorKind::StoreReset {
        return shared.store_was_reset();
    }
    shared.on(cell, Event::Answered { sent, outcome: Outcome::Failed(error.kind()) });
}

/// Gives a batch of names back.
async fn release(shared: Arc<Shared>, ended: Vec<(Arc<Cell>, Ending)>) {
    let sent = shared.time.now();
    let mut chance = shared.chance();
    let releases: Vec<Release> = ended
        .iter()
        .map(|(cell, ending)| {
            let machine = cell.machine();
            let lasts = machine.holding.timing().reservation();
            Release {
                name: cell.name.clone(),
                instance: shared.instance.clone(),
                claim: cell.claim,
                token: cell.token,
                version: machine.version.clone(),
                nonce: Nonce::draw(&mut chance),
                successor: ending.successor.clone().map(|successor| Reserved { successor, lasts }),
                why: ending.why.clone(),
                at: sent.wall,
            }
        })
        .collect();
    let timeout = ended
        .iter()
        .map(|(cell, _)| cell.machine().holding.timing().timeout())
        .max()
        .unwrap_or_default();
    let answer = tokio::select! {
        answer = shared.store.release(&releases) => answer,
        () = shared.time.sleep_until(Some(sent.elapsed + timeout)) => {
            Err(no_answer(Operation::Release))
        }
    };
    shared.measure(Operation::Release, sent, answer.as_ref().err().map(Error::kind));
    let answers = match answer {
        Ok(answers) => answers,
        Err(error) => ended.iter().map(|_| Released::Failed(error.clone())).collect(),
    };
    for ((cell, ending), answer) in ended.iter().zip(answers) {
        let (name, token, instance) = (&cell.name, cell.token, &shared.instance);
        let settled = match answer {
            Released::Released(_) => {
                tracing::info!(%name, %token, %instance, why = %ending.why, "lease released");
                true
            }
            Released::NotHeld(_) => true,
            Released::Failed(error) if error.kind() == ErrorKind::StoreReset => {
                shared.store_was_reset();
                true
            }
            Released::Failed(error) => {
                tracing::warn!(%name, %token, %error, "release failed, and is tried again");
                false
            }
            _ => false,
        };
        cell.machine().released = settled;
        shared.on(cell, Event::ReleaseAnswered { settled });
    }
    shared.wake.notify_one();
}
