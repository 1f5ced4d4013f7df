//! The suite on one real etcd, on a cluster of three, and on one with all names shared with HAMode:
//! `cargo test -p tenure-etcd --test conformance [NAME…]`, where a NAME may be `three` or `shared`, too.
//! They sleep most of the time, so they run side by side.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::process::ExitCode;

use common::harness::{ALONE_ON_THE_MACHINE, AT_ONCE, Etcd};
use tenure_conformance::together::{Suite, run_side_by_side};

fn main() -> ExitCode {
    run_side_by_side(&[
        Suite::new("one node", Etcd::single, AT_ONCE, &ALONE_ON_THE_MACHINE),
        Suite::new("three nodes", Etcd::cluster, AT_ONCE, &ALONE_ON_THE_MACHINE),
        // Sharing costs no behaviour but the guard's, since a neighbour's work carries no token.
        Suite::new("shared", Etcd::shared, AT_ONCE, &ALONE_ON_THE_MACHINE),
    ])
}
