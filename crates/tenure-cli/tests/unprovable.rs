//! Work that can't be killed, since it became another user's: its name is left to the ttl.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use common::{Ended, Running, Scene, is_alive, wait};
use rustix::process::Signal;

/// The user that `tenure run` belongs to, and the one that its work becomes.
const USER: u32 = 61_001;
const OTHER: u32 = 61_002;
const BECOME: [&str; 3] = ["--reuid=61002", "--regid=61002", "--clear-groups"];
/// Tells its number, and becomes the other.
const BECOMES_OTHER: &str =
    "echo $$ >pid; exec ./become --reuid=61002 --regid=61002 --clear-groups sleep 600";
const TENURE: &str = env!("CARGO_BIN_EXE_tenure");

/// A scene of that user, with a set-uid `setpriv` in it; nothing where there can be none.
fn foreign(test: &str) -> Option<Scene> {
    let scene = Scene::new(test);
    if !rustix::process::geteuid().is_root() {
        common::not_tried(test, "it needs root, for a program that changes its user");
        return None;
    }
    let become_other = scene.path("become");
    let setpriv =
        ["/usr/bin/setpriv", "/bin/setpriv"].iter().find(|path| std::fs::exists(path).unwrap());
    let Some(setpriv) = setpriv else {
        common::not_tried(test, "there is no setpriv");
        return None;
    };
    std::fs::copy(setpriv, &become_other).unwrap();
    // For that user alone: it stays where it is if the test fails.
    chown(&become_other, Some(0), Some(USER)).unwrap();
    std::fs::set_permissions(&become_other, PermissionsExt::from_mode(0o4750)).unwrap();
    chown(scene.path("."), Some(USER), Some(USER)).unwrap();
    let mut probe = as_user(&scene, become_other.to_str().unwrap());
    let works = probe.args(BECOME).arg("true").status().is_ok_and(|ran| ran.success());
    // Also a place that another user can't see, or a file system without set-uid.
    let reached =
        as_user(&scene, TENURE).arg("--version").output().is_ok_and(|ran| ran.status.success());
    if !works || !reached {
        common::not_tried(
            test,
            "set-uid programs don't work here, or this place is hidden from others",
        );
        return None;
    }
    Some(scene)
}

fn as_user(scene: &Scene, program: &str) -> Command {
    let mut command = scene.marked("setpriv");
    command.env("TENURE_STORE", scene.store()).arg(format!("--reuid={USER}"));
    command.arg(format!("--regid={USER}")).args(["--clear-groups", "--", program]);
    command
}

/// Starts `tenure LINE -- CMD` as that user.
fn start<'a>(scene: &'a Scene, line: &str, cmd: &[&str]) -> Running<'a> {
    let mut command = as_user(scene, TENURE);
    command.args(line.split(' ')).arg("--").args(cmd);
    scene.spawn(command)
}

/// The process that wrote its number, which is now another user's.
fn other(scene: &Scene) -> i32 {
    scene.wait_for("pid");
    let mut pid = 0;
    wait("another user's process", || {
        pid = std::fs::read_to_string(scene.path("pid")).unwrap().trim().parse().unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("\nUid:\t{OTHER}\t{OTHER}\t"))
    });
    pid
}

/// It is said, and the name is not had, though nobody renews it any more.
fn assert_left_to_ttl(scene: &Scene, ended: &Ended) {
    let words = "something it started cannot be killed, so the name waits for its ttl";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
    assert_not_had(scene);
}

fn assert_not_had(scene: &Scene) {
    let next = start(scene, "run x --no-wait", &["touch", "ran"]).end();
    assert_eq!(next.code, 75, "{}", next.stderr);
    assert!(next.stderr.contains("s more (token 1)"), "{}", next.stderr);
    assert!(!scene.path("ran").exists());
}

#[test]
fn a_child_that_cannot_be_killed_leaves_the_name_to_its_ttl() {
    let Some(scene) = foreign("foreign-child") else { return };
    let running = start(&scene, "run x --stop-timeout 100ms", &["sh", "-c", BECOMES_OTHER]);
    let pid = other(&scene);
    running.signal(Signal::TERM);
    let ended = running.end();
    assert!(is_alive(pid));
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    assert!(!ended.stderr.contains("was killed"), "{}", ended.stderr);
    assert_left_to_ttl(&scene, &ended);
}

#[test]
fn a_grandchild_that_cannot_be_killed_leaves_the_name_to_its_ttl() {
    let Some(scene) = foreign("foreign-grandchild") else { return };
    let script =
        format!("(sh -c '{BECOMES_OTHER}' &); while [ ! -e go ]; do sleep 0.02; done; exit 9");
    let running = start(&scene, "run x", &["sh", "-c", &script]);
    let pid = other(&scene);
    std::fs::write(scene.path("go"), "").unwrap();
    let ended = running.end();
    assert!(is_alive(pid));
    assert_eq!(ended.code, 9, "that of the child, which has ended: {}", ended.stderr);
    assert_left_to_ttl(&scene, &ended);
}

#[test]
fn keeper_killed_over_work_that_cannot_be_killed_leaves_the_name_to_its_ttl() {
    let Some(scene) = foreign("foreign-keeper") else { return };
    let running = start(&scene, "run x", &["sh", "-c", BECOMES_OTHER]);
    let pid = other(&scene);
    common::kill(running.keeper(), Signal::KILL);
    let ended = running.end();
    assert!(is_alive(pid));
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    assert_left_to_ttl(&scene, &ended);
}

#[test]
fn supervisor_killed_over_work_that_cannot_be_killed_leaves_the_name_to_its_ttl() {
    let Some(scene) = foreign("foreign-supervisor") else { return };
    let running = start(&scene, "run x", &["sh", "-c", BECOMES_OTHER]);
    let (pid, keeper) = (other(&scene), running.keeper());
    running.signal(Signal::KILL);
    wait("the keeper's end", || !is_alive(keeper));
    assert!(is_alive(pid));
    assert!(running.stderr().contains("cannot be killed; `x` waits for its ttl"));
    assert_not_had(&scene);
}
