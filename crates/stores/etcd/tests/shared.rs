//! The suite on one real etcd with all names shared with HAMode: sharing costs no behaviour but the
//! guard's, since a neighbour's work carries no token.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::process::ExitCode;

use common::harness::{ALONE_ON_THE_MACHINE, AT_ONCE, Etcd};
use tenure_conformance::together::{behaviours_are_named, run_together};

/// Set by `cargo xtask conformance etcd`: four minutes more than CI has for what `neighbours` and
/// `contended` look at, too.
const WHOLE: &str = "TENURE_TEST_WHOLE";

fn main() -> ExitCode {
    if std::env::var_os(WHOLE).is_none() && !behaviours_are_named() {
        println!(
            "SKIPPED: the suite with names shared with HAMode: `cargo xtask conformance etcd`"
        );
        return ExitCode::SUCCESS;
    }
    run_together(Etcd::shared, AT_ONCE, &ALONE_ON_THE_MACHINE)
}
