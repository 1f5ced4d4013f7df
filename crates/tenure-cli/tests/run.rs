//! `tenure run` as its caller sees it: exit codes, signals, waiting, environment.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Ended, Scene};
use rustix::process::Signal;

const RELAYED: [(Signal, &str); 6] = [
    (Signal::TERM, "TERM"),
    (Signal::INT, "INT"),
    (Signal::HUP, "HUP"),
    (Signal::QUIT, "QUIT"),
    (Signal::USR1, "USR1"),
    (Signal::USR2, "USR2"),
];

#[test]
fn exit_codes_0_to_255_are_passed_on() {
    let scene = Scene::new("codes");
    for code in 0..=255 {
        let ended = scene.run("run x --quiet", &["sh", "-c", &format!("exit {code}")]);
        assert_eq!((ended.code, ended.stderr.as_str()), (code, ""));
    }
}

#[test]
fn killed_by_signal_n_is_128_plus_n() {
    let scene = Scene::new("killed");
    for signal in [1, 2, 3, 6, 9, 11, 13, 14, 15] {
        let script = format!("ulimit -c 0; kill -{signal} $$; sleep 9");
        assert_eq!(scene.run("run x", &["sh", "-c", &script]).code, 128 + signal);
    }
}

#[test]
fn signals_are_passed_on_while_running() {
    let scene = Scene::new("relayed");
    for (signal, name) in RELAYED {
        let script = format!("trap 'exit 55' {name}; : > {name}; while :; do sleep 0.02; done");
        let running = scene.start("run x", &["sh", "-c", &script]);
        scene.wait_for(name);
        running.signal(signal);
        assert_eq!(running.end().code, 55, "{name}");
    }
    scene.assert_empty();
}

#[test]
fn signals_end_the_wait_and_leave_no_trace() {
    let scene = Scene::new("wait-ended");
    let holder = scene.start("run x", &["sleep", "60"]);
    holder.wait_for_words("token 1");
    for (signal, name) in RELAYED {
        let waiter = scene.start("run x", &["true"]);
        waiter.wait_for_words("waiting: lease `x` is held by");
        waiter.signal(signal);
        let ended = waiter.end();
        assert_eq!(ended.code, 128 + signal.as_raw(), "{name}: {}", ended.stderr);
    }
    holder.signal(Signal::TERM);
    assert_eq!(holder.end().code, 143);
    let next = scene.run("run x --no-wait", &["true"]);
    assert!(next.stderr.contains("(token 2)"), "{}", next.stderr);
}

#[test]
fn not_acquired_is_75_or_what_was_asked_for() {
    let scene = Scene::new("refused");
    let holder = scene.start("run x", &["sleep", "60"]);
    holder.wait_for_words("token 1");
    let refused = scene.run("run x --no-wait", &["touch", "ran"]);
    assert_eq!(refused.code, 75);
    for part in ["lease `x` is held by", "pid ", "sleep", "s more (token 1)"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert_eq!(scene.run("run x --no-wait --exit-not-acquired 3", &["touch", "ran"]).code, 3);
    let started = Instant::now();
    assert_eq!(scene.run("run x --wait=700ms", &["touch", "ran"]).code, 75);
    assert!(started.elapsed() >= Duration::from_millis(700));
    assert!(!scene.path("ran").exists());
}

#[test]
fn waits_and_runs_when_the_holder_is_done() {
    let scene = Scene::new("waits");
    let holder = scene.start("run x", &["sh", "-c", "while [ ! -e go ]; do sleep 0.02; done"]);
    holder.wait_for_words("token 1");
    let waiter = scene.start("run x", &["sh", "-c", "echo after"]);
    waiter.wait_for_words("waiting");
    std::fs::write(scene.path("go"), "").unwrap();
    assert_eq!(waiter.end().code, 0);
    assert_eq!(scene.out(), "after\n");
}

#[test]
fn what_cannot_be_run_is_126_and_what_is_not_found_127() {
    let scene = Scene::new("not-run");
    std::fs::write(scene.path("file"), "").unwrap();
    let not_executable = scene.run("run x", &["./file"]);
    assert_eq!(not_executable.code, 126, "{}", not_executable.stderr);
    assert!(not_executable.stderr.contains("cannot run `./file`"));
    assert_eq!(scene.run("run x", &["/nonexistent"]).code, 127);
    // Neither keeps the name.
    assert_eq!(scene.run("run x --no-wait", &["true"]).code, 0);
}

#[test]
fn a_store_that_does_not_answer_is_69() {
    let scene = Scene::new("unavailable");
    assert_eq!(scene.run("run x", &["true"]).code, 0);
    let cut_off = scene.cut_off();
    let ended = scene.run("run x --no-wait --ttl 3s", &["touch", "ran"]);
    assert_eq!(ended.code, 69, "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(!scene.path("ran").exists());
    drop(cut_off);
}

#[test]
fn cmd_is_told_name_token_and_instance_and_nothing_else() {
    let scene = Scene::new("env");
    let mut command = scene.without_store();
    command.args(["run", "a b", "--instance", "me", "--store", &scene.store(), "--", "sh", "-c"]);
    command.arg("env | grep -a ^TENURE | grep -v ^TENURE_TEST_ | sort");
    assert_eq!(scene.spawn(command).end().code, 0);
    let out = scene.out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[0].starts_with("TENURE_INSTANCE=me#"), "{out}");
    assert_eq!(lines[1..], ["TENURE_NAME=a b", "TENURE_TOKEN=1"]);
    // A store in the environment was meant for CMD, too.
    assert_eq!(scene.run("run x", &["sh", "-c", "test -n \"$TENURE_STORE\""]).code, 0);
}

#[test]
fn stdin_stdout_and_stderr_are_untouched() {
    let scene = Scene::new("streams");
    let mut command = scene.tenure();
    command.args(["run", "x", "--quiet", "--", "sh", "-c", "cat; echo oops >&2"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let sent: Vec<u8> = (0..1_000_003_u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let got = std::thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(&sent).unwrap();
            drop(stdin);
        });
        let mut got = Vec::new();
        stdout.read_to_end(&mut got).unwrap();
        got
    });
    assert!(got == sent, "{} of {} bytes came through", got.len(), sent.len());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "oops\n");
    assert!(child.wait().unwrap().success());
}

