//! Redis: SET with an expiry by the same client, over one connection; rslock.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use redis::aio::MultiplexedConnection;
use rslock::LockManager;
use tenure::Session;

use crate::beside::{self, Peer, Raw};
use crate::idle::idle;
use crate::measure::Report;

/// Longer than anything here takes.
const TTL: Duration = Duration::from_secs(300);

struct Keys(MultiplexedConnection);

fn set(key: &str) -> redis::Cmd {
    let mut set = redis::cmd("SET");
    set.arg(key).arg("0123456789abcdef0123456789abcdef").arg("PX").arg(TTL.as_millis() as u64);
    set
}

impl Raw for Keys {
    async fn write(&self, task: usize) -> Result<()> {
        let mut connection = self.0.clone();
        Ok(set(&format!("raw-{task}")).query_async(&mut connection).await?)
    }

    async fn write_many(&self, many: usize) -> Result<()> {
        let mut connection = self.0.clone();
        let mut pipeline = redis::pipe();
        for n in 0..many {
            pipeline.add_command(set(&format!("raw-{n}"))).ignore();
        }
        Ok(pipeline.query_async(&mut connection).await?)
    }
}

/// The algorithm of Redlock on one server, as its crate does it.
struct Redlock(LockManager);

impl Peer for Redlock {
    async fn pair(&self, task: usize) -> Result<()> {
        let name = format!("rslock-{task}");
        let lock = self.0.lock(name.as_bytes(), TTL).await.context("rslock")?;
        self.0.unlock(&lock).await;
        Ok(())
    }
}

pub(crate) async fn bench(report: &mut Report, url: &str, turns: usize) -> Result<()> {
    let session = Session::open(format!("{url}?namespace=bench")).await?;
    let client = redis::Client::open(url)?;
    let raw = Arc::new(Keys(client.get_multiplexed_async_connection().await?));
    report.heading("redis", "SET with an expiry, by the same client");
    beside::single(report, "redis", &session, &raw, turns).await?;
    beside::beats(report, "redis", &session, &raw).await?;
    report.heading("redis", "a lock of rslock and its release (one server, no token)");
    let peer = Arc::new(Redlock(LockManager::new(vec![url])));
    beside::peer(report, "redis: rslock", &session, &peer, turns).await?;
    let waiter = Session::open(format!("{url}?namespace=bench")).await?;
    beside::wakes(report, &session, &waiter).await?;
    waiter.close().await?;
    session.close().await?;
    idle(&format!("{url}?namespace=bench"), 100).await
}
