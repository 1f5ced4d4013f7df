//! The behaviours that every store of tenure must have, as a suite to run on yours.
//!
//! A store is right when it passes this suite, run against the real thing. To run it, implement
//! [`Harness`] for your store and stamp the tests out:
//!
//! ```text
//! tenure_conformance::conformance!(|| MyHarness::new());
//! ```
//!
//! That makes one `#[test]` for each behaviour in [`BEHAVIOURS`] that a store can show, so none
//! can be forgotten, and `table_is_complete`. What a store can't do is a
//! [`Capability`] that its harness [lacks](Harness::lacks), with a reason that
//! stands in the [`table`](table::table); what needs no capability can't be waived.
//!
//! [`Player`](player::Player) is an instance with a session, for tests of your own, and
//! [`Faulty`](faulty::Faulty) loses a store's answers on demand. With the feature `proxy`,
//! `proxy::FaultProxy` does so to the bytes between a store's client and a real server.
//!
//! A store that shares its names with another system shows so with [`contended::race`].
//!
//! The guide is `docs/adding-a-store.md`; the contract itself is
//! [`tenure_core::store`], and its rules are [`tenure_core::decide`].

pub mod behaviour;
pub mod contended;
pub mod drive;
pub mod executor;
pub mod faulty;
pub mod harness;
pub mod list;
pub mod player;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod stamp;
pub mod suite;
pub mod table;
pub mod together;

pub use harness::{Capability, Harness};
pub use list::{BEHAVIOURS, command_behaviours, session_behaviours};
