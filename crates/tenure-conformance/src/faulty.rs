//! A store whose requests meet faults on demand: the same faults for every store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::Name;
use tenure_core::store::{
    Acquired, Answer, Claim, Hints, Hold, OrderRequest, Ordered, Page, Prefix, Profile, Query,
    Release, Released, Renewed, Snapshot, Store,
};

/// A store around another, whose next requests meet the faults that were planned for them.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use tenure_conformance::faulty::{Fault, Faulty};
/// use tenure_conformance::drive::block_on;
/// use tenure_core::chance::Chance;
/// use tenure_core::clock::ManualClock;
/// use tenure_core::error::Operation;
/// use tenure_core::memory::MemoryStore;
/// use tenure_core::store::Store;
///
/// let memory = MemoryStore::new(Arc::new(ManualClock::default()), &mut Chance::seeded(1));
/// let store = Faulty::new(Arc::new(memory));
/// store.plan(Operation::Read, Fault::NotSent);
/// assert!(block_on(store.read(&[])).is_err());
/// assert!(block_on(store.read(&[])).is_ok());
/// ```
pub struct Faulty {
    inner: Arc<dyn Store>,
    plan: Mutex<VecDeque<(Operation, Fault)>>,
}

/// What happens to one request.
#[derive(Clone)]
pub enum Fault {
    /// The store never sees it; the answer says so: `Unavailable`.
    NotSent,
    /// The store never sees it, and nobody knows: `OutcomeUnknown`.
    LostOnTheWay,
    /// The store carries it out, and its answer is lost: `OutcomeUnknown`.
    AnswerLost,
    /// The store carries it out, and the answers to every other item, beginning with the
    /// second, are lost.
    HalfUnknown,
    /// The store carries it out twice, as after a doubled packet. The first answer is given.
    Twice,
    /// This is called before the store sees it: let time pass, or let another act.
    Before(Arc<dyn Fn() + Send + Sync>),
    /// This is called after the store carried it out, before the answer is given.
    After(Arc<dyn Fn() + Send + Sync>),
    /// The store never sees it, and no answer ever comes.
    HangBefore,
    /// The store carries it out, and no answer ever comes.
    HangAfter,
}

impl Faulty {
    /// A store around `inner`, without faults as yet.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, plan: Mutex::default() }
    }

    /// Lets the next request of this kind meet a fault; faults of one kind queue up.
    pub fn plan(&self, operation: Operation, fault: Fault) {
        self.planned().push_back((operation, fault));
    }

    /// Forgets every fault that nothing has met yet.
    pub fn mend(&self) {
        self.planned().clear();
    }

    fn planned(&self) -> MutexGuard<'_, VecDeque<(Operation, Fault)>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut plan = self.planned();
        let position = plan.iter().position(|(planned, _)| *planned == operation)?;
        plan.remove(position).map(|(_, fault)| fault)
    }

    /// One request through its fault. `send` may be called twice; `lost` is the answer when no
    /// answer came, and `half` loses what was said of every other item.
    async fn through<'a, T: 'a>(
        &'a self,
        operation: Operation,
        send: impl Fn() -> Answer<'a, T>,
        lost: impl Fn() -> Result<T, Error>,
        half: impl Fn(T) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self.next(operation) {
            None => send().await,
            Some(Fault::NotSent) => Err(Error::new(
                ErrorKind::Unavailable,
                operation,
                "the suite kept the request back; it was not sent",
            )),
            Some(Fault::LostOnTheWay) => lost(),
            Some(Fault::AnswerLost) => {
                send().await?;
                lost()
            }
            Some(Fault::HalfUnknown) => half(send().await?),
            Some(Fault::Twice) => {
                let first = send().await;
                let _ = send().await;
                first
            }
            Some(Fault::Before(act)) => {
                act();
                send().await
            }
            Some(Fault::After(act)) => {
                let answer = send().await;
                act();
                answer
            }
            Some(Fault::HangBefore) => std::future::pending().await,
            Some(Fault::HangAfter) => {
                let _ = send().await;
                std::future::pending().await
            }
        }
    }

    /// A batch through its fault: what is lost is told item by item.
    fn batch<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        count: usize,
        send: impl Fn() -> Answer<'a, Vec<T>> + Send + Sync + 'a,
        failed: fn(Error) -> T,
    ) -> Answer<'a, Vec<T>> {
        Box::pin(self.through(
            operation,
            send,
            move || Ok((0..count).map(|_| failed(unknown(operation))).collect()),
            move |mut answers| {
                for answer in answers.iter_mut().skip(1).step_by(2) {
                    *answer = failed(unknown(operation));
                }
                Ok(answers)
            },
        ))
    }

    /// A request that changes nothing through its fault: what is lost is lost as a whole.
    fn look<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        send: impl Fn() -> Answer<'a, T> + Send + Sync + 'a,
    ) -> Answer<'a, T> {
        let lost = move || Err(unknown(operation));
        Box::pin(self.through(operation, send, lost, move |_| lost()))
    }
}

fn unknown(operation: Operation) -> Error {
    let message = "the suite dropped the answer; whether it was done is not known";
    Error::new(ErrorKind::OutcomeUnknown, operation, message)
}

impl Store for Faulty {
    fn profile(&self) -> &Profile {
        self.inner.profile()
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        let send = || self.inner.acquire(claims);
        self.batch(Operation::Acquire, claims.len(), send, Acquired::Failed)
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        self.batch(Operation::Renew, holds.len(), || self.inner.renew(holds), Renewed::Failed)
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        let send = || self.inner.release(releases);
        self.batch(Operation::Release, releases.len(), send, Released::Failed)
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        self.look(Operation::Read, || self.inner.read(names))
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        self.look(Operation::List, move || self.inner.list(query, after))
    }

    fn order<'a>(&'a self, name: &'a Name, order: &'a OrderRequest) -> Answer<'a, Ordered> {
        let lost = || Ok(Ordered::Failed(unknown(Operation::Order)));
        Box::pin(self.through(
            Operation::Order,
            || self.inner.order(name, order),
            lost,
            move |_| lost(),
        ))
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        self.look(Operation::Watch, || self.inner.watch(prefix))
    }

    fn close(&self) -> Answer<'_, ()> {
        self.inner.close()
    }
}
