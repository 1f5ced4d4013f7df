//! Standing, leading, resigning, observing.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenure::testing::TestBed;
use tenure::{Election, ErrorKind, Operation, RunError, Session, Successor};
use tokio::sync::watch;

use crate::secs;

async fn candidate(session: &Session) -> Election {
    session
        .election("scheduler")
        .advertise(format!("http://{}", session.instance().name()))
        .stand()
        .await
        .unwrap()
}

/// Leads for ever, in the background.
fn lead(election: &Election) -> tokio::task::JoinHandle<()> {
    let election = election.clone();
    tokio::spawn(async move {
        election.run(|_| std::future::pending::<()>()).await.unwrap();
    })
}

#[tokio::test]
async fn campaigns_again_after_loss() {
    let bed = TestBed::new();
    let (a, b) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let (first, second) = (candidate(&a).await, candidate(&b).await);
    let _one = lead(&first);
    bed.settle().await;
    let _two = lead(&second);
    bed.advance(secs(60)).await;
    assert!(first.term().is_some());
    assert!(second.term().is_none());
    let token = first.term().unwrap().token();
    bed.freeze("a");
    let mut both = 0;
    for _ in 0..400 {
        bed.advance(Duration::from_millis(100)).await;
        both += usize::from(first.term().is_some() && second.term().is_some());
    }
    assert_eq!(both, 0);
    assert!(second.term().unwrap().token() > token);
    // Cut off no more, the first one follows.
    bed.thaw("a");
    bed.advance(secs(60)).await;
    assert!(first.term().is_none());
    assert!(second.term().is_some());
}

#[tokio::test]
async fn transfer_to_named() {
    let bed = TestBed::new();
    let mut elections = Vec::new();
    let mut sessions = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let session = bed.session(name).await.unwrap();
        elections.push(candidate(&session).await);
        sessions.push(session);
    }
    let _running: Vec<_> = elections.iter().map(lead).collect();
    bed.advance(secs(5)).await;
    let leader = elections.iter().position(|election| election.term().is_some()).unwrap();
    let next = (leader + 2) % 4;
    elections[leader].resign(Some(Successor::from(sessions[next].instance().clone())));
    // No time passes: the successor is woken by the release.
    bed.settle().await;
    bed.settle().await;
    assert!(elections[next].term().is_some());
    assert!(elections[leader].term().is_none());
}

#[tokio::test]
async fn transfer_target_dead_falls_back() {
    let bed = TestBed::new();
    let (a, b) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let (first, second) = (candidate(&a).await, candidate(&b).await);
    let _one = lead(&first);
    bed.settle().await;
    let _two = lead(&second);
    bed.advance(secs(1)).await;
    first.resign(Some("nobody".parse().unwrap()));
    bed.advance(secs(4)).await;
    assert!(second.term().is_none());
    bed.advance(secs(3)).await;
    assert!(second.term().is_some() || first.term().is_some());
}

#[tokio::test]
async fn work_that_returns_resigns_and_stands_again_after_others() {
    let bed = TestBed::new();
    let (a, b) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let (first, second) = (candidate(&a).await, candidate(&b).await);
    let once = {
        let first = first.clone();
        tokio::spawn(async move { first.run(|_| async {}).await })
    };
    bed.settle().await;
    let _two = lead(&second);
    bed.advance(secs(10)).await;
    assert!(second.term().is_some());
    assert!(!once.is_finished());
}

#[tokio::test]
async fn unhealthy_never_campaigns() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let (gate, healthy) = watch::channel(false);
    let election = session.election("scheduler").healthy(healthy).stand().await.unwrap();
    let _run = lead(&election);
    bed.advance(secs(60)).await;
    assert!(election.term().is_none());
    assert_eq!(bed.writes(), 0);
    gate.send_replace(true);
    bed.settle().await;
    assert!(election.term().is_some());
}

#[tokio::test]
async fn unhealthy_leader_steps_down() {
    let bed = TestBed::new();
    let (a, b) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let (gate, healthy) = watch::channel(true);
    let first = a.election("scheduler").healthy(healthy).stand().await.unwrap();
    let second = candidate(&b).await;
    let _one = lead(&first);
    bed.settle().await;
    let _two = lead(&second);
    bed.advance(secs(1)).await;
    assert!(first.term().is_some());
    gate.send_replace(false);
    bed.settle().await;
    assert!(first.term().is_none());
    assert!(second.term().is_some(), "the next one leads at once");
}

#[tokio::test]
async fn observer_never_writes() {
    let bed = TestBed::new();
    let session = bed.session("w").await.unwrap();
    let observer = session.election("scheduler").observe().await.unwrap();
    observer.ready().await;
    bed.advance(secs(120)).await;
    assert_eq!(observer.leader(), None);
    assert_eq!(bed.writes(), 0);
    assert_eq!(bed.requests(Operation::Acquire), 0);
}

