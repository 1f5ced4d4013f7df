//! Tells a service manager how it stands (sd_notify): READY, STATUS, WATCHDOG.

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::page::Page;
use super::rules::{self, Phase, View};

/// The service manager's ear. Nothing that goes wrong here may disturb the rest.
pub(super) struct Notify {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// How often a sign of life is due, in nanoseconds.
    interval: Option<u64>,
    next: u64,
    ready: bool,
    said: String,
}

impl Notify {
    /// The manager that the environment names.
    pub(super) fn from_environment() -> Option<Self> {
        let manager = address(&env::var_os("NOTIFY_SOCKET")?)?;
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        let ours =
            env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let microseconds = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        // Twice in the time that the manager waits.
        let interval = microseconds.filter(|&time| ours && time > 0).map(|time| time * 500);
        Some(Self { socket, manager, interval, next: 0, ready: false, said: String::new() })
    }

    /// Tells what is new; answers when the next sign of life is due.
    pub(super) fn tell(&mut self, page: Page, now: u64) -> Option<u64> {
        let view = page.view();
        if !self.ready && (page.is_ready() || view.phase != Phase::Waiting) {
            self.ready = self.send("READY=1");
        }
        let status = status(&view, page, now);
        if status != self.said && self.send(&format!("STATUS={status}")) {
            self.said = status;
        }
        let interval = self.interval?;
        if now >= self.next {
            self.next = now.saturating_add(interval);
            if is_good(&view, now) {
                self.send("WATCHDOG=1");
            }
        }
        Some(self.next)
    }

    /// False if the manager's queue is full or the manager away: tried again at the next wakeup.
    fn send(&self, message: &str) -> bool {
        self.socket.send_to_addr(message.as_bytes(), &self.manager).is_ok()
    }
}

fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

/// Whether the standing allows a sign of life: waiting is fine, a lost term that works is not.
fn is_good(view: &View, now: u64) -> bool {
    match view.phase {
        Phase::Waiting | Phase::Ended => true,
        Phase::Granted | Phase::Running => {
            !view.lost && now < rules::lost_at(view.deadline, view.grace)
        }
    }
}

fn status(view: &View, page: Page, now: u64) -> String {
    let token = page.token();
    match view.phase {
        // The keeper has had its last word.
        Phase::Waiting if page.exit_code().is_some() => "ending".into(),
        Phase::Waiting => "waiting for the lease".into(),
        Phase::Ended => "the work has ended, giving the lease back".into(),
        _ if is_good(view, now) => format!("holding the lease (token {token})"),
        _ => format!("lost the lease (token {token}), ending the work"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_names_are_understood() {
        assert!(
            address(OsStr::new("@x")).is_some_and(|address| address.as_abstract_name().is_some())
        );
        assert!(
            address(OsStr::new("/run/x")).is_some_and(|address| address.as_pathname().is_some())
        );
        assert!(address(OsStr::new("vsock:2:3")).is_none());
    }

    #[test]
    fn a_lost_term_gives_no_sign_of_life() {
        let mut view = View {
            phase: Phase::Running,
            deadline: 9_000_000_000,
            grace: 0,
            lost: false,
            sweeping: false,
        };
        assert!(is_good(&view, 1));
        assert!(!is_good(&view, 9_000_000_000));
        view.lost = true;
        assert!(!is_good(&view, 1));
        view.phase = Phase::Waiting;
        assert!(is_good(&view, 1));
    }
}
