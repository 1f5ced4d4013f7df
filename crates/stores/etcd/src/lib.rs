//! Leases of tenure in etcd: one Txn a claim, decided by the leases of etcd itself.
//!
//! ```no_run
//! use tenure_core::chance::Chance;
//! use tenure_core::store::{Level, Store};
//! use tenure_etcd::{EtcdConfig, EtcdStore};
//!
//! # async fn shown() -> Result<(), tenure_core::Error> {
//! let config = EtcdConfig::from_url("etcd://etcd-0:2379,etcd-1:2379,etcd-2:2379?namespace=shop")?;
//! let store = EtcdStore::open(config, Chance::seeded(7)).await?;
//! assert_eq!(store.profile().level, Level::FencedTx);
//! store.close().await
//! # }
//! ```
//!
//! A held name is a key that its grant created, and nothing writes again: the revision that
//! created it is the token. It hangs on an etcd lease that the session shares among its grants of
//! one ttl, and is gone with the release, or with that lease. Everything else that is known of the
//! name lies in keys beside it. etcd-client isn't used, since it needs `protoc` to be built; the
//! few messages are in `wire`. A host that has a client of it shares its channel
//! ([`EtcdStore::open_on`]).

mod acquire;
mod admin;
mod all;
mod client;
mod config;
mod entry;
mod errors;
mod guard;
mod keys;
mod layout;
mod leases;
mod ledger;
mod link;
mod pulse;
mod read;
mod rehang;
mod release;
mod renew;
mod store;
mod theirs;
mod watch;
mod wire;

pub use admin::EtcdAdmin;
pub use config::{EtcdConfig, HISTORY_DEFAULT, PREFIX_DEFAULT, TIMEOUT_DEFAULT, User};
pub use guard::{Guard, GuardedTxn};
pub use layout::Layout;
pub use store::EtcdStore;

/// The channels that [`EtcdStore::open_on`] takes.
pub use tonic;
