//! What dies, stops or is cut off takes everything that it started with it, in time.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use std::time::{Duration, Instant};

use common::timeline::Timeline;
use common::{Scene, clock, daemons, is_alive, kill, stubborn_actor, words};
use rustix::process::Signal;
use tenure::core::clock::Timestamp;
use tenure::core::identity::Nonce;
use tenure::core::record::{Demand, Order};
use tenure::core::store::{OrderRequest, Ordered};

const SECOND: Duration = Duration::from_secs(1);

#[test]
#[ignore = "no test: the actor that others start"]
fn actor() {
    common::act();
}

/// The name is had within a second, though its ttl is much longer.
fn assert_free(scene: &Scene, since: Instant) {
    let ended = scene.run("run x --wait=10s", &["true"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let took = since.elapsed();
    println!("free after {took:?}");
    assert!(took < SECOND, "the name was free only after {took:?}");
}

#[test]
fn a_child_that_ignores_term_is_killed_at_the_deadline() {
    let scene = Scene::new("ignores-term");
    let running = scene.start("run x --ttl 3s --grace 500ms", &words(&stubborn_actor("act")));
    scene.wait_for_act("act");
    let cut_off = scene.cut_off();
    let since = clock();
    let ended = running.end();
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    assert!(ended.stderr.contains("in jeopardy") && ended.stderr.contains("lost `x`: it expired"));
    let acted = scene.last_act("act") - since;
    println!("cut off for {acted:?} when it acted last");
    assert!(acted <= 3 * SECOND, "it acted for {acted:?}");
    scene.assert_empty();
    drop(cut_off);
}

#[test]
fn store_unreachable_for_longer_than_the_ttl_ends_the_child_before_the_ttl() {
    let scene = Scene::new("unreachable");
    let argv = daemons(3, "while :; do sleep 1; done");
    let running = scene.start("run x --ttl 3s", &words(&argv));
    scene.wait_for("up");
    let cut_off = scene.cut_off();
    let since = clock();
    assert_eq!(running.end().code, 76);
    scene.assert_empty();
    for actor in ["act1", "act2", "act3"] {
        let acted = scene.last_act(actor).saturating_sub(since);
        assert!(acted <= 3 * SECOND, "{actor} acted for {acted:?}");
    }
    drop(cut_off);
    let since = Instant::now();
    // It was never given back: the rest of the ttl is waited for.
    assert_eq!(scene.run("run x --wait=10s", &["true"]).code, 0);
    assert!(since.elapsed() < 4 * SECOND);
}

#[test]
fn a_loss_lets_the_child_end_by_itself_within_the_grace() {
    let scene = Scene::new("grace");
    let script = "trap 'echo bye; exit 3' TERM; : > up; while :; do sleep 0.02; done";
    let running = scene.start("run x --ttl 3s --grace 900ms", &["sh", "-c", script]);
    scene.wait_for("up");
    let cut_off = scene.cut_off();
    assert_eq!(running.end().code, 76, "lost, whatever the child says");
    assert_eq!(scene.out(), "bye\n");
    drop(cut_off);
}

#[test]
fn grandchildren_die_too_also_of_a_child_that_exited_0() {
    let scene = Scene::new("left-behind");
    let ended = scene.run("run x", &words(&daemons(6, "exit 0")));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    scene.assert_empty();
    assert_free(&scene, Instant::now());
}

#[test]
fn children_that_closed_all_descriptors_die_too() {
    let scene = Scene::new("closed");
    let argv = daemons(2, "exec <&- >&- 2>&-; while :; do sleep 1; done");
    let running = scene.start("run x --stop-timeout 100ms", &words(&argv));
    scene.wait_for("up");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code, 137);
    scene.assert_empty();
}

/// A link of a chain: it starts the next one and ends. It writes a byte, so that one sees it go on.
const LINK: &str = r#"[ "$1" -gt 0 ] || { : >ran-out; exit; }
    printf . >>links
    sh "$0" $(($1 - 1)) &"#;
/// More than a sweep takes, and not so many that a chain which escapes goes on for ever.
const LINKS: usize = 30_000;

#[test]
fn chains_that_fork_and_exit_are_swept_to_the_last() {
    let argv = format!(
        "trap '' TERM
        for i in 1 2 3 4; do (setsid sh link {LINKS} &); (sh link {LINKS} &); done
        while :; do sleep 1; done"
    );
    for (way, code) in [("stop", 137), ("keeper", 76), ("supervisor", 1009)] {
        let scene = Scene::new("chains");
        std::fs::write(scene.path("link"), LINK).unwrap();
        let running = scene.start("run x --stop-timeout 50ms", &["sh", "-c", &argv]);
        let links = || std::fs::metadata(scene.path("links")).map_or(0, |file| file.len());
        common::wait("links", || links() > 200);
        let keeper = running.keeper();
        match way {
            "stop" => running.signal(Signal::TERM),
            "keeper" => kill(keeper, Signal::KILL),
            _ => running.signal(Signal::KILL),
        }
        let ended = running.end();
        assert_eq!(ended.code, code, "{way}: {}", ended.stderr);
        let next = scene.run("run x --wait=15s", &["true"]);
        assert_eq!(next.code, 0, "{way}: {}", next.stderr);
        let left = links();
        scene.assert_empty();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(links(), left, "{way}: a chain goes on");
        assert!(!scene.path("ran-out").exists(), "{way}: a chain ended by itself");
    }
}

#[test]
fn supervisor_killed_everything_is_gone_and_the_name_free_within_a_second() {
    for count in [0, 2, 20] {
        let scene = Scene::new("supervisor-killed");
        let running = scene.start("run x", &words(&daemons(count, "while :; do sleep 1; done")));
        scene.wait_for("up");
        let (since, killed) = (Instant::now(), running.supervisor());
        kill(killed, Signal::KILL);
        assert_free(&scene, since);
        // The winner ran only after all of the loser's was gone.
        scene.assert_empty();
        drop(running);
    }
}

#[test]
fn keeper_killed_everything_is_gone_and_the_name_free_within_a_second() {
    for count in [0, 2, 20] {
        let scene = Scene::new("keeper-killed");
        let running = scene.start("run x", &words(&daemons(count, "while :; do sleep 1; done")));
        scene.wait_for("up");
        let since = Instant::now();
        kill(running.keeper(), Signal::KILL);
        let ended = running.end();
        assert_eq!(ended.code, 76, "{}", ended.stderr);
        assert!(ended.stderr.contains("the name given back"), "{}", ended.stderr);
        scene.assert_empty();
        assert_free(&scene, since);
    }
}

#[test]
fn both_killed_costs_the_ttl_and_the_child_dies() {
    let scene = Scene::new("both-killed");
    let running = scene.start("run x --ttl 3s", &words(&stubborn_actor("act")));
    scene.wait_for_act("act");
    let (supervisor, keeper, cmd) = (running.supervisor(), running.keeper(), running.cmd());
    let since = clock();
    kill(supervisor, Signal::KILL);
    kill(keeper, Signal::KILL);
    common::wait("the child's death", || !is_alive(cmd));
    assert!(clock() - since < SECOND);
    let ended = scene.run("run x --wait=10s", &["true"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let taken = clock() - since;
    println!("taken over after {taken:?}");
    assert!(taken < Duration::from_millis(4500), "{taken:?}");
    scene.assert_empty();
}

#[test]
fn keeper_stopped_past_the_ttl_the_child_is_dead_by_the_deadline() {
    let scene = Scene::new("keeper-stopped");
    let running = scene.start("run x --ttl 2s", &words(&daemons(4, "while :; do sleep 1; done")));
    scene.wait_for("up");
    let since = clock();
    kill(running.keeper(), Signal::STOP);
    let ended = running.end();
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    scene.assert_empty();
    for actor in ["act1", "act2", "act3", "act4"] {
        let acted = scene.last_act(actor).saturating_sub(since);
        assert!(acted <= 2 * SECOND, "{actor} acted for {acted:?}");
    }
}

#[test]
fn keeper_and_child_stopped_the_child_never_acts_again() {
    let scene = Scene::new("two-stopped");
    let running = scene.start("run x --ttl 2s", &words(&stubborn_actor("act")));
    scene.wait_for_act("act");
    let (keeper, cmd) = (running.keeper(), running.cmd());
    kill(cmd, Signal::STOP);
    kill(keeper, Signal::STOP);
    std::thread::sleep(Duration::from_millis(100));
    let last = scene.last_act("act");
    assert_eq!(running.end().code, 76);
    assert_eq!(scene.last_act("act"), last);
    scene.assert_empty();
}

#[test]
fn all_three_stopped_the_child_is_dead_right_after_they_go_on() {
    for order in ["skc", "ksc", "csk", "cks"] {
        let scene = Scene::new("three-stopped");
        let running = scene.start("run x --ttl 1s", &words(&stubborn_actor("act")));
        scene.wait_for_act("act");
        let all = [("s", running.supervisor()), ("k", running.keeper()), ("c", running.cmd())];
        for (_, pid) in all {
            kill(pid, Signal::STOP);
        }
        std::thread::sleep(Duration::from_millis(1300));
        // Another may have it by now.
        let since = clock();
        for letter in order.chars() {
            let (_, pid) = all.into_iter().find(|(name, _)| name.starts_with(letter)).unwrap();
            kill(pid, Signal::CONT);
        }
        common::wait("the child's death", || !is_alive(all[2].1));
        let acted = scene.last_act("act").saturating_sub(since);
        println!("{order}: the last act was {acted:?} after CONT");
        assert!(acted < SECOND, "{order}: it acted for {acted:?}");
        assert_eq!(running.end().code, 76);
        scene.assert_empty();
    }
}

#[test]
fn stopped_past_the_ttl_it_is_succeeded_and_no_act_passes_a_guard() {
    let scene = Scene::new("succeeded");
    let contender = || {
        let mut command = scene.tenure();
        command
            .env("ACT_LOG", scene.path("log"))
            .args(["run", "x", "--ttl", "2s", "--", "sh", "-c"]);
        command.arg("trap '' TERM; exec \"$ACTOR\" --exact actor --ignored >/dev/null 2>&1");
        scene.spawn(command)
    };
    let acts = |token| Timeline::read(&scene.path("log.guarded")).acts(token);
    let old = contender();
    common::wait("acts", || acts(1) > 3);
    let all = [old.cmd(), old.keeper(), old.supervisor()];
    let new = contender();
    all.iter().for_each(|&pid| kill(pid, Signal::STOP));
    common::wait("the successor's acts", || acts(2) > 3);
    // The child first, and alone: for as long as that lasts, only a guard stops it.
    let late = Timeline::read(&scene.path("log")).acts(1);
    kill(all[0], Signal::CONT);
    common::wait("a late act", || Timeline::read(&scene.path("log")).acts(1) > late);
    all.iter().for_each(|&pid| kill(pid, Signal::CONT));
    let ended = old.end();
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    let before = acts(2);
    common::wait("more acts of the successor", || acts(2) > before + 3);
    new.signal(Signal::KILL);
    common::wait("the end of all", || scene.processes().is_empty());
    assert_eq!(Timeline::read(&scene.path("log.guarded")).overlaps(), 0);
    assert_ne!(Timeline::read(&scene.path("log")).overlaps(), 0, "the late act was late");
}

/// Has an operator demand something of the holder of `x`.
fn order(scene: &Scene, demand: Demand) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = tenure::Session::open(scene.store()).await.unwrap();
        let order = Order::new(demand, "ops", "a test", Timestamp::from_millis(0));
        let nonce = Nonce::draw(&mut session.chance());
        let request = OrderRequest { order, token: None, nonce };
        let name = tenure::Name::new("x").unwrap();
        let ordered = session.store().order(&name, &request).await.unwrap();
        assert!(matches!(ordered, Ordered::Ordered(_)), "{ordered:?}");
        session.close().await.unwrap();
    });
}

