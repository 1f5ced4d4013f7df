//! Object stores that are broken as others in the field are: the suite catches each, `doctor` tells
//! of it, and what three writes can show is refused when it is opened.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::flawed::{Flaw, Flawed};
use common::harness::Objects;
use common::{chance, run, says, try_open};
use tenure_conformance::stamp::failures;
use tenure_core::ErrorKind::Misconfigured;
use tenure_core::store::{Finding, StoreAdmin, Verdict};
use tenure_object::{ObjectAdmin, ObjectConfig};

fn config(flaw: Flaw) -> ObjectConfig {
    ObjectConfig::of_client(Flawed::with(flaw), "leases")
}

/// Runs these behaviours, each of which must fail.
fn is_caught(flaw: Flaw, by: &[&str]) {
    let make = || Objects::of("flawed", config(flaw)).thrifty();
    let caught: Vec<_> = failures(make, Some(by)).iter().map(|one| one.behaviour).collect();
    let missed: Vec<_> = by.iter().filter(|name| !caught.contains(name)).collect();
    assert!(missed.is_empty(), "{flaw:?}: not caught by {missed:?}");
}

fn passes(flaw: Flaw) {
    let failed = failures(|| Objects::of("flawed", config(flaw)).thrifty(), None);
    assert!(failed.is_empty(), "{flaw:?}: {failed:#?}");
}

fn diagnosis(flaw: Flaw) -> Vec<Finding> {
    let admin = ObjectAdmin::new(config(flaw), chance()).unwrap();
    run(admin.diagnose()).unwrap()
}

/// What `doctor` calls bad.
fn bad(flaw: Flaw) -> Vec<String> {
    let found = diagnosis(flaw).into_iter().filter(|one| one.verdict == Verdict::Bad);
    found.map(|one| format!("{}: {}", one.check, one.detail)).collect()
}

#[test]
fn without_a_flaw_it_passes_and_doctor_is_content() {
    passes(Flaw::None);
    assert_eq!(bad(Flaw::None), [""; 0]);
}

#[test]
fn a_hash_of_the_content_is_an_etag() {
    passes(Flaw::ContentTag);
    assert_eq!(bad(Flaw::ContentTag), [""; 0]);
}

#[test]
fn an_ignored_condition_is_refused_when_opened_and_told_by_doctor() {
    for (flaw, word) in [
        (Flaw::IgnoresIfMatch, "a version that was overwritten was done (it ignores `If-Match`)"),
        (Flaw::IgnoresIfNoneMatch, "ignores `If-None-Match: *`"),
        (Flaw::MakesMissing, "a version of a missing key was done (it ignores `If-Match`)"),
    ] {
        says(try_open(config(flaw)).map(drop), Misconfigured, &[word, "use a store"]);
        let told = bad(flaw);
        assert!(told.iter().any(|one| one.starts_with("preconditions: ")), "{told:?}");
        assert!(told.iter().any(|one| one.contains(word)), "{told:?}");
    }
}

#[test]
fn check_then_act_is_caught_and_told_by_doctor() {
    is_caught(Flaw::ChecksThenActs, &["precondition_atomic_under_64", "one_winner_of_64"]);
    let told = bad(Flaw::ChecksThenActs);
    assert!(
        told.iter().any(|one| one.contains("of 50 writers at once 50 could create")),
        "{told:?}"
    );
}

#[test]
fn late_reads_are_caught_and_told_by_doctor() {
    is_caught(
        Flaw::ReadsLate,
        &["precondition_if_match_honoured", "not_granted_again_before_ttl", "release_twice"],
    );
    let told = bad(Flaw::ReadsLate);
    assert!(told.iter().any(|one| one.contains("what was written is not read")), "{told:?}");
}
