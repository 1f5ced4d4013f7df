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
/// `spared` is the caller's process group: it is never signalled as a whole. If it is `late`, for the
/// lease is lost and another may have it, whatever can be found is killed before it is inherited.
pub(super) fn sweep(
    watched: Option<Pid>,
    spared: i32,
    late: bool,
    children: &Inbox,
    bound: Duration,
) -> Swept {
    let end = clock::now() + clock::nanos(bound);
    let mut swept = Swept { proven: false, refused: false, watched: None };
    let mut hurry = late;
    loop {
        swept.refused = kill_children(spared);
        if std::mem::take(&mut hurry) {
            kill_descendants();
        }
        match kernel::as_ordinary(|| reap_batch(watched, &mut swept.watched)) {
            Left::Nothing => {
                swept.proven = true;
                return swept;
            }
            _ if clock::now() >= end => return swept,
            Left::Dead => {}
            Left::Alive => {
                while children.take().is_some() {}
                // An interrupted or failed wait only means to look again.
                let _ = poll(&mut [PollFd::new(children, PollFlags::IN)], Some(&PAUSE));
            }
        }
    }
}

/// Which children there are after some have been reaped.
enum Left {
    Nothing,
    Alive,
    /// Maybe more to reap.
    Dead,
}

fn reap_batch(watched: Option<Pid>, ended: &mut Option<Status>) -> Left {
    for _ in 0..REAP_BATCH {
        match reap() {
            Ok(Some((pid, status))) if Some(pid) == watched => *ended = Some(status),
            Ok(Some(_)) => {}
            Ok(None) => return Left::Alive,
            Err(_) => return Left::Nothing,
        }
    }
    Left::Dead
}

/// Reaps one child of this thread; an error means that there is none.
fn reap() -> Result<Option<(Pid, Status)>, Errno> {
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

/// Kills the groups of all children, then the children. True if one of them refused.
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
    children
        .into_iter()
        .filter(|&child| rustix::process::kill_process(child, Signal::KILL) == Err(Errno::PERM))
        .count()
        > 0
}

/// Kills what the children have started: it would become our child when they have died, and act
/// until then. Once is enough, for whatever this misses is inherited.
fn kill_descendants() {
    for process in family::descendants(&family::children()) {
        // Who refuses will refuse as a child, too.
        let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
    }
}
