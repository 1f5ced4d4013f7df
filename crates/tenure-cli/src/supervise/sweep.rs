//! Kills everything that was started, and proves that nothing is left.
//!
//! The proof is ECHILD: the process is a subreaper, so whatever its children leave behind becomes
//! its child, and a process without children has no descendants. Children of other threads (helpers
//! of the lease side, such as credential plugins) are not looked at: orphans go to the main thread.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::time::Timespec;

use super::clock;
use super::family;
use super::kernel;
use super::signals::Inbox;
use super::status::Status;

/// How long a sweep goes on. What hasn't died by then waits for the ttl.
pub(super) const SWEEP_BOUND: Duration = Duration::from_secs(5);
/// How many children are reaped before anything else is looked at: under a stream of zombies an
/// unbounded loop never ends.
const REAP_BATCH: usize = 256;
/// How long to wait for a death before killing again.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// What a sweep found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swept {
    /// Nothing is left.
    pub(super) proven: bool,
    /// Some process refused to be killed.
    pub(super) refused: bool,
    /// How the watched child ended, if it was reaped here.
    pub(super) watched: Option<Status>,
}

/// Kills and reaps all children of this thread until there are none, at most for `bound`.
/// `spared` is the caller's process group: it is never signalled as a whole.
pub(super) fn sweep(watched: Option<Pid>, spared: i32, children: &Inbox, bound: Duration) -> Swept {
    let end = clock::now() + clock::nanos(bound);
    let mut swept = Swept { proven: false, refused: false, watched: None };
    loop {
        swept.refused = kill_children(spared);
        let mut more = true;
        for _ in 0..REAP_BATCH {
            match reap() {
                Ok(Some((pid, status))) if Some(pid) == watched => swept.watched = Some(status),
                Ok(Some(_)) => {}
                Ok(None) => {
                    more = false;
                    break;
                }
                Err(_) => {
                    swept.proven = true;
                    return swept;
                }
            }
        }
        if clock::now() >= end {
            return swept;
        }
        if !more {
            while children.take().is_some() {}
            // An interrupted or failed wait only means to look again.
            let _ = poll(&mut [PollFd::new(children, PollFlags::IN)], Some(&PAUSE));
        }
    }
}

/// Reaps one child of this thread; an error means that there is none.
pub(super) fn reap() -> Result<Option<(Pid, Status)>, Errno> {
    let own = (libc::__WALL | libc::__WNOTHREAD) as u32;
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(own);
    loop {
        match rustix::process::wait(options) {
            Ok(None) => return Ok(None),
            Ok(Some((pid, status))) => {
                if let Some(status) = Status::of(status) {
                    return Ok(Some((pid, status)));
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Kills the groups of all children, then the children, then what these have started. True if one
/// of the children refused.
///
/// A child is safe to kill by its number, for only this thread reaps it; so is its group. Groups go
/// first: that is atomic, and beats whoever forks faster than a list of children is read.
fn kill_children(spared: i32) -> bool {
    let own = kernel::own_group();
    let children = family::children();
    let groups: BTreeSet<i32> =
        children.iter().filter_map(|&child| kernel::group_of(child)).collect();
    // 0 would be our own group, 1 that of a supervisor that is pid 1.
    for group in groups.into_iter().filter(|group| ![0, 1, own, spared].contains(group)) {
        if let Some(group) = Pid::from_raw(group) {
            // Members that refuse are found one by one below, or when they become children.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
    let refused = children
        .iter()
        .filter(|&&child| rustix::process::kill_process(child, Signal::KILL) == Err(Errno::PERM))
        .count();
    // They would become children when those before them have died, and act until then.
    for process in family::descendants(&children) {
        // Whoever refuses will refuse as a child, too.
        let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
    }
    refused > 0
}
