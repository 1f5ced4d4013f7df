//! One grant under which CMD runs: keeps the page informed, and gives the name back in the end.

use std::fmt;
use std::time::Duration;

use tenure::core::clock::Instant;
use tenure::{Cause, Lease, Proof, Session, Standing};
use tokio::sync::mpsc::UnboundedReceiver;

use super::release::HoldTicket;
use crate::exit::{explained, say};
use crate::supervise::{
    Event, Granted, INTERNAL, LeaseSide, NotTaken, Status, Term, boottime_nanos, signalled,
};

/// How much longer than its deadline a name is tried to be given back: less than the supervisor
/// waits for it.
const RELEASE_LAG: Duration = Duration::from_secs(5);

/// What the main thread tells, and what of it must not be forgotten.
pub(super) struct Events {
    inbox: UnboundedReceiver<Event>,
    /// The signal that ends it all: one that CMD didn't get, or that asked CMD to end.
    ended_by: Option<i32>,
    /// CMD got the signal that ends it all.
    pub(super) relayed: bool,
    /// The supervisor is dead: nothing is started any more.
    orphaned: bool,
}

impl Events {
    pub(super) fn new(inbox: UnboundedReceiver<Event>) -> Self {
        Self { inbox, ended_by: None, relayed: false, orphaned: false }
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub(super) async fn next(&mut self) -> Event {
        let Some(event) = self.inbox.recv().await else {
            // The main thread is gone, and this process with it.
            return std::future::pending().await;
        };
        match event {
            Event::Signal { number, relayed } => {
                let asks = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT].contains(&number);
                if (asks || !relayed) && self.ended_by.is_none() {
                    self.ended_by = Some(number);
                    self.relayed = relayed;
                }
            }
            Event::SupervisorDied => self.orphaned = true,
            _ => {}
        }
        event
    }

    /// The exit code of an end without work.
    pub(super) fn code(&self) -> u8 {
        self.ended_by.map_or(INTERNAL, signalled)
    }

    /// Whether nothing shall be started any more.
    pub(super) fn ends(&self) -> bool {
        self.ended_by.is_some() || self.orphaned
    }

    /// Waits until nothing shall be started any more.
    pub(super) async fn abandoned(&mut self) {
        while !self.ends() {
            self.next().await;
        }
    }
}

/// How the work of a grant came out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    pub(super) status: Option<Status>,
    proven: bool,
    pub(super) lost: bool,
}

/// A grant whose CMD runs.
pub(super) struct Grant<'a> {
    url: &'a str,
    session: &'a Session,
    side: &'a LeaseSide,
    lease: Lease,
    proof: Proof,
    term: Term,
    /// When the last confirmed request was sent.
    confirmed: Instant,
    standing: Standing,
    stopping: bool,
}

impl<'a> Grant<'a> {
    /// Has CMD started under `lease`.
    ///
    /// # Errors
    /// It was not taken: the lease is the caller's again.
    pub(super) fn begin(
        url: &'a str,
        session: &'a Session,
        side: &'a LeaseSide,
        lease: Lease,
    ) -> Result<Self, (Lease, NotTaken)> {
        let proof = lease.proof();
        let limits = proof.limits();
        let granted = Granted {
            name: lease.name().to_string(),
            token: lease.token().get(),
            instance: session.instance().to_string(),
            deadline: limits.deadline.as_nanos(),
            grace: limits.deadline.since(limits.lost_at),
            ticket: HoldTicket::of(url, session, &lease),
        };
        match side.granted(granted) {
            Ok(term) => Ok(Self {
                url,
                session,
                side,
                lease,
                proof,
                term,
                confirmed: Instant::default(),
                standing: Standing::Held,
                stopping: false,
            }),
            Err(why) => Err((lease, why)),
        }
    }

