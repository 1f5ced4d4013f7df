//! One instance's connection to one store, and all that it holds there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::Reading;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{FencingToken, Incarnation, Instance, Name, Namespace};
use tenure_core::protocol::hold::{Action, Cause, Ending, Event, Holding, Standing};
use tenure_core::store::{Level, Profile, Store};
use tokio::sync::{Notify, watch};

use crate::cell::Cell;
use crate::clock::Time;
use crate::connect;
use crate::deadlines::Deadlines;
use crate::election::ElectionBuilder;
use crate::keeper;
use crate::lease::LeaseRequest;
use crate::meter::{Measured, Meter, NoMeter};
use crate::ticket::Ticket;

/// One instance's connection to one store. Clones are the same session.
///
/// A session keeps all that it holds alive with one batch of renewals every ttl/3, and watches
/// their deadlines on a thread of its own. Close it when the service ends: without
/// [`close`](Self::close) even a clean exit costs the others a ttl.
#[derive(Clone)]
pub struct Session {
    pub(crate) shared: Arc<Shared>,
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
    chance: Mutex<Chance>,
    holds: Mutex<HashMap<u64, Arc<Cell>>>,
    next_epoch: AtomicU64,
    outbox: Mutex<Vec<(Arc<Cell>, Ending)>>,
    #[cfg(feature = "sqlite")]
    pub(crate) guard: Option<connect::SqliteGuard>,
    /// Tokens of names whose store was reset under us: the next grant must be above them.
    forgotten: Mutex<HashMap<Name, FencingToken>>,
}

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

/// How a session is opened.
#[must_use]
pub struct SessionBuilder {
    store: StoreChoice,
    namespace: Option<Namespace>,
    instance: Option<Name>,
    require: Option<Level>,
    at_deadline: AtDeadline,
    ends_with_process: bool,
    suspended_limit: bool,
    meter: Arc<dyn Meter>,
    pub(crate) time: Time,
    #[cfg(feature = "sqlite")]
    guard: Option<connect::SqliteGuard>,
    /// Instead of the operating system's: tests are the same each time.
    pub(crate) chance: Option<Chance>,
}

enum StoreChoice {
    None,
    Url(String),
    Opened(Arc<dyn Store>),
}

impl SessionBuilder {
    /// The store, by URL: `sqlite:/var/lib/shop/leases.db?namespace=shop&require=fenced`.
    pub fn url(self, url: impl Into<String>) -> Self {
        Self { store: StoreChoice::Url(url.into()), ..self }
    }

    /// The store, opened by the caller. Its namespace is the one that it was opened in.
    pub fn store(self, store: Arc<dyn Store>) -> Self {
        Self { store: StoreChoice::Opened(store), ..self }
    }

