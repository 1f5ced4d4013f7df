//! The page that supervisor and keeper share: the deadline, its latch, and what was started.
//!
//! **Invariant:** within a term the deadline only moves forward, by compare-and-swap, and never
//! once the term is lost. The latch is a bit of the deadline's own word, so that no interleaving of
//! a late renewal and a loss, found by any thread of either process, can revive a dead grant.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::Pid;

use super::kernel;
use super::layout::{Layout, TICKET_LIMIT};
use super::rules::{self, Phase, View};
use super::signals::Caller;
use super::status::Status;

/// "tenure" and the version of this layout: both processes are the same binary, unless it was
/// replaced in the moment between.
const MAGIC: u64 = u64::from_be_bytes(*b"tenure\0\x01");
/// The latch in the deadline's word.
const LOST: u64 = 1 << 63;
/// Set beside a value for which 0 means something.
const PRESENT: u32 = 1 << 16;

/// A handle on the page; both processes and all threads use it alike.
#[derive(Clone, Copy)]
pub(super) struct Page {
    at: &'static Layout,
}

/// Why a grant was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The work of the term before has not been given back yet.
    Busy,
    /// Its deadline leaves no time to work.
    TooLate,
    /// The ticket is longer than [`TICKET_LIMIT`].
    TicketTooLong,
}

/// The times and marks of a new term.
pub(super) struct Beginning<'a> {
    pub(super) deadline: u64,
    pub(super) grace: u64,
    pub(super) token: u64,
    pub(super) ticket: &'a [u8],
}

impl Page {
    /// Makes a page; the descriptor is for handing it to the keeper.
    pub(super) fn create() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("tenure-page", flags)?;
        rustix::fs::ftruncate(&file, size_of::<Layout>() as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let at = kernel::map_page(file.as_fd())?;
        at.magic.store(MAGIC, Release);
        Ok((Self { at }, file))
    }

