//! Leases of tenure in PostgreSQL: one statement a request, decided by the server's own clock.
//!
//! ```no_run
//! use tenure_core::chance::Chance;
//! use tenure_core::store::{Level, Store};
//! use tenure_postgres::{PostgresConfig, PostgresStore};
//!
//! # async fn shown() -> Result<(), tenure_core::Error> {
//! let config = PostgresConfig::from_url("postgres://app@db.internal/app?namespace=shop")?;
//! let store = PostgresStore::open(config, Chance::seeded(7)).await?;
//! assert_eq!(store.profile().level, Level::FencedTx);
//! store.close().await
//! # }
//! ```
//!
//! The rules of the protocol stand in `sql/functions.sql`, as functions that `tenure init`
//! creates: they are atomic there, a pooler can't mix them up, and a program in any language can
//! call them. The conformance suite holds them to what `tenure_core::decide` says. Those in
//! `sql/hamode.sql` ask them and a neighbour's table ([`Hamode`]).
//!
//! # Features
//! `sqlx`: a store on a host's `sqlx::PgPool` ([`PostgresStore::open_on`]), and guards in
//! transactions of sqlx's. It needs Rust 1.94, as sqlx 0.9 does; without it 1.89 will do.

mod admin;
mod config;
mod driver;
mod errors;
mod guard;
mod layout;
mod link;
#[cfg(feature = "sqlx")]
mod literal;
mod prepared;
mod rows;
mod schema;
#[cfg(feature = "sqlx")]
mod sqlx_pool;
mod store;
mod tls;
mod watch;

pub use admin::PostgresAdmin;
pub use config::{
    CONNECT_DEFAULT, CONNECTIONS_DEFAULT, PostgresConfig, SCHEMA_DEFAULT, Schema, TIMEOUT_DEFAULT,
    Tls,
};
pub use driver::HostPool;
#[cfg(feature = "sqlx")]
pub use guard::PgTransaction;
pub use guard::{Guard, HighWater};
pub use layout::{Hamode, SKEW_DEFAULT, SKEW_MAX};
pub use store::PostgresStore;

/// A pool that [`PostgresStore::open_on`] takes.
pub use deadpool_postgres;
/// Another pool that it takes, and the transactions that [`Guard::check_sqlx`] and
/// [`HighWater::admit_sqlx`] do.
#[cfg(feature = "sqlx")]
pub use sqlx;
/// The client that [`Guard`] and [`HighWater`] take transactions of.
pub use tokio_postgres;
