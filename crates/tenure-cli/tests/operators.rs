//! The operators' verbs on a real file: what they print for people, and for programs (97).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use common::{Scene, kill, schema, wait};
use rustix::process::Signal;
use serde_json::Value;

/// Runs an operator's verb: its exit code, and what it printed.
fn printed(scene: &Scene, line: &str) -> (i32, String) {
    let output = scene.tenure().args(line.split_ascii_whitespace()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// Each line of `--json` is one object that keeps to this schema, as it is documented.
fn objects(scene: &Scene, line: &str, schema: &str) -> Vec<Value> {
    let (code, text) = printed(scene, &format!("{line} --json"));
    assert_eq!(code, 0, "{line}: {text}");
    let objects: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    for object in &objects {
        assert_eq!(object["schema"], schema, "{line}: {object}");
        schema::assert_kept(object);
    }
    objects
}

#[test]
fn json_is_one_object_a_line() {
    let scene = Scene::new("json");
    assert!(objects(&scene, "list", "tenure.lease.1").is_empty());
    assert_eq!(scene.run("run past", &["true"]).code, 0);
    let holder = scene.start("run now", &["sleep", "100"]);
    wait("the grant", || holder.stderr().contains("running as"));

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
    let store = &objects(&scene, "init --cluster blue", "tenure.store.1")[0];
    assert_eq!(store["cluster"], "blue");
    assert_eq!(objects(&scene, "init", "tenure.store.1")[0]["store"], store["store"]);
    let nobody = ["status never", "why never", "list never --all"];
    assert!(nobody.iter().all(|line| objects(&scene, line, "no schema").is_empty()));
    holder.signal(Signal::TERM);
    assert_eq!(holder.end().code, 143);
}

#[test]
fn json_says_in_which_state_a_lease_is() {
    let scene = Scene::new("states");
    assert_eq!(scene.run("run free", &["true"]).code, 0);
    assert_eq!(scene.run("run kept --min-hold 1m", &["true"]).code, 0);
    let hold = |line: &str| {
        let holder = scene.start(line, &["sleep", "100"]);
        holder.wait_for_words("running as");
        holder
    };
    let held = hold("run held");
    // One that can't hear of its order, and one whom nobody survives.
    let revoked = hold("run revoked --ttl 15s");
    kill(revoked.keeper(), Signal::STOP);
    let object = &objects(&scene, "release revoked --force --reason why", "tenure.lease.1")[0];
    assert!(object["asked"].as_str().unwrap().ends_with(": why"), "{object}");
    let expired = hold("run expired --ttl 1s");
    let keeper = expired.keeper();
    expired.signal(Signal::KILL);
    kill(keeper, Signal::KILL);
    let state = |name: &str| {
        let object = objects(&scene, &format!("status {name}"), "tenure.lease.1").remove(0);
        (object["state"].as_str().unwrap().to_owned(), object["left_ms"].as_u64().unwrap())
    };
    wait("the end of the ttl", || state("expired").0 != "held");
    for (name, is_taken) in
        [("free", false), ("expired", false), ("kept", true), ("held", true), ("revoked", true)]
    {
        let (state, left) = state(name);
        assert_eq!((state.as_str(), left > 0), (name, is_taken), "{left} ms");
    }
    let listed = objects(&scene, "list", "tenure.lease.1");
    let names: Vec<&str> = listed.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["held", "revoked"]);
    kill(revoked.keeper(), Signal::CONT);
    assert_eq!(revoked.end().code, 76);
    let why = &objects(&scene, "why revoked", "tenure.why.1")[0];
    assert_eq!(why["lease"]["state"], "free");
    let what: Vec<&Value> =
        why["transitions"].as_array().unwrap().iter().map(|one| &one["what"]).collect();
    assert_eq!(what, ["granted", "revoked", "released"]);
    held.signal(Signal::TERM);
    assert_eq!(held.end().code, 143);
}

#[test]
fn a_forced_release_ends_the_holder_and_stands_in_the_history() {
    let scene = Scene::new("force");
    let holder = scene.start("run x --ttl 3s", &["sleep", "100"]);
    wait("the grant", || holder.stderr().contains("running as"));
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
    changes.iter().for_each(schema::assert_kept);
}
