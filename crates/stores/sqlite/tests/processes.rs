//! Real processes on one file: they contend, and the kernel tells which of them died.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenure_core::chance::Chance;
use tenure_core::store::{Acquired, Released, Store};
use tenure_sqlite::SqliteConfig;

use common::{BootClock, Scratch, acquire, chance, claim, granted, refused, release, try_open};

/// In a child, which part it plays.
const PART: &str = "TENURE_SQLITE_TEST_PART";
/// In a child, which file.
const FILE: &str = "TENURE_SQLITE_TEST_FILE";

const PROCESSES: usize = 16;
/// The figure of the measurement; a test run takes a part of it.
const ROUNDS: usize = 200;
const ROUNDS_TESTED: usize = 25;
/// How much slower than the median the slowest round may be.
const SLOWEST_TO_MEDIAN: f64 = 20.0;

/// Starts this test binary once more, in a part.
fn child(part: &str, file: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["plays_its_part_in_a_child", "--exact", "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test of its own: what the children do.
#[test]
fn plays_its_part_in_a_child() {
    let Ok(part) = std::env::var(PART) else { return };
    let file = std::env::var_os(FILE).unwrap();
    let store = try_open(SqliteConfig::new(file), Arc::new(BootClock)).unwrap();
    match part.split_once(':').unwrap_or((&part, "")) {
        ("one name", rounds) => contend(&store, "contended", rounds.parse().unwrap()),
        ("own name", rounds) => {
            contend(&store, &std::process::id().to_string(), rounds.parse().unwrap());
        }
        ("hold", _) => hold(&store),
        _ => panic!("no such part: {part}"),
    }
}

/// Acquires and releases a name as often as asked; prints each token, and how long it took from
/// the first claim to the release. While it is refused it comes again.
fn contend(store: &dyn Store, name: &str, rounds: usize) {
    let mut chance = chance();
    let mut lines = String::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        let (claim, grant) = loop {
            let claim = claim(name, &mut chance);
            match acquire(store, &claim) {
                Ok(Acquired::Granted(grant)) => break (claim, grant),
                Ok(Acquired::Refused(_)) => pause(&mut chance),
                other => panic!("a claim came to {other:?}"),
            }
        };
        let released = release(store, &claim, &grant, &mut chance);
        assert!(matches!(released, Ok(Released::Released(_))), "{released:?}");
        let line = format!("\nround {} {}\n", grant.token, begun.elapsed().as_micros());
        lines.push_str(&line);
        pause(&mut chance);
    }
    print!("{lines}");
}

/// Between two claims, as every contender makes one.
fn pause(chance: &mut Chance) {
    std::thread::sleep(chance.between(Duration::from_micros(500), Duration::from_millis(3)));
}

/// Holds two names, one of which ends with the process, until it is killed.
fn hold(store: &dyn Store) {
    let mut chance = chance();
    granted(store, &claim("ends with its process", &mut chance));
    let mut outlives = claim("outlives its process", &mut chance);
    outlives.ends_with_process = false;
    granted(store, &outlives);
    println!("\nheld");
    // Until it is killed.
    std::thread::sleep(Duration::from_secs(600));
}

/// Waits until a child has said that it holds.
fn held(child: &mut Child) -> BufReader<ChildStdout> {
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line != "held\n" {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "the child ended");
    }
    said
}

