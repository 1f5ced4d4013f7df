//! A lease as its holder has it: asking for it, acting under it, giving it back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tenure_core::clock::Instant;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{FencingToken, Name, Successor};
use tenure_core::protocol::contend::{GaveUp, Patience};
use tenure_core::protocol::hold::{Cause, Ending, Event, Limits, Standing};
use tenure_core::record::Metadata;
use tenure_core::timing::Timing;

use crate::answer::{HeldBy, Lost};
use crate::cell::Cell;
use crate::contention::{Contention, Ended, Wanted};
use crate::session::Session;
use crate::shared::Shared;
use crate::ticket::Ticket;

/// A lease to ask for.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct LeaseRequest {
    session: Session,
    name: String,
    ttl: Option<Duration>,
    grace: Option<Duration>,
    min_hold: Option<Duration>,
    metadata: Metadata,
}

/// What a single attempt came to.
#[derive(Debug)]
pub enum Attempt {
    /// The name is ours.
    Granted(Lease),
    /// Another holds it.
    Refused(HeldBy),
}

impl Session {
    /// Asks for the lease of a name. The name is checked when the request is sent.
    pub fn lease(&self, name: impl Into<String>) -> LeaseRequest {
        LeaseRequest::new(self.clone(), name.into())
    }
}

impl LeaseRequest {
    pub(crate) fn new(session: Session, name: String) -> Self {
        Self { session, name, ttl: None, grace: None, min_hold: None, metadata: Metadata::new() }
    }

    /// How long the grant lasts unless it is renewed; 30 s unless set.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// What work gets for stopping after a loss; ttl/6 unless set, at most 10 s.
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace: Some(grace), ..self }
    }

    /// How long the name stays taken at least, even if the work ends earlier.
    pub fn min_hold(self, min_hold: Duration) -> Self {
        Self { min_hold: Some(min_hold), ..self }
    }

    /// What others may read about the holder.
    pub fn metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }

    /// Asks once: granted, or refused because another holds the name.
    ///
    /// # Errors
    /// - [`Invalid`](ErrorKind::Invalid): the name or the timing; nothing was sent.
    /// - [`OutcomeUnknown`](ErrorKind::OutcomeUnknown): the store didn't answer for half a ttl.
    ///   If it granted the name after all, that is given back in the background, or runs out.
    /// - others as their kinds say; nothing was granted.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no trace, or nothing beyond one ttl if the store can't be
    /// reached any more.
    pub async fn try_acquire(self) -> Result<Attempt, Error> {
        let name = self.name()?;
        let wanted = self.wanted(Patience::Try)?;
        match self.contend(wanted).await {
            Ended::Granted(cell) => Ok(Attempt::Granted(Lease::new(&self.session.shared, cell))),
            Ended::Refused(snapshot) => {
                Ok(Attempt::Refused(HeldBy::from_snapshot(&snapshot, self.session.instance())))
            }
            Ended::GaveUp(why) => Err(failure(why, &name)),
        }
    }

    /// Waits until the name is ours, for ever if need be.
    ///
    /// While the store is unavailable it goes on trying.
    ///
    /// # Errors
    /// Only what waiting doesn't mend: [`Invalid`](ErrorKind::Invalid),
    /// [`Misconfigured`](ErrorKind::Misconfigured), [`Corrupt`](ErrorKind::Corrupt).
    ///
    /// # Cancel safety
    /// As [`try_acquire`](Self::try_acquire).
    pub async fn acquire(self) -> Result<Lease, Error> {
        match self.wait(Patience::Forever).await? {
            Attempt::Granted(lease) => Ok(lease),
            Attempt::Refused(by) => Err(Error::new(
                ErrorKind::Unavailable,
                Operation::Acquire,
                format!("the wait ended unasked: {by}"),
            )),
        }
    }

    /// Waits until the name is ours, but no longer than `patience`.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) or
    /// [`Unavailable`](ErrorKind::Unavailable) if the store could not say at the end who holds it.
    ///
    /// # Cancel safety
    /// As [`try_acquire`](Self::try_acquire).
    pub async fn acquire_within(self, patience: Duration) -> Result<Attempt, Error> {
        let until = self.session.shared.time.now().elapsed + patience;
        self.wait(Patience::Until(until)).await
    }

    async fn wait(self, patience: Patience) -> Result<Attempt, Error> {
        let name = self.name()?;
        let wanted = self.wanted(patience)?;
        match self.contend(wanted).await {
            Ended::Granted(cell) => Ok(Attempt::Granted(Lease::new(&self.session.shared, cell))),
            Ended::Refused(snapshot) | Ended::GaveUp(GaveUp::TimedOut(Some(snapshot))) => {
                Ok(Attempt::Refused(HeldBy::from_snapshot(&snapshot, self.session.instance())))
            }
            Ended::GaveUp(why) => Err(failure(why, &name)),
        }
    }

    async fn contend(&self, wanted: Wanted) -> Ended {
        Contention::start(&self.session.shared, wanted).ended().await
    }

    fn name(&self) -> Result<Name, Error> {
        Name::new(&self.name)
    }

    /// The timing that was asked for, if the store keeps it.
    pub(crate) fn timing(&self) -> Result<Timing, Error> {
        let mut timing = match self.ttl {
            Some(ttl) => Timing::of_ttl(ttl)?,
            None => Timing::default(),
        };
        if let Some(grace) = self.grace {
            timing = timing.with_grace(grace)?;
        }
        if let Some(min_hold) = self.min_hold {
            timing = timing.with_min_hold(min_hold)?;
        }
        let profile = self.session.profile();
        if timing.ttl() < profile.shortest_ttl {
            return Err(Error::invalid(format!(
                "a ttl of {:?} is too short for this store; its shortest is {:?}",
                timing.ttl(),
                profile.shortest_ttl
            ))
            .with_store(profile.location.clone()));
        }
        Ok(timing)
    }

    /// What to contend for.
    pub(crate) fn wanted(&self, patience: Patience) -> Result<Wanted, Error> {
        if self.session.shared.is_closing() {
            return Err(Error::invalid("the session is closed; open another"));
        }
        Ok(Wanted {
            name: self.name()?,
            timing: self.timing()?,
            metadata: self.metadata.clone(),
            patience,
        })
    }
}

