//! The suite on the lease over records in memory, whose expiry contenders observe.

mod common;

tenure_conformance::conformance!(common::Records::new);
