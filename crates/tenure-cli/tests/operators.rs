//! The operators' verbs on a real file: what they print for people, and for programs (97).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use common::Scene;
use rustix::process::Signal;
use serde_json::Value;

/// Runs an operator's verb: its exit code, and what it printed.
fn printed(scene: &Scene, line: &str) -> (i32, String) {
    let output = scene.tenure().args(line.split_ascii_whitespace()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// Each line of `--json` is one object that names its schema.
fn objects(scene: &Scene, line: &str, schema: &str) -> Vec<Value> {
    let (code, text) = printed(scene, &format!("{line} --json"));
    assert_eq!(code, 0, "{line}: {text}");
    let objects: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    for object in &objects {
        assert_eq!(object["schema"], schema, "{line}: {object}");
    }
    objects
}

#[test]
fn json_is_one_object_a_line() {
    let scene = Scene::new("json");
    assert!(objects(&scene, "list", "tenure.lease.1").is_empty());
    assert_eq!(scene.run("run past", &["true"]).code, 0);
    let holder = scene.start("run now", &["sleep", "100"]);
    common::wait("the grant", || holder.stderr().contains("running as"));

    let held = objects(&scene, "list", "tenure.lease.1");
    assert_eq!(held.len(), 1);
    assert_eq!(held[0]["name"], "now");
    assert_eq!(held[0]["state"], "held");
    assert_eq!(held[0]["token"], 2);
    assert_eq!(held[0]["metadata"]["command"], "sleep");
    assert!(held[0]["left_ms"].as_u64().unwrap() <= 30_000);
    assert_eq!(objects(&scene, "list --all", "tenure.lease.1").len(), 2);
    assert_eq!(objects(&scene, "list pa --all", "tenure.lease.1")[0]["state"], "free");
    assert_eq!(objects(&scene, "status now", "tenure.lease.1")[0]["name"], "now");
    let why = &objects(&scene, "why past", "tenure.why.1")[0];
    let what: Vec<&str> = why["transitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|transition| transition["what"].as_str().unwrap())
        .collect();
    assert_eq!(what, ["granted", "released"]);
    assert!(!objects(&scene, "doctor", "tenure.finding.1").is_empty());
    assert_eq!(objects(&scene, "init", "tenure.store.1").len(), 1);
    holder.signal(Signal::TERM);
    assert_eq!(holder.end().code, 143);
}

#[test]
fn a_forced_release_ends_the_holder_and_stands_in_the_history() {
    let scene = Scene::new("force");
    let holder = scene.start("run x --ttl 3s", &["sleep", "100"]);
    common::wait("the grant", || holder.stderr().contains("running as"));
    let (code, text) = printed(&scene, "release x --force --reason maintenance");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("lease `x` is revoked"), "{text}");
    let ended = holder.end();
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    let (_, why) = printed(&scene, "why x");
    assert!(why.contains("revoked") && why.contains("maintenance"), "{why}");
    let (code, _) = printed(&scene, "release x --force --reason again");
    assert_eq!(code, 75, "nobody holds it any more");
    assert_eq!(scene.run("run x --no-wait", &["true"]).code, 0, "it was released, not run out");
}

#[test]
fn the_demo_shows_no_two_leaders_at_once() {
    let scene = Scene::new("demo");
    let (code, text) = printed(&scene, "demo --json");
    assert_eq!(code, 0, "{text}");
    let changes: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(changes.len(), 3, "{text}");
    assert!(changes.iter().all(|change| change["overlap_us"] == 0), "{text}");
}