fn failure(why: GaveUp, name: &Name) -> Error {
    match why {
        GaveUp::Failed(error) if error.name().is_some() => error,
        GaveUp::Failed(error) => error.with_name(name),
        GaveUp::TimedOut(_) => Error::new(
            ErrorKind::Unavailable,
            Operation::Acquire,
            "the wait ended before the store said who holds it",
        )
        .with_name(name),
    }
}

/// A name that is held. It is renewed until it is dropped or given back.
///
/// Dropping it ends it locally at once, and gives the name back in the background.
#[derive(Debug)]
#[must_use = "dropping a lease gives the name back"]
pub struct Lease {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    given: bool,
}

impl Lease {
    pub(crate) fn new(shared: &Arc<Shared>, cell: Arc<Cell>) -> Self {
        Self { shared: Arc::clone(shared), cell, given: false }
    }

    /// What is held.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.cell.name
    }

    /// The fencing token: write it beside what you change.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.cell.token
    }

    /// Whether the holder may act now, and for how much longer without another renewal.
    ///
    /// Local and lock-free: it compares the clock with the published deadline, and so is right
    /// even while every task of the runtime is stuck. A process that is paused right after it
    /// can still issue one late effect: only a [guard](crate::guard) stops that.
    ///
    /// # Errors
    /// [`Lost`], with the cause.
    pub fn check(&self) -> Result<Duration, Lost> {
        self.cell.check(self.shared.time.now())
    }

    /// The right to act, for the tasks that act. It keeps nothing alive.
    #[must_use]
    pub fn proof(&self) -> Proof {
        Proof { shared: Arc::clone(&self.shared), cell: Arc::clone(&self.cell) }
    }

    /// Runs `work` while the lease is held: the moment it is lost, or somebody asks for its end,
    /// the work is dropped.
    ///
    /// # Errors
    /// [`Lost`]: the work was dropped unfinished, or was never started.
    ///
    /// # Cancel safety
    /// Dropping the future drops the work; the lease is still held.
    pub async fn run<W, F>(&self, work: W) -> Result<F::Output, Lost>
    where
        W: FnOnce(Proof) -> F,
        F: Future,
    {
        self.check()?;
        let _running = self.running();
        let stopped = self.cell.until(|seen| seen.stop.is_some());
        tokio::select! {
            // A loss that is already known goes before the work's own end.
            biased;
            seen = stopped => {
                let cause = seen.stop.flatten().unwrap_or(Cause::Released);
                Err(self.cell.lost(cause))
            }
            done = async { work(self.proof()).await } => Ok(done),
        }
    }

    /// Gives the name back, and waits until that is done. With a min-hold, that is when it has
    /// passed.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown): the store couldn't be told before the
    /// grant ran out. Nothing acts under it any more in any case.
    ///
    /// # Cancel safety
    /// Dropping the future goes on giving the name back in the background.
    pub async fn release(self) -> Result<(), Error> {
        self.give_back(Ending { successor: None, at_once: false, why: "released".to_owned() }).await
    }

    /// Gives the name back in favour of `successor`: others leave it alone for a third of the
    /// ttl, at most 5 s. Ends min-hold.
    ///
    /// # Errors
    /// As [`release`](Self::release).
    ///
    /// # Cancel safety
    /// As [`release`](Self::release).
    pub async fn transfer_to(self, successor: Successor) -> Result<(), Error> {
        self.give_back(Ending {
            successor: Some(successor),
            at_once: false,
            why: "transferred".to_owned(),
        })
        .await
    }

    /// As [`release`](Self::release), saying why for the history, and without waiting for
    /// min-hold: the released record keeps the name for the rest of it.
    ///
    /// # Errors
    /// As [`release`](Self::release).
    ///
    /// # Cancel safety
    /// As [`release`](Self::release).
    pub async fn release_at_once(self, why: impl Into<String>) -> Result<(), Error> {
        self.give_back(Ending { successor: None, at_once: true, why: why.into() }).await
    }

    /// Ends it locally without giving it back: it is renewed no more, and the name is free when
    /// its ttl has run out. For work that can't be proven to have ended.
    pub fn leave_to_ttl(mut self) {
        self.given = true;
        self.shared.abandon(&self.cell);
    }

    async fn give_back(mut self, ending: Ending) -> Result<(), Error> {
        self.given = true;
        let (shared, cell) = (Arc::clone(&self.shared), Arc::clone(&self.cell));
        shared.on(&cell, Event::End(ending));
        shared.let_go(&cell);
        drop(self);
        cell.until(|seen| seen.over).await;
        if cell.machine().released || cell.limits().ended != Some(Cause::Released) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::OutcomeUnknown,
            Operation::Release,
            "the store could not be told; the name is free after its ttl",
        )
        .with_name(&cell.name))
    }

    /// Gives the name back as the end of a term.
    pub(crate) async fn end(self, successor: Option<Successor>, why: &'static str) {
        let ending = Ending { successor, at_once: false, why: why.to_owned() };
        if let Err(error) = self.give_back(ending).await {
            tracing::warn!(%error, "the term ended, but its name waits for the ttl");
        }
    }

    /// Counts work of this lease as under way until what is returned is dropped.
    pub(crate) fn running(&self) -> Running {
        Running::start(&self.shared, &self.cell)
    }

    /// What another process of ours needs to give this name back.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket {
            name: self.cell.name.clone(),
            instance: self.shared.instance.clone(),
            claim: self.cell.claim,
            token: self.cell.token,
            version: self.cell.machine().version.as_str().to_owned(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.given {
            self.shared.let_go_at_once(&self.cell, "dropped");
        }
    }
}

