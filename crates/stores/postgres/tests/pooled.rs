//! A pooler in transaction mode hands the server's connections around: requests must not care.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use tenure_conformance::harness::Harness;
use tenure_conformance::stamp::failures;
use tenure_core::identity::Namespace;
use tenure_core::store::Wake;

use common::harness::Postgres;
use common::{client, env, wait};

#[test]
fn behaviours_hold_through_a_pooler_and_it_is_known_that_nothing_is_pushed() {
    let wake = Postgres::pooled().open(&Namespace::default()).profile().wake;
    assert!(matches!(wake, Wake::Poll(_)), "a pooler passes no notifications on: {wake:?}");
    let only = [
        "acquire_free",
        "acquire_held",
        "renewal_after_expiry_fails",
        "late_release_leaves_successor",
        "takeover_against_renewal",
        "lost_answer_of_a_claim",
        "renews_1000_in_one_beat",
        "transfer_to_named",
        "list_pages_2500_by_prefix",
    ];
    assert_eq!(failures(Postgres::pooled, Some(&only)), Vec::new());
}

#[test]
fn no_connection_of_the_pooler_listens_for_others_afterwards() {
    let postgres = Postgres::pooled();
    let _sessions: Vec<_> = (0..4).map(|_| postgres.open(&Namespace::default())).collect();
    let channel = format!("tenure_{}", postgres.scratch.schema);
    // All at once, so that each is on another connection to the server.
    let heard = wait(async {
        let mut clients = Vec::new();
        for _ in 0..8 {
            let client = client(&env("TENURE_TEST_PGBOUNCER", "pgbouncer")).await;
            let query =
                format!("SELECT '{channel}' IN (SELECT pg_listening_channels()), pg_sleep(0.2)");
            clients.push(tokio::spawn(async move {
                let rows = client.query_typed(&query, &[]).await.unwrap();
                rows[0].get::<_, bool>(0)
            }));
        }
        let mut heard = 0;
        for client in clients {
            heard += usize::from(client.await.unwrap());
        }
        heard
    });
    assert_eq!(heard, 0, "connections on which a notification would meet somebody else");
}
