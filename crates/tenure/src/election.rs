//! One of us leads: standing, leading for a term, resigning, and standing again.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tenure_core::error::Error;
use tenure_core::identity::{FencingToken, Name, Successor};
use tenure_core::protocol::contend::{GaveUp, Patience};
use tenure_core::protocol::elect::{Action, Candidate, Event};
use tenure_core::protocol::hold::Cause;
use tenure_core::record::Metadata;
use tenure_core::timing::Timing;
use tokio::sync::{mpsc, watch};

use crate::answer::Lost;
use crate::contention::{Contention, Ended, Wanted};
use crate::lease::{Lease, LeaseRequest, Proof, Running};
use crate::observer::{ADDRESS, Changes, Leader, Observer};
use crate::session::Session;
use crate::shared::Shared;

/// An election to stand in or to observe.
#[must_use = "a builder does nothing until it stands or observes"]
#[derive(Clone, Debug)]
pub struct ElectionBuilder {
    session: Session,
    request: LeaseRequest,
    name: String,
    metadata: Metadata,
    address: Option<String>,
    healthy: Option<watch::Receiver<bool>>,
}

impl Session {
    /// Stands in, or observes, the election of a name.
    pub fn election(&self, name: impl Into<String>) -> ElectionBuilder {
        ElectionBuilder::new(self.clone(), name.into())
    }
}

impl ElectionBuilder {
    pub(crate) fn new(session: Session, name: String) -> Self {
        let request = session.lease(name.clone());
        Self { session, request, name, metadata: Metadata::new(), address: None, healthy: None }
    }

    /// Where the leader is reached: carried by its lease, for followers and for forwarding.
    pub fn advertise(self, address: impl Into<String>) -> Self {
        Self { address: Some(address.into()), ..self }
    }

    /// What else others may read about the leader.
    pub fn metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }

    /// The health gate: while this is false the instance doesn't campaign, and a leader steps
    /// down. A gate whose sender is gone stays as it was.
    pub fn healthy(self, healthy: watch::Receiver<bool>) -> Self {
        Self { healthy: Some(healthy), ..self }
    }

    /// How long a grant lasts unless it is renewed; 30 s unless set.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { request: self.request.ttl(ttl), ..self }
    }

    /// What the work gets for stopping after a loss.
    pub fn grace(self, grace: Duration) -> Self {
        Self { request: self.request.grace(grace), ..self }
    }

    /// How long a term keeps the name at least, so that leadership doesn't flap.
    pub fn min_hold(self, min_hold: Duration) -> Self {
        Self { request: self.request.min_hold(min_hold), ..self }
    }

    /// Stands as a candidate. The campaign begins with [`Election::run`].
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): the name, the timing or the metadata.
    ///
    /// # Cancel safety
    /// Nothing is sent yet.
    pub async fn stand(self) -> Result<Election, Error> {
        let mut metadata = self.metadata;
        if let Some(address) = self.address {
            metadata = metadata.with(ADDRESS, address)?;
        }
        let request = self.request.metadata(metadata);
        let wanted = request.wanted(Patience::Forever)?;
        let (resign, resigns) = mpsc::unbounded_channel();
        Ok(Election {
            inner: Arc::new(Inner {
                shared: Arc::clone(&self.session.shared),
                timing: wanted.timing,
                name: wanted.name.clone(),
                wanted,
                healthy: self.healthy,
                term: watch::Sender::new(None),
                resign,
                resigns: tokio::sync::Mutex::new(resigns),
                running: AtomicBool::new(false),
                observer: OnceLock::new(),
            }),
        })
    }

    /// Only looks, and never writes.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): the name.
    ///
    /// # Cancel safety
    /// Nothing is sent yet.
    pub async fn observe(self) -> Result<Observer, Error> {
        Ok(Observer::start(&self.session.shared, Name::new(&self.name)?))
    }
}

/// A candidate's handle. Clones are the same candidate.
#[derive(Clone)]
pub struct Election {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    name: Name,
    timing: Timing,
    wanted: Wanted,
    healthy: Option<watch::Receiver<bool>>,
    term: watch::Sender<Option<Term>>,
    resign: mpsc::UnboundedSender<Option<Successor>>,
    resigns: tokio::sync::Mutex<mpsc::UnboundedReceiver<Option<Successor>>>,
    running: AtomicBool,
    observer: OnceLock<Observer>,
}

/// One uninterrupted leadership, with one token.
#[derive(Clone, Debug)]
pub struct Term {
    proof: Proof,
}

