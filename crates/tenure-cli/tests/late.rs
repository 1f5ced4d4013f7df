//! Grants that come too late: nothing is run under them, and the name is free at once.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use common::{Running, Scene, kill, wait};
use rustix::process::Signal;

/// A cut-off store, and a `tenure LINE` whose claim on it is under way.
fn claiming<'a>(
    scene: &'a Scene,
    line: &str,
    cmd: &[&str],
) -> (tenure::sqlite::rusqlite::Connection, Running<'a>) {
    assert_eq!(scene.run("run x --quiet", &["true"]).code, 0);
    let cut_off = scene.cut_off();
    let claimant = scene.start(line, cmd);
    let keeper = claimant.keeper();
    wait("the store to be opened", || {
        let files = fs::read_dir(format!("/proc/{keeper}/fd")).into_iter().flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        links.any(|file| file.ends_with("leases.db"))
    });
    // The claim is the first thing that follows.
    sleep(Duration::from_millis(500));
    (cut_off, claimant)
}

/// What happened to the name, and under which token, after the first run.
fn history(scene: &Scene) -> Vec<(String, u64)> {
    let output = scene.tenure().args(["why", "x", "--json"]).output().unwrap();
    let why: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let transitions = why["transitions"].as_array().unwrap()[2..].iter();
    transitions
        .map(|one| (one["what"].as_str().unwrap().to_owned(), one["token"].as_u64().unwrap()))
        .collect()
}

fn was(what: &str, token: u64) -> (String, u64) {
    (what.to_owned(), token)
}

#[test]
fn a_grant_that_comes_after_the_wait_runs_nothing_and_is_given_back() {
    let scene = Scene::new("late-wait");
    let (cut_off, mut claimant) = claiming(&scene, "run x --wait=100ms", &["touch", "ran"]);
    sleep(Duration::from_secs(1));
    assert!(!claimant.has_ended(), "its claim is still unknown: {}", claimant.stderr());
    drop(cut_off);
    let ended = claimant.end();
    assert_eq!(ended.code, 69, "{}", ended.stderr);
    assert!(ended.stderr.contains("the wait ended before the store said"), "{}", ended.stderr);
    assert!(!scene.path("ran").exists());
    assert_eq!(history(&scene), [was("granted", 2), was("released", 2)]);
}

#[test]
fn a_grant_that_comes_after_a_signal_runs_nothing_and_is_given_back() {
    let scene = Scene::new("late-signal");
    let (cut_off, claimant) = claiming(&scene, "run x", &["touch", "ran"]);
    claimant.signal(Signal::TERM);
    sleep(Duration::from_millis(500));
    drop(cut_off);
    let ended = claimant.end();
    assert_eq!(ended.code, 143, "{}", ended.stderr);
    assert!(!scene.path("ran").exists());
    assert_eq!(history(&scene), [was("granted", 2), was("released", 2)]);
}

#[test]
fn a_grant_that_is_older_than_its_ttl_is_given_back_and_asked_for_anew() {
    let scene = Scene::new("late-grant");
    let script = ["sh", "-c", "echo $TENURE_TOKEN"];
    let (cut_off, claimant) = claiming(&scene, "run x --ttl 2s", &script);
    let keeper = claimant.keeper();
    kill(keeper, Signal::STOP);
    sleep(Duration::from_millis(2500));
    kill(keeper, Signal::CONT);
    drop(cut_off);
    let ended = claimant.end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(scene.out(), "3\n", "token 2 came too late");
    let given_back = [was("granted", 2), was("released", 2), was("granted", 3), was("released", 3)];
    assert_eq!(history(&scene), given_back);
}
