//! Deadlines, clocks and everything that hangs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenure::testing::TestBed;
use tenure::{Attempt, Cause, Measured, Meter, Operation, Session};

use crate::{acquire, secs};

#[tokio::test]
async fn hung_renewal_does_not_delay_loss() {
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
async fn wall_clock_steps_on_holder() {
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
async fn deadline_counts_from_send() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let sent = tenure::core::clock::Clock::now(&**bed.clock()).elapsed;
    // The grant's answer takes 4 s of a ttl of 30 s.
    bed.delay_next(Operation::Acquire, secs(4));
    let attempt = tokio::spawn(session.lease("x").try_acquire());
    bed.advance(secs(4)).await;
    let Attempt::Granted(lease) = attempt.await.unwrap().unwrap() else { panic!("refused") };
    assert_eq!(lease.proof().limits().deadline, sent + secs(27));
    // A renewal's answer takes 10 s, long past its timeout: it counts, from its own send.
    bed.advance(secs(4)).await;
    bed.delay_next(Operation::Renew, secs(10));
    let mut left_at = None;
    while left_at.is_none() {
        let before = bed.requests(Operation::Renew);
        bed.advance(Duration::from_millis(100)).await;
        if bed.requests(Operation::Renew) > before {
            left_at = Some(tenure::core::clock::Clock::now(&**bed.clock()).elapsed);
        }
    }
    bed.freeze("a"); // none of the repeated ones gets through
    bed.advance(secs(10)).await;
    let deadline = lease.proof().limits().deadline;
    let from_send = left_at.unwrap() + secs(27);
    assert!(deadline <= from_send && from_send.since(deadline) <= Duration::from_millis(200));
}

#[tokio::test]
async fn hung_release_does_not_delay_loss() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let (lease, other) = (acquire(&session, "x").await, acquire(&session, "y").await);
    let proof = lease.proof();
    bed.freeze("a");
    let release = tokio::spawn(lease.release());
    bed.settle().await;
    assert_eq!(proof.check().unwrap_err().cause, Cause::Released, "at once, whatever hangs");
    bed.advance(secs(22)).await;
    assert_eq!(other.check().unwrap_err().cause, Cause::Expired);
    bed.advance(secs(10)).await;
    // The store was never told, and that is said once the grant has run out.
    assert!(release.await.unwrap().is_err());
}

#[derive(Default)]
struct Losses(Mutex<Vec<Cause>>);

impl Meter for Losses {
    fn record(&self, measured: Measured) {
        if let Measured::Lost(cause) = measured {
            self.0.lock().unwrap().push(cause);
        }
    }
}

/// On the system's clock, and on a runtime of one thread, which is stuck until the loss has been
/// announced: if it were announced by a task, this would hang.
#[tokio::test(flavor = "current_thread")]
async fn blocked_runtime_does_not_delay_loss() {
    let losses = Arc::new(Losses::default());
    let session = Session::builder()
        .url("memory:")
        .meter(Arc::clone(&losses) as Arc<dyn Meter>)
        .open()
        .await
        .unwrap();
    let request = session.lease("x").ttl(secs(1));
    let Attempt::Granted(lease) = request.try_acquire().await.unwrap() else { panic!("refused") };
    while losses.0.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(*losses.0.lock().unwrap(), [Cause::Expired]);
    assert_eq!(lease.check().unwrap_err().cause, Cause::Expired);
}

#[tokio::test]
async fn suspend_past_ttl_is_lost_on_wake() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let lease = acquire(&session, "x").await;
    bed.advance(secs(15)).await;
    // The whole machine sleeps: both clocks have moved before any task runs again.
    bed.clock().advance(secs(31));
    assert_eq!(lease.check().unwrap_err().cause, Cause::Expired, "the very first check");
}

#[tokio::test]
async fn wall_clock_steps_on_contender() {
    let bed = TestBed::new();
    let (first, second) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let lease = acquire(&first, "x").await;
    let waiter = tokio::spawn(second.lease("x").acquire());
    for step in [3_600_000, -7_200_000, 3_600_000] {
        bed.advance(secs(20)).await;
        bed.clock().step_wall(step);
        bed.advance(secs(20)).await;
        assert!(!waiter.is_finished(), "no early takeover");
        assert!(lease.check().is_ok());
    }
    lease.release().await.unwrap();
    bed.settle().await;
    assert!(waiter.is_finished(), "no lost liveness");
}
