//! The suite on Dapr's Redis component.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::Component;

tenure_conformance::conformance!(|| Component::at("dapr-redis", "redis"));
