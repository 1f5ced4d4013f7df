//! Figures for docs/stores/etcd.md: `cargo test --release -p tenure-etcd --test measured -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::{Duration, Instant};

use common::harness::Etcd;
use tenure_conformance::player::{Held, Player, name};
use tenure_core::store::{Acquired, Claim, Hold, Renewed};

/// How often each request is timed.
const ROUNDS: usize = 300;
/// How many names one beat has.
const MANY: usize = 10_000;

fn middle(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("p50 {:.2?}, p99 {:.2?}", times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
#[ignore = "it measures, and asserts nothing"]
fn requests() {
    let etcd = Etcd::single("measured");
    let a = Player::new(&etcd, "a");
    let (mut claims, mut beats, mut releases) = (Vec::new(), Vec::new(), Vec::new());
    a.release(&a.acquire(&name("warms up")));
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let mut held = a.acquire(&name(&format!("timed {round}")));
        claims.push(begun.elapsed());
        let begun = Instant::now();
        a.keeps(&mut held);
        beats.push(begun.elapsed());
        let begun = Instant::now();
        a.release(&held);
        releases.push(begun.elapsed());
    }
    println!("claim {}; beat {}; release {}", middle(claims), middle(beats), middle(releases));
    let claims: Vec<Claim> = (0..MANY)
        .map(|n| Claim { ttl: Duration::from_secs(60), ..a.claim(&name(&format!("many {n}"))) })
        .collect();
    let (begun, sent) = (Instant::now(), a.harness.now());
    let granted = a.run(a.store.acquire(&claims)).unwrap();
    println!("{MANY} claims: {:.0?}", begun.elapsed());
    let held: Vec<Held> = claims
        .iter()
        .zip(granted)
        .map(|(claim, answer)| match answer {
            Acquired::Granted(grant) => a.held(claim, grant, sent),
            other => panic!("{other:?}"),
        })
        .collect();
    let mut beats = Vec::new();
    for _ in 0..20 {
        let holds: Vec<Hold> = held.iter().map(|held| a.renewal(held)).collect();
        let begun = Instant::now();
        let renewed = a.run(a.store.renew(&holds)).unwrap();
        beats.push(begun.elapsed());
        assert!(renewed.iter().all(|one| matches!(one, Renewed::Renewed(_))));
    }
    println!("a beat of {MANY}: {}", middle(beats));
}

/// How much later than the ttl a watching contender is granted a dead holder's name.
#[test]
#[ignore = "it measures, and asserts nothing"]
fn detection() {
    let etcd = Etcd::single("measured");
    let mut late = Vec::new();
    for round in 0..20 {
        let (dead, b) = Player::two(&etcd);
        let ttl = Duration::from_millis(2000 + 50 * round);
        let claim = Claim { ttl, ..dead.claim(&name(&format!("dead {round}"))) };
        let mut held = dead.acquire_by(&claim);
        dead.keeps(&mut held);
        let confirmed = Instant::now();
        let mut hints = b.run(b.store.watch(&(&held.name).into())).unwrap().unwrap();
        while !matches!(b.ask(&b.claim(&held.name)), Acquired::Granted(_)) {
            common::block_on(hints.next()).unwrap();
        }
        late.push(confirmed.elapsed().saturating_sub(ttl));
    }
    println!("granted after the ttl by {}", middle(late));
}
