//! Sessions on a pool that the host made with sqlx.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, PgPool};
use tenure_postgres::tokio_postgres::config::Host;
use tenure_postgres::{PostgresConfig, PostgresStore};

use super::{chance, wait};

/// As a host would that wants one round trip a request: sqlx doesn't ask whether a connection is
/// alive before it lends it out, so what is lost on the way is a statement.
pub(crate) fn swift() -> PgPoolOptions {
    PgPoolOptions::new().max_connections(1).test_before_acquire(false)
}

/// A host's pool of the server that a configuration names.
pub(crate) fn pool(config: &PostgresConfig, options: PgPoolOptions) -> PgPool {
    let server = &config.server;
    let [Host::Tcp(host), ..] = server.get_hosts() else { panic!("a TCP address is tested") };
    let to = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(server.get_ports()[0])
        .username(server.get_user().unwrap())
        .database(server.get_dbname().unwrap())
        .ssl_mode(PgSslMode::Disable)
        // A pooler takes no others.
        .extra_float_digits(None)
        .disable_statement_logging();
    let _within = super::runtime().enter();
    options.connect_lazy_with(to)
}

/// A session on a pool of its own, whose connections are all back in it.
pub(crate) fn open(config: PostgresConfig, options: PgPoolOptions) -> (PostgresStore, PgPool) {
    let pool = pool(&config, options);
    let store = wait(PostgresStore::open_on(pool.clone(), config, chance())).unwrap();
    settle(&pool);
    (store, pool)
}

/// Waits until no connection is out: sqlx asks each one that comes back whether it is well.
pub(crate) fn settle(pool: &PgPool) {
    wait(async {
        while pool.num_idle() < pool.size() as usize {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}
