//! The embedded store of tenure: leases in an SQLite file, for the processes of one host.
//!
//! ```
//! # use tenure_core::{chance::Chance, clock::ManualClock};
//! # let directory = std::env::temp_dir().join(format!("tenure-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let path = directory.join("app.db");
//! use std::sync::Arc;
//! use tenure_core::store::{Level, Store};
//! use tenure_sqlite::{SqliteConfig, SqliteStore};
//!
//! # async fn shown(path: std::path::PathBuf) -> Result<(), tenure_core::Error> {
//! let config = SqliteConfig::from_url(&format!("sqlite:{}?namespace=shop", path.display()))?;
//! // The runtime passes CLOCK_BOOTTIME and chance from the operating system.
//! let store = SqliteStore::open(config, Arc::new(ManualClock::default()), Chance::seeded(7)).await?;
//! assert_eq!(store.profile().level, Level::FencedTx);
//! store.close().await
//! # }
//! # struct Unpark(std::thread::Thread);
//! # impl std::task::Wake for Unpark { fn wake(self: Arc<Self>) { self.0.unpark() } }
//! # let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
//! # let mut context = std::task::Context::from_waker(&waker);
//! # let mut work = Box::pin(shown(path));
//! # while work.as_mut().poll(&mut context).map(Result::unwrap).is_pending() { std::thread::park() }
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! What it promises and where its limits are is told in the README; why it is built so, at the
//! head of each module: one thread writes and one reads (`worker`), writers queue up so
//! that none starves (`turn`), and the kernel tells who is dead (`presence`).

mod admin;
mod answer;
mod config;
mod errors;
mod gate;
mod guard;
mod ledger;
mod link;
mod place;
mod presence;
mod rows;
#[cfg(test)]
mod scratch;
mod shared;
mod store;
mod turn;
mod watch;
mod worker;

pub use config::{BUSY_DEFAULT, BUSY_MAX, SqliteConfig};
pub use guard::{GUARDED_TRANSACTION_MAX, Guard, HighWater};
pub use store::SqliteStore;

/// The client that [`Guard`] and [`HighWater`] take transactions of.
pub use rusqlite;
