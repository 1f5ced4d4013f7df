//! The suite on a real PostgreSQL whose names are shared with HAMode: that costs no behaviour.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::Postgres;

tenure_conformance::conformance!(Postgres::shared);
