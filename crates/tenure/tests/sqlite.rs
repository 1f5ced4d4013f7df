//! Sessions on an SQLite file, on the system's clock.

#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::path::PathBuf;
use std::time::Duration;

use tenure::guard::GuardError;
use tenure::sqlite::rusqlite::{Connection, TransactionBehavior};
use tenure::{Attempt, ErrorKind, Lease, Session};

fn file(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("tenure-session-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}

async fn open(path: &std::path::Path) -> Session {
    Session::open(format!("sqlite:{}?namespace=shop&require=fenced-tx", path.display()))
        .await
        .unwrap()
}

async fn acquire(session: &Session, name: &str) -> Lease {
    match session.lease(name).try_acquire().await.unwrap() {
        Attempt::Granted(lease) => lease,
        Attempt::Refused(by) => panic!("{by}"),
    }
}

#[tokio::test]
async fn two_sessions_share_a_file_and_the_second_wakes_on_the_release() {
    let path = file("shared.db");
    let (first, second) = (open(&path).await, open(&path).await);
    let lease = acquire(&first, "x").await;
    let waiter = tokio::spawn(second.lease("x").acquire());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiter.is_finished());
    let token = lease.token();
    lease.release().await.unwrap();
    let next = waiter.await.unwrap().unwrap();
    assert!(next.token() > token);
    drop(next);
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
async fn a_guarded_transaction_commits_under_the_lease_and_not_after_it() {
    let path = file("guarded.db");
    let session = open(&path).await;
    let lease = acquire(&session, "ledger").await;
    let mut resource = Connection::open(&path).unwrap();
    resource.busy_timeout(Duration::from_secs(2)).unwrap();
    resource.execute_batch("CREATE TABLE entries (text TEXT)").unwrap();
    let mut write = |lease: &tenure::Proof| -> Result<(), GuardError> {
        let transaction =
            resource.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        lease.guard(&transaction)?;
        transaction.execute("INSERT INTO entries VALUES ('paid')", []).unwrap();
        transaction.commit().unwrap();
        Ok(())
    };
    write(&lease.proof()).unwrap();
    let late = lease.proof();
    lease.release().await.unwrap();
    assert!(matches!(write(&late), Err(GuardError::NotInForce { .. })));
    let count: i64 =
        resource.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_session_elsewhere_guards_no_transaction() {
    let session = Session::open("memory:").await.unwrap();
    let lease = acquire(&session, "x").await;
    let mut resource = Connection::open_in_memory().unwrap();
    let transaction = resource.transaction().unwrap();
    let error = lease.guard(&transaction).unwrap_err();
    assert!(matches!(error, GuardError::Failed(error) if error.kind() == ErrorKind::Misconfigured));
}

#[tokio::test]
async fn a_level_that_the_store_cannot_meet_is_refused_when_opened() {
    let error = Session::open("memory:?require=fenced-tx").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("fenced-tx is required"), "{error}");
}