impl Term {
    /// The fencing token of this term: write it beside what you change.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.proof.token()
    }

    /// Whether this instance may act as the leader now: local, lock-free, nanoseconds.
    ///
    /// # Errors
    /// [`Lost`], with the cause.
    pub fn check(&self) -> Result<Duration, Lost> {
        self.proof.check()
    }

    /// The right to act, for other tasks.
    #[must_use]
    pub fn proof(&self) -> &Proof {
        &self.proof
    }
}

/// How the work of a term came out for [`Election::try_run`].
type Worked<E> = Result<(), E>;

/// Why [`Election::try_run`] ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError<E> {
    /// The store can't be used; waiting doesn't mend that.
    Store(Error),
    /// The work failed. The term was ended, and the name given back.
    Work(E),
}

impl<E: std::fmt::Display> std::fmt::Display for RunError<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Work(error) => write!(f, "the leader's work failed: {error}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for RunError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Work(error) => Some(error),
        }
    }
}

impl Election {
    /// Campaigns, leads and campaigns again, until the session is closed. `work` is called once
    /// a term, and its future is dropped the moment the term is lost or shall end; only then is
    /// the name given back. Work that returns has resigned: the candidate backs off and stands
    /// again.
    ///
    /// The work runs on the caller's task; neither `Send` nor `'static` is asked of it. A panic
    /// of the work passes through, and ends the term.
    ///
    /// # Errors
    /// What waiting doesn't mend: [`Misconfigured`](crate::ErrorKind::Misconfigured),
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Invalid`](crate::ErrorKind::Invalid) (it runs
    /// already).
    ///
    /// # Cancel safety
    /// Dropping the future drops the work, then gives the name back in the background.
    pub async fn run<W, F>(&self, mut work: W) -> Result<(), Error>
    where
        W: FnMut(Term) -> F,
        F: Future,
    {
        let worked = |term| {
            let work = work(term);
            async move {
                work.await;
                Worked::<std::convert::Infallible>::Ok(())
            }
        };
        match self.try_run(worked).await {
            Ok(()) => Ok(()),
            Err(RunError::Store(error)) => Err(error),
            Err(RunError::Work(never)) => match never {},
        }
    }

    /// As [`run`](Self::run), for work that can fail: a failure ends the term and the run.
    ///
    /// # Errors
    /// [`RunError::Work`]: the work's own. [`RunError::Store`]: as [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn try_run<W, F, E>(&self, work: W) -> Result<(), RunError<E>>
    where
        W: FnMut(Term) -> F,
        F: Future<Output = Result<(), E>>,
    {
        if self.inner.running.swap(true, Ordering::SeqCst) {
            let error = Error::invalid("this candidate runs already; stand another one");
            return Err(RunError::Store(error.with_name(&self.inner.name)));
        }
        let run = Run {
            inner: &self.inner,
            work,
            candidate: Candidate::new(self.inner.timing),
            campaign: None,
            term: None,
            ending: None,
            failure: None,
        };
        run.drive().await
    }

    /// The term that this instance leads in, if it leads.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.inner.term.borrow().clone().filter(|term| term.check().is_ok())
    }

    /// Who leads, as far as is known: this instance or another. The first call begins to follow
    /// the store, so it may know nothing yet.
    #[must_use]
    pub fn leader(&self) -> Option<Leader> {
        self.observer().leader()
    }

    /// The changes of leader, from the one that leads now on; the latest value wins.
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.observer().changes()
    }

    /// Waits until the store has said who leads, or that nobody does.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ready(&self) {
        self.observer().ready().await;
    }

    /// Ends this instance's term, if it leads: the work is dropped, then the name is given back,
    /// in favour of `to` if it is named. Returns at once.
    pub fn resign(&self, to: Option<Successor>) {
        // Nobody listens while nothing runs, and then there is nothing to resign from.
        let _ = self.inner.resign.send(to);
    }

    fn observer(&self) -> &Observer {
        self.inner
            .observer
            .get_or_init(|| Observer::start(&self.inner.shared, self.inner.name.clone()))
    }
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

/// One run of a candidate: the machine's actions carried out on the caller's task.
struct Run<'a, W, F, E> {
    inner: &'a Inner,
    work: W,
    candidate: Candidate,
    campaign: Option<Contention>,
    term: Option<Leading<F>>,
    ending: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    failure: Option<RunError<E>>,
}

/// A term whose work runs.
///
/// **Invariant:** the fields are dropped in this order: the work ends before the lease does.
struct Leading<F> {
    work: Option<Pin<Box<F>>>,
    running: Running,
    lease: Lease,
}

impl<W, F, E> Run<'_, W, F, E>
where
    W: FnMut(Term) -> F,
    F: Future<Output = Result<(), E>>,
{
    async fn drive(mut self) -> Result<(), RunError<E>> {
        let mut closed = false;
        let mut resigns = self.inner.resigns.lock().await;
        while resigns.try_recv().is_ok() {}
        let mut healthy = self.inner.healthy.clone();
        let gate = healthy.as_mut().is_none_or(|gate| *gate.borrow_and_update());
        let mut events = VecDeque::from([Event::Healthy(gate)]);
        loop {
            while let Some(event) = events.pop_front() {
                let now = self.inner.shared.time.now().elapsed;
                for action in self.candidate.on(event, now) {
                    if self.act(action) {
                        return self.failure.take().map_or(Ok(()), Err);
                    }
                }
            }
            let shared = &self.inner.shared;
            let wake_at = self.candidate.wake_at();
            let failed = self.failure.is_some();
            let event = tokio::select! {
                biased;
                event = leading(self.term.as_mut(), &mut self.failure) => event,
                Some(to) = resigns.recv() => Event::Resign { to },
                healthy = gate_change(healthy.as_mut()) => Event::Healthy(healthy),
                ended = campaign(self.campaign.as_mut()) => self.campaigned(ended),
                () = ended(self.ending.as_mut()) => {
                    self.ending = None;
                    Event::TermOver
                }
                () = shared.closed(), if !closed => {
                    closed = true;
                    Event::Withdraw
                }
                () = shared.time.sleep_until(wake_at) => Event::Tick,
            };
            events.push_back(event);
            if self.failure.is_some() && !failed {
                // The term, if there is one, is ended first.
                events.push_back(Event::Withdraw);
            }
        }
    }

    fn campaigned(&mut self, ended: Ended) -> Event {
        self.campaign = None;
        match ended {
            Ended::Granted(cell) => {
                let lease = Lease::new(&self.inner.shared, cell);
                let token = lease.token();
                self.term = Some(Leading { work: None, running: lease.running(), lease });
                Event::Elected(token)
            }
            Ended::GaveUp(GaveUp::Failed(error)) if !error.kind().is_transient() => {
                self.failure = Some(RunError::Store(error.with_name(&self.inner.name)));
                Event::CampaignFailed
            }
            Ended::Refused(_) | Ended::GaveUp(_) => Event::CampaignFailed,
        }
    }

    /// Carries out one action; true at the end of all.
    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Campaign => {
                let contention = Contention::start(&self.inner.shared, self.inner.wanted.clone());
                self.campaign = Some(contention);
            }
            Action::StopCampaign => self.campaign = None,
            Action::StartWork(_) => {
                if let Some(leading) = &mut self.term {
                    let term = Term { proof: leading.lease.proof() };
                    self.inner.term.send_replace(Some(term.clone()));
                    leading.work = Some(Box::pin((self.work)(term)));
                }
            }
            Action::EndTerm { successor, why } => self.end(successor, why),
            Action::Over => return true,
        }
        false
    }

    /// Ends the work, and only then gives the name back.
    fn end(&mut self, successor: Option<Successor>, why: &'static str) {
        let Some(Leading { work, running, lease }) = self.term.take() else { return };
        drop(work);
        drop(running);
        self.inner.term.send_replace(None);
        self.ending = Some(Box::pin(lease.end(successor, why)));
    }
}

impl<W, F, E> Drop for Run<'_, W, F, E> {
    fn drop(&mut self) {
        self.term = None;
        self.inner.term.send_replace(None);
        self.inner.running.store(false, Ordering::SeqCst);
    }
}

/// The next thing that happens to a running term: its hold shall end, or its work has ended.
async fn leading<F, E>(term: Option<&mut Leading<F>>, failure: &mut Option<RunError<E>>) -> Event
where
    F: Future<Output = Result<(), E>>,
{
    let Some(Leading { work: Some(work), lease, .. }) = term else {
        return std::future::pending().await;
    };
    let proof = lease.proof();
    tokio::select! {
        biased;
        lost = proof.lost() => {
            tracing::debug!(%lost, "the term ends");
            // By will or by loss: either way the term's end drops the work first.
            if lost.cause == Cause::Released { Event::Resign { to: None } } else { Event::TermLost }
        }
        worked = work => {
            if let Err(error) = worked {
                *failure = Some(RunError::Work(error));
            }
            Event::WorkEnded
        }
    }
}

async fn campaign(campaign: Option<&mut Contention>) -> Ended {
    match campaign {
        Some(contention) => contention.ended().await,
        None => std::future::pending().await,
    }
}

async fn ended(ending: Option<&mut Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match ending {
        Some(ending) => ending.await,
        None => std::future::pending().await,
    }
}

async fn gate_change(gate: Option<&mut watch::Receiver<bool>>) -> bool {
    if let Some(gate) = gate
        && gate.changed().await.is_ok()
    {
        return *gate.borrow_and_update();
    }
    std::future::pending().await
}
