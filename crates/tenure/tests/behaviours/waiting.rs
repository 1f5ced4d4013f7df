//! Waiting for a name.

use tenure::testing::TestBed;
use tenure::{Attempt, Cause, ErrorKind, Operation};

use crate::{acquire, secs};

#[tokio::test]
async fn wakes_on_release() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let lease = acquire(&first, "x").await;
    let waiter = tokio::spawn(second.lease("x").acquire());
    bed.advance(secs(100)).await;
    assert!(!waiter.is_finished());
    lease.release().await.unwrap();
    // Not a second passes: the store pushes.
    bed.settle().await;
    assert!(waiter.is_finished());
    assert!(waiter.await.unwrap().unwrap().check().is_ok());
}

#[tokio::test]
async fn an_unavailable_store_fails_a_try_and_is_waited_for_by_a_wait() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    bed.fail_next(Operation::Acquire, ErrorKind::Unavailable);
    let error = session.lease("x").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.name(), Some("x"));
    assert!(std::error::Error::source(&error).is_none(), "it is said once: {error:?}");
    bed.fail_next(Operation::Acquire, ErrorKind::Unavailable);
    let waiter = tokio::spawn(session.lease("x").acquire());
    bed.advance(secs(1)).await;
    assert!(waiter.is_finished());
}

#[tokio::test]
async fn a_session_tells_why_a_claim_failed_until_one_is_answered() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    assert!(session.failed_claim().is_none());
    bed.fail_next(Operation::Acquire, ErrorKind::Denied);
    let waiter = tokio::spawn(session.lease("x").acquire());
    bed.settle().await;
    assert!(!waiter.is_finished(), "who waits is told nothing, and goes on");
    assert_eq!(session.failed_claim().unwrap().kind(), ErrorKind::Denied);
    bed.advance(secs(60)).await;
    assert!(waiter.is_finished());
    assert!(session.failed_claim().is_none());
}

#[tokio::test]
async fn wait_times_out_and_leaves_no_trace() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let _lease = acquire(&first, "x").await;
    let waiter = tokio::spawn(second.lease("x").acquire_within(secs(12)));
    bed.advance(secs(13)).await;
    assert!(matches!(waiter.await.unwrap().unwrap(), Attempt::Refused(_)));
    let before = bed.writes();
    bed.advance(secs(3)).await;
    assert!(bed.writes() <= before + 1, "only the holder's renewals are written");
}

#[tokio::test]
async fn cancelled_wait_leaves_no_trace() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    bed.fail_next(Operation::Acquire, ErrorKind::OutcomeUnknown);
    let waiter = tokio::spawn(first.lease("x").acquire());
    bed.settle().await;
    waiter.abort();
    bed.advance(secs(2)).await;
    // It was granted, and given back when that came to light.
    let lease = acquire(&second, "x").await;
    assert!(lease.token().get() > 1);
}

#[tokio::test]
async fn already_cancelled_never_touches_store() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    drop(session.lease("x").acquire());
    bed.advance(secs(5)).await;
    assert_eq!(bed.requests(Operation::Acquire), 0);
    assert_eq!(bed.writes(), 0);
}

#[tokio::test]
async fn wakes_on_expiry_without_polling_storm() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let _lease = acquire(&first, "x").await;
    bed.freeze("a");
    let waiter = tokio::spawn(second.lease("x").acquire());
    bed.advance(secs(29)).await;
    assert!(!waiter.is_finished());
    let looks = bed.requests(Operation::Read);
    assert!(looks <= 40, "{looks} looks in 29 s");
    bed.advance(secs(2)).await;
    assert!(waiter.is_finished());
    assert!(bed.requests(Operation::Acquire) <= 5);
}

#[tokio::test]
async fn lost_event_is_healed() {
    let bed = TestBed::new();
    bed.mute();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let lease = acquire(&first, "x").await;
    let waiter = tokio::spawn(second.lease("x").acquire());
    bed.advance(secs(10)).await;
    lease.release().await.unwrap();
    bed.advance(secs(2)).await;
    assert!(waiter.is_finished(), "the slow poll found the release");
}

#[tokio::test]
async fn no_herd() {
    let bed = TestBed::new();
    let first = bed.session("a").await.unwrap();
    let lease = acquire(&first, "x").await;
    let mut waiters = Vec::new();
    for n in 0..100 {
        let session = bed.session(&format!("w{n}")).await.unwrap();
        waiters.push(tokio::spawn(session.lease("x").acquire()));
    }
    bed.advance(secs(3)).await;
    let before = bed.writes();
    lease.release().await.unwrap();
    bed.settle().await;
    bed.settle().await;
    assert_eq!(waiters.iter().filter(|waiter| waiter.is_finished()).count(), 1);
    assert_eq!(bed.writes() - before, 2, "the release, and the one grant");
}

#[tokio::test]
async fn own_loss_ends_the_wait() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let _lease = acquire(&first, "x").await;
    let waiter = tokio::spawn(second.lease("x").acquire());
    bed.advance(secs(5)).await;
    second.close().await.unwrap();
    bed.settle().await;
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("the session was closed"), "{error}");
}

#[tokio::test]
async fn a_reset_ends_the_hold_but_not_the_wait_for_another_name() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let held = acquire(&second, "y").await;
    let _lease = acquire(&first, "x").await;
    let waiter = tokio::spawn(second.lease("x").acquire());
    bed.advance(secs(5)).await;
    bed.forget();
    bed.advance(secs(12)).await;
    assert_eq!(held.check().unwrap_err().cause, Cause::StoreReset);
    assert!(!waiter.is_finished(), "whoever held it may still act");
    bed.advance(secs(40)).await;
    assert!(waiter.is_finished());
}

#[tokio::test]
async fn slow_grant_is_given_back() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    bed.freeze("a");
    let waiter = tokio::spawn(first.lease("x").acquire());
    bed.advance(secs(16)).await;
    bed.thaw("a");
    bed.advance(secs(1)).await;
    let lease = waiter.await.unwrap().unwrap();
    assert!(lease.token().get() >= 2, "the first grant came after half its ttl");
    assert!(lease.check().unwrap() > secs(20), "and the next one has a deadline of its own");
    assert!(matches!(second.lease("x").try_acquire().await.unwrap(), Attempt::Refused(_)));
}

#[tokio::test]
async fn next_attempt_has_a_new_claim_id() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let name = tenure::Name::new("x").unwrap();
    let mut claims = Vec::new();
    for _ in 0..3 {
        let lease = acquire(&first, "x").await;
        assert!(matches!(second.lease("x").try_acquire().await.unwrap(), Attempt::Refused(_)));
        let read = first.store().read(std::slice::from_ref(&name)).await.unwrap();
        claims.push(read[0].as_ref().unwrap().record.claim);
        lease.release().await.unwrap();
    }
    claims.dedup();
    assert_eq!(claims.len(), 3);
}
