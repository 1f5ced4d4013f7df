//! The ground floor of tenure: its words, the contract of a store, and its pure decisions.
//!
//! Nothing in this crate does I/O, reads a clock or draws randomness, and only [`clock::identity`]
//! asks the system anything. The rules of the protocol
//! are plain values and state machines, so that what the simulator checks is what ships.
//!
//! A store's author needs [`store`] (or [`record_store`], where there is only compare-and-swap),
//! [`decide`], and the suite in `tenure-conformance`.

pub mod batch;
pub mod chance;
pub mod clock;
pub mod cluster;
pub mod decide;
pub mod error;
pub mod exchange;
pub mod guard;
pub mod hint;
pub mod identity;
pub mod memory;
pub mod neighbour;
pub mod preconditions;
pub mod protocol;
pub mod record;
pub mod record_leases;
pub mod record_mark;
pub mod record_store;
pub mod store;
pub mod timing;
mod turnstile;

pub use error::{Error, ErrorKind, Operation};
