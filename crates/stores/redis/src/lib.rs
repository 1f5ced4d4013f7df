//! Leases in Redis and Valkey: on one server, behind Sentinel, or in a cluster.
//!
//! ```no_run
//! # async fn shown() -> Result<(), tenure_core::Error> {
//! use tenure_core::chance::Chance;
//! use tenure_core::store::Store;
//! use tenure_redis::{RedisConfig, RedisStore};
//!
//! let config = RedisConfig::from_url("redis://127.0.0.1/0?namespace=shop")?;
//! // The runtime passes chance from the operating system.
//! let store = RedisStore::open(config, Chance::seeded(7)).await?;
//! println!("{}", store.profile().level);
//! store.close().await
//! # }
//! ```
//!
//! What it promises, and what the server must be for that, is told in the README. Each request is
//! one script call for each bucket of names that it touches (`script`, `src/lua`): the rules of
//! `tenure_core::decide`, said once more in Lua, because the server's clock decides them and one
//! round trip must do. A session believes in one store, bucket by bucket (`belief`, `session`),
//! and no call does anything in another.

mod admin;
mod belief;
mod config;
mod errors;
mod guard;
mod keys;
mod layout;
mod link;
mod list;
mod nature;
mod reply;
mod route;
mod rows;
mod script;
mod session;
mod store;
mod tls;
mod watch;

pub use config::RedisConfig;
pub use guard::HighWater;
pub use layout::Layout;
pub use store::RedisStore;

/// The client that [`RedisConfig::of_client`] and [`HighWater`] take.
pub use redis;
