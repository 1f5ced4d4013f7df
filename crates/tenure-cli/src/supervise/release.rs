//! Gives a dead keeper's name back, by running this binary once more with the hold's ticket.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use rustix::time::Timespec;

use super::clock;
use super::kernel;

/// The hidden subcommand that reads a ticket from stdin and gives its name back.
pub(crate) const RELEASE_COMMAND: &str = "__release";

/// How long that may take; then the name waits for its ttl.
const RELEASE_BOUND: Duration = Duration::from_secs(10);

/// Gives back what `ticket` names. Only for when everything that was started is proven gone.
pub(super) fn release(ticket: &[u8], own_name: &OsStr) -> bool {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(own_name).arg(RELEASE_COMMAND);
    // A group of its own: the Ctrl-C that ended the rest must not end this.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    let Ok(mut child) = command.spawn() else { return false };
    // A ticket is smaller than a pipe: this does not block.
    let told = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(ticket).is_ok());
    let ended = told && wait(&child);
    if !ended {
        let _ = child.kill();
    }
    kernel::as_ordinary(|| child.wait()).is_ok_and(|status| ended && status.success())
}

/// Waits for the child's end; false if the bound has passed.
fn wait(child: &Child) -> bool {
    let Ok(life) = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else {
        return false;
    };
    let end = clock::now() + clock::nanos(RELEASE_BOUND);
    loop {
        let left = end.saturating_sub(clock::now());
        let left = Timespec::try_from(Duration::from_nanos(left)).unwrap_or_default();
        match poll(&mut [PollFd::from_borrowed_fd(life.as_fd(), PollFlags::IN)], Some(&left)) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            answer => return answer.is_ok(),
        }
    }
}
