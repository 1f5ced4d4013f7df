//! CMD: how it is started, as if the caller had started it.

use std::ffi::OsString;
use std::io;
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;

use super::kernel::{self, BeforeExec};
use super::page::Page;
use super::status::{CANNOT_EXECUTE, NOT_FOUND, Status};
use super::terminal::Terminal;

/// Whether another grant may follow the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `run`: one grant, and the exit code is CMD's.
    Once,
    /// `elect`: each grant starts CMD again; only `finish` ends it.
    Repeat,
}

/// What to run under a grant.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// CMD and its arguments; empty for a term without a process.
    pub(crate) argv: Vec<OsString>,
    /// Variables beside `TENURE_NAME`, `TENURE_TOKEN` and `TENURE_INSTANCE`.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// How long CMD may take to end when it was asked to; without it, as long as it likes.
    pub(crate) stop_timeout: Option<Duration>,
    /// Whether another grant may follow.
    pub(crate) mode: Mode,
}

impl Work {
    /// Starts CMD from this thread, whose death kills it.
    pub(super) fn spawn(
        &self,
        page: Page,
        grant_env: [(&str, String); 3],
        terminal: Option<&Terminal>,
    ) -> Result<Pid, (io::Error, Status)> {
        let Some((program, arguments)) = self.argv.split_first() else {
            return Err((io::ErrorKind::InvalidInput.into(), Status::Exited(NOT_FOUND)));
        };
        let caller = page.caller();
        let mut command = Command::new(program);
        command.args(arguments).envs(self.env.iter().cloned()).envs(grant_env);
        let steps = BeforeExec {
            keep: [None; 2],
            parent: Some(rustix::process::getpid()),
            terminal: terminal.and_then(Terminal::to_hand_over),
            mask: caller.mask,
            ignored: Some(caller.ignored),
            nice: caller.nice,
        };
        kernel::before_exec(&mut command, steps);
        match command.spawn() {
            // Dropping the handle neither kills nor waits.
            Ok(child) => Ok(Pid::from_child(&child)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err((error, Status::Exited(NOT_FOUND)))
            }
            Err(error) => Err((error, Status::Exited(CANNOT_EXECUTE))),
        }
    }
}
