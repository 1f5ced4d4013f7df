//! What a beat costs beside the bare statements: `cargo test --release --test speed -- --ignored
//! --nocapture`.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior, params};
use tenure_conformance::drive::block_on;
use tenure_core::store::{Acquired, Hold, Renewed, Store};

use common::{BootClock, Scratch, chance, claim, granted, hold, open, release};

const HOLDS: usize = 10_000;
const BEATS: usize = 10;

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

/// The same rows, read and written by the same statements, without us.
fn bare(scratch: &Scratch, names: &[Vec<u8>]) -> Duration {
    let mut connection = Connection::open(scratch.db()).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    let beat = |connection: &mut Connection, round: i64| {
        let begun = Instant::now();
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        {
            let mut read = transaction
                .prepare_cached(
                    "SELECT rowid, writes, clock, written, mark, record FROM tenure_leases \
                     WHERE namespace = ?1 AND name = ?2",
                )
                .unwrap();
            let mut write = transaction
                .prepare_cached(
                    "UPDATE tenure_leases SET writes = ?2, clock = ?3, written = ?4, mark = ?5, \
                     record = ?6 WHERE rowid = ?1",
                )
                .unwrap();
            for name in names {
                type Row = (i64, i64, String, i64, Option<String>, Vec<u8>);
                let (rowid, writes, clock, written, mark, record): Row = read
                    .query_row(params![b"default", name], |row| {
                        Ok((
                            row.get(0)?,
                            row.get(1)?,
                            row.get(2)?,
                            row.get(3)?,
                            row.get(4)?,
                            row.get(5)?,
                        ))
                    })
                    .unwrap();
                let changed = params![rowid, writes + 1, clock, written + round, mark, record];
                write.execute(changed).unwrap();
            }
        }
        transaction.commit().unwrap();
        begun.elapsed()
    };
    median((0..BEATS as i64).map(|round| beat(&mut connection, round)).collect())
}

#[test]
#[ignore = "a measurement"]
fn measured_beat_of_ten_thousand_holds() {
    let scratch = Scratch::new("speed");
    let store = open(&scratch, Arc::new(BootClock));
    let mut chance = chance();
    let claims: Vec<_> = (0..HOLDS).map(|n| claim(&format!("speed/{n:05}"), &mut chance)).collect();
    let begun = Instant::now();
    let answers = block_on(store.acquire(&claims)).unwrap();
    println!("{HOLDS} grants in one transaction: {:?}", begun.elapsed());
    let grants = answers.into_iter().map(|answer| match answer {
        Acquired::Granted(grant) => grant,
        other => panic!("{other:?}"),
    });
    let holds: Vec<Hold> =
        claims.iter().zip(grants).map(|(claim, grant)| hold(claim, &grant, &mut chance)).collect();
    let beats = (0..BEATS).map(|_| {
        let begun = Instant::now();
        let renewed = block_on(store.renew(&holds)).unwrap();
        let took = begun.elapsed();
        assert!(renewed.iter().all(|one| matches!(one, Renewed::Renewed(_))));
        took
    });
    let ours = median(beats.collect());
    let names: Vec<_> = claims.iter().map(|claim| claim.name.as_str().into()).collect();
    let bare = bare(&scratch, &names);
    println!(
        "{HOLDS} renewals: {ours:?}, bare statements {bare:?}: {:.2} of their rate",
        bare.as_secs_f64() / ours.as_secs_f64()
    );
}

#[test]
#[ignore = "a measurement"]
fn measured_single_requests() {
    let scratch = Scratch::new("single");
    let store = open(&scratch, Arc::new(BootClock));
    let mut chance = chance();
    let (mut acquired, mut released) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let one = claim("job", &mut chance);
        let begun = Instant::now();
        let grant = granted(&store, &one);
        acquired.push(begun.elapsed());
        let begun = Instant::now();
        release(&store, &one, &grant, &mut chance).unwrap();
        released.push(begun.elapsed());
    }
    let mut connection = Connection::open(scratch.db()).unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    let commits = (0..500).map(|n| {
        let begun = Instant::now();
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        transaction.execute("UPDATE tenure_leases SET written = ?1", [n]).unwrap();
        transaction.execute("UPDATE tenure_store SET transitions = ?1", [1000 + n]).unwrap();
        transaction.commit().unwrap();
        begun.elapsed()
    });
    let commit = median(commits.collect());
    println!(
        "acquire {:?}, release {:?}, a bare commit {commit:?}",
        median(acquired),
        median(released)
    );
}
