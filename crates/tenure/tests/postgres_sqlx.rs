//! Sessions on a pool that the host made with sqlx.

#![cfg(feature = "postgres-sqlx")]
#![allow(clippy::unwrap_used)] // a test that can't go on fails

use tenure::guard::GuardError;
use tenure::postgres::sqlx::postgres::PgPoolOptions;
use tenure::postgres::sqlx::{AssertSqlSafe, raw_sql};
use tenure::postgres::{PostgresAdmin, PostgresConfig, PostgresStore, Schema, tokio_postgres};
use tenure::{Attempt, ErrorKind, Level, Session, chance_of_system};
use tenure_core::store::{InitOptions, StoreAdmin};

#[tokio::test]
async fn a_session_on_a_hosts_postgres_pool_guards_its_transactions() {
    let url = std::env::var("TENURE_TEST_POSTGRES")
        .expect("run `export $(cargo xtask stores up postgres)` first");
    let schema = format!("t_{:016x}", chance_of_system().unwrap().next_u64());
    let mut admin = PostgresConfig::from_url(&url).unwrap();
    admin.schema = Schema::new(&schema).unwrap();
    let admin = PostgresAdmin::new(admin, chance_of_system().unwrap()).unwrap();
    admin.init(&InitOptions::default()).await.unwrap();

    let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    let mut config = PostgresConfig::of(tokio_postgres::Config::new());
    config.schema = Schema::new(&schema).unwrap();
    let store = PostgresStore::open_on(pool.clone(), config, chance_of_system().unwrap());
    let session = Session::builder().postgres(store.await.unwrap()).require(Level::FencedTx);
    let session = session.open().await.unwrap();
    let Attempt::Granted(lease) = session.lease("ledger").try_acquire().await.unwrap() else {
        panic!("nobody else is here")
    };
    let proof = lease.proof();
    let mut transaction = pool.begin().await.unwrap();
    lease.guard(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    lease.release().await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    let late = proof.guard(&mut transaction).await;
    assert!(matches!(late, Err(GuardError::NotInForce { .. })), "{late:?}");
    transaction.rollback().await.unwrap();

    let elsewhere = Session::open("memory:").await.unwrap();
    let Attempt::Granted(lease) = elsewhere.lease("ledger").try_acquire().await.unwrap() else {
        panic!("nobody else is here")
    };
    let mut transaction = pool.begin().await.unwrap();
    let error = lease.guard(&mut transaction).await.unwrap_err();
    assert!(matches!(error, GuardError::Failed(error) if error.kind() == ErrorKind::Misconfigured));
    drop(transaction);
    elsewhere.close().await.unwrap();
    session.close().await.unwrap();
    let clear = AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
    raw_sql(clear).execute(&pool).await.expect("the pool is the host's, and open");
}
