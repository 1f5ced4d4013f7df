//! The suite on a real kube-apiserver: `cargo test -p tenure-kubernetes --test conformance [NAME…]`.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::process::ExitCode;

use common::harness::{ALONE, AT_ONCE, Kubernetes};

fn main() -> ExitCode {
    tenure_conformance::together::run_together(Kubernetes::new, AT_ONCE, &ALONE)
}
