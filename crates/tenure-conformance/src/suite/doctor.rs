//! 100–107: what the store's preconditions are worth, and what doctor says of it.

use std::sync::Barrier;

use tenure_core::record_store::{Expected, Written};
use tenure_core::store::{Finding, Level, Verdict, Version};

use crate::drive;
use crate::harness::{Capability, Harness};
use crate::player::{Player, name, namespace};

fn written(answer: Written) -> Option<Version> {
    match answer {
        Written::Written(version) => Some(version),
        Written::Conflict => None,
    }
}

/// A conditional write: the new version, or none for a conflict.
#[track_caller]
fn write(
    harness: &dyn Harness,
    key: &str,
    bytes: &[u8],
    expected: Expected<'_>,
) -> Option<Version> {
    let records = harness.open_records(&namespace());
    let answer = drive::run(harness, records.write_if(&name(key), bytes, expected));
    written(answer.unwrap_or_else(|error| panic!("a write of `{key}`: {error:?}")))
}

#[track_caller]
fn read(harness: &dyn Harness, key: &str) -> Option<(Vec<u8>, Version)> {
    let records = harness.open_records(&namespace());
    let read = drive::run(harness, records.read(&[name(key)]));
    let stored = read.unwrap_or_else(|error| panic!("a read of `{key}`: {error:?}")).pop()?;
    stored.map(|stored| (stored.bytes, stored.version))
}

/// 100: a write that demands an absent key conflicts when the key is there.
pub fn precondition_if_absent_honoured(harness: &dyn Harness) {
    let first = write(harness, "key", b"first", Expected::Absent).expect("the key is absent");
    assert_eq!(write(harness, "key", b"second", Expected::Absent), None, "overwrote blindly");
    assert_eq!(read(harness, "key"), Some((b"first".to_vec(), first)));
}

/// 101: a write that demands a version conflicts at any other; each write has a version of its
/// own, also where the bytes are the same again.
pub fn precondition_if_match_honoured(harness: &dyn Harness) {
    let first = write(harness, "key", b"one", Expected::Absent).expect("the key is absent");
    let second = write(harness, "key", b"two", Expected::Version(&first)).expect("it matches");
    assert_ne!(first, second);
    let stale = write(harness, "key", b"three", Expected::Version(&first));
    assert_eq!(stale, None, "a stale version was accepted");
    assert_eq!(read(harness, "key"), Some((b"two".to_vec(), second.clone())));
    assert!(write(harness, "key", b"four", Expected::Version(&second)).is_some());
    // Bytes that differ in a nonce alone, as ours do, must have versions that differ.
    let nonces: Vec<_> = (0..3)
        .map(|n| {
            let (_, version) = read(harness, "key").expect("the key is there");
            let bytes = format!("{{\"nonce\":{n}}}");
            write(harness, "key", bytes.as_bytes(), Expected::Version(&version))
        })
        .collect();
    assert!(nonces.iter().all(Option::is_some) && nonces[0] != nonces[1] && nonces[1] != nonces[2]);
}

/// 102: a write that demands a version of a key that isn't there conflicts, and makes none.
pub fn precondition_on_missing_key(harness: &dyn Harness) {
    let version = write(harness, "there", b"x", Expected::Absent).expect("the key is absent");
    assert_eq!(write(harness, "missing", b"y", Expected::Version(&version)), None);
    assert_eq!(read(harness, "missing"), None, "the write made a key");
}

/// 103: of 64 writes at once on one version, exactly one succeeds; 50 times.
pub fn precondition_atomic_under_64(harness: &dyn Harness) {
    let mut version = None;
    // Opened before anybody waits for the others: one that can't be opened ends the behaviour.
    let writers: Vec<_> = std::thread::scope(|scope| {
        let open = || scope.spawn(|| harness.open_records(&namespace()));
        let opening: Vec<_> = (0..64).map(|_| open()).collect();
        opening.into_iter().map(|one| one.join().expect("it opens")).collect()
    });
    for round in 0..(50 / harness.thrift()).max(2) {
        let start = Barrier::new(writers.len());
        let expected = version.as_ref().map_or(Expected::Absent, Expected::Version);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let writing: Vec<_> = writers
                .iter()
                .enumerate()
                .map(|(n, records)| {
                    let start = &start;
                    scope.spawn(move || {
                        let bytes = format!("{round}/{n}");
                        start.wait();
                        drive::run(
                            harness,
                            records.write_if(&name("key"), bytes.as_bytes(), expected),
                        )
                    })
                })
                .collect();
            writing.into_iter().map(|writer| writer.join().expect("no panic")).collect()
        });
        let won: Vec<_> = answers.into_iter().flatten().filter_map(written).collect();
        assert_eq!(won.len(), 1, "round {round}: {} writes of 64 succeeded", won.len());
        let (_, now) = read(harness, "key").expect("it was written");
        assert_eq!(now, won[0], "round {round}: the winner's write isn't there");
        version = Some(now);
    }
}

/// 104: what was written through one endpoint is read through another at once.
pub fn read_your_write_other_endpoint(harness: &dyn Harness) {
    let at = |endpoint| Player::on(harness, "p", harness.open_at(endpoint, &namespace()));
    let (a, b) = (at(0), at(1));
    let mut held = a.acquire(&name("job"));
    for _ in 0..100 {
        a.keeps(&mut held);
        assert_eq!(b.sees(&held.name).version, held.version, "a stale read");
        b.is_refused(&held.name);
    }
    a.release(&held);
    b.acquire(&held.name);
}

#[track_caller]
fn findings(harness: &dyn Harness) -> Vec<Finding> {
    let admin = harness.admin();
    drive::run(harness, admin.diagnose()).expect("a diagnosis")
}

#[track_caller]
fn finding(harness: &dyn Harness, check: &str) -> Finding {
    let found = findings(harness);
    let one = found.iter().find(|finding| finding.check == check);
    one.unwrap_or_else(|| panic!("doctor is silent on `{check}`: {found:?}")).clone()
}

/// 105: doctor says how durable a write is, and doesn't call good what loses one, or what lets
/// another system take it.
pub fn durability(harness: &dyn Harness) {
    let level = harness.open(&namespace()).profile().level;
    let durability = finding(harness, "durability");
    assert!(!durability.detail.is_empty(), "a finding without its fact");
    let cause = match harness.lacks(Capability::Namespaces) {
        Some(_) => finding(harness, "layout"),
        None => durability,
    };
    let forgets = level == Level::BestEffort;
    assert!(!forgets || cause.verdict != Verdict::Good, "{level} and yet {cause:?}");
}

/// 106: doctor measures the store's clock: how far it stands off, and whether it was set.
pub fn clock_offset_and_steps(harness: &dyn Harness) {
    let finding = finding(harness, "clock");
    assert!(!finding.detail.is_empty(), "a finding without its fact");
}

/// 107: doctor's verdict can be read by a program: one word a check, each once.
pub fn verdict_is_machine_readable(harness: &dyn Harness) {
    let found = findings(harness);
    assert!(!found.is_empty(), "doctor found nothing at all");
    let mut checks: Vec<_> = found.iter().map(|finding| finding.check.as_str()).collect();
    for finding in &found {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(finding.check.chars().all(word), "`{}` isn't one word", finding.check);
        let json = serde_json::to_value(finding).expect("a finding has a JSON form");
        let verdict = json["verdict"].as_str().unwrap_or_default();
        assert!(["good", "limited", "bad"].contains(&verdict), "{json}");
    }
    checks.sort_unstable();
    checks.dedup();
    assert_eq!(checks.len(), found.len(), "a check is told twice: {found:?}");
}
