//! Many rounds of killed, stopped and resumed commands under an observer: `cargo xtask soak`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use std::time::Duration;

use common::timeline::Timeline;
use common::{Ended, Running, Scene, clock, kill};
use rustix::process::Signal;

/// How many rounds there are unless TENURE_SOAK_ROUNDS says otherwise.
const ROUNDS: u64 = 200;
/// Long enough for a busy machine, short enough for a joint pause that outlasts it.
const TTL: Duration = Duration::from_secs(2);
/// How long a supervisor stays stopped whose keeper was killed.
const PAUSE: Duration = Duration::from_millis(50);
/// How long after a joint pause something may still act before it is killed. Real-time priority,
/// taken where permitted, makes it nothing; only a guard closes it for sure.
const LATE_MAX: Duration = Duration::from_millis(100);
/// One round of so many at most may end by itself: a disk that stands still for more than a second
/// costs a holder its lease, rightly, and befalls nobody's plan.
const BY_ITSELF_MAX: u64 = 20;

#[test]
#[ignore = "no test: the actor that others start"]
fn actor() {
    common::act();
}

/// What befalls the holder of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    SupervisorKilled,
    KeeperKilled,
    KeeperStopped,
    SupervisorStopped,
    /// All of them, and they go on in this order: supervisor, keeper, child or grandchild first.
    AllStopped {
        first: &'static str,
    },
    KeeperAndChildStopped,
    Told,
    CmdKilled,
}

const FATES: [Fate; 11] = [
    Fate::SupervisorKilled,
    Fate::KeeperKilled,
    Fate::KeeperStopped,
    Fate::SupervisorStopped,
    Fate::AllStopped { first: "supervisor" },
    Fate::AllStopped { first: "keeper" },
    Fate::AllStopped { first: "child" },
    Fate::AllStopped { first: "grandchild" },
    Fate::KeeperAndChildStopped,
    Fate::Told,
    Fate::CmdKilled,
];

/// CMD: an actor of its own, a `setsid` grandchild that acts, too, and one that has closed all its
/// descriptors; all deaf to TERM.
const CMD: &str = r#"trap '' TERM INT HUP QUIT
    (setsid sh -c 'exec "$ACTOR" --exact actor --ignored >/dev/null 2>&1' &)
    (sh -c 'exec <&- >&- 2>&-; while :; do sleep 1; done' &)
    exec "$ACTOR" --exact actor --ignored >/dev/null 2>&1"#;

fn contender(scene: &Scene) -> Running<'_> {
    let mut command = scene.tenure();
    command.env("ACT_LOG", scene.path("log"));
    command.args(["run", "x", "--ttl", "2s", "--stop-timeout", "100ms", "--", "sh", "-c", CMD]);
    scene.spawn(command)
}

