//! The two guards: on the lease's own file, and beside any other resource.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tenure_core::ErrorKind;
use tenure_core::guard::GuardError;
use tenure_core::identity::FencingToken;
use tenure_core::store::Store;
use tenure_sqlite::HighWater;

use common::{Scratch, chance, claim, clock, granted, name, open, release};

fn rejected(outcome: Result<(), GuardError>, why: &str) {
    match outcome {
        Err(error) if error.is_refusal() => {
            assert!(error.to_string().contains(why), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_grant_in_force_passes_the_guard() {
    let scratch = Scratch::new("guard");
    let clock = clock();
    let store = open(&scratch, clock.clone());
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    let guard = store.guard();
    let mut own = Connection::open(scratch.db()).unwrap();
    let mut check = |token| {
        // A deferred transaction becomes the writer by the check.
        let transaction = own.transaction_with_behavior(TransactionBehavior::Deferred).unwrap();
        guard.check(&transaction, &name("job"), token)
    };
    check(grant.token).unwrap();
    rejected(check(FencingToken::new(grant.token.get() + 1).unwrap()), "has token 1");
    clock.advance(Duration::from_secs(31));
    rejected(check(grant.token), "expired 1s ago");
    release(&store, &one, &grant, &mut chance).unwrap();
    rejected(check(grant.token), "given back");
    let transaction = own.transaction().unwrap();
    rejected(guard.check(&transaction, &name("other"), grant.token), "never granted");
}

#[test]
fn the_guard_makes_the_transaction_the_files_writer() {
    let scratch = Scratch::new("writer");
    let store = open(&scratch, clock());
    let grant = granted(&store, &claim("job", &mut chance()));
    let (mut own, other) =
        (Connection::open(scratch.db()).unwrap(), Connection::open(scratch.db()).unwrap());
    other.busy_timeout(Duration::ZERO).unwrap();
    let transaction = own.transaction_with_behavior(TransactionBehavior::Deferred).unwrap();
    store.guard().check(&transaction, &name("job"), grant.token).unwrap();
    assert!(other.execute_batch("BEGIN IMMEDIATE").is_err(), "somebody else could write");
    drop(transaction);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
}

#[test]
fn a_transaction_on_another_file_is_told_apart() {
    let (scratch, other) = (Scratch::new("one"), Scratch::new("other"));
    let store = open(&scratch, clock());
    let grant = granted(&store, &claim("job", &mut chance()));
    let foreign = open(&other, clock());
    assert_eq!(foreign.profile().kind, "sqlite");
    for path in [other.db(), other.path.join("plain.db")] {
        let mut own = Connection::open(path).unwrap();
        let transaction = own.transaction().unwrap();
        match store.guard().check(&transaction, &name("job"), grant.token) {
            Err(GuardError::Failed(error)) => assert_eq!(error.kind(), ErrorKind::Misconfigured),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn high_water_rejects_older_and_accepts_equal_and_newer_also_after_a_restart() {
    let scratch = Scratch::new("high-water");
    let path = scratch.path.join("resource.db");
    let admit = |token: u64| {
        let mut connection = Connection::open(&path).unwrap();
        let guard = HighWater::create(&connection).unwrap();
        let transaction = connection.transaction().unwrap();
        guard.admit(&transaction, "bucket", FencingToken::new(token).unwrap())?;
        transaction.commit().unwrap();
        Ok(())
    };
    admit(7).unwrap();
    admit(7).unwrap();
    rejected(admit(6), "token 7 has been here");
    admit(8).unwrap();
    admit(u64::MAX).unwrap();
    rejected(admit(8), "token 18446744073709551615 has been here");
}
