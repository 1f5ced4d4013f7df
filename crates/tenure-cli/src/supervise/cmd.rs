//! CMD while it runs: its signals, its stops, and its turn at the terminal.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::clock;
use super::say::say;
use super::signals::{self, Arrival};
use super::terminal::Terminal;

/// A CMD that this thread started and has not reaped: as long as this exists, its number is its
/// own, and so is that of its process group.
pub(super) struct Cmd {
    pub(super) pid: Pid,
    /// How long it may take to end when asked to, in nanoseconds.
    timeout: Option<u64>,
    stopped: bool,
    /// It was told to stop by will.
    told_to_stop: bool,
    /// It was asked to end, and is killed then.
    kill_at: Option<u64>,
}

impl Cmd {
    pub(super) fn new(pid: Pid, timeout: Option<u64>) -> Self {
        Self { pid, timeout, stopped: false, told_to_stop: false, kill_at: None }
    }

    /// When its time for ending by itself is over.
    pub(super) fn kill_at(&self) -> Option<u64> {
        self.kill_at
    }

    /// Signals its whole group. Nobody left to be signalled is no failure.
    pub(super) fn signal_group(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Ends it by will, once.
    pub(super) fn stop(&mut self) {
        if !self.told_to_stop {
            self.told_to_stop = true;
            self.relay(Arrival { signal: Signal::TERM, from_terminal: true });
        }
    }

    /// Passes a signal on as it would have come without tenure: to CMD, from the terminal to its
    /// group.
    pub(super) fn relay(&mut self, Arrival { signal, from_terminal }: Arrival) {
        if signal == Signal::TSTP {
            // From a terminal that CMD doesn't have: it stops, or goes on if it was stopped.
            return self.signal_group(if self.stopped { Signal::CONT } else { signal });
        }
        if from_terminal {
            self.signal_group(signal);
        } else {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
        let ends = signals::asks_for_the_end(signal);
        if self.stopped && (ends || signal == Signal::HUP) {
            self.signal_group(Signal::CONT);
        }
        if let (true, None, Some(timeout)) = (ends, self.kill_at, self.timeout) {
            self.kill_at = Some(clock::now().saturating_add(timeout));
        }
    }

    /// Hears whether it has stopped or goes on, and moves the terminal accordingly.
    pub(super) fn mind_stops(&mut self, terminal: Option<&Terminal>, name: &str) {
        let kinds = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        while let Ok(Some(news)) = rustix::process::waitid(WaitId::Pid(self.pid), kinds) {
            if news.continued() {
                let was_stopped = std::mem::take(&mut self.stopped);
                if let (true, Some(terminal)) = (was_stopped, terminal) {
                    terminal.give(self.pid);
                }
            } else if let Some(signal) = news.stopping_signal() {
                self.has_stopped(signal, terminal, name);
            }
        }
    }

    fn has_stopped(&mut self, signal: i32, terminal: Option<&Terminal>, name: &str) {
        self.stopped = true;
        let Some(terminal) = terminal else { return };
        let wants_terminal = [Signal::TTIN, Signal::TTOU].iter().any(|at| at.as_raw() == signal);
        if wants_terminal && terminal.give(self.pid) {
            self.signal_group(Signal::CONT);
        } else if terminal.take_from(self.pid) {
            let pid = self.pid.as_raw_pid();
            say(format_args!(
                "CMD is stopped and still holds `{name}`; Ctrl-Z or `kill -CONT {pid}` lets it go \
                 on, Ctrl-C ends it"
            ));
        }
    }
}