#[test]
#[ignore = "minutes: `cargo xtask soak`"]
fn soak() {
    let rounds = std::env::var("TENURE_SOAK_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS);
    let mut seed = std::env::var("TENURE_SOAK_SEED").ok().and_then(|text| text.parse().ok());
    let state = seed.get_or_insert_with(common::now);
    println!("seed {state}");
    let scene = Scene::new("soak");
    let mut waiting = vec![contender(&scene), contender(&scene)];
    let (mut late, mut paused, mut by_itself) = (Vec::new(), Vec::new(), 0);
    let mut takeovers: Vec<(Fate, Duration)> = Vec::new();
    let mut fell: Option<(Fate, Duration)> = None;
    let mut before = 0;
    for _ in 0..rounds {
        let (mut leader, mut token) = (0, 0);
        common::wait(&format!("a holder after token {before}"), || {
            let mut tokens = waiting.iter().map(|one| token_of(&one.stderr()));
            let found = tokens.position(|found| {
                token = found.unwrap_or(0);
                token > 0
            });
            leader = found.unwrap_or(leader);
            found.is_some()
        });
        assert!(token > before, "token {token} came after {before}");
        before = token;
        if let Some((fate, at)) = fell {
            takeovers.push((fate, clock() - at));
        }
        let holder = waiting.swap_remove(leader);
        waiting.push(contender(&scene));
        common::wait("acts", || Timeline::read(&scene.path("log")).acts(token) > 3);
        std::thread::sleep(Duration::from_millis(draw(state) % 50));
        let fate = FATES[(draw(state) % FATES.len() as u64) as usize];
        fell = Some((fate, clock()));
        match befall(&scene, holder, fate, token) {
            Outcome::AsMeant => {}
            Outcome::ActedFor(acted) => {
                assert!(acted < LATE_MAX, "round {token}: {fate:?}: it acted for {acted:?}");
                late.push((fate, acted));
                paused.push(token);
            }
            Outcome::LostByItself(said) => {
                println!("round {token}: lost before {fate:?}: {said}");
                by_itself += 1;
                assert!(by_itself * BY_ITSELF_MAX <= rounds.max(BY_ITSELF_MAX), "too often");
                fell = None;
            }
        }
        let overlaps = Timeline::read(&scene.path("log")).overlaps_but_of(&paused);
        assert_eq!(overlaps, 0, "round {token}: {fate:?}");
        let guarded = Timeline::read(&scene.path("log.guarded")).overlaps();
        assert_eq!(guarded, 0, "round {token}: {fate:?}: the guard let a late act through");
    }
    for one in waiting {
        one.signal(Signal::KILL);
    }
    common::wait("the end of all", || scene.processes().is_empty());
    report(&Timeline::read(&scene.path("log")), &takeovers, &late);
}

/// How a round ended.
enum Outcome {
    AsMeant,
    /// Something of a stopped holder acted last so long after it went on.
    ActedFor(Duration),
    /// Before anything befell it. What it said.
    LostByItself(String),
}

/// The token that a holder says it runs with. A contender's line names one, too: another's.
fn token_of(said: &str) -> Option<u64> {
    let (_, rest) = said.split_once("running as the holder of `x` (token ")?;
    rest.split_once(')')?.0.parse().ok()
}

/// Lets it happen, and sees to it that the holder ends as it must.
fn befall(scene: &Scene, mut holder: Running<'_>, fate: Fate, token: u64) -> Outcome {
    let Some((keeper, cmd)) = holder.keeper_and_cmd() else {
        let ended = holder.end();
        assert_eq!(ended.code, 76, "token {token}: it ended: {}", ended.stderr);
        return Outcome::LostByItself(ended.stderr);
    };
    let supervisor = holder.supervisor();
    let mut late = None;
    match fate {
        Fate::SupervisorKilled => kill(supervisor, Signal::KILL),
        Fate::KeeperKilled => kill(keeper, Signal::KILL),
        Fate::KeeperStopped => kill(keeper, Signal::STOP),
        Fate::KeeperAndChildStopped => {
            kill(cmd, Signal::STOP);
            kill(keeper, Signal::STOP);
        }
        Fate::SupervisorStopped => {
            kill(supervisor, Signal::STOP);
            kill(keeper, Signal::KILL);
            common::wait("the child's death", || !common::is_alive(cmd));
            // Nobody is left to end the rest until the supervisor goes on.
            std::thread::sleep(PAUSE);
            kill(supervisor, Signal::CONT);
        }
        Fate::AllStopped { first } => {
            let tree = tree(supervisor);
            for pid in &tree {
                kill(*pid, Signal::STOP);
            }
            // Past the deadline, and past the ttl: another may have the name by now.
            std::thread::sleep(TTL + Duration::from_millis(100));
            let since = clock();
            let mut pids = tree;
            let place = match first {
                "supervisor" => 0,
                "keeper" => 1,
                "child" => pids.iter().position(|pid| *pid == cmd).unwrap(),
                _ => pids.len() - 1,
            };
            pids.rotate_left(place);
            for pid in pids {
                kill(pid, Signal::CONT);
            }
            common::wait("the child's death", || !common::is_alive(cmd));
            let last = Timeline::read(&scene.path("log")).last(token);
            late = Some(last.saturating_sub(since));
        }
        Fate::Told => holder.signal(Signal::TERM),
        Fate::CmdKilled => kill(cmd, Signal::KILL),
    }
    let Ended { code, stderr } = holder.end();
    let expected = match fate {
        Fate::SupervisorKilled => 1009,
        Fate::Told | Fate::CmdKilled => 137,
        _ => 76,
    };
    if code == 76 && expected != 76 {
        return Outcome::LostByItself(stderr);
    }
    assert_eq!(code, expected, "token {token}: {fate:?}: {stderr}");
    late.map_or(Outcome::AsMeant, Outcome::ActedFor)
}

fn tree(root: i32) -> Vec<i32> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        all.extend(common::children(pid));
        next += 1;
    }
    all
}

fn report(timeline: &Timeline, takeovers: &[(Fate, Duration)], late: &[(Fate, Duration)]) {
    let (terms, overlaps) = (timeline.terms(), timeline.overlaps());
    println!(
        "{terms} terms; overlaps: {overlaps} without a guard (after joint pauses alone), 0 behind \
         a guard; no orphans"
    );
    for fate in FATES {
        let mut times: Vec<Duration> =
            takeovers.iter().filter(|(of, _)| *of == fate).map(|(_, took)| *took).collect();
        times.sort();
        if let Some(longest) = times.last() {
            let median = times[times.len() / 2];
            println!(
                "{fate:?}: {} times, taken over after {median:?}, at most {longest:?}",
                times.len()
            );
        }
    }
    for fate in FATES {
        let acts = late.iter().filter(|(of, _)| *of == fate).map(|(_, acted)| *acted);
        if let Some(longest) = acts.max() {
            println!("{fate:?}: acted for at most {longest:?} after it went on");
        }
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
