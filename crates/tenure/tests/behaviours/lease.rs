//! Holding a lease, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tenure::testing::TestBed;
use tenure::{Attempt, Cause, ErrorKind, Operation, Standing, TimeLeft};

use crate::{acquire, secs};

#[tokio::test]
async fn a_held_lease_is_renewed_and_refuses_others() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let lease = acquire(&first, "billing").await;
    bed.advance(secs(300)).await;
    assert!(lease.check().is_ok());
    assert_eq!(lease.proof().standing(), Standing::Held);
    let Attempt::Refused(by) = second.lease("billing").try_acquire().await.unwrap() else {
        panic!("two hold one name")
    };
    assert_eq!(by.token, lease.token());
    assert!(matches!(by.left, TimeLeft::Known(left) if left <= secs(30) && left >= secs(18)));
    assert!(by.to_string().starts_with("lease `billing` is held by a for"), "{by}");
}

#[tokio::test]
async fn not_reentrant_and_tokens_grow() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let lease = acquire(&session, "x").await;
    assert!(matches!(session.lease("x").try_acquire().await.unwrap(), Attempt::Refused(_)));
    let first = lease.token();
    lease.release().await.unwrap();
    let lease = acquire(&session, "x").await;
    assert!(lease.token() > first);
    assert_eq!(session.holds(), 1);
}

#[tokio::test]
async fn dropping_a_lease_ends_it_at_once_and_gives_it_back() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let lease = acquire(&first, "x").await;
    let proof = lease.proof();
    drop(lease);
    assert_eq!(proof.check().unwrap_err().cause, Cause::Released);
    bed.settle().await;
    let next = acquire(&second, "x").await;
    assert!(next.token() > proof.token());
}

#[tokio::test]
async fn work_is_dropped_at_the_loss_and_before_the_store_is_told() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let lease = acquire(&session, "x").await;
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&dropped));
    let work = tokio::spawn(async move {
        lease
            .run(|_| async move {
                let _flag = flag;
                std::future::pending::<()>().await;
            })
            .await
    });
    bed.advance(secs(20)).await;
    assert!(!dropped.load(Ordering::SeqCst));
    bed.lose("x").await.unwrap();
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(work.await.unwrap().unwrap_err().cause, Cause::Revoked);
}

#[tokio::test]
async fn lost_answers_of_a_claim_are_found_again() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    bed.fail_next(Operation::Acquire, ErrorKind::OutcomeUnknown);
    let request = session.lease("x").try_acquire();
    let attempt = tokio::spawn(request);
    bed.advance(secs(2)).await;
    let Attempt::Granted(lease) = attempt.await.unwrap().unwrap() else { panic!("refused") };
    assert_eq!(lease.token().get(), 1, "the claim found its own grant");
}

#[tokio::test]
async fn own_loss_ends_nothing_but_the_hold_and_a_new_grant_has_a_newer_token() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let (first, other) = (acquire(&session, "x").await, acquire(&session, "y").await);
    bed.lose("x").await.unwrap();
    assert_eq!(first.check().unwrap_err().cause, Cause::Revoked);
    assert!(other.check().is_ok(), "loss of one is told for that one");
    let again = acquire(&session, "x").await;
    assert!(again.token() > first.token());
}

#[tokio::test]
async fn store_that_forgot_is_noticed() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let lease = acquire(&session, "x").await;
    bed.forget();
    bed.advance(secs(12)).await;
    assert_eq!(lease.check().unwrap_err().cause, Cause::StoreReset);
    let waiter = tokio::spawn(session.lease("x").acquire());
    bed.advance(secs(40)).await;
    let again = waiter.await.unwrap().unwrap();
    assert!(again.token() > lease.token());
}

#[tokio::test]
async fn close_gives_everything_back_in_one_batch() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let mut leases = Vec::new();
    for n in 0..50 {
        leases.push(acquire(&first, &format!("n{n}")).await);
    }
    first.close().await.unwrap();
    assert!(leases.iter().all(|lease| lease.check().is_err()));
    for n in 0..50 {
        drop(acquire(&second, &format!("n{n}")).await);
    }
}

#[tokio::test]
async fn min_hold_respected() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let Attempt::Granted(lease) = first.lease("x").min_hold(secs(90)).try_acquire().await.unwrap()
    else {
        panic!("refused")
    };
    drop(lease);
    bed.advance(secs(80)).await;
    assert!(matches!(second.lease("x").try_acquire().await.unwrap(), Attempt::Refused(_)));
    bed.advance(secs(11)).await;
    drop(acquire(&second, "x").await);
}

