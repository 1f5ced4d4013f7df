//! Who has the terminal: CMD while it runs, the supervisor's group before, after, and while CMD is
//! stopped.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::Pid;

use super::kernel;

/// The controlling terminal of the session.
pub(super) struct Terminal {
    file: File,
    /// The supervisor's process group.
    group: i32,
}

impl Terminal {
    /// The terminal, if the session has one.
    pub(super) fn open(group: i32) -> Option<Self> {
        let file = File::options().read(true).write(true).open("/dev/tty").ok()?;
        Some(Self { file, group })
    }

    /// The terminal for CMD to take before exec, if it was started in the foreground and alone.
    ///
    /// In a pipeline (`tenure run … | less`) the other programs share the supervisor's group and
    /// would stop; there CMD gets the foreground when it first asks.
    pub(super) fn to_hand_over(&self) -> Option<OwnedFd> {
        let alone = io::stdin().is_terminal() && io::stdout().is_terminal();
        let file = (alone && self.is_ours()).then(|| self.file.try_clone().ok())?;
        file.map(Into::into)
    }

    /// Whether the supervisor's group has the foreground.
    pub(super) fn is_ours(&self) -> bool {
        kernel::foreground_of(&self.file) == Some(self.group)
    }

    /// Gives the foreground to `group` if the supervisor's group has it.
    pub(super) fn give(&self, group: Pid) -> bool {
        self.is_ours() && rustix::termios::tcsetpgrp(&self.file, group).is_ok()
    }

    /// Takes the foreground from `group`, which has stopped. True if the terminal is now ours.
    pub(super) fn take_from(&self, group: Pid) -> bool {
        if kernel::foreground_of(&self.file) == Some(group.as_raw_pid()) {
            self.take();
        }
        self.is_ours()
    }

    /// Takes the foreground back from a group that is gone; from no other, for the shell may have
    /// taken it in the meantime.
    pub(super) fn take_back(&self) {
        let holder = kernel::foreground_of(&self.file).and_then(Pid::from_raw);
        let gone = holder.is_some_and(|group| {
            rustix::process::test_kill_process_group(group) == Err(Errno::SRCH)
        });
        if gone {
            self.take();
        }
    }

    fn take(&self) {
        if let Some(own) = Pid::from_raw(self.group) {
            // Refused when the session has ended: then there is nobody to give it to.
            let _ = rustix::termios::tcsetpgrp(&self.file, own);
        }
    }
}
