//! `tenure elect` with real processes: one leads at a time, and another follows at once.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use std::time::{Duration, Instant};

use common::timeline::Timeline;
use common::{ACT, Running, Scene, kill, wait};
use rustix::process::Signal;

#[test]
#[ignore = "no test: the actor that others start"]
fn actor() {
    common::act();
}

fn acting(scene: &Scene) -> std::process::Command {
    let mut command = scene.tenure();
    command.env("ACT_LOG", scene.path("log"));
    command
}

fn candidate<'a>(scene: &'a Scene, name: &str, ttl: &str) -> Running<'a> {
    let mut command = acting(scene);
    command.args([
        "elect",
        "e",
        "--ttl",
        ttl,
        "--instance",
        name,
        "--",
        "sh",
        "-c",
        ACT,
        "sh",
        name,
    ]);
    scene.spawn(command)
}

#[test]
fn cmd_lives_while_leading_and_the_next_leads_when_it_ends() {
    let scene = Scene::new("elect");
    let first = scene.start(
        "elect e --instance a",
        &["sh", "-c", "echo a $TENURE_TOKEN; while [ ! -e go ]; do sleep 0.02; done"],
    );
    first.wait_for_words("leading as the holder of `e` (token 1)");
    let second =
        scene.start("elect e --instance b", &["sh", "-c", "echo b $TENURE_TOKEN; sleep 60"]);
    second.wait_for_words("following: `e` is led by a (pid");
    assert!(!scene.out().contains('b'));
    let since = Instant::now();
    std::fs::write(scene.path("go"), "").unwrap();
    second.wait_for_words("leading as the holder of `e` (token 2)");
    println!("took over after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(3));
    // The first backs off and stands again: as a follower.
    first.wait_for_words("following: `e` is led by b");
    first.signal(Signal::TERM);
    assert_eq!(first.end().code, 143);
    second.signal(Signal::TERM);
    assert_eq!(second.end().code, 143);
    assert_eq!(scene.out(), "a 1\nb 2\n");
    scene.assert_empty();
}

#[test]
fn a_killed_leader_is_followed_within_a_second_and_two_never_lead() {
    let scene = Scene::new("failover");
    let mut candidates: Vec<Running<'_>> =
        (0..3).map(|index| candidate(&scene, &format!("c{index}"), "30s")).collect();
    let mut token = 0;
    for round in 0..6 {
        let mut leader = 0;
        token += 1;
        let words = format!("leading as the holder of `e` (token {token})");
        let since = Instant::now();
        wait("a leader", || {
            let found = candidates.iter().position(|one| one.stderr().contains(&words));
            leader = found.unwrap_or(leader);
            found.is_some()
        });
        println!("round {round}: a leader after {:?}", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(2), "round {round}: {:?}", since.elapsed());
        let acts = Timeline::read(&scene.path("log")).acts(token);
        wait("acts", || Timeline::read(&scene.path("log")).acts(token) > acts + 5);
        let fallen = candidates.swap_remove(leader);
        if round % 2 == 0 {
            kill(fallen.keeper(), Signal::KILL);
            assert_eq!(fallen.end().code, 76);
        } else {
            fallen.signal(Signal::KILL);
            assert_eq!(fallen.end().code, 1009);
        }
        candidates.push(candidate(&scene, &format!("r{round}"), "30s"));
    }
    for one in candidates {
        one.signal(Signal::TERM);
        one.end();
    }
    let timeline = Timeline::read(&scene.path("log"));
    assert_eq!(timeline.overlaps(), 0);
    // While they are ended one after the other, another may lead for a moment.
    assert!(timeline.terms() >= 6, "{}", timeline.terms());
    scene.assert_empty();
}

#[test]
fn survives_a_loss_and_stands_again() {
    let scene = Scene::new("elect-loss");
    let leader = candidate(&scene, "a", "2s");
    leader.wait_for_words("token 1)");
    let cut_off = scene.cut_off();
    leader.wait_for_words("lost `e`: it expired");
    leader.wait_for_words("no longer the holder of `e` (token 1)");
    drop(cut_off);
    leader.wait_for_words("leading as the holder of `e` (token 2)");
    leader.signal(Signal::TERM);
    assert_eq!(leader.end().code, 143);
    assert_eq!(Timeline::read(&scene.path("log")).overlaps(), 0);
    scene.assert_empty();
}

#[test]
fn once_ends_with_the_exit_code_of_cmd() {
    let scene = Scene::new("elect-once");
    assert_eq!(scene.run("elect e --once", &["sh", "-c", "exit 9"]).code, 9);
    assert_eq!(scene.run("elect e --once", &["/nonexistent"]).code, 127);
}

#[test]
fn hooks_run_at_the_turns_of_the_role() {
    let scene = Scene::new("hooks");
    let mut command = scene.tenure();
    command.args(["elect", "e", "--once", "--on-lead", "echo lead $TENURE_TOKEN"]);
    command.args(["--on-follow", "echo follow; tenure() { :; }", "--", "echo", "cmd"]);
    assert_eq!(scene.spawn(command).end().code, 0);
    assert_eq!(scene.out(), "lead 1\ncmd\nfollow\n");

    // Another leads: said at once, and named.
    let holder = scene.start("run e --instance other", &["sleep", "60"]);
    holder.wait_for_words("token 2");
    let mut command = scene.tenure();
    command.args(["elect", "e", "--on-lead", "echo lead", "--on-follow", "echo f $TENURE_LEADER"]);
    let follower = scene.spawn(command);
    wait("the hook", || scene.out().ends_with("f other\n"));
    // Leads without a CMD until it is told to end.
    holder.signal(Signal::TERM);
    wait("the other hook", || scene.out().ends_with("lead\n"));
    follower.signal(Signal::TERM);
    assert_eq!(follower.end().code, 143);
    assert!(scene.out().ends_with("lead\nf\n"), "{}", scene.out());
    scene.assert_empty();
}

#[test]
fn a_leader_without_cmd_leads_until_it_is_told_to_end() {
    let scene = Scene::new("bare");
    let leader = scene.start("elect e --advertise http://a:1", &[]);
    leader.wait_for_words("leading");
    let refused = scene.run("run e --no-wait", &["true"]);
    assert_eq!(refused.code, 75);
    leader.signal(Signal::INT);
    assert_eq!(leader.end().code, 130);
    assert_eq!(scene.run("run e --no-wait", &["true"]).code, 0);
}
