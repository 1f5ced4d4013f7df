//! The behaviours that need a session, each by the name that it has in the table of
//! `tenure-conformance`, on the memory store under a turned clock.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod election;
mod guard;
mod lease;
mod time;
mod waiting;

use std::time::Duration;

use tenure::{Attempt, Lease, Session};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn acquire(session: &Session, name: &str) -> Lease {
    match session.lease(name).try_acquire().await.unwrap() {
        Attempt::Granted(lease) => lease,
        Attempt::Refused(by) => panic!("{by}"),
    }
}

#[test]
fn each_session_behaviour_of_the_table_has_a_test() {
    let tests = [
        include_str!("election.rs"),
        include_str!("guard.rs"),
        include_str!("lease.rs"),
        include_str!("time.rs"),
        include_str!("waiting.rs"),
    ]
    .concat();
    let missing: Vec<_> = tenure_conformance::session_behaviours()
        .map(|behaviour| behaviour.name)
        .filter(|name| !tests.contains(&format!("fn {name}() {{")))
        .collect();
    assert!(missing.is_empty(), "no test of this name: {missing:?}");
}
