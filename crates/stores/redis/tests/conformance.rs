//! The suite on a Redis server, whose clock is turned by an offset of the scripts.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::{Home, Redis};
use common::url_of;

tenure_conformance::conformance!(|| Redis::at("redis", Home::Shared(url_of("TENURE_TEST_REDIS"))));
