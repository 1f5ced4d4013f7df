//! The deterministic simulation of the protocol: whole groups of instances under one seed.
//!
//! [`run`] draws a scenario from a seed (instances with clocks that go wrong, a network, a
//! modelled store, and a schedule of faults), drives the machines of `tenure-core` through it
//! as the runtime would, and compares every step with the guarantees, in true time, from
//! outside. One seed reproduces one run exactly; one that fails comes back with its schedule,
//! shrunk to what the violation needs.
//!
//! Nothing here switches a rule of the protocol off: what tests switch off they bring along as
//! [`Rules`], to show that the simulation would notice.

mod clock;
mod config;
mod ending;
mod faults;
mod guard;
mod held;
mod instance;
mod lane;
mod ledger;
mod network;
mod operation;
mod oracle;
mod request;
mod rules;
mod run;
mod scenario;
mod schedule;
mod shrink;
mod store;
mod store_of_records;
mod store_with_clock;
mod sweep;
mod tenancy;
mod traffic;
mod work;
mod world;

pub use config::{Config, StoreKind};
pub use oracle::Invariant;
pub use rules::{Acting, Rules, Sound};
pub use run::{Report, Violation, run, run_under};
pub use schedule::{Fault, Schedule, What};
pub use sweep::{Sweep, command, sim, sweep};
