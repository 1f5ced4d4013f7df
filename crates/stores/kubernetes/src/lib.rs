//! Leases on the `Lease` objects of Kubernetes, together with client-go's replicas.
//!
//! ```no_run
//! # async fn shown() -> Result<(), tenure_core::Error> {
//! use tenure_core::chance::Chance;
//! use tenure_core::store::Store;
//! use tenure_kubernetes::{KubernetesConfig, KubernetesStore};
//!
//! let config = KubernetesConfig::from_url("kubernetes://prod?context=eu")?;
//! // The runtime passes chance from the operating system.
//! let store = KubernetesStore::open(config, Chance::seeded(7)).await?;
//! println!("{}", store.profile().level);
//! store.close().await
//! # }
//! ```
//!
//! What it promises is told in the README. A lease is one object: its spec is what client-go's
//! replicas see and write, and our whole record stands in an annotation beside it (`lease`).
//! `translate` goes from one to the other: as long as the spec is the one that we wrote, our record is
//! the truth; else its holder is a neighbour. Everything about leases is
//! [`RecordLeases`](tenure_core::record_leases::RecordLeases)'s.

mod admin;
mod config;
mod errors;
mod lease;
mod link;
mod names;
mod records;
mod revision;
mod store;
mod translate;
mod version;
mod watch;

pub use admin::KubernetesAdmin;
pub use config::KubernetesConfig;
pub use records::LeaseRecords;
pub use store::KubernetesStore;

/// The client that [`KubernetesConfig::of_client`] takes.
pub use kube;