/// Runs `tenure WORDS` by a shell, for its redirections.
fn redirected(scene: &Scene, words: &str) -> Ended {
    let mut shell = scene.marked("sh");
    shell.env("TENURE_STORE", scene.store());
    shell.args(["-c", &format!("exec {} {words}", env!("CARGO_BIN_EXE_tenure"))]);
    scene.spawn(shell).end()
}

#[test]
fn closed_descriptors_are_no_trouble_and_lend_their_numbers_to_no_file_of_ours() {
    let scene = Scene::new("closed");
    let tells = "exec 9>fds
        for fd in /proc/$$/fd/*; do echo \"${fd##*/} $(readlink \"$fd\")\" >&9; done
        exit 7";
    std::fs::write(scene.path("tells"), tells).unwrap();
    let numbers = |told: &str| -> Vec<String> {
        told.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let mut without_tenure = scene.marked("sh");
    without_tenure.arg("tells");
    assert_eq!(scene.spawn(without_tenure).end().code, 7);
    let plain = numbers(&std::fs::read_to_string(scene.path("fds")).unwrap());
    for closed in ["", "<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let ended = redirected(&scene, &format!("run x -- sh tells {closed}"));
        assert_eq!(ended.code, 7, "{closed}: {}", ended.stderr);
        let told = std::fs::read_to_string(scene.path("fds")).unwrap();
        for (number, redirection) in [("0 ", "<&-"), ("1 ", ">&-"), ("2 ", "2>&-")] {
            let line = told.lines().find(|line| line.starts_with(number));
            let is_open = line.is_some_and(|line| !line.ends_with("/dev/null"));
            // Stdin is /dev/null anyway.
            let shall = number != "0 " && !closed.split(' ').any(|one| one == redirection);
            assert_eq!(is_open, shall, "{closed}: {told}");
        }
        let ours = ["leases.db", "memfd:"];
        assert!(!ours.iter().any(|name| told.contains(name)), "{closed}: {told}");
        // Those of the caller, all of them, and no more.
        assert_eq!(numbers(&told), plain, "{closed}: {told}");
    }
}

#[test]
fn what_cannot_be_said_changes_nothing_but_the_exit_code_of_a_listing() {
    let scene = Scene::new("full");
    for (words, code) in [
        ("run x -- sh -c 'exit 7' 2>/dev/full", 7),
        ("run x -- sh -c 'kill -9 $PPID' 2>/dev/full", 76),
        ("run x -- /nonexistent 2>/dev/full", 127),
        ("run 2>/dev/full", 64),
        ("run x 2>&-", 64),
        ("status x >/dev/full", 74),
        ("status x --json >/dev/full 2>/dev/full", 74),
        ("list --all >/dev/full", 74),
        ("why x >/dev/full", 74),
        ("doctor >/dev/full", 74),
        ("init >/dev/full", 74),
        ("completions bash >/dev/full", 74),
        ("list >&- 2>&- <&-", 0),
    ] {
        let ended = redirected(&scene, words);
        assert_eq!(ended.code, code, "{words}: {}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{words}: {}", ended.stderr);
    }
    scene.assert_empty();
}

#[test]
fn min_hold_keeps_the_name_though_the_command_has_ended() {
    let scene = Scene::new("min-hold");
    assert_eq!(scene.run("run x --min-hold 1m", &["true"]).code, 0);
    let refused = scene.run("run x --no-wait", &["true"]);
    assert_eq!(refused.code, 75);
    assert!(refused.stderr.contains("was released by"), "{}", refused.stderr);
}

#[test]
fn stop_timeout_kills_what_does_not_end_when_asked_to() {
    let scene = Scene::new("stop-timeout");
    let script = "trap '' TERM; : > up; while :; do sleep 0.02; done";
    let running = scene.start("run x --stop-timeout 200ms", &["sh", "-c", script]);
    scene.wait_for("up");
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code, 137);
    assert!(ended.stderr.contains("stop timeout"), "{}", ended.stderr);
    assert_eq!(scene.run("run x --no-wait", &["true"]).code, 0);
}

#[test]
fn a_service_manager_that_signals_every_process_is_heard_once() {
    let scene = Scene::new("once");
    let script = "trap 'echo term' TERM; : > up; n=0; while [ $n -lt 40 ]; do sleep 0.02; \
                  n=$((n+1)); done";
    let running = scene.start("run x", &["sh", "-c", script]);
    scene.wait_for("up");
    common::kill(running.keeper(), Signal::TERM);
    running.signal(Signal::TERM);
    assert_eq!(running.end().code, 0);
    assert_eq!(scene.out(), "term\n");
}
