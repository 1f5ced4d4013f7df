//! The suite on a client that a host brings: `object_store`'s own memory.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::sync::Arc;

use common::harness::Objects;
use tenure_object::ObjectConfig;
use tenure_object::object_store::memory::InMemory;

tenure_conformance::conformance!(|| {
    Objects::of("object", ObjectConfig::of_client(Arc::new(InMemory::new()), "leases"))
});
