//! Leases as objects in S3, Google Cloud Storage and Azure Blob Storage.
//!
//! ```no_run
//! # async fn shown() -> Result<(), tenure_core::Error> {
//! use tenure_core::chance::Chance;
//! use tenure_core::store::Store;
//! use tenure_object::{ObjectConfig, ObjectLeases};
//!
//! let config = ObjectConfig::from_url("s3://my-bucket/leases?region=eu-west-1&namespace=shop")?;
//! // The runtime passes chance from the operating system.
//! let store = ObjectLeases::open(config, Chance::seeded(7)).await?;
//! println!("{}", store.profile().level);
//! store.close().await
//! # }
//! ```
//!
//! What it promises, and what the bucket must be for that, is told in the README. A record is an
//! object (`records`), written on the condition that it is as it was read; the lease over that is
//! the core's. Nothing is ever deleted, and no request is sent twice by itself but reads. That the
//! endpoint honours conditions is tried at each opening, by the core's trial.

mod admin;
mod client;
mod config;
mod entry;
mod errors;
mod keys;
mod layout;
mod pace;
mod records;
mod seen;
mod shared;
mod store;
mod tag;
mod wire;

pub use admin::ObjectAdmin;
pub use config::ObjectConfig;
pub use layout::Layout;
pub use store::ObjectLeases;

/// The client that [`ObjectConfig::of_client`] takes.
pub use object_store;
