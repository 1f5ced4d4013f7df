//! The suite on a Redis server with all names shared with HAMode: sharing costs no behaviour.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::{Home, Redis, Word};
use common::url_of;

tenure_conformance::conformance!(|| Redis::shared(
    "redis (hamode)",
    Home::Shared(url_of("TENURE_TEST_REDIS")),
    Word::Hamode,
));
