//! Leases and leader election on the store that your service already runs.
//!
//! A service that runs as several replicas has to know which of them may act. A *lease* answers
//! that: an exclusive, time-bounded grant of a name. Whoever holds it acts only while its own
//! [`check()`](Lease::check) holds, and has stopped before the store can give the name away; its
//! *fencing token* lets the resource itself refuse whoever was paused at the wrong moment.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tenure::{Attempt, Session};
//!
//! let session = Session::open("memory:").await?;
//! match session.lease("nightly-report").try_acquire().await? {
//!     Attempt::Granted(lease) => {
//!         let sent = lease.run(|proof| async move { proof.token().get() }).await?;
//!         assert_eq!(sent, 1);
//!         lease.release().await?;
//!     }
//!     Attempt::Refused(by) => println!("{by}"), // held by api-2 for 4.2 s more (token 17)
//! }
//! session.close().await?;
//! # Ok(()) }
//! ```
//!
//! # What is guaranteed
//! Short of the assumptions in `docs/protocol.md` (a machine's interval clock is wrong in rate
//! by at most 1 %; the store doesn't forget what it acknowledged): the store never has two live
//! grants of one name; whoever acts only while `check()` holds has stopped before the name is
//! granted again; tokens of one name strictly increase, for ever. What no lease can give: a
//! process that is paused between `check()` and its effect issues that effect late. Only a
//! [guard] at the resource stops it.

mod answer;
mod cell;
mod clock;
pub mod connect;
mod contention;
mod deadlines;
mod election;
pub mod guard;
mod keeper;
mod lease;
mod meter;
mod observations;
mod observer;
mod session;
mod shared;
pub mod testing;
mod ticket;

pub use tenure_core as core;
pub use tenure_core::error::{Error, ErrorKind, Operation};
pub use tenure_core::identity::{FencingToken, Incarnation, Instance, Name, Namespace, Successor};
pub use tenure_core::protocol::hold::{Cause, Limits, Standing};
pub use tenure_core::record::Metadata;
pub use tenure_core::store::{Level, Store};
#[cfg(feature = "dapr")]
pub use tenure_dapr as dapr;
#[cfg(feature = "etcd")]
pub use tenure_etcd as etcd;
#[cfg(feature = "kubernetes")]
pub use tenure_kubernetes as kubernetes;
#[cfg(feature = "object")]
pub use tenure_object as object;
#[cfg(feature = "postgres")]
pub use tenure_postgres as postgres;
#[cfg(feature = "redis")]
pub use tenure_redis as redis;
#[cfg(feature = "sqlite")]
pub use tenure_sqlite as sqlite;

pub use crate::answer::{HeldBy, Lost, TimeLeft};
pub use crate::clock::{SystemClock, TurnedClock};
pub use crate::election::{Election, ElectionBuilder, RunError, Term};
pub use crate::lease::{Attempt, Lease, LeaseRequest, Proof};
pub use crate::meter::{Measured, Meter};
pub use crate::observer::{ADDRESS, Changes, Leader, Observer};
pub use crate::session::{Session, SessionBuilder, chance_of_system};
pub use crate::shared::AtDeadline;
pub use crate::ticket::Ticket;
