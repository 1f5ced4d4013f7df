//! The suite on a cluster of three: `cargo test -p tenure-etcd --test cluster [NAME…]`.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::process::ExitCode;

use common::harness::{ALONE_ON_THE_MACHINE, AT_ONCE, Etcd};
use tenure_conformance::harness::Capability;
use tenure_conformance::together::{behaviours_are_named, run_some_together};

/// Set by `cargo xtask conformance etcd`: else only what one server can't show is run, since the
/// rest takes four minutes, most of them asleep, and `conformance` runs it on one server.
const WHOLE: &str = "TENURE_TEST_WHOLE";

fn main() -> ExitCode {
    let whole = std::env::var_os(WHOLE).is_some() || behaviours_are_named();
    if !whole {
        println!(
            "SKIPPED: what one server shows as well: `cargo xtask conformance etcd` runs it on the \
             cluster, too"
        );
    }
    run_some_together(Etcd::cluster, AT_ONCE, &ALONE_ON_THE_MACHINE, |behaviour| {
        whole || behaviour.needs == Some(Capability::Endpoints)
    })
}
