//! How a process finds out that it is the keeper, and what it inherits.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags};

use super::kernel;
use super::page::Page;
use super::wire::Wire;

/// Names the inherited descriptors and the supervisor: `PAGE:WIRE:PID`.
pub(super) const VARIABLE: &str = "TENURE_KEEPER_PAGE";

/// The keeper's place: the page, the wire to the supervisor, and its life.
pub(crate) struct Seat {
    pub(super) page: Page,
    pub(super) wire: Wire,
    pub(super) supervisor: OwnedFd,
}

/// The variable's value for a keeper.
pub(super) fn describe(page: &OwnedFd, wire: &Wire, supervisor: Pid) -> String {
    format!("{}:{}:{}", page.as_raw_fd(), wire.as_raw_fd(), supervisor.as_raw_pid())
}

/// Whether this process is the keeper. Call it first thing in `main`, before any thread exists.
///
/// # Errors
/// It is, but its supervisor has died already: exit.
pub(crate) fn seat() -> io::Result<Option<Seat>> {
    let Some(value) = std::env::var(VARIABLE).ok() else { return Ok(None) };
    kernel::forget_variable(VARIABLE);
    // A stray variable makes no keeper.
    let Some((page, wire, named)) = parse(&value) else { return Ok(None) };
    let Ok(file) = kernel::inherit(page) else { return Ok(None) };
    let Ok(page) = Page::open(&file) else { return Ok(None) };
    if page.supervisor() != Some(named) {
        return Ok(None);
    }
    let wire = Wire::inherited(kernel::inherit(wire)?)?;
    let supervisor = rustix::process::pidfd_open(named, PidfdFlags::empty())?;
    // Only now is the pidfd surely that of the parent, and the parent the supervisor.
    if rustix::process::getppid() != Some(named) {
        return Err(io::Error::other("the supervisor has died"));
    }
    // Otherwise `ps` would show the name of the link it was started by.
    let _ = rustix::thread::set_name(c"tenure-keeper");
    Ok(Some(Seat { page, wire, supervisor }))
}

fn parse(value: &str) -> Option<(i32, i32, Pid)> {
    let mut numbers = value.split(':').map(str::parse::<i32>);
    let (page, wire, pid) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    (page != wire && numbers.next().is_none()).then_some((page, wire, Pid::from_raw(pid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_numbers_make_a_seat() {
        assert_eq!(parse("3:4:77"), Some((3, 4, Pid::from_raw(77).unwrap())));
        for bad in ["", "3", "3:4", "3:3:77", "3:4:0", "3:4:77:1", "a:4:77"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