/// Lets processes contend, and tells by how much the slowest round exceeds the median.
fn contended(part: &str, rounds: usize) -> f64 {
    let scratch = Scratch::new("contention");
    let begun = Instant::now();
    let children: Vec<_> =
        (0..PROCESSES).map(|_| child(&format!("{part}:{rounds}"), &scratch.db())).collect();
    let mut took = Vec::new();
    let mut tokens = Vec::new();
    for mut child in children {
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        let mut last = 0;
        for line in said.lines().filter_map(|line| line.strip_prefix("round ")) {
            let (token, micros) = line.split_once(' ').unwrap();
            let token: u64 = token.parse().unwrap();
            assert!(token > last, "token {token} follows {last} in one process");
            last = token;
            tokens.push(token);
            took.push(Duration::from_micros(micros.parse().unwrap()));
        }
    }
    let all = begun.elapsed();
    assert_eq!(tokens.len(), PROCESSES * rounds);
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), PROCESSES * rounds, "a token was given twice");
    assert_eq!(tokens.last(), Some(&((PROCESSES * rounds) as u64)), "a token was wasted");
    took.sort_unstable();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    let ratio = slowest.as_secs_f64() / median.as_secs_f64();
    println!(
        "{part}: {PROCESSES} processes x {rounds} rounds in {all:?}: {:?} each; median {median:?}, \
         99 % {:?}, slowest {slowest:?} = {ratio:.1} x median",
        all / took.len() as u32,
        took[took.len() * 99 / 100],
    );
    ratio
}

#[test]
fn sixteen_processes_contend_for_one_name_without_error() {
    contended("one name", ROUNDS_TESTED);
}

#[test]
fn none_of_sixteen_processes_starves_for_the_file() {
    assert!(contended("own name", ROUNDS_TESTED) <= SLOWEST_TO_MEDIAN);
}

/// The measurement of the README: `cargo test --release -- --ignored --nocapture measured`.
#[test]
#[ignore = "a measurement"]
fn measured_contention() {
    contended("one name", ROUNDS);
    assert!(contended("own name", ROUNDS) <= SLOWEST_TO_MEDIAN);
}

#[test]
fn a_killed_holders_names_are_free_at_once_if_they_end_with_it() {
    let scratch = Scratch::new("killed");
    let store = common::open(&scratch, Arc::new(BootClock));
    let mut chance = chance();
    let mut child = child("hold", &scratch.db());
    let said = held(&mut child);
    let ends = claim("ends with its process", &mut chance);
    refused(&store, &ends);
    child.kill().unwrap();
    let killed = Instant::now();
    child.wait().unwrap();
    drop(said);
    granted(&store, &ends);
    println!("taken over {:?} after the kill", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(5));
    refused(&store, &claim("outlives its process", &mut chance));
}

#[test]
fn a_stopped_holder_keeps_its_names() {
    let scratch = Scratch::new("stopped");
    let store = common::open(&scratch, Arc::new(BootClock));
    let mut child = child("hold", &scratch.db());
    let said = held(&mut child);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let mut chance = chance();
    for _ in 0..20 {
        refused(&store, &claim("ends with its process", &mut chance));
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(said);
}

#[test]
fn a_holder_whose_side_file_was_replaced_is_not_taken_for_dead() {
    let scratch = Scratch::new("replaced-side");
    let store = common::open(&scratch, Arc::new(BootClock));
    let mut chance = chance();
    let mut child = child("hold", &scratch.db());
    let said = held(&mut child);
    let [side] = &scratch.holders()[..] else { panic!("{:?}", scratch.holders()) };
    let copy = side.with_extension("copy");
    std::fs::copy(side, &copy).unwrap();
    std::fs::rename(&copy, side).unwrap();
    refused(&store, &claim("ends with its process", &mut chance));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(said);
    // Nor is it proven now: the name waits for the ttl.
    refused(&store, &claim("ends with its process", &mut chance));
}

#[test]
fn a_death_in_another_boot_proves_nothing() {
    let scratch = Scratch::new("other-boot");
    let mut child = child("hold", &scratch.db());
    let said = held(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(said);
    let mut config = scratch.config();
    config.clock_identity = Some("another boot".into());
    let store = try_open(config, Arc::new(BootClock)).unwrap();
    let mut chance = chance();
    let ends = claim("ends with its process", &mut chance);
    let Ok(Acquired::Refused(by)) = acquire(&store, &ends) else { panic!("not refused") };
    assert_eq!((by.age, by.holder_gone), (None, false));
    // Until it was watched for a whole ttl.
    let mut watched = claim("ends with its process", &mut chance);
    watched.watched = Some(by.version.clone());
    granted(&store, &watched);
}
