//! Leases in Dapr state stores, through the sidecar's HTTP API.
//!
//! ```no_run
//! # async fn shown() -> Result<(), tenure_core::Error> {
//! use tenure_core::chance::Chance;
//! use tenure_core::store::Store;
//! use tenure_dapr::{DaprConfig, DaprLeases};
//!
//! let config = DaprConfig::from_url("dapr:statestore?namespace=shop")?;
//! // The runtime passes chance from the operating system.
//! let store = DaprLeases::open(config, Chance::seeded(7)).await?;
//! println!("{}", store.profile().level);
//! store.close().await
//! # }
//! ```
//!
//! What it promises, on which components, is told in the README. A record is a value (`values`)
//! that is written if its etag is as it was read, and read back after each write; the lease over
//! that is the core's. Nothing is ever deleted, and nothing has a time to live.

mod admin;
mod component;
mod config;
mod index;
mod keys;
mod records;
mod sidecar;
mod store;
mod values;

pub use admin::DaprAdmin;
pub use config::DaprConfig;
pub use store::DaprLeases;
