//! The suite on one real etcd: `cargo test -p tenure-etcd --test conformance [NAME…]`.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::process::ExitCode;

use common::harness::{ALONE_ON_THE_MACHINE, AT_ONCE, Etcd};

fn main() -> ExitCode {
    tenure_conformance::together::run_together(Etcd::single, AT_ONCE, &ALONE_ON_THE_MACHINE)
}
