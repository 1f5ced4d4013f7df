//! What a session's tasks and threads share: its holds, and what becomes of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::{Instant, Reading};
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{FencingToken, Instance, Name, Namespace};
use tenure_core::protocol::hold::{Action, Cause, Ending, Event, Holding, Standing};
use tenure_core::protocol::store_clock::StoreClock;
use tenure_core::store::Store;
use tokio::sync::{Notify, watch};

use crate::cell::Cell;
use crate::clock::Time;
use crate::deadlines::{Deadlines, Next};
use crate::meter::{Measured, Meter};
use crate::observations::Observations;

/// What happens when work still runs at its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtDeadline {
    /// It is logged and counted. Effects of that work are stopped by guards alone.
    #[default]
    Log,
    /// The process is aborted at once: nothing acts past its deadline.
    Abort,
}

/// What a session is made of.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) instance: Instance,
    pub(crate) namespace: Namespace,
    pub(crate) time: Time,
    pub(crate) meter: Arc<dyn Meter>,
    pub(crate) at_deadline: AtDeadline,
    pub(crate) ends_with_process: bool,
    pub(crate) suspended_limit: bool,
    pub(crate) chance: Chance,
    pub(crate) guard: crate::connect::TransactionGuard,
    pub(crate) observations: Option<Arc<Observations>>,
}

/// What the session's tasks and threads share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) instance: Instance,
    pub(crate) namespace: Namespace,
    pub(crate) time: Time,
    pub(crate) meter: Arc<dyn Meter>,
    pub(crate) at_deadline: AtDeadline,
    pub(crate) ends_with_process: bool,
    pub(crate) suspended_limit: bool,
    pub(crate) deadlines: Deadlines,
    /// Wakes the keeper: something is due earlier than it planned for.
    pub(crate) wake: Arc<Notify>,
    /// When the keeper planned to wake, in nanoseconds.
    pub(crate) planned: AtomicU64,
    closing: watch::Sender<bool>,
    /// How many contentions are under way, claims that are still being settled included.
    contending: watch::Sender<usize>,
    /// When a reset of the store was noticed last.
    reset: watch::Sender<Option<Instant>>,
    chance: Mutex<Chance>,
    holds: Mutex<HashMap<u64, Arc<Cell>>>,
    next_epoch: AtomicU64,
    outbox: Mutex<Vec<(Arc<Cell>, Ending)>>,
    store_clock: Mutex<StoreClock>,
    #[cfg_attr(
        not(any(feature = "sqlite", feature = "postgres")),
        expect(dead_code, reason = "no store in this build has transactions")
    )]
    pub(crate) guard: crate::connect::TransactionGuard,
    /// What contenders saw, where it outlives the process.
    pub(crate) observations: Option<Arc<Observations>>,
    /// Tokens of names whose store was reset under us: the next grant must be above them.
    forgotten: Mutex<HashMap<Name, (Instant, FencingToken)>>,
    /// Why the last claim failed; nothing if it was answered.
    pub(crate) failed_claim: Mutex<Option<Error>>,
}

