//! A store in memory with a clock to turn, so that you can test how your own leader loses.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tenure::testing::TestBed;
//! use tenure::{Attempt, Cause};
//!
//! let bed = TestBed::new();
//! let session = bed.session("api-1").await?;
//! let Attempt::Granted(lease) = session.lease("billing").try_acquire().await? else {
//!     panic!("nobody else is there")
//! };
//! bed.freeze("api-1"); // its requests hang, as if the network were gone
//! bed.advance(Duration::from_secs(60)).await;
//! assert_eq!(lease.check().unwrap_err().cause, Cause::Expired);
//! # Ok(()) }
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{Name, Namespace, Nonce};
use tenure_core::memory::MemoryStore;
use tenure_core::record::{Demand, Order};
use tenure_core::store::{
    Acquired, Answer, Claim, Hints, Hold, OrderRequest, Ordered, Page, Prefix, Profile, Query,
    Release, Released, Renewed, Snapshot, Store,
};
use tokio::sync::watch;

use crate::clock::{Time, TurnedClock};
use crate::session::Session;

/// How far the clock is turned at once, so that renewals keep up with it.
const STEP: Duration = Duration::from_millis(100);
/// How often other tasks get their turn after each step.
const TURNS: usize = 24;

/// Sessions on one store in memory, under a clock that only you turn.
///
/// Use it in a single-threaded runtime (`#[tokio::test]` is one): then nothing happens but what
/// you let happen, and a test gives the same result each time.
#[derive(Clone)]
pub struct TestBed {
    clock: Arc<TurnedClock>,
    store: MemoryStore,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    next: HashMap<Operation, VecDeque<Fault>>,
    frozen: HashMap<Name, watch::Sender<bool>>,
    requests: HashMap<Operation, u64>,
    muted: bool,
    drawn: u64,
}

/// What befalls one request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Fail(ErrorKind),
    Delay(Duration),
}

impl TestBed {
    /// An empty store, and a clock that stands.
    #[must_use]
    pub fn new() -> Self {
        let clock = Arc::new(TurnedClock::new());
        let store = MemoryStore::new(Arc::clone(&clock) as _, &mut Chance::seeded(1));
        Self { clock, store, faults: Arc::default() }
    }

    /// A session of an instance of this name.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): the name.
    pub async fn session(&self, instance: &str) -> Result<Session, Error> {
        let instance = Name::new(instance)?;
        let frozen = self.frozen(&instance).subscribe();
        let store = BedStore {
            inner: self.store.opened(Namespace::default()),
            faults: Arc::clone(&self.faults),
            frozen,
            time: Time::Turned(Arc::clone(&self.clock)),
        };
        let mut builder = Session::builder().store(Arc::new(store)).instance(instance);
        builder.time = Time::Turned(Arc::clone(&self.clock));
        builder.chance = Some(Chance::seeded(self.draw()));
        builder.open().await
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<TurnedClock> {
        &self.clock
    }

    /// How many writes the store has seen.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.store.writes()
    }

    /// Turns the clock forward, step by step, and lets all tasks react to each step.
    pub async fn advance(&self, by: Duration) {
        let mut left = by;
        self.settle().await;
        while !left.is_zero() {
            let step = left.min(STEP);
            left -= step;
            self.clock.advance(step);
            self.settle().await;
        }
    }