#[tokio::test]
async fn closing_ends_min_hold_locally_but_the_record_keeps_it() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let Attempt::Granted(_lease) = first.lease("x").min_hold(secs(90)).try_acquire().await.unwrap()
    else {
        panic!("refused")
    };
    first.close().await.unwrap();
    bed.advance(secs(80)).await;
    assert!(matches!(second.lease("x").try_acquire().await.unwrap(), Attempt::Refused(_)));
    bed.advance(secs(11)).await;
    drop(acquire(&second, "x").await);
}

#[tokio::test]
async fn bad_requests_are_refused_before_anything_is_sent() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    for name in ["", "@x", "a\nb", &"x".repeat(256)] {
        let error = session.lease(name).try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name:?}");
    }
    for ttl in [Duration::ZERO, secs(365 * 86_400)] {
        let error = session.lease("x").ttl(ttl).try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{ttl:?}");
    }
    assert_eq!(bed.writes(), 0);
}

#[tokio::test]
async fn renews_1000_in_one_beat() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let mut leases = Vec::new();
    for n in 0..1000 {
        leases.push(acquire(&session, &format!("n{n}")).await);
    }
    let before = bed.requests(Operation::Renew);
    bed.advance(secs(55)).await;
    assert!(leases.iter().all(|lease| lease.check().is_ok()));
    // At 9 to 11 s each: five or six beats of one request.
    let beats = bed.requests(Operation::Renew) - before;
    assert!((5..=6).contains(&beats), "{beats} requests in 55 s");
}

#[tokio::test]
async fn loss_of_one_of_1000_is_told_for_that_one() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let mut leases = Vec::new();
    for n in 0..1000 {
        leases.push(acquire(&session, &format!("n{n}")).await);
    }
    bed.lose("n500").await.unwrap();
    for (n, lease) in leases.iter().enumerate() {
        assert_eq!(lease.check().is_err(), n == 500, "n{n}");
    }
}

#[tokio::test]
async fn no_write_after_release() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let lease = acquire(&session, "x").await;
    bed.advance(secs(8)).await;
    // A renewal is on its way while the name is given back.
    bed.delay_next(Operation::Renew, secs(20));
    bed.advance(secs(4)).await;
    lease.release().await.unwrap();
    let after = bed.writes();
    bed.advance(secs(120)).await;
    assert_eq!(bed.writes(), after);
}

#[tokio::test]
async fn late_reply_of_old_term_is_dropped() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let old = acquire(&session, "x").await;
    bed.advance(secs(8)).await;
    bed.delay_next(Operation::Renew, secs(20));
    bed.advance(secs(4)).await;
    old.release().await.unwrap();
    let new = acquire(&session, "x").await;
    let before = new.proof().limits();
    // The old grant's renewal is answered now; the new one's deadline doesn't hear of it.
    bed.freeze("a");
    bed.advance(secs(20)).await;
    assert_eq!(new.proof().limits(), before);
}

#[tokio::test]
async fn a_lost_answer_of_a_release_is_repeated_and_harmless() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let lease = acquire(&first, "x").await;
    bed.fail_next(Operation::Release, ErrorKind::OutcomeUnknown);
    let release = tokio::spawn(lease.release());
    bed.settle().await;
    let next = acquire(&second, "x").await;
    bed.advance(secs(2)).await;
    release.await.unwrap().unwrap();
    assert!(next.check().is_ok(), "the repeated release left the successor alone");
}

#[tokio::test]
async fn a_reset_that_one_request_was_told_of_ends_all_holds_at_once() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let (one, other) = (acquire(&session, "x").await, acquire(&session, "y").await);
    bed.forget();
    // A look at a third name is the first to be told.
    let error = session.lease("z").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreReset);
    for lease in [&one, &other] {
        assert_eq!(lease.check().unwrap_err().cause, Cause::StoreReset);
    }
    // Nor does a name that this session never held skip the wait.
    let error = session.lease("w").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreReset);
    let waiter = tokio::spawn(session.lease("w").acquire());
    bed.advance(secs(29)).await;
    assert!(!waiter.is_finished());
    bed.advance(secs(3)).await;
    assert!(waiter.is_finished());
}
