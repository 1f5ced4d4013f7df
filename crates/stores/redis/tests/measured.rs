//! What requests cost beside the client's raw command, in one run. For `docs/stores/redis.md`.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::{Duration, Instant};

use common::{chance, claim, hold, name, run, try_open, unique, url_of};
use tenure_core::store::{Acquired, Claim, Release, Store};
use tenure_core::{clock::Timestamp, identity::Nonce};
use tenure_redis::{RedisConfig, redis};

/// How many requests of each kind there are, one after the other.
const REQUESTS: usize = 4000;
/// How many holds a beat has.
const HOLDS: usize = 10_000;

/// The median of what `act` takes.
fn median(mut act: impl FnMut(usize)) -> Duration {
    let mut took: Vec<Duration> = (0..REQUESTS)
        .map(|n| {
            let begun = Instant::now();
            act(n);
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[REQUESTS / 2]
}

#[test]
#[ignore = "it measures; run it with `--release -- --ignored --nocapture`"]
fn what_requests_cost() {
    let url = url_of("TENURE_TEST_REDIS");
    let mut config = RedisConfig::from_url(&url).unwrap();
    config.prefix = format!("measured-{:x}", unique());
    let store = try_open(config).unwrap();
    let mut connection =
        run(redis::Client::open(url).unwrap().get_multiplexed_async_connection()).unwrap();
    let mut chance = chance();
    let claims: Vec<Claim> = (0..HOLDS).map(|n| claim(&format!("job {n}"), &mut chance)).collect();
    let raw = median(|n| {
        let mut command = redis::cmd("SET");
        command.arg(format!("measured {n}")).arg("x").arg("NX").arg("PX").arg(30_000);
        run(command.query_async::<redis::Value>(&mut connection)).unwrap();
    });
    println!("SET NX PX: {raw:?}");
    let mut grants = Vec::new();
    let acquire = median(|n| match run(store.acquire(&claims[n..=n])).unwrap().remove(0) {
        Acquired::Granted(grant) => grants.push(grant),
        other => panic!("{other:?}"),
    });
    println!("acquire: {acquire:?}");
    let renew = median(|n| {
        run(store.renew(&[hold(&claims[n], &grants[n], &mut chance)])).unwrap();
    });
    println!("renew: {renew:?}");
    let read = median(|n| {
        run(store.read(&[name(&format!("job {n}"))])).unwrap();
    });
    println!("read: {read:?}");
    let release = median(|n| {
        let release = Release {
            name: claims[n].name.clone(),
            instance: claims[n].instance.clone(),
            claim: claims[n].id,
            token: grants[n].token,
            version: grants[n].version.clone(),
            nonce: Nonce::draw(&mut chance),
            successor: None,
            why: "it is done".to_owned(),
            at: Timestamp::default(),
        };
        run(store.release(&[release])).unwrap();
    });
    println!("release: {release:?}");
    let begun = Instant::now();
    let claims: Vec<Claim> = (0..HOLDS).map(|n| claim(&format!("beat {n}"), &mut chance)).collect();
    let granted = run(store.acquire(&claims)).unwrap();
    println!("acquire {HOLDS}: {:?}", begun.elapsed());
    let holds: Vec<_> = claims
        .iter()
        .zip(&granted)
        .map(|(claim, granted)| match granted {
            Acquired::Granted(grant) => hold(claim, grant, &mut chance),
            other => panic!("{other:?}"),
        })
        .collect();
    for _ in 0..5 {
        let begun = Instant::now();
        run(store.renew(&holds)).unwrap();
        println!("renew {HOLDS}: {:?}", begun.elapsed());
    }
    let begun = Instant::now();
    let mut commands = redis::Pipeline::new();
    for n in 0..HOLDS {
        commands.cmd("PEXPIRE").arg(format!("measured {n}")).arg(30_000);
    }
    run(commands.query_async::<redis::Value>(&mut connection)).unwrap();
    println!("PEXPIRE {HOLDS}, pipelined: {:?}", begun.elapsed());
}