    /// Ends the work by will. Renewals go on.
    pub(super) fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.side.stop();
        }
    }

    /// The work is being asked to end already.
    pub(super) fn stops(&mut self) {
        self.stopping = true;
    }

    /// Attends to the grant until the next event.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn attend(&mut self, events: &mut Events) -> Event {
        loop {
            let asked = !self.stopping && self.standing != Standing::Lost;
            let alive = self.standing != Standing::Lost;
            let proof = self.proof.clone();
            tokio::select! {
                biased;
                standing = proof.standing_other_than(self.standing), if alive => {
                    self.stands(standing);
                }
                lost = proof.lost(), if asked => {
                    if lost.cause == Cause::Released {
                        say(&format!("lease `{}`: asked to resign", lost.name));
                        self.stop();
                    }
                }
                confirmed = proof.confirmed_after(self.confirmed), if alive => {
                    if let Some(confirmed) = confirmed {
                        self.confirm(confirmed);
                    }
                }
                event = events.next() => return event,
            }
        }
    }

    fn confirm(&mut self, confirmed: Instant) {
        self.confirmed = confirmed;
        self.side.extend(self.term, self.proof.limits().deadline.as_nanos());
        // The version moves on with each renewal. One that is too long to write down leaves the
        // ticket before, which a store still finds the grant by.
        let _ = self.side.renew_ticket(&HoldTicket::of(self.url, self.session, &self.lease));
    }

    fn stands(&mut self, standing: Standing) {
        let name = self.proof.name();
        match standing {
            Standing::Jeopardy if self.proof.check().is_err() => {
                say(&format!(
                    "lease `{name}` is in jeopardy: {}; it is being proven anew",
                    Cause::Suspended
                ));
            }
            Standing::Jeopardy => {
                let left = self.proof.limits().lost_at.as_nanos().saturating_sub(boottime_nanos());
                let left = crate::duration::show(Duration::from_nanos(left));
                say(&format!(
                    "lease `{name}` is in jeopardy: no renewal has come through; CMD is \
                     told to end in {left}"
                ));
            }
            Standing::Held => say(&format!("lease `{name}` is renewed again")),
            _ => match self.proof.limits().ended.unwrap_or(Cause::Expired) {
                // Released: it was given up for good, which only happens after the work's end.
                Cause::Released => {}
                // Nothing says how long this machine stood still: there is no grace left to give.
                cause @ Cause::Suspended => self.side.kill(self.term, cause.to_string()),
                cause => self.side.lost(self.term, cause.to_string()),
            },
        }
        self.standing = standing;
    }

    /// Gives the name back if what was started is proven gone; else it waits for its ttl. Answers
    /// whether it was given back, which [`settle`] passes on.
    pub(super) async fn end(self, gone: Gone, events: &mut Events) -> bool {
        if !gone.proven {
            self.lease.leave_to_ttl();
            return false;
        }
        let name = self.lease.name().clone();
        let deadline = self.proof.limits().deadline.as_nanos();
        let left = Duration::from_nanos(deadline.saturating_sub(boottime_nanos())) + RELEASE_LAG;
        let release = self.lease.release_at_once(gone.why());
        let released = tokio::select! {
            released = release => released.map_err(|error| explained(&error)),
            () = tokio::time::sleep(left) => Err("the store did not answer".to_owned()),
            () = impatient(events) => Err("the store was not waited for".to_owned()),
        };
        if let Err(why) = &released
            && !gone.lost
        {
            say(&format!(
                "lease `{name}` waits for its ttl, since it could not be given back: {why}"
            ));
        }
        released.is_ok()
    }
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the holder of `{}` (token {})", self.proof.name(), self.proof.token())
    }
}

/// Tells the keeper how a term's end came out: its last word on it.
pub(super) fn settle(side: &LeaseSide, released: bool) {
    if released { side.released() } else { side.left_to_ttl() }
}

/// Waits for a signal that came after the work had ended.
async fn impatient(events: &mut Events) {
    loop {
        if let Event::Signal { relayed: false, .. } = events.next().await {
            return;
        }
    }
}

impl Gone {
    /// What an event says about the work's end.
    pub(super) fn of(event: Event) -> Option<Self> {
        match event {
            Event::WorkGone { status, proven, lost } => Some(Self { status, proven, lost }),
            _ => None,
        }
    }

    /// For the history.
    fn why(&self) -> String {
        match (self.lost, self.status) {
            (true, _) => "lost".to_owned(),
            (false, Some(Status::Exited(code))) => format!("the work ended with exit code {code}"),
            (false, Some(Status::Killed(signal))) => {
                format!("the work was ended by signal {signal}")
            }
            (false, None) => "the work ended".to_owned(),
        }
    }
}