    /// The SQLite store, opened by the caller: as [`store`](Self::store), and its leases guard
    /// transactions.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(self, store: connect::SqliteStore) -> Self {
        let guard = Some(store.guard());
        Self { guard, ..self.store(Arc::new(store)) }
    }

    /// What stands before every name. A URL may say it, too; this counts.
    pub fn namespace(self, namespace: Namespace) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    /// The instance's readable name, instead of `POD_NAME` or the host's name. It need not be
    /// unique: a random incarnation tells two processes of one name apart.
    pub fn instance(self, name: Name) -> Self {
        Self { instance: Some(name), ..self }
    }

    /// The least that the store must guarantee; one that can't fails to open, naming why.
    pub fn require(self, level: Level) -> Self {
        Self { require: Some(level), ..self }
    }

    /// What happens when work still runs at its deadline.
    pub fn at_deadline(self, at_deadline: AtDeadline) -> Self {
        Self { at_deadline, ..self }
    }

    /// Whoever counts.
    pub fn meter(self, meter: Arc<dyn Meter>) -> Self {
        Self { meter, ..self }
    }

    /// The work of this session is more than this process: a store that can prove the process
    /// dead must not free its names for that, and a hold that a suspend has put in doubt is
    /// lost unless a renewal proves it within ttl/6. The `tenure` command is opened like this.
    pub fn work_outlives_process(self) -> Self {
        Self { ends_with_process: false, suspended_limit: true, ..self }
    }

    /// Opens the session. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// - [`Invalid`](ErrorKind::Invalid): the URL, or the instance's name.
    /// - [`Misconfigured`](ErrorKind::Misconfigured): the store is unsuitable, or below the
    ///   required level; the message names the cure.
    /// - [`Unavailable`](ErrorKind::Unavailable), [`Denied`](ErrorKind::Denied): the store can't
    ///   be reached, or refuses. Opening fails at once and isn't tried again.
    ///
    /// # Cancel safety
    /// Nothing is held yet.
    pub async fn open(self) -> Result<Session, Error> {
        let mut chance = match self.chance {
            Some(chance) => chance,
            None => chance_of_system()?,
        };
        let instance = match self.instance {
            Some(name) => name,
            None => default_name()?,
        };
        let instance = Instance::new(instance, Incarnation::draw(&mut chance));
        let opened = match self.store {
            StoreChoice::None => return Err(Error::invalid("no store was named; give its URL")),
            StoreChoice::Opened(store) => connect::Opened {
                store,
                namespace: self.namespace.clone().unwrap_or_default(),
                require: None,
                #[cfg(feature = "sqlite")]
                guard: self.guard,
            },
            StoreChoice::Url(url) => {
                connect::open(&url, self.namespace, self.time.clock(), &mut chance).await?
            }
        };
        let profile = opened.store.profile();
        if let Some(required) = self.require.max(opened.require)
            && profile.level < required
        {
            let message = format!(
                "the store's level is {}, and {required} is required; use another store, or \
                     require less",
                profile.level
            );
            return Err(Error::new(ErrorKind::Misconfigured, Operation::Open, message)
                .with_store(profile.location.clone()));
        }
        let shared = Arc::new(Shared {
            store: opened.store,
            instance,
            namespace: opened.namespace,
            deadlines: Deadlines::new(),
            time: self.time,
            meter: self.meter,
            at_deadline: self.at_deadline,
            ends_with_process: self.ends_with_process,
            suspended_limit: self.suspended_limit,
            wake: Arc::new(Notify::new()),
            planned: AtomicU64::new(u64::MAX),
            closing: watch::Sender::new(false),
            contending: watch::Sender::new(0),
            chance: Mutex::new(chance),
            holds: Mutex::default(),
            next_epoch: AtomicU64::new(1),
            outbox: Mutex::default(),
            #[cfg(feature = "sqlite")]
            guard: opened.guard,
            forgotten: Mutex::default(),
        });
        Deadlines::start(&shared)?;
        keeper::start(&shared);
        Ok(Session { shared })
    }
}

impl Session {
    /// Opens a session on the store of this URL, with the defaults.
    ///
    /// # Errors
    /// As [`SessionBuilder::open`].
    pub async fn open(url: impl Into<String>) -> Result<Self, Error> {
        Self::builder().url(url).open().await
    }

    /// Says more about a session before it is opened.
    pub fn builder() -> SessionBuilder {
        SessionBuilder {
            store: StoreChoice::None,
            namespace: None,
            instance: None,
            require: None,
            at_deadline: AtDeadline::default(),
            ends_with_process: true,
            suspended_limit: false,
            meter: Arc::new(NoMeter),
            time: Time::System,
            #[cfg(feature = "sqlite")]
            guard: None,
            chance: None,
        }
    }

    /// Asks for the lease of a name. The name is checked when the request is sent.
    pub fn lease(&self, name: impl Into<String>) -> LeaseRequest {
        LeaseRequest::new(self.clone(), name.into())
    }

    /// Stands in, or observes, the election of a name.
    pub fn election(&self, name: impl Into<String>) -> ElectionBuilder {
        ElectionBuilder::new(self.clone(), name.into())
    }