#[tokio::test]
async fn release_only_after_work_ended() {
    struct Work(Rc<RefCell<Vec<&'static str>>>);
    impl Drop for Work {
        fn drop(&mut self) {
            self.0.borrow_mut().push("work dropped");
        }
    }
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let log = Rc::new(RefCell::new(Vec::new()));
    let election = candidate(&session).await;
    // Neither Send nor 'static is asked of the work.
    let run = election.run(|_| {
        let work = Work(Rc::clone(&log));
        async move {
            let _work = work;
            std::future::pending::<()>().await;
        }
    });
    {
        let scenario = async {
            bed.advance(secs(1)).await;
            let before = bed.writes();
            election.resign(None);
            bed.settle().await;
            assert_eq!(*log.borrow(), ["work dropped"]);
            assert!(bed.writes() > before, "then it was released");
        };
        tokio::select! {
            ended = run => panic!("the run ended: {ended:?}"),
            () = scenario => {}
        }
    }
}

#[tokio::test]
async fn a_failure_of_the_work_ends_the_term_and_the_run() {
    let bed = TestBed::new();
    let (a, b) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let election = candidate(&a).await;
    let run = tokio::spawn(async move { election.try_run(|_| async { Err("no disk") }).await });
    bed.advance(secs(1)).await;
    assert!(matches!(run.await.unwrap(), Err(RunError::Work("no disk"))));
    let second = candidate(&b).await;
    let _run = lead(&second);
    bed.advance(secs(1)).await;
    assert!(second.term().is_some());
}

#[tokio::test]
async fn panic_in_work_ends_the_term() {
    let bed = TestBed::new();
    let (a, b) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let election = candidate(&a).await;
    let run = tokio::spawn(async move {
        election.run(|_| async { panic!("the work panics, as this test wants") }).await
    });
    bed.advance(secs(1)).await;
    assert!(run.await.unwrap_err().is_panic());
    let second = candidate(&b).await;
    let _run = lead(&second);
    bed.advance(secs(1)).await;
    assert!(second.term().is_some());
}

#[tokio::test]
async fn changes_stream_never_shows_two_leaders_at_one_token() {
    let bed = TestBed::new();
    let (a, b) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let watcher = bed.session("w").await.unwrap();
    let observer = watcher.election("scheduler").observe().await.unwrap();
    observer.ready().await;
    assert_eq!(observer.leader(), None);
    assert_eq!(bed.writes(), 0);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let mut changes = observer.changes();
    tokio::spawn(async move {
        while let Some(leader) = changes.next().await {
            log.lock().unwrap().push(leader.map(|leader| (leader.token, leader.instance)));
        }
    });
    let (first, second) = (candidate(&a).await, candidate(&b).await);
    let _one = lead(&first);
    let _two = lead(&second);
    for _ in 0..6 {
        bed.advance(secs(15)).await;
        let leading = if first.term().is_some() { &first } else { &second };
        assert_eq!(
            observer.leader().unwrap().token,
            leading.term().unwrap().token(),
            "the observer is up to date"
        );
        leading.resign(None);
    }
    let seen = seen.lock().unwrap();
    let mut tokens: Vec<_> = seen.iter().flatten().collect();
    tokens.dedup();
    assert!(tokens.len() >= 5, "{tokens:?}");
    assert!(tokens.windows(2).all(|pair| pair[0].0 < pair[1].0), "one leader a token: {tokens:?}");
}

#[tokio::test]
async fn closing_the_session_ends_the_run() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let election = candidate(&session).await;
    let run = {
        let election = election.clone();
        tokio::spawn(async move { election.run(|_| std::future::pending::<()>()).await })
    };
    bed.advance(secs(1)).await;
    session.close().await.unwrap();
    run.await.unwrap().unwrap();
    assert!(election.term().is_none());
}

#[tokio::test]
async fn a_second_run_of_one_candidate_is_refused() {
    let bed = TestBed::new();
    let session = bed.session("a").await.unwrap();
    let election = candidate(&session).await;
    let _one = lead(&election);
    bed.settle().await;
    let error = election.run(|_| async {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn ready_after_first_round() {
    let bed = TestBed::new();
    let (a, b) = (bed.session("a").await.unwrap(), bed.session("b").await.unwrap());
    let first = candidate(&a).await;
    let _one = lead(&first);
    bed.settle().await;
    let second = candidate(&b).await;
    second.ready().await;
    assert_eq!(second.leader().unwrap().address(), Some("http://a"));
}