    /// Lets all tasks run until they wait for the clock.
    pub async fn settle(&self) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }

    /// Takes `name` away from whoever holds it, as an operator would with `--now`, and turns the
    /// clock until its holder has heard of it.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): the name, or nobody holds it.
    pub async fn lose(&self, name: &str) -> Result<(), Error> {
        let name = Name::new(name)?;
        let store = self.store.opened(Namespace::default());
        let at = tenure_core::clock::Clock::now(&*self.clock).wall;
        let order = Order::new(Demand::RevokeNow, "the test bed", "lose", at);
        let nonce = Nonce::from_u128(u128::from(self.draw()));
        let request = OrderRequest { order, token: None, nonce };
        match store.order(&name, &request).await? {
            Ordered::Ordered(snapshot) => {
                self.advance(snapshot.record.ttl / 2).await;
                Ok(())
            }
            _ => Err(Error::invalid("nobody holds it, so nobody can lose it").with_name(&name)),
        }
    }

    /// The next request of this kind, of whichever session, fails like this. With
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) it is carried out, and its answer is lost.
    pub fn fail_next(&self, operation: Operation, kind: ErrorKind) {
        self.faults().next.entry(operation).or_default().push_back(Fault::Fail(kind));
    }

    /// The next request of this kind, of whichever session, is carried out at once, and its
    /// answer comes so much later.
    pub fn delay_next(&self, operation: Operation, by: Duration) {
        self.faults().next.entry(operation).or_default().push_back(Fault::Delay(by));
    }

    /// How many requests of this kind have reached the store.
    #[must_use]
    pub fn requests(&self, operation: Operation) -> u64 {
        self.faults().requests.get(&operation).copied().unwrap_or_default()
    }

    /// From now on the store pushes no changes to whoever begins to wait.
    pub fn mute(&self) {
        self.faults().muted = true;
    }

    /// From now on the requests of this instance hang.
    ///
    /// # Panics
    /// If the name is none.
    pub fn freeze(&self, instance: &str) {
        self.set_frozen(instance, true);
    }

    /// Lets hanging requests go on.
    ///
    /// # Panics
    /// If the name is none.
    pub fn thaw(&self, instance: &str) {
        self.set_frozen(instance, false);
    }

    /// Makes the store forget everything, as after the loss of its data.
    pub fn forget(&self) {
        self.store.forget(&mut Chance::seeded(self.writes() + 2));
    }

    /// A number that this bed hasn't drawn before.
    fn draw(&self) -> u64 {
        let mut faults = self.faults();
        faults.drawn += 1;
        faults.drawn
    }

    fn set_frozen(&self, instance: &str, frozen: bool) {
        let instance = Name::new(instance).expect("an instance's name is a name");
        self.frozen(&instance).send_replace(frozen);
    }

    fn frozen(&self, instance: &Name) -> watch::Sender<bool> {
        let mut faults = self.faults();
        faults.frozen.entry(instance.clone()).or_insert_with(|| watch::Sender::new(false)).clone()
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for TestBed {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TestBed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestBed").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// The bed's store as one instance reaches it.
struct BedStore {
    inner: MemoryStore,
    faults: Arc<Mutex<Faults>>,
    frozen: watch::Receiver<bool>,
    time: Time,
}

impl BedStore {
    /// Carries out a request with the faults that were ordered for it.
    async fn with<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut frozen = self.frozen.clone();
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            std::future::pending::<()>().await;
        }
        let fault = {
            let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
            *faults.requests.entry(operation).or_default() += 1;
            faults.next.get_mut(&operation).and_then(VecDeque::pop_front)
        };
        match fault {
            None => request.await,
            Some(Fault::Delay(by)) => {
                let until = self.time.now().elapsed + by;
                let answer = request.await;
                self.time.sleep_until(Some(until)).await;
                answer
            }
            Some(Fault::Fail(kind)) => {
                if kind == ErrorKind::OutcomeUnknown {
                    request.await?;
                }
                Err(Error::new(kind, operation, "the test bed was told to let this fail"))
            }
        }
    }
}

impl Store for BedStore {
    fn profile(&self) -> &Profile {
        self.inner.profile()
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        Box::pin(self.with(Operation::Acquire, async { self.inner.acquire(claims).await }))
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        Box::pin(self.with(Operation::Renew, async { self.inner.renew(holds).await }))
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        Box::pin(self.with(Operation::Release, async { self.inner.release(releases).await }))
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        Box::pin(self.with(Operation::Read, async { self.inner.read(names).await }))
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        Box::pin(self.with(Operation::List, async move { self.inner.list(query, after).await }))
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        Box::pin(self.with(Operation::Order, async move { self.inner.order(name, request).await }))
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        if self.faults.lock().unwrap_or_else(PoisonError::into_inner).muted {
            return Box::pin(std::future::ready(Ok(None)));
        }
        self.inner.watch(prefix)
    }
}
