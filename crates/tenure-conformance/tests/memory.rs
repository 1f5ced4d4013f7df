//! The suite on the memory store, whose clock decides expiry.

mod common;

tenure_conformance::conformance!(common::Memory::new);