#[test]
fn an_operators_revoke_ends_the_child_and_frees_the_name() {
    let scene = Scene::new("revoked");
    let script = "trap 'echo bye; exit 3' TERM; : > up; while :; do sleep 0.02; done";
    let running = scene.start("run x --ttl 6s", &["sh", "-c", script]);
    scene.wait_for("up");
    order(&scene, Demand::Revoke);
    let ended = running.end();
    assert_eq!(ended.code, 76, "{}", ended.stderr);
    assert!(ended.stderr.contains("lost `x`: an operator revoked it"), "{}", ended.stderr);
    assert_eq!(scene.out(), "bye\n");
    assert_free(&scene, Instant::now());
}

#[test]
fn an_order_to_resign_ends_the_child_in_its_own_time_and_frees_the_name() {
    let scene = Scene::new("resigned");
    let script = "trap 'sleep 3; echo done; exit 3' TERM; : > up; while :; do sleep 0.02; done";
    let running = scene.start("run x --ttl 3s", &["sh", "-c", script]);
    scene.wait_for("up");
    order(&scene, Demand::Resign { to: None });
    let ended = running.end();
    // It went on being renewed for as long as the child took.
    assert_eq!((ended.code, scene.out().as_str()), (3, "done\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("asked to resign"), "{}", ended.stderr);
    assert_free(&scene, Instant::now());
}

#[test]
fn a_keeper_that_hangs_while_waiting_does_not_hang_the_command() {
    let scene = Scene::new("stuck");
    let holder = scene.start("run x", &["sleep", "60"]);
    holder.wait_for_words("token 1");
    let waiter = scene.start("run x", &["true"]);
    waiter.wait_for_words("waiting");
    kill(waiter.keeper(), Signal::STOP);
    waiter.signal(Signal::TERM);
    assert_eq!(waiter.end().code, 143);
}
