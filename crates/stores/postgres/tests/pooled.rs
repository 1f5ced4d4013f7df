//! A pooler in transaction mode hands the server's connections around: requests must not care.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use tenure_conformance::harness::Harness;
use tenure_conformance::stamp::failures;
use tenure_core::identity::Namespace;
use tenure_core::store::Wake;

use common::harness::Postgres;

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