/// Counts a piece of work as under way until it is dropped.
pub(crate) struct Running {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
}

impl Running {
    fn start(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Self {
        cell.machine().running += 1;
        Self { shared: Arc::clone(shared), cell: Arc::clone(cell) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        {
            let mut machine = self.cell.machine();
            machine.running -= 1;
            // Work that was told to stop, and has, is what the hold was kept for.
            machine.let_go |= machine.running == 0 && self.cell.seen().stop.is_some();
        }
        self.shared.work_may_have_ended(&self.cell);
    }
}

/// The right to act, as long as it lasts. Clones are cheap, and keep nothing alive.
#[derive(Clone, Debug)]
pub struct Proof {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
}

impl Proof {
    /// What is held.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.cell.name
    }

    /// The fencing token: write it beside what you change.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.cell.token
    }

    /// As [`Lease::check`].
    ///
    /// # Errors
    /// [`Lost`], with the cause.
    pub fn check(&self) -> Result<Duration, Lost> {
        self.cell.check(self.shared.time.now())
    }

    /// The hold's state as it was last announced.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.check() {
            Ok(_) => self.cell.seen().standing,
            Err(Lost { cause: Cause::Suspended, .. }) => Standing::Jeopardy,
            Err(_) => Standing::Lost,
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn transaction_guard(&self) -> &crate::connect::TransactionGuard {
        &self.shared.guard
    }

    /// Until when it may be acted, on this machine's interval clock.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.cell.limits()
    }

    /// Waits for the loss, or for the holder's own end.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn lost(&self) -> Lost {
        let seen = self.cell.until(|seen| seen.stop.is_some() || seen.over).await;
        self.cell.lost(seen.stop.flatten().unwrap_or(Cause::Released))
    }

    /// Waits until a renewal that was sent after `sent` is confirmed, and says when that one was
    /// sent; or, if the hold ends before, nothing.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn confirmed_after(&self, sent: Instant) -> Option<Instant> {
        let seen = self.cell.until(|seen| seen.confirmed > sent || seen.over).await;
        (seen.confirmed > sent).then_some(seen.confirmed)
    }

    /// Waits until the standing isn't `standing` any more.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn standing_other_than(&self, standing: Standing) -> Standing {
        self.cell.until(|seen| seen.standing != standing || seen.over).await.standing
    }
}
