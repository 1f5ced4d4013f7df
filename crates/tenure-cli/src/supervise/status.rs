//! How a process ended, and which exit code says so.

use rustix::process::WaitStatus;

/// The lease was lost while the work ran.
pub(crate) const LOST: u8 = 76;
/// A fault of tenure's own, with no work under way.
pub(crate) const INTERNAL: u8 = 70;
/// The kernel refused what the supervisor needs.
pub(crate) const SYSTEM: u8 = 71;
/// CMD was found and can't be executed.
pub(crate) const CANNOT_EXECUTE: u8 = 126;
/// CMD was not found.
pub(crate) const NOT_FOUND: u8 = 127;

/// How CMD ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It exited with this code.
    Exited(u8),
    /// This signal killed it.
    Killed(u8),
}

impl Status {
    /// The exit code that passes this on: its own, or 128 + the signal.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => signalled(i32::from(signal)),
        }
    }

    /// Reads what `wait` answered; `None` for a child that only stopped or went on.
    pub(super) fn of(status: WaitStatus) -> Option<Self> {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Self::Exited(code as u8)),
            (None, Some(signal)) => Some(Self::Killed(signal as u8)),
            (None, None) => None,
        }
    }

    /// As one number for the page, never 0.
    pub(super) fn to_word(self) -> u32 {
        match self {
            Self::Exited(code) => 0x100 | u32::from(code),
            Self::Killed(signal) => 0x200 | u32::from(signal),
        }
    }

    pub(super) fn from_word(word: u32) -> Option<Self> {
        match word & 0x300 {
            0x100 => Some(Self::Exited(word as u8)),
            0x200 => Some(Self::Killed(word as u8)),
            _ => None,
        }
    }
}

/// The exit code for an end by `signal`.
pub(crate) fn signalled(signal: i32) -> u8 {
    128 + (signal as u8 & 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_the_page_and_has_its_code() {
        for code in 0..=255 {
            let status = Status::Exited(code);
            assert_eq!(Status::from_word(status.to_word()), Some(status));
            assert_eq!(status.code(), code);
        }
        for signal in 1..=64 {
            let status = Status::Killed(signal);
            assert_eq!(Status::from_word(status.to_word()), Some(status));
            assert_eq!(status.code(), 128 + signal);
        }
        assert_eq!(Status::from_word(0), None);
    }
}
