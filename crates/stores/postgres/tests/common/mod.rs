//! A schema of its own for each test, on the real server that `cargo xtask stores up` started.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

pub(crate) mod harness;
pub(crate) mod instance;
#[cfg(feature = "sqlx")]
pub(crate) mod on_sqlx;
pub(crate) mod peer;

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use tenure_core::chance::Chance;
use tenure_core::store::{InitOptions, StoreAdmin};
use tenure_postgres::{Hamode, PostgresAdmin, PostgresConfig};
use tokio::runtime::Runtime;

/// The server's URL.
pub(crate) fn url() -> String {
    env("TENURE_TEST_POSTGRES", "postgres")
}

/// A line of `cargo xtask stores up`.
pub(crate) fn env(name: &str, server: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set; run `export $(cargo xtask stores up {server})` first")
    })
}

/// The runtime of all tests of a binary.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// Runs a future to its end, also from within another one.
pub(crate) fn wait<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| runtime().block_on(work)).join().unwrap())
}

/// Chance that differs from run to run.
pub(crate) fn chance() -> Chance {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let now = UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    Chance::seeded(now ^ (DRAWN.fetch_add(1, Ordering::Relaxed) << 48))
}

/// A schema that goes away with the test.
pub(crate) struct Scratch {
    pub(crate) schema: String,
    /// Whether names are shared with a table of HAMode's, which lies in the schema, too.
    pub(crate) shared: bool,
}

impl Scratch {
    /// A name only: nothing is created.
    pub(crate) fn unused() -> Self {
        Self { schema: format!("t_{:016x}", chance().next_u64()), shared: false }
    }

    /// The same, for a store whose names are shared.
    pub(crate) fn unused_and_shared() -> Self {
        let mut scratch = Self::unused();
        scratch.shared = true;
        scratch
    }

    /// A store whose clock is turned by hand.
    pub(crate) fn new() -> Self {
        let scratch = Self::unused();
        scratch.init(&InitOptions::default());
        scratch
    }

    pub(crate) fn init(&self, options: &InitOptions) {
        wait(async {
            let admin = PostgresAdmin::new(self.config(&url()), chance()).unwrap();
            admin.init(options).await.unwrap();
        });
        let schema = &self.schema;
        if self.shared {
            // As the authors of HAMode create it for a product of theirs.
            self.run(&format!(
                "CREATE TABLE {schema}.app_runtime_leases (
                     lease_name text NOT NULL PRIMARY KEY, holder_id text NOT NULL,
                     version bigint NOT NULL DEFAULT 1,
                     acquired_at_utc timestamp with time zone NOT NULL,
                     expires_at_utc timestamp with time zone NOT NULL)"
            ));
        }
        self.run(&format!(
            "CREATE TABLE {schema}.test_clock AS SELECT interval '0' AS turned;
             CREATE OR REPLACE FUNCTION {schema}.clock() RETURNS timestamptz
             LANGUAGE plpgsql VOLATILE AS 'BEGIN
                 RETURN pg_catalog.clock_timestamp() + (SELECT turned FROM {schema}.test_clock);
             END'"
        ));
    }

    /// This schema through the server at `url`.
    pub(crate) fn config(&self, url: &str) -> PostgresConfig {
        let separator = if url.contains('?') { '&' } else { '?' };
        let mut config = PostgresConfig::from_url(&format!(
            "{url}{separator}sslmode=disable&schema={}",
            self.schema
        ))
        .unwrap();
        if self.shared {
            let table = Hamode::default().with_table(&self.schema, "app_runtime_leases");
            config.hamode = Some(table.unwrap());
        }
        config.connections = 2;
        config.timeout = Duration::from_secs(30);
        config
    }

    /// Turns the store's clock.
    pub(crate) fn turn(&self, by: Duration) {
        let schema = &self.schema;
        let micros = by.as_micros();
        self.run(&format!(
            "UPDATE {schema}.test_clock SET turned = turned + interval '{micros} microseconds'"
        ));
    }

    /// Runs statements behind the store's back.
    pub(crate) fn run(&self, statements: &str) {
        wait(async { client(&url()).await.batch_execute(statements).await.unwrap() });
    }

    /// One value, read behind the store's back.
    pub(crate) fn value(&self, query: &str) -> Option<String> {
        wait(async {
            let rows = client(&url()).await.query_typed(query, &[]).await.unwrap();
            rows.first().and_then(|row| row.get(0))
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema);
        wait(async {
            let _ = client(&url()).await.batch_execute(&drop).await;
        });
    }
}

/// A connection of the test's own.
pub(crate) async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
