//! The suite on one real etcd with all names shared with HAMode: sharing costs no behaviour but the
//! guard's, since a neighbour's work carries no token.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::process::ExitCode;

use common::harness::{ALONE_ON_THE_MACHINE, AT_ONCE, Etcd};

fn main() -> ExitCode {
    tenure_conformance::together::run_together(Etcd::shared, AT_ONCE, &ALONE_ON_THE_MACHINE)
}