    /// Maps the page that a supervisor made.
    pub(super) fn open(file: impl AsFd) -> io::Result<Self> {
        let at = kernel::map_page(file.as_fd())?;
        if at.magic.load(Acquire) != MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { at })
    }

    /// What the rules look at.
    pub(super) fn view(self) -> View {
        // The phase first: a phase of a newer term beside the deadline of an older one would
        // only be looked at too early.
        let phase = Phase::from_word(self.at.phase.load(Acquire));
        let word = self.at.deadline.load(Acquire);
        View {
            phase,
            deadline: word & !LOST,
            grace: self.at.grace.load(Acquire),
            lost: word & LOST != 0,
            sweeping: self.at.sweeping.load(Acquire) != 0,
        }
    }

    /// Begins a term and answers its number. One thread at a time may call this.
    pub(super) fn begin(self, beginning: &Beginning<'_>, now: u64) -> Result<u64, NotTaken> {
        if self.view().phase != Phase::Waiting {
            return Err(NotTaken::Busy);
        }
        if now >= rules::lost_at(beginning.deadline, beginning.grace) {
            return Err(NotTaken::TooLate);
        }
        self.write_ticket(beginning.ticket)?;
        let at = self.at;
        let term = at.term.fetch_add(1, AcqRel) + 1;
        for word in [&at.terminated, &at.sweeping, &at.status, &at.cmd] {
            word.store(0, Relaxed);
        }
        at.token.store(beginning.token, Relaxed);
        at.grace.store(beginning.grace, Release);
        at.deadline.store(beginning.deadline & !LOST, Release);
        at.phase.store(Phase::Granted as u32, Release);
        Ok(term)
    }

    /// Moves the deadline of `term` forward; false if the term is over, now or before.
    pub(super) fn extend(self, term: u64, deadline: u64, now: u64) -> bool {
        let mut word = self.at.deadline.load(Acquire);
        loop {
            // After the word: if a newer term began in between, the swap below fails.
            if self.at.term.load(Acquire) != term || word & LOST != 0 {
                return false;
            }
            if now >= rules::lost_at(word, self.at.grace.load(Acquire)) {
                self.lose();
                return false;
            }
            if deadline <= word {
                return true;
            }
            match self.at.deadline.compare_exchange_weak(word, deadline & !LOST, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
    }

    /// Latches the loss of the term; true for the first who does.
    pub(super) fn lose(self) -> bool {
        self.at.deadline.fetch_or(LOST, AcqRel) & LOST == 0
    }

    /// True for the first of the two who asks to send the term's TERM.
    pub(super) fn claim_terminate(self) -> bool {
        self.at.terminated.swap(1, AcqRel) == 0
    }

    pub(super) fn number(self) -> u64 {
        self.at.term.load(Acquire)
    }

    pub(super) fn token(self) -> u64 {
        self.at.token.load(Acquire)
    }

    /// CMD runs as `pid`.
    pub(super) fn started(self, pid: Pid) {
        self.at.cmd.store(pid.as_raw_pid() as u32, Release);
        self.at.phase.store(Phase::Running as u32, Release);
    }

    /// CMD's pid. It is forgotten *before* CMD is reaped, so what is read here and still stands
    /// after a pidfd was opened is CMD.
    pub(super) fn cmd(self) -> Option<Pid> {
        Pid::from_raw(self.at.cmd.load(Acquire) as i32)
    }

    /// CMD has ended and is about to be reaped.
    pub(super) fn forget_cmd(self) {
        self.at.cmd.store(0, Release);
    }

    pub(super) fn set_sweeping(self) {
        self.at.sweeping.store(1, Release);
    }

    /// The work of the term has ended; `proven` if nothing is left of it.
    pub(super) fn ended(self, status: Option<Status>, proven: bool) {
        self.at.status.store(status.map_or(0, Status::to_word), Release);
        self.at.proven.store(u32::from(proven), Release);
        self.at.phase.store(Phase::Ended as u32, Release);
    }

    pub(super) fn status(self) -> Option<Status> {
        Status::from_word(self.at.status.load(Acquire))
    }

    /// Closes a term whose work has ended; false if there is none. If what it started was not
    /// proven gone and the name not given back, its ticket stays: the supervisor may still prove it.
    pub(super) fn close(self, released: bool) -> bool {
        if self.view().phase != Phase::Ended {
            return false;
        }
        if released || self.at.proven.load(Acquire) != 0 {
            self.at.ticket.store(0, Release);
        }
        self.at.phase.store(Phase::Waiting as u32, Release);
        true
    }

    /// Publishes a new ticket; the one before counts until this one is complete.
    pub(super) fn write_ticket(self, ticket: &[u8]) -> Result<(), NotTaken> {
        if ticket.len() > TICKET_LIMIT {
            return Err(NotTaken::TicketTooLong);
        }
        let slot = 1 - (self.at.ticket.load(Acquire) >> 31);
        for (to, from) in self.at.tickets[slot as usize].iter().zip(ticket) {
            to.store(*from, Relaxed);
        }
        self.at.ticket.store(slot << 31 | ticket.len() as u32, Release);
        Ok(())
    }

    /// The ticket of a hold that was not given back. Only for when the keeper is dead.
    pub(super) fn ticket(self) -> Option<Vec<u8>> {
        let word = self.at.ticket.load(Acquire);
        let length = (word & !(1 << 31)) as usize;
        let slot = &self.at.tickets[(word >> 31) as usize];
        let bytes = slot.iter().take(length).map(|byte| byte.load(Relaxed));
        (length > 0).then(|| bytes.collect())
    }

    /// The service is ready: once for the page's life.
    pub(super) fn set_ready(self) {
        self.at.ready.store(1, Release);
    }

    pub(super) fn is_ready(self) -> bool {
        self.at.ready.load(Acquire) != 0
    }

    /// The keeper's last word: what the supervisor exits with.
    pub(super) fn set_exit_code(self, code: u8) {
        self.at.exit_code.store(PRESENT | u32::from(code), Release);
    }

    pub(super) fn exit_code(self) -> Option<u8> {
        let word = self.at.exit_code.load(Acquire);
        (word & PRESENT != 0).then_some(word as u8)
    }

    pub(super) fn set_supervisor(self, pid: Pid) {
        self.at.supervisor.store(pid.as_raw_pid() as u32, Release);
    }

    pub(super) fn supervisor(self) -> Option<Pid> {
        Pid::from_raw(self.at.supervisor.load(Acquire) as i32)
    }

    /// Notes what CMD is to get back of the caller's state.
    pub(super) fn set_caller(self, caller: &Caller) {
        self.at.caller_mask.store(caller.mask, Relaxed);
        self.at.caller_ignored.store(caller.ignored, Relaxed);
        self.at.caller_nice.store(caller.nice, Relaxed);
        self.at.caller_group.store(caller.group, Release);
    }

    pub(super) fn caller(self) -> Caller {
        Caller {
            group: self.at.caller_group.load(Acquire),
            mask: self.at.caller_mask.load(Relaxed),
            ignored: self.at.caller_ignored.load(Relaxed),
            nice: self.at.caller_nice.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn granted() -> (Page, u64) {
        let (page, _) = Page::create().unwrap();
        let term = page.begin(&beginning(b"ticket"), 10 * SECOND).unwrap();
        (page, term)
    }

    fn beginning(ticket: &[u8]) -> Beginning<'_> {
        Beginning { deadline: 20 * SECOND, grace: 2 * SECOND, token: 7, ticket }
    }

    #[test]
    fn deadline_moves_forward_only() {
        let (page, term) = granted();
        assert!(page.extend(term, 30 * SECOND, 11 * SECOND));
        assert!(page.extend(term, 25 * SECOND, 11 * SECOND));
        assert_eq!(page.view().deadline, 30 * SECOND);
    }

    #[test]
    fn late_renewal_latches_the_loss_and_no_renewal_revives_it() {
        let (page, term) = granted();
        assert!(!page.extend(term, 30 * SECOND, 18 * SECOND));
        assert!(page.view().lost);
        assert!(!page.extend(term, 30 * SECOND, 11 * SECOND));
        assert_eq!(page.view().deadline, 20 * SECOND);
        assert!(!page.lose());
    }

    #[test]
    fn late_reply_of_an_old_term_changes_nothing() {
        let (page, old) = granted();
        page.ended(None, true);
        assert!(page.close(true));
        let new = page.begin(&beginning(b""), 10 * SECOND).unwrap();
        assert!(!page.extend(old, 30 * SECOND, 11 * SECOND));
        assert!(page.extend(new, 30 * SECOND, 11 * SECOND));
    }

    #[test]
    fn a_new_term_starts_unlost() {
        let (page, _) = granted();
        assert!(page.lose());
        assert!(page.claim_terminate() && !page.claim_terminate());
        page.ended(Some(Status::Killed(9)), true);
        assert!(page.close(true));
        page.begin(&beginning(b""), 10 * SECOND).unwrap();
        assert!(!page.view().lost);
        assert_eq!(page.status(), None);
        assert!(page.claim_terminate());
    }

    #[test]
    fn grants_are_refused_when_busy_late_or_too_long() {
        let (page, _) = granted();
        assert_eq!(page.begin(&beginning(b""), 10 * SECOND), Err(NotTaken::Busy));
        let (page, _) = Page::create().unwrap();
        assert_eq!(page.begin(&beginning(b""), 18 * SECOND), Err(NotTaken::TooLate));
        let long = vec![0; TICKET_LIMIT + 1];
        assert_eq!(page.begin(&beginning(&long), 0), Err(NotTaken::TicketTooLong));
        assert_eq!(page.view().phase, Phase::Waiting);
    }

    #[test]
    fn the_old_ticket_counts_until_the_new_one_is_complete() {
        let (page, _) = granted();
        assert_eq!(page.ticket().as_deref(), Some(&b"ticket"[..]));
        let long = vec![9; TICKET_LIMIT];
        page.write_ticket(&long).unwrap();
        assert_eq!(page.ticket(), Some(long));
    }

    #[test]
    fn a_ticket_outlives_its_term_only_while_it_may_be_of_use() {
        for (proven, released, kept) in
            [(true, true, false), (true, false, false), (false, true, false), (false, false, true)]
        {
            let (page, _) = granted();
            assert!(!page.close(released), "work is under way");
            page.ended(None, proven);
            assert!(page.close(released));
            assert_eq!(page.ticket().is_some(), kept);
        }
    }

    #[test]
    fn both_sides_see_one_page() {
        let (page, file) = Page::create().unwrap();
        let other = Page::open(&file).unwrap();
        page.set_exit_code(0);
        assert_eq!(other.exit_code(), Some(0));
    }

    #[test]
    fn a_foreign_file_is_no_page() {
        let file = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert!(Page::open(&file).is_err());
    }

    #[test]
    fn racing_renewals_and_a_loss_leave_it_lost() {
        let (page, term) = granted();
        std::thread::scope(|scope| {
            for thread in 0..2 {
                scope.spawn(move || {
                    for step in 0..20_000 {
                        page.extend(term, 20 * SECOND + 2 * step + thread, 11 * SECOND);
                    }
                });
            }
            scope.spawn(move || page.lose());
        });
        let deadline = page.view().deadline;
        assert!(!page.extend(term, 90 * SECOND, 11 * SECOND));
        assert!(page.view().lost);
        assert_eq!(page.view().deadline, deadline);
    }
}