impl Shared {
    /// Nothing is held yet.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            store: parts.store,
            instance: parts.instance,
            namespace: parts.namespace,
            time: parts.time,
            meter: parts.meter,
            at_deadline: parts.at_deadline,
            ends_with_process: parts.ends_with_process,
            suspended_limit: parts.suspended_limit,
            deadlines: Deadlines::new(),
            wake: Arc::new(Notify::new()),
            planned: AtomicU64::new(u64::MAX),
            closing: watch::Sender::new(false),
            contending: watch::Sender::new(0),
            reset: watch::Sender::new(None),
            chance: Mutex::new(parts.chance),
            holds: Mutex::default(),
            next_epoch: AtomicU64::new(1),
            outbox: Mutex::default(),
            store_clock: Mutex::default(),
            guard: parts.guard,
            observations: parts.observations,
            forgotten: Mutex::default(),
            failed_claim: Mutex::default(),
        })
    }

    /// Tells every hold the time, and says when one could be lost next.
    pub(crate) fn look(&self) -> Next {
        let mut at: Option<Instant> = None;
        for cell in self.cells() {
            self.on(&cell, Event::Tick);
            let limits = cell.limits();
            let now = self.time.now().elapsed;
            let next = if limits.ended.is_none() { limits.lost_at } else { limits.deadline };
            if next > now {
                at = Some(at.map_or(next, |at| at.min(next)));
            }
        }
        Next { at, now: self.time.now().elapsed }
    }

    /// From here on nothing new is asked for.
    pub(crate) fn begin_to_close(&self) {
        self.closing.send_replace(true);
    }

    /// A source of chance of the caller's own.
    pub(crate) fn chance(&self) -> Chance {
        Chance::seeded(lock(&self.chance).next_u64())
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<u64, Arc<Cell>>> {
        lock(&self.holds)
    }

    /// Whether the session is being closed.
    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Waits until the session is being closed.
    pub(crate) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        if closing.wait_for(|closing| *closing).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends all holds and awaits their end: how many there were, and how many of them could not
    /// be given back.
    pub(crate) async fn end_all(&self) -> (usize, usize) {
        let cells = self.cells();
        for cell in &cells {
            // The released record carries the rest of a min-hold.
            let why = "the session was closed".to_owned();
            self.on(cell, Event::End(Ending { successor: None, at_once: true, why }));
            self.let_go(cell);
        }
        let mut unsettled = 0;
        for cell in &cells {
            // Work that doesn't end is waited for as long as it has a ttl, and no longer: then
            // the name is renewed no more, and its own deadline comes.
            let patience = cell.machine().holding.timing().ttl();
            let until = self.time.now().elapsed + patience;
            tokio::select! {
                _ = cell.until(|seen| seen.over) => {}
                () = self.time.sleep_until(Some(until)) => self.on(cell, Event::Abandon),
            }
            unsettled += usize::from(!cell.machine().released);
        }
        (cells.len(), unsettled)
    }

    /// Counts a contention as under way until what is returned is dropped.
    pub(crate) fn contending(self: &Arc<Self>) -> Contending {
        self.contending.send_modify(|count| *count += 1);
        Contending(Arc::clone(self))
    }

    /// Waits until no contention is under way.
    pub(crate) async fn no_contention(&self) {
        let mut contending = self.contending.subscribe();
        // The sender lives in what is borrowed here.
        let _ = contending.wait_for(|count| *count == 0).await;
    }

    /// Writes down what contenders have seen, on a thread that may wait for the disk.
    pub(crate) async fn save_observations(&self) {
        if let Some(observations) = self.observations.clone() {
            // A panic there has nothing to do with the caller.
            let _ = tokio::task::spawn_blocking(move || observations.save()).await;
        }
    }

    /// Renews a hold no more, and doesn't give it back either.
    pub(crate) fn abandon(&self, cell: &Arc<Cell>) {
        self.on(cell, Event::Abandon);
        self.holds().remove(&cell.epoch);
    }

    /// All holds.
    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        self.holds().values().cloned().collect()
    }

    /// How the store's clock went until now.
    pub(crate) fn store_clock(&self) -> MutexGuard<'_, StoreClock> {
        lock(&self.store_clock)
    }

    /// What is to be released next.
    pub(crate) fn take_outbox(&self) -> Vec<(Arc<Cell>, Ending)> {
        std::mem::take(&mut *lock(&self.outbox))
    }

    /// The last reset that a contender for `name` has to reckon with.
    pub(crate) fn reset_of(&self, name: &Name) -> Option<Reset> {
        let of_store = *self.reset.borrow();
        let of_name = lock(&self.forgotten).get(name).copied();
        let noticed = of_store.max(of_name.map(|(noticed, _)| noticed))?;
        Some(Reset { noticed, above: of_name.map(|(_, token)| token) })
    }

    /// Takes a grant into keeping.
    pub(crate) fn keep(
        &self,
        name: Name,
        granted: (tenure_core::protocol::contend::Ticket, tenure_core::store::Grant),
        timing: tenure_core::timing::Timing,
    ) -> Arc<Cell> {
        let (ticket, grant) = granted;
        let now = self.time.now();
        let mut holding = Holding::new(timing, ticket.sent, now, &mut self.chance());
        if self.suspended_limit {
            holding = holding.with_suspended_max(timing.ttl() / 6);
        }
        let epoch = self.next_epoch.fetch_add(1, Ordering::Relaxed);
        let wake_at = holding.wake_at();
        let cell = Cell::new(epoch, name, grant.token, ticket.id, holding, grant.version);
        let cell = Arc::new(cell);
        self.holds().insert(epoch, Arc::clone(&cell));
        self.meter.record(Measured::Granted);
        tracing::info!(
            name = %cell.name, token = %cell.token, instance = %self.instance, "lease granted"
        );
        self.deadlines.expect(cell.limits().lost_at);
        if let Some(wake_at) = wake_at
            && wake_at.as_nanos() < self.planned.load(Ordering::SeqCst)
        {
            self.wake.notify_one();
        }
        cell
    }

    /// Tells a hold's machine what happened, and does what it says, in its order.
    pub(crate) fn on(&self, cell: &Arc<Cell>, event: Event) {
        let now = self.time.now();
        let mut machine = cell.machine();
        let before = machine.holding.confirmed();
        let actions = machine.holding.on(event, now, &mut self.chance());
        let limits = machine.holding.limits();
        // The standing is flipped before anything else is done about it.
        cell.publish(&limits);
        let confirmed = machine.holding.confirmed();
        if confirmed != before {
            self.meter.record(Measured::Slack(limits.deadline.since(now.elapsed)));
            cell.tell(|seen| seen.confirmed = confirmed);
        }
        let running = machine.running;
        drop(machine);
        for action in actions {
            self.act(cell, action, now, running);
        }
    }

    fn act(&self, cell: &Arc<Cell>, action: Action, now: Reading, running: u32) {
        let (name, token, instance) = (&cell.name, cell.token, &self.instance);
        match action {
            // Renewals that are due are gathered by the keeper's own look.
            Action::Renew => {}
            Action::Announce(standing) => {
                self.meter.record(Measured::Standing(standing));
                if standing == Standing::Jeopardy {
                    tracing::warn!(%name, %token, %instance, "lease in jeopardy: a renewal is overdue");
                    if cell.limits().check(now) == Err(Cause::Suspended) {
                        self.meter.record(Measured::ClockJump);
                        self.wake.notify_one();
                    }
                }
                cell.tell(|seen| seen.standing = standing);
            }
            Action::StopWork(cause) => {
                if let Some(cause) = cause {
                    self.meter.record(Measured::Lost(cause));
                    tracing::error!(%name, %token, %instance, cause = cause.as_str(), "lease lost");
                    if cause == Cause::StoreReset {
                        lock(&self.forgotten).insert(cell.name.clone(), (now.elapsed, cell.token));
                    }
                }
                cell.tell(|seen| seen.stop = Some(cause));
                self.work_may_have_ended(cell);
            }
            Action::Overrun => {
                // A handle that nobody runs work under may have stopped by its own check().
                if running > 0 {
                    self.meter.record(Measured::Overrun);
                    tracing::error!(%name, %token, %instance, "work still runs at its deadline");
                    if self.at_deadline == AtDeadline::Abort {
                        std::process::abort();
                    }
                }
            }
            Action::Release(ending) => {
                lock(&self.outbox).push((Arc::clone(cell), ending));
                self.wake.notify_one();
            }
            Action::Over => {
                self.holds().remove(&cell.epoch);
                cell.tell(|seen| seen.over = true);
            }
        }
    }

    /// The holder's handle is gone: the work has ended, once no `run` is under way.
    pub(crate) fn let_go(&self, cell: &Arc<Cell>) {
        cell.machine().let_go = true;
        self.work_may_have_ended(cell);
    }

    /// Ends a hold whose handle was dropped: locally at once, at the store in the background.
    pub(crate) fn let_go_at_once(&self, cell: &Arc<Cell>, why: &str) {
        self.on(cell, Event::End(Ending { successor: None, at_once: false, why: why.to_owned() }));
        self.let_go(cell);
    }

    /// Tells the machine that the work has ended, if it has: it was told to stop or was let go,
    /// and nothing runs.
    pub(crate) fn work_may_have_ended(&self, cell: &Arc<Cell>) {
        let ended = {
            let machine = cell.machine();
            machine.let_go && machine.running == 0
        };
        if ended {
            self.on(cell, Event::WorkEnded);
        }
    }

    /// Counts a request to the store.
    pub(crate) fn measure(&self, operation: Operation, sent: Reading, failed: Option<ErrorKind>) {
        let took: Duration = self.time.now().elapsed.since(sent.elapsed);
        self.meter.record(Measured::Request { operation, took, failed });
        if failed == Some(ErrorKind::StoreReset) {
            self.store_was_reset();
        }
    }

    /// One request was told that the store isn't what it was: that holds for all of them, whoever
    /// was told. What is held is lost, and whoever contends waits for a ttl.
    pub(crate) fn store_was_reset(&self) {
        tracing::error!(instance = %self.instance, "the store was reset: all holds are lost");
        for cell in self.cells() {
            self.on(&cell, Event::StoreReset);
        }
        self.reset.send_replace(Some(self.time.now().elapsed));
    }

    /// When a reset of the store was noticed, if one was.
    pub(crate) fn reset(&self) -> watch::Receiver<Option<Instant>> {
        self.reset.subscribe()
    }
}

/// A reset of the store, as a contender for one name has to reckon with it.
pub(crate) struct Reset {
    /// When it was noticed.
    pub(crate) noticed: Instant,
    /// The token that the name had before, if this session held it.
    pub(crate) above: Option<FencingToken>,
}

/// A contention under way.
pub(crate) struct Contending(Arc<Shared>);

impl Drop for Contending {
    fn drop(&mut self) {
        self.0.contending.send_modify(|count| *count -= 1);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The keeper and the deadline thread hold this weakly, and end when they wake.
        self.wake.notify_one();
        self.deadlines.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// A request that ran into its own limit of time.
pub(crate) fn no_answer(operation: Operation) -> Error {
    Error::new(ErrorKind::OutcomeUnknown, operation, "the store did not answer in time")
}
