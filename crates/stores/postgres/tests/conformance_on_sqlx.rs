//! The suite on a real PostgreSQL, through a host's sqlx pool: another client, the same rules.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::Postgres;

tenure_conformance::conformance!(Postgres::on_sqlx);
