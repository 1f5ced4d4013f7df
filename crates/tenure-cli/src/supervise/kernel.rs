//! The few calls into the kernel that no safe binding offers; all `unsafe` of the command is here.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Pid;

use super::layout::Layout;

/// The highest signal number of Linux.
const SIGNALS: i32 = 64;

/// The priority among real-time tasks; any works, since both processes mostly sleep.
const FIFO_PRIORITY: i32 = 10;

/// Whether the caller had SIGPIPE ignored, noted before Rust's runtime ignores it itself.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_pipe_disposition() {
    PIPE_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

// SAFETY: `.init_array` holds pointers to functions with the C calling convention that run before
// `main`; this one takes no arguments, calls `sigaction` and stores to an atomic.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_PIPE_DISPOSITION: extern "C" fn() = note_pipe_disposition;

fn is_ignored(signal: i32) -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action changes nothing; `old` is valid for one write.
    let answer = unsafe { libc::sigaction(signal, std::ptr::null(), old.as_mut_ptr()) };
    // SAFETY: zeroed bytes are a valid `sigaction`, and the call either filled it or left it so.
    answer == 0 && unsafe { old.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// The signals that the caller had ignored, as a bit set (signal n is bit n − 1).
pub(super) fn ignored_by_caller() -> u64 {
    (1..=SIGNALS)
        .filter(|&signal| match signal {
            libc::SIGPIPE => PIPE_IGNORED.load(Ordering::Relaxed),
            _ => is_ignored(signal),
        })
        .fold(0, |set, signal| set | bit(signal))
}

/// The bit of `signal` in a set.
pub(super) const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

fn sigset(bits: u64) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is valid for writes; `sigemptyset` initialises it and `sigaddset` changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in (1..=SIGNALS).filter(|&signal| bits & bit(signal) != 0) {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Blocks the signals of `bits` in this thread; answers which were blocked before.
pub(super) fn block(bits: u64) -> u64 {
    change_mask(libc::SIG_BLOCK, bits)
}

fn change_mask(how: i32, bits: u64) -> u64 {
    let new = sigset(bits);
    let mut old = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: both sets are valid for the call; zeroed bytes are a valid (empty) set.
    let old = unsafe {
        libc::pthread_sigmask(how, &raw const new, old.as_mut_ptr());
        old.assume_init()
    };
    (1..=SIGNALS)
        // SAFETY: `old` is an initialised set, and the number is that of a signal.
        .filter(|&signal| unsafe { libc::sigismember(&raw const old, signal) } == 1)
        .fold(0, |set, signal| set | bit(signal))
}

/// Sets what `signal` does to its default, or to nothing.
fn set_disposition(signal: i32, ignore: bool) {
    let handler = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: both values are dispositions that name no handler of ours. Signals that can't be
    // changed are refused, which is what is wanted.
    unsafe { libc::signal(signal, handler) };
}

/// Makes the death of children visible again where the caller had SIGCHLD ignored.
pub(super) fn notice_children() {
    set_disposition(libc::SIGCHLD, false);
}

/// A descriptor from which the (blocked) signals of `bits` are read.
pub(super) fn signalfd(bits: u64) -> io::Result<OwnedFd> {
    let set = sigset(bits);
    // SAFETY: `set` is a valid set; −1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Maps the shared page of `file`, which must be sealed against shrinking, for ever.
pub(super) fn map_page(file: BorrowedFd<'_>) -> io::Result<&'static Layout> {
    use rustix::mm::{MapFlags, ProtFlags};
    let sealed = rustix::fs::fcntl_get_seals(file)?.contains(rustix::fs::SealFlags::SHRINK);
    let size = rustix::fs::fstat(file)?.st_size;
    if !sealed || size < size_of::<Layout>() as i64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let null = std::ptr::null_mut();
    // SAFETY: the kernel chooses the address, so nothing that exists is replaced.
    let address = unsafe {
        rustix::mm::mmap(null, size_of::<Layout>(), protection, MapFlags::SHARED, file, 0)?
    };
    // SAFETY: the mapping is page-aligned, as long as `Layout`, backed by a file that can't shrink,
    // and never unmapped. `Layout` is made of atomics alone: any bytes are valid, and another
    // process may change them at any time.
    Ok(unsafe { &*address.cast::<Layout>() })
}

/// Takes over a descriptor that was inherited by number and closes it at the next exec.
pub(super) fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: any number may be asked for its flags; one that isn't open is refused.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor is open, and the supervisor left it open for this process alone: the
    // first thing in `main`, nothing else can own it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Removes a variable from this process's environment.
///
/// Only for the first lines of `main`, where there is one thread.
pub(super) fn forget_variable(name: &str) {
    // SAFETY: no other thread exists yet that could read the environment.
    unsafe { std::env::remove_var(name) };
}

/// Our real-time policy: children and threads do not inherit it.
const REAL_TIME: libc::c_int = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;

/// Becomes a real-time task where that is permitted, unless the caller chose a policy.
pub(super) fn take_fifo() {
    if policy() == libc::SCHED_OTHER {
        set_policy(REAL_TIME, FIFO_PRIORITY);
    }
}

/// Does `work` as an ordinary task, and goes on as a real-time one if this was one.
///
/// For reaping. The kernel clears away what anybody has looked at below /proc/PID; if the dying
/// threads do the same, it waits for them in a loop that lets only the like of itself go first. A
/// real-time task on their CPU was seen to spin there until it was throttled, for 950 ms.
pub(super) fn as_ordinary<T>(work: impl FnOnce() -> T) -> T {
    if policy() != REAL_TIME {
        return work();
    }
    // The flag stays, for to clear it takes a privilege.
    set_policy(libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, 0);
    let done = work();
    set_policy(REAL_TIME, FIFO_PRIORITY);
    done
}

fn policy() -> libc::c_int {
    // SAFETY: asks for this thread's policy; touches no memory.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    policy as libc::c_int
}

/// Changes this thread's policy. A refusal is fine.
fn set_policy(policy: libc::c_int, sched_priority: libc::c_int) {
    let parameters = libc::sched_param { sched_priority };
    // SAFETY: `parameters` lives through the call.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
}

/// This process's group; 0 where its leader is outside of the PID namespace.
pub(super) fn own_group() -> i32 {
    // SAFETY: takes and touches no memory.
    unsafe { libc::getpgrp() }
}

/// The group of `pid`; 0 where its leader is outside of the PID namespace.
pub(super) fn group_of(pid: Pid) -> Option<i32> {
    // SAFETY: takes and touches no memory.
    let group = unsafe { libc::getpgid(pid.as_raw_pid()) };
    (group >= 0).then_some(group)
}

/// The terminal's foreground group; 0 where its leader is outside of the PID namespace.
pub(super) fn foreground_of(terminal: impl AsFd) -> Option<i32> {
    // SAFETY: the descriptor is open for the call.
    let group = unsafe { libc::tcgetpgrp(terminal.as_fd().as_raw_fd()) };
    (group >= 0).then_some(group)
}

/// A child of this thread that has ended, left unreaped.
pub(super) fn ended_child() -> io::Result<Option<Pid>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD;
    let mut found = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `found` is valid for writes.
    if unsafe { libc::waitid(libc::P_ALL, 0, found.as_mut_ptr(), options) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed bytes are a valid `siginfo_t`; for a child that ended the kernel filled in the
    // pid, otherwise it is still 0.
    Ok(Pid::from_raw(unsafe { found.assume_init().si_pid() }))
}

/// What a child does between fork and exec.
pub(super) struct BeforeExec {
    /// Descriptors that stay open.
    pub(super) keep: [Option<RawFd>; 2],
    /// Die with this parent.
    pub(super) parent: Option<Pid>,
    /// Take the foreground of this terminal.
    pub(super) terminal: Option<OwnedFd>,
    /// The signals blocked afterwards.
    pub(super) mask: u64,
    /// The signals ignored afterwards; the others get their default. Unchanged if `None`.
    pub(super) ignored: Option<u64>,
    /// The nice value, which a real-time parent doesn't hand on.
    pub(super) nice: i32,
}

/// Has `command` start in a process group of its own and do `steps` before exec.
pub(super) fn before_exec(command: &mut Command, steps: BeforeExec) {
    // SAFETY: between fork and exec of a process with threads only async-signal-safe calls are
    // allowed. `run` makes system calls on values that were made before; it allocates nothing and
    // takes no lock.
    unsafe { command.pre_exec(move || steps.run()) };
}

impl BeforeExec {
    fn run(&self) -> io::Result<()> {
        // SAFETY: plain system calls on integers and descriptors that are open in the child.
        unsafe {
            libc::setpgid(0, 0);
            if let Some(parent) = self.parent {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // It may have died before the line above.
                if libc::getppid() != parent.as_raw_pid() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
            for fd in self.keep.iter().flatten() {
                libc::fcntl(*fd, libc::F_SETFD, 0);
            }
            if let Some(terminal) = &self.terminal {
                change_mask(libc::SIG_BLOCK, bit(libc::SIGTTOU));
                libc::tcsetpgrp(terminal.as_raw_fd(), libc::getpid());
            }
            libc::setpriority(libc::PRIO_PROCESS, 0, self.nice);
        }
        if let Some(ignored) = self.ignored {
            for signal in 1..=SIGNALS {
                set_disposition(signal, ignored & bit(signal) != 0);
            }
        }
        change_mask(libc::SIG_SETMASK, self.mask);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_time_task_is_ordinary_while_it_reaps_and_no_longer() {
        // A thread's policy dies with it.
        let seen = std::thread::spawn(|| {
            take_fifo();
            (policy(), as_ordinary(policy), policy())
        });
        let ordinary = libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK;
        let permitted = (REAL_TIME, ordinary, REAL_TIME);
        let refused = (libc::SCHED_OTHER, libc::SCHED_OTHER, libc::SCHED_OTHER);
        assert!([permitted, refused].contains(&seen.join().unwrap()));
    }
}
