//! A contender from outside: its process, and its way to the servers.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tenure_conformance::proxy::Fault;

use crate::place::Place;
use crate::wire::{Seen, Wire};
use crate::{actor, kill, server, wait};

/// One of those that compete. Its process is another after it was killed; its way stays.
pub(crate) struct Contender {
    /// The number of its process, which is part of its instance's name.
    pub who: u64,
    child: Child,
    wire: Wire,
}

impl Contender {
    /// Starts one whose way to the servers of `url` goes through proxies of its own.
    pub(crate) fn start(who: u64, place: Place, url: &str, folder: &Path) -> Self {
        let wire = Wire::to(url);
        let child = spawn(who, place, &wire.url, folder);
        Self { who, child, wire }
    }

    /// Another process in its place.
    pub(crate) fn start_again(&mut self, who: u64, place: Place, folder: &Path) {
        self.child = spawn(who, place, &self.wire.url, folder);
        self.who = who;
    }

    pub(crate) fn tell(&mut self, what: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(format!("{what}\n").as_bytes()).expect("the contender lives");
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.wire.fault(fault);
    }

    pub(crate) fn heal(&self) {
        self.fault(Fault::Pass);
    }

    /// What passed between it and the servers.
    pub(crate) fn seen(&self) -> Seen {
        self.wire.seen()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops its process, and waits until it stands.
    pub(crate) fn pause(&self) {
        kill(self.child.id() as i32, Signal::STOP);
        wait("the pause", || self.is_paused());
    }

    pub(crate) fn is_paused(&self) -> bool {
        server::state(self.child.id() as i32) == Some('T')
    }

    pub(crate) fn resume(&self) {
        kill(self.child.id() as i32, Signal::CONT);
    }

    /// Fails if its process has ended unasked.
    pub(crate) fn must_live(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "c{} ended ({ended:?}); what it said stands above", self.who);
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(who: u64, place: Place, url: &str, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["actor", "--exact", "--ignored", "--nocapture"]);
    command.env(actor::URL, url).env(actor::WHO, who.to_string()).env(actor::FOLDER, folder);
    command.env(actor::TTL_MS, place.ttl().as_millis().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}
