//! Contenders in processes of their own, on real servers, under faults and an observer that knows
//! nothing of tenure: never two holders, tokens that grow, and somebody who holds soon after.
//!
//! And sessions that hold many names and are left alone: what they take doesn't grow.
//!
//! Each store's short run is an ordinary test. `cargo xtask soak postgres 200` runs 200 faults drawn
//! from a seed, which is printed and can be given (`TENURE_SOAK_SEED`).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod actor;
mod contender;
mod fault;
mod flat;
mod idler;
mod observer;
mod place;
mod report;
mod scene;
mod server;
mod strike;
mod wire;

use std::time::{Duration, Instant};

use fault::Kind;
use place::Place;
use report::Report;
use rustix::process::{Pid, Signal, kill_process};
use scene::Scene;

/// How many faults there are unless TENURE_SOAK_COUNT says otherwise.
const COUNT: usize = 200;
/// How many beats of 1000 holds there are unless TENURE_SOAK_COUNT says otherwise: more than the
/// default ttl's in an hour.
const BEATS: u64 = 400;
/// The ttl of 1, of 1000, and of 10 000 holds.
const TTL: Duration = Duration::from_secs(3);
const LONG_TTL: Duration = Duration::from_secs(30);
/// The same in the ordinary test.
const SHORT_HOLDS: u64 = 200;
const SHORT_BEATS: u64 = 4;
const SHORT_TTL: Duration = Duration::from_secs(5);
/// How often a fault is tried that missed.
const TRIES: usize = 5;
/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a process may take to end, to start or to stop.
const PROCESS_MAX: Duration = Duration::from_secs(20);

#[test]
#[ignore = "no test: the contender that others start"]
fn actor() {
    actor::contend();
}

#[test]
fn on_sqlite_no_fault_makes_two_holders() {
    short(Place::Sqlite);
}

#[test]
fn on_postgres_no_fault_makes_two_holders() {
    short(Place::Postgres);
}

#[test]
fn on_a_redis_that_forgets_no_fault_makes_two_holders() {
    short(Place::Redis);
}

#[test]
fn on_a_durable_redis_no_fault_makes_two_holders() {
    short(Place::RedisDurable);
}

#[test]
fn on_etcd_no_fault_makes_two_holders() {
    short(Place::Etcd);
}

#[test]
fn on_a_cluster_of_etcd_no_fault_makes_two_holders() {
    short(Place::EtcdCluster);
}

#[test]
fn on_kubernetes_no_fault_makes_two_holders() {
    short(Place::Kubernetes);
}

#[test]
#[ignore = "minutes: `cargo xtask soak postgres`, and so on"]
fn many() {
    let variable = |name: &str| std::env::var(name).ok();
    let place = variable("TENURE_SOAK_STORE").expect("TENURE_SOAK_STORE names the store");
    let count = variable("TENURE_SOAK_COUNT").and_then(|count| count.parse().ok());
    let place = Place::named(&place);
    let mut seed = seed();
    let first = seed;
    let kinds = place.schedule(count.unwrap_or(COUNT), &mut seed);
    campaign(place, first, &kinds);
}

#[test]
#[ignore = "no test: the process that others start"]
fn idler() {
    idler::idle();
}

#[test]
fn an_idle_session_takes_no_more_with_time_nor_connections_with_holds() {
    std::thread::scope(|scope| {
        for place in [Place::Sqlite, Place::Postgres, Place::Redis, Place::Etcd] {
            scope.spawn(move || {
                let [one, many] =
                    [1, SHORT_HOLDS].map(|holds| flat::idle(place, holds, SHORT_BEATS, SHORT_TTL));
                many.as_many_connections(&one);
            });
        }
    });
}

#[test]
#[ignore = "minutes: `cargo xtask soak flat`"]
fn flat() {
    let beats = std::env::var("TENURE_SOAK_COUNT").ok().and_then(|count| count.parse().ok());
    let beats = beats.unwrap_or(BEATS);
    let only = std::env::var("TENURE_SOAK_ONLY").ok();
    let places = [Place::Sqlite, Place::Postgres, Place::RedisDurable, Place::Etcd];
    let wanted = |place: &Place| only.as_ref().is_none_or(|only| only == place.name());
    std::thread::scope(|scope| {
        for place in places.into_iter().filter(wanted) {
            scope.spawn(move || {
                let one = flat::idle(place, 1, SHORT_BEATS, TTL);
                flat::idle(place, 1000, beats, TTL).as_many_connections(&one);
                flat::idle(place, 10_000, SHORT_BEATS, LONG_TTL).as_many_connections(&one);
            });
        }
    });
}

fn short(place: Place) {
    campaign(place, seed(), &Kind::short(place));
}

fn seed() -> u64 {
    let given = std::env::var("TENURE_SOAK_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(clock)
}

/// Lets these faults happen, one after the other, and holds what was seen to what must be.
fn campaign(place: Place, seed: u64, kinds: &[Kind]) {
    println!("{}: TENURE_SOAK_SEED={seed}", place.name());
    let mut scene = Scene::of(place, seed);
    let mut report = Report::new(place, seed);
    for (number, kind) in kinds.iter().enumerate() {
        let struck = (0..TRIES).any(|_| befall(&mut scene, &mut report, number, *kind));
        assert!(struck, "fault {number}, {kind:?}, missed {TRIES} times");
    }
    report.end(&mut scene, kinds);
}

/// Lets one fault befall whoever holds; false if it missed.
fn befall(scene: &mut Scene, report: &mut Report, number: usize, kind: Kind) -> bool {
    let (holder, token) = scene.holder();
    scene.sleep(0, 20);
    let who = scene.contenders[holder].who;
    scene.observer.note(clock(), format!("fault {number}: {kind:?}, while c{who} holds"));
    let beside = scene.strike_beside(kind, holder);
    let struck = scene.strike(kind, holder, token);
    if let Some(other) = beside {
        scene.contenders[other].heal();
    }
    let healed = clock();
    let word = if struck { "is over" } else { "missed" };
    scene.observer.note(healed, format!("fault {number} {word}"));
    scene.until("somebody acts again", |scene| scene.observer.acted_after(healed));
    let again = clock() - healed;
    // A holder may learn only at its next beat what has become of its hold.
    scene.sleep(20, 60);
    scene.holder();
    if struck {
        let again = Duration::from_nanos(again);
        report.befell(kind, beside.is_some(), token, again, &scene.observer);
    }
    struck
}

/// CLOCK_BOOTTIME in nanoseconds: one clock for all processes of this machine.
fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn kill(pid: i32, signal: Signal) {
    // It may have ended already.
    let _ = kill_process(Pid::from_raw(pid).expect("it is positive"), signal);
}

/// Waits until something is so that takes a process no longer than a moment.
#[track_caller]
fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PROCESS_MAX, "waited in vain for {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// splitmix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
