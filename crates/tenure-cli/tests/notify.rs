//! What a service manager hears (sd_notify): when it is ready, how it stands, that it is well.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use common::{Running, Scene, wait};
use rustix::process::Signal;

const READY: &str = "READY=1";
const WAITING: &str = "STATUS=waiting for the lease";
const ENDED: &str = "STATUS=the work has ended, giving the lease back";
const ENDING: &str = "STATUS=ending";
const WELL: &str = "WATCHDOG=1";

fn holding(token: u64) -> String {
    format!("STATUS=holding the lease (token {token})")
}

/// A service manager's ear, and what it has heard.
struct Manager {
    socket: UnixDatagram,
    name: String,
    heard: Vec<String>,
}

impl Manager {
    /// In the abstract namespace, or as a file.
    fn new(is_file: bool) -> Self {
        // A socket's name is short; a scene's path may not be.
        let own = format!("tenure-notify-{}-{}", std::process::id(), common::now());
        let (name, address) = if is_file {
            let path = std::env::temp_dir().join(own);
            (path.display().to_string(), SocketAddr::from_pathname(path).unwrap())
        } else {
            (format!("@{own}"), SocketAddr::from_abstract_name(own).unwrap())
        };
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, name, heard: Vec::new() }
    }

    fn service<'a>(&self, scene: &'a Scene, line: &str, cmd: &[&str]) -> Running<'a> {
        let mut command = scene.tenure();
        command.env("NOTIFY_SOCKET", &self.name).env("WATCHDOG_USEC", "100000");
        command.args(line.split(' ')).arg("--").args(cmd);
        scene.spawn(command)
    }

    /// Everything that has come so far.
    fn heard(&mut self) -> &[String] {
        let mut bytes = [0; 512];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            self.heard.push(String::from_utf8(bytes[..length].to_vec()).unwrap());
        }
        &self.heard
    }

    #[track_caller]
    fn hears(&mut self, message: &str) {
        wait(message, || self.heard().iter().any(|one| one == message));
    }

    /// Everything but the signs of life, in its order.
    fn news(&mut self) -> Vec<&str> {
        self.heard().iter().map(String::as_str).filter(|&one| one != WELL).collect()
    }

    /// Hears a sign of life that was not there yet.
    #[track_caller]
    fn hears_it_is_well(&mut self) {
        let signs = |all: &[String]| all.iter().filter(|&one| one == WELL).count();
        let before = signs(self.heard());
        wait("a sign of life", || signs(self.heard()) > before);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if self.name.starts_with('/') {
            let _ = std::fs::remove_file(&self.name);
        }
    }
}

#[test]
fn a_run_is_ready_when_it_has_the_name_and_not_while_it_waits() {
    for is_file in [false, true] {
        let scene = Scene::new("notify-run");
        let mut manager = Manager::new(is_file);
        let holder = scene.start("run x", &["sleep", "60"]);
        holder.wait_for_words("token 1");
        let service = manager.service(
            &scene,
            "run x",
            &["sh", "-c", "while [ ! -e go ]; do sleep 0.02; done"],
        );
        manager.hears(WAITING);
        manager.hears_it_is_well();
        assert_eq!(manager.news(), [WAITING]);
        holder.signal(Signal::TERM);
        manager.hears(&holding(2));
        manager.hears_it_is_well();
        assert_eq!(manager.news(), [WAITING, READY, &holding(2)]);
        std::fs::write(scene.path("go"), "").unwrap();
        assert_eq!(service.end().code, 0);
        let news = manager.news();
        // The end may come before all of it is told.
        assert!([&[][..], &[ENDED], &[ENDED, ENDING], &[ENDING]].contains(&&news[3..]), "{news:?}");
    }
}

#[test]
fn a_follower_is_ready_and_a_new_term_is_told() {
    let scene = Scene::new("notify-elect");
    let mut manager = Manager::new(false);
    let leader = scene.start("elect e --instance other", &["sleep", "60"]);
    leader.wait_for_words("leading");
    let follower = manager.service(&scene, "elect e", &["sleep", "60"]);
    manager.hears(READY);
    manager.hears(WAITING);
    assert_eq!(manager.news().len(), 2);
    leader.signal(Signal::TERM);
    manager.hears(&holding(2));
    follower.signal(Signal::TERM);
    assert_eq!(follower.end().code, 143);
    assert_eq!(manager.news().iter().filter(|&&one| one == READY).count(), 1);
}

#[test]
fn a_lost_hold_gives_no_sign_of_life() {
    let scene = Scene::new("notify-lost");
    let mut manager = Manager::new(false);
    let script = "trap '' TERM; : > up; while :; do sleep 0.02; done";
    let service = manager.service(&scene, "run x --ttl 3s --grace 1s", &["sh", "-c", script]);
    scene.wait_for("up");
    manager.hears_it_is_well();
    let cut_off = scene.cut_off();
    let lost = "STATUS=lost the lease (token 1), ending the work";
    manager.hears(lost);
    assert_eq!(service.end().code, 76);
    drop(cut_off);
    let heard = manager.heard();
    let place = |message: &str| heard.iter().position(|one| one == message).unwrap();
    let while_lost = &heard[place(lost)..place(ENDED)];
    assert!(!while_lost.iter().any(|one| one == WELL), "{heard:?}");
}

#[test]
fn a_manager_that_is_away_disturbs_nothing() {
    let scene = Scene::new("notify-away");
    for name in ["/nonexistent/socket", "@nobody-listens-there", "nonsense", ""] {
        let mut command = scene.tenure();
        command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "1000");
        command.args(["run", "x", "--quiet", "--", "sh", "-c", "sleep 0.1; exit 5"]);
        let ended = scene.spawn(command).end();
        assert_eq!((ended.code, ended.stderr.as_str()), (5, ""), "{name:?}");
    }
}
