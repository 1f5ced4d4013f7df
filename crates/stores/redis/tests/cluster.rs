//! The suite on a Redis cluster of three nodes.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::{Home, Redis};
use common::url_of;

tenure_conformance::conformance!(|| Redis::at(
    "redis (cluster)",
    Home::Cluster(url_of("TENURE_TEST_REDIS_CLUSTER"))
));
