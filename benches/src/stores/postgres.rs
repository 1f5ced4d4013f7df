//! PostgreSQL: a prepared update by the same client, over as many connections; an advisory lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context as _, Result};
use tenure::Session;
use tenure::core::store::InitOptions;
use tenure::postgres::tokio_postgres::{Client, NoTls, Statement, connect};

use crate::beside::{self, Peer, Raw};
use crate::idle::idle;
use crate::measure::Report;

const SCHEMA: &str = "tenure_bench";
/// As many as a session of ours opens.
const CONNECTIONS: usize = 4;
/// How many rows there are.
const ROWS: usize = 10_000;

/// Plain rows, and prepared statements on connections of their own.
struct Rows {
    connections: Vec<Connection>,
    written: AtomicI64,
}

struct Connection {
    client: Client,
    update: Statement,
    update_many: Statement,
    lock: Statement,
    unlock: Statement,
}

impl Connection {
    async fn open(url: &str) -> Result<Self> {
        let client = client(url).await?;
        let update = format!("UPDATE {SCHEMA}.raw SET written = $2 WHERE name = $1 RETURNING name");
        let update_many = format!(
            "UPDATE {SCHEMA}.raw AS r SET written = $2 FROM unnest($1::text[]) AS each(name) \
             WHERE r.name = each.name RETURNING r.name"
        );
        Ok(Self {
            update: client.prepare(&update).await?,
            update_many: client.prepare(&update_many).await?,
            lock: client.prepare("SELECT pg_try_advisory_lock($1)").await?,
            unlock: client.prepare("SELECT pg_advisory_unlock($1)").await?,
            client,
        })
    }
}

async fn client(url: &str) -> Result<Client> {
    let (client, connection) = connect(url, NoTls).await.context("connecting by hand")?;
    tokio::spawn(connection);
    Ok(client)
}

impl Rows {
    async fn open(url: &str) -> Result<Self> {
        client(url)
            .await?
            .batch_execute(&format!(
                "CREATE TABLE {SCHEMA}.raw (name text PRIMARY KEY, written bigint, record bytea)
                 WITH (fillfactor = 70);
                 INSERT INTO {SCHEMA}.raw SELECT kind || n, 0, decode(repeat('78', 600), 'hex')
                 FROM generate_series(0, {ROWS}) AS n, unnest('{{task-,many-}}'::text[]) AS kind;
                 ANALYZE {SCHEMA}.raw"
            ))
            .await?;
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(url).await?);
        }
        Ok(Self { connections, written: AtomicI64::new(0) })
    }

    fn of(&self, task: usize) -> &Connection {
        &self.connections[task % CONNECTIONS]
    }

    fn fresh(&self) -> i64 {
        self.written.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Raw for Rows {
    async fn write(&self, task: usize) -> Result<()> {
        let Connection { client, update, .. } = self.of(task);
        client.query_one(update, &[&format!("task-{task}"), &self.fresh()]).await?;
        Ok(())
    }

    async fn write_many(&self, many: usize) -> Result<()> {
        let Connection { client, update_many, .. } = self.of(0);
        let names: Vec<String> = (0..many).map(|n| format!("many-{n}")).collect();
        client.query(update_many, &[&names, &self.fresh()]).await?;
        Ok(())
    }
}

impl Peer for Rows {
    async fn pair(&self, task: usize) -> Result<()> {
        let Connection { client, lock, unlock, .. } = self.of(task);
        let number = task as i64;
        client.query_one(lock, &[&number]).await?;
        client.query_one(unlock, &[&number]).await?;
        Ok(())
    }
}

pub(crate) async fn bench(report: &mut Report, url: &str, turns: usize) -> Result<()> {
    let ours = format!("{url}?schema={SCHEMA}&sslmode=disable");
    let operator = client(url).await?;
    let clean = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE");
    operator.batch_execute(&clean).await?;
    let mut chance = tenure::chance_of_system()?;
    tenure::connect::admin(&ours, &mut chance).await?.init(&InitOptions::default()).await?;
    let session = Session::open(ours.as_str()).await?;
    let raw = Arc::new(Rows::open(url).await?);

    report.heading("postgres", "a prepared update of one row, committed, on as many connections");
    beside::single(report, "postgres", &session, &raw, turns).await?;
    beside::beats(report, "postgres", &session, &raw).await?;
    report.heading("postgres", "an advisory lock and its release (no ttl, no token, no write)");
    beside::peer(report, "postgres: advisory lock", &session, &raw, turns).await?;
    let waiter = Session::open(ours.as_str()).await?;
    beside::wakes(report, &session, &waiter).await?;
    waiter.close().await?;
    session.close().await?;
    idle(&ours, 100).await?;
    operator.batch_execute(&clean).await?;
    Ok(())
}
