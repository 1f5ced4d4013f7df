//! Which signals tenure takes, and what the caller had set for them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::Signal;

use super::kernel::{self, bit};

/// Signals that are passed on to CMD, or end the wait.
const RELAYED: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// The state of the caller that CMD gets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Blocked signals.
    pub(super) mask: u64,
    /// Ignored signals.
    pub(super) ignored: u64,
    pub(super) nice: i32,
    /// The supervisor's process group.
    pub(super) group: i32,
}

impl Caller {
    /// Reads it from this process, before anything was changed.
    pub(super) fn read() -> Self {
        Self {
            mask: kernel::block(0),
            ignored: kernel::ignored_by_caller(),
            nice: rustix::process::getpriority_process(None).unwrap_or(0),
            group: kernel::own_group(),
        }
    }
}

/// All signals that supervisor and keeper block. The keeper reads only SIGCHLD: a service manager
/// signals every process of a service, and CMD must get such a signal once.
pub(super) fn blocked() -> u64 {
    let quiet = [Signal::CHILD, Signal::TSTP, Signal::TTIN, Signal::TTOU];
    RELAYED.iter().chain(&quiet).fold(0, |set, signal| set | bit(signal.as_raw()))
}

/// Whether `signal` asks CMD to end.
pub(super) fn asks_for_the_end(signal: Signal) -> bool {
    matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT)
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) signal: Signal,
    /// It came from the terminal, for the whole foreground group.
    pub(super) from_terminal: bool,
}

impl Arrival {
    /// As one byte for the wire.
    pub(super) fn to_byte(self) -> u8 {
        self.signal.as_raw() as u8 | u8::from(self.from_terminal) << 7
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let signal = Signal::from_named_raw(i32::from(byte & 0x7f))?;
        Some(Self { signal, from_terminal: byte & 0x80 != 0 })
    }
}

/// A descriptor that hears signals, which stay blocked.
pub(super) struct Inbox {
    fd: OwnedFd,
}

impl Inbox {
    /// Hears SIGCHLD.
    pub(super) fn of_children() -> io::Result<Self> {
        Ok(Self { fd: kernel::signalfd(bit(Signal::CHILD.as_raw()))? })
    }

    /// Hears what is passed on, but for what the caller ignored: that stays without effect.
    pub(super) fn of_requests(caller: &Caller) -> io::Result<Self> {
        let wanted = blocked()
            & !caller.ignored
            & ![Signal::CHILD, Signal::TTIN, Signal::TTOU]
                .iter()
                .fold(0, |set, signal| set | bit(signal.as_raw()));
        Ok(Self { fd: kernel::signalfd(wanted)? })
    }

    /// Takes the next signal, if there is one.
    pub(super) fn take(&self) -> Option<Arrival> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut info = [0_u8; SIZE];
        let read = rustix::io::read(&self.fd, &mut info).ok()?;
        if read != SIZE {
            return None;
        }
        // `ssi_signo` is the first word, `ssi_code` the third.
        let word =
            |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        let signal = Signal::from_named_raw(word(0))?;
        Some(Arrival { signal, from_terminal: word(8) == libc::SI_KERNEL })
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_survive_the_wire() {
        for signal in RELAYED.into_iter().chain([Signal::TSTP]) {
            for from_terminal in [false, true] {
                let arrival = Arrival { signal, from_terminal };
                assert_eq!(Arrival::from_byte(arrival.to_byte()), Some(arrival));
            }
        }
        assert_eq!(Arrival::from_byte(0), None);
    }
}