    /// Who this is.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.shared.instance
    }

    /// The namespace of its names.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.shared.namespace
    }

    /// What the store promises.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        self.shared.store.profile()
    }

    /// The store underneath, for what a session doesn't do: listing, reading, orders.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// How many names this session holds, those that are being given back included.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.shared.holds().len()
    }

    /// A source of ids and jitter, seeded by the operating system.
    #[must_use]
    pub fn chance(&self) -> Chance {
        self.shared.chance()
    }

    /// Gives back what another process of ours held, after its work was proven to have ended.
    ///
    /// # Errors
    /// As any request to the store. A name that isn't held by that ticket any more is no error.
    pub async fn release_ticket(&self, ticket: &Ticket, why: &str) -> Result<bool, Error> {
        keeper::release_ticket(&self.shared, ticket, why).await
    }

    /// Ends all work, awaits its end, and gives everything back in one batch.
    ///
    /// Leases whose handles are still around are ended locally first: their `check()` fails
    /// from here on. Work in [`Lease::run`](crate::Lease::run) is dropped by its own task; if
    /// that doesn't happen before the deadline, the name waits for its ttl.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) and the like: some name could not be given
    /// back before its grant ran out.
    ///
    /// # Cancel safety
    /// Dropping the future goes on closing in the background.
    pub async fn close(self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        shared.closing.send_replace(true);
        let (mut ended, mut unsettled) = shared.end_all().await;
        // Whoever still waited for a name has heard of it. A claim whose outcome is unknown is
        // settled first; what it won in the last moment is given back, too.
        shared.no_contention().await;
        let late = shared.end_all().await;
        ended += late.0;
        unsettled += late.1;
        let closed = shared.store.close().await;
        if unsettled > 0 {
            let message = format!(
                "{unsettled} of {ended} names could not be given back; they are free after their ttl"
            );
            return Err(Error::new(ErrorKind::OutcomeUnknown, Operation::Release, message)
                .with_store(shared.store.profile().location.clone()));
        }
        closed
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("instance", &self.shared.instance)
            .field("store", &self.profile().location)
            .finish_non_exhaustive()
    }
}

impl Shared {
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
    async fn end_all(&self) -> (usize, usize) {
        let cells = self.cells();
        for cell in &cells {
            self.let_go_at_once(cell, "the session was closed");
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

    async fn no_contention(&self) {
        let mut contending = self.contending.subscribe();
        // The sender lives in what is borrowed here.
        let _ = contending.wait_for(|count| *count == 0).await;
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

    /// What is to be released next.
    pub(crate) fn take_outbox(&self) -> Vec<(Arc<Cell>, Ending)> {
        std::mem::take(&mut *lock(&self.outbox))
    }

    /// The token that a reset store has given for `name`, as far as this session knows.
    pub(crate) fn forgotten(&self, name: &Name) -> Option<FencingToken> {
        lock(&self.forgotten).get(name).copied()
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
                        lock(&self.forgotten).insert(cell.name.clone(), cell.token);
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
    }
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

/// A source of ids and jitter, seeded with 256 bits of the operating system's.
///
/// # Errors
/// [`Misconfigured`](ErrorKind::Misconfigured): the operating system gave none.
pub fn chance_of_system() -> Result<Chance, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(
            ErrorKind::Misconfigured,
            Operation::Open,
            "the operating system gave no random bytes, and without them two processes could \
             have one identity",
        )
        .with_source(error.to_string())
    })?;
    let mut state = [0; 4];
    for (word, bytes) in state.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("chunks of 8 are 8 long"));
    }
    Ok(Chance::from_state(state))
}

/// `POD_NAME`, else the host's name.
fn default_name() -> Result<Name, Error> {
    if let Some(pod) = std::env::var_os("POD_NAME").filter(|pod| !pod.is_empty()) {
        return Name::new(pod.to_string_lossy())
            .map_err(|error| Error::invalid("POD_NAME is no instance name").with_source(error));
    }
    Name::new(host_name()).or_else(|_| Name::new("instance"))
}

#[cfg(unix)]
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "instance".to_owned())
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("instance", &self.instance).finish_non_exhaustive()
    }
}
