//! Sessions on a Redis server.

#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::time::Duration;

use tenure::{Attempt, Session};

fn url() -> String {
    let url = std::env::var("TENURE_TEST_REDIS").unwrap_or_else(|_| {
        panic!("TENURE_TEST_REDIS is not set: run `cargo xtask stores up`, and set what it prints")
    });
    format!("{url}?namespace=shop&require=best-effort&prefix=session-{}", std::process::id())
}

#[tokio::test]
async fn two_sessions_share_a_server_and_the_second_wakes_on_the_release() {
    let first = Session::open(url()).await.unwrap();
    let second = Session::open(url()).await.unwrap();
    let lease = match first.lease("x").try_acquire().await.unwrap() {
        Attempt::Granted(lease) => lease,
        Attempt::Refused(by) => panic!("{by}"),
    };
    let waiter = tokio::spawn(second.lease("x").acquire());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiter.is_finished());
    let token = lease.token();
    lease.release().await.unwrap();
    let next = waiter.await.unwrap().unwrap();
    assert!(next.token() > token);
    next.release().await.unwrap();
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
async fn a_level_that_the_server_cannot_keep_is_refused() {
    let url = url().replace("require=best-effort", "require=fenced");
    let error = Session::open(url).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), tenure::ErrorKind::Misconfigured, "{error}");
    assert!(error.to_string().contains("best-effort"), "{error}");
}
