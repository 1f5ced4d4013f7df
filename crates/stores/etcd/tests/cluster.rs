//! The suite on a cluster of three: `cargo test -p tenure-etcd --test cluster [NAME…]`.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::process::ExitCode;

use common::harness::{ALONE_ON_THE_MACHINE, AT_ONCE, Etcd};

fn main() -> ExitCode {
    tenure_conformance::together::run_together(Etcd::cluster, AT_ONCE, &ALONE_ON_THE_MACHINE)
}
