//! What a session does with leases, on the memory store under a turned clock.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tenure::testing::TestBed;
use tenure::{Attempt, Cause, ErrorKind, Lease, Operation, Session, Standing, TimeLeft};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn acquire(session: &Session, name: &str) -> Lease {
    match session.lease(name).try_acquire().await.unwrap() {
        Attempt::Granted(lease) => lease,
        Attempt::Refused(by) => panic!("{by}"),
    }
}

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
async fn a_waiter_wakes_on_release() {
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
async fn a_frozen_holder_has_lost_before_the_store_gives_its_name_away() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let lease = acquire(&first, "x").await;
    let waiter = tokio::spawn(second.lease("x").acquire());
    bed.advance(secs(5)).await;
    bed.freeze("a");
    let mut lost_at = None;
    let mut won_at = None;
    for tenth in 0..400 {
        bed.advance(Duration::from_millis(100)).await;
        if lost_at.is_none() && lease.check().is_err() {
            lost_at = Some(tenth);
        }
        if won_at.is_none() && waiter.is_finished() {
            won_at = Some(tenth);
        }
    }
    let (lost_at, won_at) = (lost_at.expect("it was lost"), won_at.expect("the name moved on"));
    // Lost at 22 s, of which 5 had passed; free at 30 s.
    assert_eq!(lost_at / 10, 17 - 1, "lost at tenth {lost_at}");
    assert!(won_at > lost_at + 70, "lost {lost_at}, won {won_at}");
    assert!(won_at < 260, "won at tenth {won_at}");
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
async fn an_unavailable_store_fails_a_try_and_is_waited_for_by_a_wait() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    bed.fail_next(Operation::Acquire, ErrorKind::Unavailable);
    let error = session.lease("x").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    bed.fail_next(Operation::Acquire, ErrorKind::Unavailable);
    let waiter = tokio::spawn(session.lease("x").acquire());
    bed.advance(secs(1)).await;
    assert!(waiter.is_finished());
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
async fn a_cancelled_wait_leaves_no_trace_even_if_its_claims_answer_is_on_the_way() {
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
async fn a_store_that_forgot_is_noticed_and_life_goes_on_with_larger_tokens() {
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
async fn min_hold_keeps_the_name_taken_after_the_work() {
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
async fn a_wall_clock_an_hour_ahead_forbids_until_it_is_proven_again() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let lease = acquire(&session, "x").await;
    bed.advance(secs(5)).await;
    bed.clock().step_wall(3_600_000);
    assert_eq!(lease.check().unwrap_err().cause, Cause::Suspended);
    bed.advance(secs(1)).await;
    assert!(lease.check().is_ok(), "a renewal sent after the jump has proven it");
    bed.clock().step_wall(-7_200_000);
    assert!(lease.check().is_ok());
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
async fn renewals_of_1000_leave_together() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let mut leases = Vec::new();
    for n in 0..1000 {
        leases.push(acquire(&session, &format!("n{n}")).await);
    }
    bed.advance(secs(60)).await;
    assert!(leases.iter().all(|lease| lease.check().is_ok()));
}
