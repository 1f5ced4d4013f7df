//! Guards in Redis, beside resources that are elsewhere.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::{run, unique, url_of};
use tenure_core::guard::GuardError;
use tenure_core::identity::FencingToken;
use tenure_redis::{HighWater, redis};

fn token(number: u64) -> FencingToken {
    FencingToken::new(number).unwrap()
}

#[test]
fn an_older_token_never_passes_after_a_newer_one() {
    let client = redis::Client::open(url_of("TENURE_TEST_REDIS")).unwrap();
    let mut connection = run(client.get_multiplexed_async_connection()).unwrap();
    let guard = HighWater::new(format!("high-water-{:x}:", unique()));
    let mut admit =
        |resource: &str, number| run(guard.admit(&mut connection, resource, token(number)));
    admit("a", 7).unwrap();
    admit("a", 7).unwrap();
    let stale = admit("a", 6);
    assert!(matches!(stale, Err(GuardError::Stale { .. })), "{stale:?}");
    admit("b", 1).unwrap();
    // As text `9` is above `10`, and as floating point these are one number.
    admit("a", 9).unwrap();
    admit("a", 10).unwrap();
    assert!(admit("a", 9).is_err());
    admit("a", u64::MAX - 1).unwrap();
    admit("a", u64::MAX).unwrap();
    assert!(admit("a", u64::MAX - 1).is_err());
}

#[test]
fn many_at_once_leave_the_highest() {
    let url = url_of("TENURE_TEST_REDIS");
    let guard = HighWater::new(format!("high-water-{:x}:", unique()));
    std::thread::scope(|scope| {
        for first in 1..=8 {
            let (url, guard) = (url.clone(), guard.clone());
            scope.spawn(move || {
                let client = redis::Client::open(url).unwrap();
                let mut connection = run(client.get_multiplexed_async_connection()).unwrap();
                for round in 0..200 {
                    let _ = run(guard.admit(&mut connection, "r", token(first + 8 * round)));
                }
            });
        }
    });
    let client = redis::Client::open(url).unwrap();
    let mut connection = run(client.get_multiplexed_async_connection()).unwrap();
    assert!(run(guard.admit(&mut connection, "r", token(1599))).is_err());
    run(guard.admit(&mut connection, "r", token(1600))).unwrap();
}
