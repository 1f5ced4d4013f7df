//! The suite on one real etcd, on a cluster of three, and on one with all names shared with HAMode:
//! `cargo test -p tenure-etcd --test conformance [NAME…]`, where a NAME may be `three` or `shared`, too.
//! They sleep most of the time, so they run side by side.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::process::ExitCode;

use common::harness::Etcd;
use tenure_conformance::together::{Suite, run_side_by_side};

/// How many behaviours of a suite run at once: they sleep more than they work.
const AT_ONCE: usize = 16;
/// Those in which many contend.
const BUSY: [&str; 4] = [
    "one_winner_of_64",
    "one_winner_of_64_on_expired",
    "one_winner_across_endpoints",
    "unique_over_10k_grants_from_64",
];
/// Those with so many names that others' work would cost them the ttl.
const ALONE: [&str; 4] = [
    "renews_1000_in_one_beat",
    "loss_of_one_of_1000_is_told_for_that_one",
    "renews_10k_within_a_third_of_ttl",
    "list_pages_2500_by_prefix",
];

fn main() -> ExitCode {
    run_side_by_side(
        &[
            Suite::new("one node", Etcd::single),
            Suite::new("three nodes", Etcd::cluster),
            // Sharing costs no behaviour but the guard's: a neighbour's work carries no token.
            Suite::new("shared", Etcd::shared),
        ]
        .map(|suite| suite.at_once(AT_ONCE).busy(&BUSY).alone(&ALONE)),
    )
}
