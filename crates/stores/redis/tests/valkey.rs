//! The suite on a Valkey server.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::{Home, Redis};
use common::url_of;

tenure_conformance::conformance!(|| Redis::at(
    "valkey",
    Home::Shared(url_of("TENURE_TEST_VALKEY"))
));
