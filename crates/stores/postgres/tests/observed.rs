//! The suite on a real PostgreSQL whose clock isn't asked: contenders observe expiry.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::Postgres;

tenure_conformance::conformance!(Postgres::observed);
