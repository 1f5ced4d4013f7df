//! The suite on a real PostgreSQL, whose own clock decides; it is turned by hand.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::Postgres;

tenure_conformance::conformance!(Postgres::new);
