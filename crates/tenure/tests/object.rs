//! Sessions on an object store.

#![cfg(feature = "object")]
#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::time::Duration;

use tenure::{Attempt, Session};

fn url() -> String {
    let url = std::env::var("TENURE_TEST_S3").unwrap_or_else(|_| {
        panic!("TENURE_TEST_S3 is not set: run `cargo xtask stores up`, and set what it prints")
    });
    let (bucket, options) = url.split_once('?').unwrap();
    let prefix = format!("session-{}", std::process::id());
    format!("{bucket}/{prefix}?{options}&namespace=shop&require=fenced&poll_ms=100")
}

#[tokio::test]
async fn object_sessions_share_a_bucket_and_the_second_sees_the_release() {
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
async fn a_ttl_that_an_object_store_cannot_keep_is_refused() {
    let session = Session::open(url()).await.unwrap();
    let error = session.lease("y").ttl(Duration::from_secs(1)).try_acquire().await.map(drop);
    assert_eq!(error.unwrap_err().kind(), tenure::ErrorKind::Invalid);
    session.close().await.unwrap();
}
