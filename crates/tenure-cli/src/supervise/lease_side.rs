//! What passes between the keeper's main thread and the side that talks to the store.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::EventfdFlags;

use super::clock;
use super::page::{Beginning, NotTaken, Page};
use super::status::Status;

/// A grant for which CMD is to run.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    /// For `TENURE_NAME` and messages.
    pub(crate) name: String,
    /// For `TENURE_TOKEN`.
    pub(crate) token: u64,
    /// For `TENURE_INSTANCE`.
    pub(crate) instance: String,
    /// In nanoseconds of CLOCK_BOOTTIME, counted from when the request was sent.
    pub(crate) deadline: u64,
    /// The part before the deadline in which lost work may stop by itself.
    pub(crate) grace: Duration,
    /// What a process without a session needs to give the name back; at most
    /// [`TICKET_LIMIT`](super::layout::TICKET_LIMIT) bytes. It may hold secrets: it stays in memory.
    pub(crate) ticket: Vec<u8>,
}

/// One grant of this page; says which grant a late reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term(u64);

/// What the main thread tells the lease side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// CMD runs; without a CMD the term has just begun.
    Started {
        /// CMD's process.
        pid: Option<i32>,
    },
    /// The term was latched as lost (by a call of yours or by time): renewals are of no use.
    Lost,
    /// What the term started has ended. Answer with [`LeaseSide::released`] or
    /// [`LeaseSide::left_to_ttl`].
    WorkGone {
        /// How CMD ended; `None` if it wasn't started.
        status: Option<Status>,
        /// Nothing is left of it. If false, the name must not be given back.
        proven: bool,
        /// The term was lost before the work had ended.
        lost: bool,
    },
    /// A signal arrived. If it was not relayed to CMD, end the wait, leave no trace, and
    /// [`finish`](LeaseSide::finish) with 128 + n; no CMD is started any more, so a grant that comes
    /// all the same ends at once in `WorkGone`. A name that is still held is given back first. If it
    /// was relayed, CMD decides; TERM, INT and QUIT then also mean: don't stand again.
    Signal {
        /// Its number.
        number: i32,
        /// CMD got it.
        relayed: bool,
    },
    /// The supervisor is dead: `WorkGone` follows if there was work. Give back, then `finish`.
    SupervisorDied,
}

pub(super) enum Order {
    Granted { name: String, token: u64, instance: String },
    Lost { cause: String },
    Kill { cause: String },
    Stop,
    Closed,
    Finish { code: u8 },
    Ready,
    Gone,
}

/// The lease side's hand on the keeper; clones are the same hand.
#[derive(Clone)]
pub(crate) struct LeaseSide {
    desk: Arc<Desk>,
}

struct Desk {
    page: Page,
    orders: Sender<Order>,
    bell: OwnedFd,
    /// Held by whoever begins a term or writes a ticket.
    pen: Mutex<()>,
}

/// The main thread's end.
pub(super) struct Orders {
    inbox: Receiver<Order>,
    bell: OwnedFd,
}

/// How many orders are carried out before anything else is looked at.
const ORDER_BATCH: usize = 64;

pub(super) fn desk(page: Page) -> io::Result<(LeaseSide, Orders)> {
    let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let (orders, inbox) = channel();
    let desk = Desk { page, orders, bell: bell.try_clone()?, pen: Mutex::new(()) };
    Ok((LeaseSide { desk: Arc::new(desk) }, Orders { inbox, bell }))
}

impl LeaseSide {
    /// Starts CMD under this grant.
    ///
    /// # Errors
    /// The grant was not taken, and is still yours to give back.
    pub(crate) fn granted(&self, granted: Granted) -> Result<Term, NotTaken> {
        let Granted { name, token, instance, deadline, grace, ticket } = granted;
        let grace = clock::nanos(grace);
        let beginning = Beginning { deadline, grace, token, ticket: &ticket };
        let term = {
            let _pen = self.desk.pen.lock().unwrap_or_else(PoisonError::into_inner);
            self.desk.page.begin(&beginning, clock::now())?
        };
        self.send(Order::Granted { name, token, instance });
        Ok(Term(term))
    }

    /// Moves the deadline forward after a confirmed renewal, counted from when it was sent. False
    /// if the term is lost or over: from then on it is never true again.
    pub(crate) fn extend(&self, term: Term, deadline: u64) -> bool {
        self.desk.page.extend(term.0, deadline, clock::now())
    }

    /// Replaces the ticket of the current grant.
    ///
    /// # Errors
    /// It is too long; the one before still counts.
    pub(crate) fn renew_ticket(&self, ticket: &[u8]) -> Result<(), NotTaken> {
        let _pen = self.desk.pen.lock().unwrap_or_else(PoisonError::into_inner);
        self.desk.page.write_ticket(ticket)
    }

    /// The lease is lost: CMD gets TERM now and KILL at the deadline.
    pub(crate) fn lost(&self, term: Term, cause: impl Into<String>) {
        if self.desk.page.number() == term.0 {
            self.desk.page.lose();
            self.send(Order::Lost { cause: cause.into() });
        }
    }

    /// The lease is lost, and nothing says how long ago: CMD is killed at once.
    pub(crate) fn kill(&self, term: Term, cause: impl Into<String>) {
        if self.desk.page.number() == term.0 {
            self.desk.page.lose();
            self.send(Order::Kill { cause: cause.into() });
        }
    }

    /// Ends the work by will: TERM, and KILL only after the stop timeout. Go on renewing.
    pub(crate) fn stop(&self) {
        self.send(Order::Stop);
    }

    /// The name was given back after `WorkGone`. `Once` ends here, with CMD's code (76 if lost);
    /// otherwise the next grant may follow at once.
    pub(crate) fn released(&self) {
        self.close(true);
    }

    /// The name was not given back after `WorkGone`, and waits for its ttl.
    pub(crate) fn left_to_ttl(&self) {
        self.close(false);
    }

    fn close(&self, released: bool) {
        let closed = {
            let _pen = self.desk.pen.lock().unwrap_or_else(PoisonError::into_inner);
            self.desk.page.close(released)
        };
        if closed {
            self.send(Order::Closed);
        }
    }

    /// Ends the keeper and the supervisor with `code`. Work that still runs is killed first.
    pub(crate) fn finish(&self, code: u8) {
        self.send(Order::Finish { code });
    }

    /// The service is ready though it holds nothing (a follower); a grant implies it.
    pub(crate) fn ready(&self) {
        self.send(Order::Ready);
    }

    /// The lease side has ended.
    pub(super) fn gone(&self) {
        self.send(Order::Gone);
    }

    fn send(&self, order: Order) {
        // The main thread ends only with the process.
        let _ = self.desk.orders.send(order);
        let _ = rustix::io::write(&self.desk.bell, &1_u64.to_ne_bytes());
    }
}

impl Orders {
    /// Takes what is there, at most a batch; the bell goes on ringing if more may be left.
    pub(super) fn take(&self) -> Vec<Order> {
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
        let orders: Vec<_> = self.inbox.try_iter().take(ORDER_BATCH).collect();
        if orders.len() == ORDER_BATCH {
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
        orders
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
