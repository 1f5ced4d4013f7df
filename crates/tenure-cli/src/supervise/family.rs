//! Who descends from this process, as /proc says.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags};
use rustix::time::Timespec;

/// How many descendants are looked for at a time; each takes a descriptor.
const DESCENDANTS_MAX: usize = 256;

/// The children of this process's main thread.
pub(super) fn children() -> Vec<Pid> {
    let own = rustix::process::getpid();
    // A /proc of another PID namespace has other numbers: better none than those of strangers.
    if named_by("/proc/self") != Some(own) {
        return Vec::new();
    }
    children_of_thread(own, own).unwrap_or_else(|| children_by_parent(own))
}

/// What the children of this process have started and not left to it yet, parents first.
///
/// A number from /proc may be a stranger's by the time that it is used. A child's is its own until
/// this thread reaps it; of the others a descriptor is opened first, and its parent is read then:
/// this process, or one whose own descriptor says that it hasn't ended. Who moves or forks
/// meanwhile is missed.
pub(super) fn descendants(children: &[Pid]) -> Vec<OwnedFd> {
    let mut found: Vec<(Pid, OwnedFd)> = Vec::new();
    for &child in children {
        found.extend(started_by(child, || true, DESCENDANTS_MAX - found.len()));
    }
    let mut next = 0;
    while let Some((pid, life)) = found.get(next) {
        let started = started_by(*pid, || !has_ended(life), DESCENDANTS_MAX - found.len());
        found.extend(started);
        next += 1;
    }
    found.into_iter().map(|(_, life)| life).collect()
}

/// The children of `parent`, at most so many. Its number is its own as long as `is_itself`.
fn started_by(parent: Pid, is_itself: impl Fn() -> bool, at_most: usize) -> Vec<(Pid, OwnedFd)> {
    let own = rustix::process::getpid();
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    threads
        .filter_map(|thread| parse_pid(thread.ok()?.file_name().to_str()?))
        .filter_map(|thread| children_of_thread(parent, thread))
        .flatten()
        .filter_map(|child| {
            let life = rustix::process::pidfd_open(child, PidfdFlags::empty()).ok()?;
            let above = parent_of(child)?;
            (above == own || (above == parent && is_itself())).then_some((child, life))
        })
        .take(at_most)
        .collect()
}

fn has_ended(life: &OwnedFd) -> bool {
    let now = Timespec::default();
    poll(&mut [PollFd::new(life, PollFlags::IN)], Some(&now)) != Ok(0)
}

/// `None` on kernels without that list.
fn children_of_thread(process: Pid, thread: Pid) -> Option<Vec<Pid>> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{thread}/children")).ok()?;
    Some(list.split_ascii_whitespace().filter_map(parse_pid).collect())
}

/// The same for such kernels.
fn children_by_parent(own: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| parse_pid(entry.ok()?.file_name().to_str()?))
        .filter(|&pid| parent_of(pid) == Some(own))
        .collect()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    parent_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The process that a link of /proc stands for.
fn named_by(link: &str) -> Option<Pid> {
    parse_pid(fs::read_link(link).ok()?.to_str()?)
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

/// The parent in a line of /proc/PID/stat, whose second field may hold anything.
fn parent_in(stat: &str) -> Option<Pid> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1).and_then(parse_pid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use rustix::process::Signal;

    use super::*;

    #[test]
    fn parent_is_found_behind_any_name() {
        assert_eq!(parent_in("12 (a) S 3) R 42 1 1"), Pid::from_raw(42));
        assert_eq!(parent_in("nonsense"), None);
    }

    #[test]
    fn both_ways_list_the_same_children() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children_by_parent(rustix::process::getpid()).contains(&Pid::from_child(&child)));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn grandchildren_in_sessions_of_their_own_are_found_and_nobody_else() {
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        // It ends with what its child ended with, and that one with what its own did.
        let script = "sh -c 'setsid sleep 60 & wait $!' & wait $!";
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let children = [Pid::from_child(&child)];
        let started = std::time::Instant::now();
        while descendants(&children).len() < 2 {
            assert!(started.elapsed().as_secs() < 20, "they are not found");
            std::thread::yield_now();
        }
        for process in descendants(&children) {
            rustix::process::pidfd_send_signal(process, Signal::KILL).unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(137));
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        assert_eq!(stranger.wait().unwrap().signal(), Some(9));
    }
}
