//! Bad input, stores that aren't named, secrets: one line each, what and how to mend it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use common::{Ended, Scene};

fn tenure(scene: &Scene, words: &[&str]) -> Ended {
    let mut command = scene.tenure();
    command.args(words);
    scene.spawn(command).end()
}

#[test]
fn bad_input_is_64_and_one_line_with_its_cure() {
    let scene = Scene::new("bad-input");
    let long = "x".repeat(256);
    for (words, cure) in [
        (&["run"][..], "--help"),
        (&["run", "x"], "<CMD>"),
        (&["run", "x", "--"], "<CMD>"),
        (&["run", "x", "true"], "after `--`"),
        (&["run", "", "--", "true"], "at least one character"),
        (&["run", &long, "--", "true"], "at most 255"),
        (&["run", "@x", "--", "true"], "reserved"),
        (&["run", "a\nb", "--", "true"], "control character"),
        (&["run", "x", "--ttl", "0s", "--", "true"], "the shortest is"),
        (&["run", "x", "--ttl", "-1s", "--", "true"], "whole number"),
        (&["run", "x", "--ttl", "30", "--", "true"], "30s"),
        (&["run", "x", "--ttl", "365d", "--", "true"], "the longest is 24 hours"),
        (&["run", "x", "--ttl", "9s", "--ttl", "9s", "--", "true"], "multiple times"),
        (&["run", "x", "--grace", "29s", "--", "true"], "or the ttl longer"),
        (&["run", "x", "--min-hold", "9999h", "--", "true"], "the longest is 24 hours"),
        (&["run", "x", "--require", "all", "--", "true"], "fenced-tx"),
        (&["run", "x", "--store", "leases.db", "--", "true"], "sqlite:/"),
        (&["run", "x", "--store", "zookeeper:x", "--", "true"], "this build opens"),
        (&["run", "x", "--store", "sqlite:/x?mode=ro", "--", "true"], "it has namespace"),
        (&["elect", "x", "--wait"], "--help"),
        (&["nonsense"], "--help"),
    ] {
        let ended = tenure(&scene, words);
        assert_eq!(ended.code, 64, "{words:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(cure), "{words:?}: {}", ended.stderr);
        assert!(ended.stderr.starts_with("tenure: "), "{words:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{words:?}: {}", ended.stderr);
    }
}

#[test]
fn what_is_misconfigured_is_78_and_names_the_cure() {
    let scene = Scene::new("misconfigured");
    for (words, cure) in [
        (&["run", "x", "--store", "@none", "--", "true"][..], "`none`"),
        (&["run", "x", "--store", "sqlite:no/such/dir.db", "--", "true"], "mkdir -p"),
        (&["run", "x", "--store", "memory:", "--require", "fenced-tx", "--", "true"], "required"),
    ] {
        let ended = tenure(&scene, words);
        assert_eq!(ended.code, 78, "{words:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(cure), "{words:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{words:?}: {}", ended.stderr);
    }
}

#[test]
fn secrets_are_never_printed() {
    let scene = Scene::new("secrets");
    let url = "postgres://app:hunter2@db/x?password=hunter2";
    let file = scene.path("store");
    std::fs::write(&file, url).unwrap();
    let at_file = format!("@{}", file.display());
    for words in [
        &["run", "x", "--store", url, "--", "true"][..],
        &["run", "x", "--store", &at_file, "--", "true"],
        &["run", url, "true"],
        &["run", "x", "--ttl", url, "--", "true"],
        &["elect", "x", "--store", url],
        &[url],
    ] {
        let ended = tenure(&scene, words);
        assert_ne!(ended.code, 0);
        assert!(!ended.stderr.contains("hunter2"), "{words:?}: {}", ended.stderr);
        let warned = ended.stderr.contains("warning: `ps` shows the password");
        assert_eq!(warned, words.contains(&"--store") && words.contains(&url), "{}", ended.stderr);
    }
    let mut command = scene.without_store();
    command.args(["run", "x", "--", "true"]).env("TENURE_STORE", url);
    let ended = scene.spawn(command).end();
    assert!(
        !ended.stderr.contains("hunter2") && !ended.stderr.contains("warning"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_store_is_named_by_option_then_variable_then_file() {
    let scene = Scene::new("named");
    std::fs::write(scene.path("url"), "\n sqlite:third.db \n").unwrap();
    for (option, variable, file) in [
        (Some("sqlite:first.db"), Some("sqlite:second.db"), "first.db"),
        (None, Some("sqlite:second.db"), "second.db"),
        (Some("@url"), Some("sqlite:second.db"), "third.db"),
        (None, None, "third.db"),
    ] {
        let mut command = scene.without_store();
        command.env("TENURE_STORE_FILE", "url");
        command.args(["run", "x", "--quiet"]);
        if let Some(option) = option {
            command.args(["--store", option]);
        }
        if let Some(variable) = variable {
            command.env("TENURE_STORE", variable);
        }
        let ended = scene.spawn({
            command.args(["--", "true"]);
            command
        });
        let ended = ended.end();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        assert!(scene.path(file).exists(), "{file}");
        std::fs::remove_file(scene.path(file)).unwrap();
    }
}

#[test]
fn no_store_named_is_refused_in_kubernetes_and_for_elect() {
    let scene = Scene::new("no-store");
    let mut command = scene.without_store();
    command.args(["run", "x", "--", "true"]).env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let mut elect = scene.without_store();
    elect.args(["elect", "x"]);
    for command in [command, elect] {
        let ended = scene.spawn(command).end();
        assert_eq!(ended.code, 78, "{}", ended.stderr);
        assert!(ended.stderr.contains("--store or TENURE_STORE"), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

/// As root the file would lie in /var/lib: the rest of this is a unit test of `store`.
#[test]
fn no_store_named_says_which_file_is_used_and_what_it_spans() {
    if rustix::process::geteuid().is_root() {
        common::not_tried("a file of one's own", "root's would lie in /var/lib");
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::new("own-file");
    let mut command = scene.without_store();
    command.args(["run", "x", "--", "true"]).env("XDG_STATE_HOME", scene.path("state"));
    let ended = scene.spawn(command).end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let file = scene.path("state/tenure/leases.db");
    assert!(ended.stderr.contains(file.to_str().unwrap()), "{}", ended.stderr);
    let contained = ended.stderr.contains("warning: no store was named");
    assert!(contained || ended.stderr.contains("this host and this user only"), "{}", ended.stderr);
    let mode = std::fs::metadata(scene.path("state/tenure")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let mut command = scene.without_store();
    command.args(["run", "x", "--", "true"]).env("XDG_STATE_HOME", scene.path("state"));
    command.env("container", "podman");
    let ended = scene.spawn(command).end();
    assert!(ended.stderr.contains("spans this container alone"), "{}", ended.stderr);

    let mut command = scene.without_store();
    command.args(["run", "x", "--", "true"]).env_remove("XDG_STATE_HOME").env_remove("HOME");
    let ended = scene.spawn(command).end();
    assert_eq!(ended.code, 78, "{}", ended.stderr);
    assert!(ended.stderr.contains("HOME"), "{}", ended.stderr);
}

#[test]
fn nested_run_of_the_same_name_is_refused() {
    let scene = Scene::new("nested");
    let tenure = env!("CARGO_BIN_EXE_tenure");
    let ended = scene.run("run x", &[tenure, "run", "x", "--", "true"]);
    assert_eq!(ended.code, 64, "{}", ended.stderr);
    assert!(ended.stderr.contains("give it another name"), "{}", ended.stderr);
    let between = scene.run("run x", &[tenure, "run", "y", "--", tenure, "run", "x", "--", "true"]);
    assert_eq!(between.code, 64, "{}", between.stderr);
    // Another name, or another store, is another lease.
    assert_eq!(scene.run("run x", &[tenure, "run", "y", "--", "true"]).code, 0);
    let other = [tenure, "--store", "sqlite:other.db", "run", "x", "--", "true"];
    assert_eq!(scene.run("run x", &other).code, 0);
}

#[test]
fn help_version_and_completions_go_to_stdout() {
    let scene = Scene::new("help");
    for words in [&["--help"][..], &["run", "--help"], &["--version"], &["completions", "bash"]] {
        let ended = tenure(&scene, words);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{words:?}");
    }
    let out = scene.out();
    assert!(out.contains("Exit codes:") && out.contains("complete -F"), "{out}");
    let mut words = out.split(|c: char| !c.is_alphanumeric() && c != '_');
    assert!(!words.any(|word| word == "__release"), "the supervisor's own command is hidden");
}
