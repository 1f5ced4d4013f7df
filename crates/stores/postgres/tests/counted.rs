//! What a request takes, counted at the wire and by the server: round trips, and rows that are read.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use tenure_conformance::proxy::FaultProxy;
use tenure_core::store::{Acquired, Claim, InitOptions, Released, Renewed, Store};
use tenure_postgres::{PostgresStore, deadpool_postgres};

use common::instance::{Player, acquire, open, renew};
use common::{Scratch, chance, url, wait};

#[test]
fn acquire_renewals_and_release_take_one_round_trip_each() {
    let scratch = Scratch::new();
    takes_one_round_trip_each(&scratch, false);
    // On connections that are the server's own, statements are prepared when one is made.
    takes_one_round_trip_each(&scratch, true);
}

#[test]
fn they_take_one_where_names_are_shared_too() {
    let scratch = Scratch::unused_and_shared();
    scratch.init(&InitOptions::default());
    takes_one_round_trip_each(&scratch, false);
    takes_one_round_trip_each(&scratch, true);
}

fn takes_one_round_trip_each(scratch: &Scratch, pushes: bool) {
    let server = url();
    let address = server.split('@').nth(1).unwrap().split('/').next().unwrap();
    let proxy = FaultProxy::start(address).unwrap();
    let mut config = scratch.config(&server.replace(address, &proxy.address().to_string()));
    (config.push, config.connections) = (pushes, 1);
    let store = open(config).unwrap();
    let mut player = Player::new();
    let turns = || proxy.count().turns();

    let claims: Vec<Claim> = (0..1000).map(|n| player.claim(&format!("{pushes}-{n:04}"))).collect();
    let before = turns();
    let grant = acquire(&store, &claims[0]).unwrap();
    assert_eq!(turns() - before, 1, "acquiring a free name");
    let before = turns();
    let refused = wait(store.acquire(&[player.claim(claims[0].name.as_str())])).unwrap().remove(0);
    assert!(matches!(refused, Acquired::Refused(_)), "{refused:?}");
    assert_eq!(turns() - before, 1, "a refusal");
    let grants = wait(store.acquire(&claims[1..])).unwrap();
    let holds = player.holds(&claims[1..], &grants);
    // As many arrive with one write as the kernel takes; an answer may begin before the last.
    let before = proxy.count();
    let renewed = wait(store.renew(&holds)).unwrap();
    assert!(renewed.iter().all(|one| matches!(one, Renewed::Renewed(_))));
    let sent = proxy.count().turns() - before.turns();
    assert!(sent <= 1, "999 renewals took {sent} round trips");
    let release = player.release(&claims[0], &grant);
    let before = turns();
    let released = wait(store.release(&[release])).unwrap().remove(0);
    assert!(matches!(released, Released::Released(_)), "{released:?}");
    assert_eq!(turns() - before, 1, "a release");
    wait(store.close()).unwrap();
}

/// As behind a pooler that came in between: the name of the statement means nothing any more.
#[test]
fn a_statement_that_its_connection_forgot_is_sent_anew_and_none_is_prepared_again() {
    let scratch = Scratch::new();
    let schema = &scratch.schema;
    let server = url();
    let address = server.split('@').nth(1).unwrap().split('/').next().unwrap();
    let proxy = FaultProxy::start(address).unwrap();
    let mut config = scratch.config(&server.replace(address, &proxy.address().to_string()));
    config.connections = 1;
    let store = open(config).unwrap();
    let mut player = Player::new();
    let claim = player.claim("job");
    let grant = acquire(&store, &claim).unwrap();
    scratch.run(&format!(
        "CREATE OR REPLACE FUNCTION {schema}.clock() RETURNS timestamptz LANGUAGE plpgsql AS
             'BEGIN EXECUTE ''DEALLOCATE ALL''; RETURN pg_catalog.clock_timestamp(); END'"
    ));
    let mut renewed_in = || {
        let before = proxy.count().turns();
        let hold = player.hold(&claim, &grant);
        let renewed = renew(&store, &hold).unwrap();
        assert!(matches!(renewed, Renewed::Renewed(_)), "{renewed:?}");
        proxy.count().turns() - before
    };
    assert_eq!(renewed_in(), 1, "it is still there, and forgets itself");
    assert_eq!(renewed_in(), 2, "refused, and sent anew");
    assert_eq!(renewed_in(), 1, "nothing counts as prepared");
    wait(store.close()).unwrap();
}

/// A plan that was made while the table was empty serves for as long as its connection.
#[test]
fn a_request_reads_the_rows_that_it_names_however_many_there_are() {
    reads_the_rows_that_it_names(&Scratch::new());
    let shared = Scratch::unused_and_shared();
    shared.init(&InitOptions::default());
    reads_the_rows_that_it_names(&shared);
}

fn reads_the_rows_that_it_names(scratch: &Scratch) {
    const NAMES: usize = 2000;
    let mut config = scratch.config(&url());
    config.push = false;
    let pool = deadpool_postgres::Pool::builder(deadpool_postgres::Manager::new(
        url().parse().unwrap(),
        tokio_postgres::NoTls,
    ));
    let pool = pool.max_size(1).build().unwrap();
    let store = wait(PostgresStore::open_on(pool.clone(), config, chance())).unwrap();
    let schema = &scratch.schema;
    let rows_read = || {
        let query = format!(
            "SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::bigint \
             FROM pg_stat_user_tables WHERE schemaname = '{schema}' \
             AND relname IN ('leases', 'app_runtime_leases')"
        );
        wait(async {
            let connection = pool.get().await.unwrap();
            connection.batch_execute("SELECT pg_stat_force_next_flush()").await.unwrap();
            let rows = connection.query_typed(&query, &[]).await.unwrap();
            rows[0].get::<_, i64>(0)
        })
    };
    let mut player = Player::new();
    let first = player.claim("first");
    let grant = acquire(&store, &first).unwrap();
    let hold = player.hold(&first, &grant);
    renew(&store, &hold).unwrap();
    wait(store.read(std::slice::from_ref(&first.name))).unwrap();
    let claims: Vec<Claim> = (0..NAMES).map(|n| player.claim(&format!("n{n}"))).collect();
    let grants = wait(store.acquire(&claims)).unwrap();

    // At least as many as are named: else the server wouldn't have told yet.
    let counted = |what: &str, least: i64, most: i64, act: &mut dyn FnMut()| {
        let before = rows_read();
        act();
        let read = rows_read() - before;
        assert!((least..=most).contains(&read), "{what} read {read} rows of {NAMES}");
    };
    let hold = player.hold(&first, &grant);
    counted("a renewal", 1, 10, &mut || {
        let renewed = renew(&store, &hold).unwrap();
        assert!(matches!(renewed, Renewed::Renewed(_)), "{renewed:?}");
    });
    counted("a look", 1, 10, &mut || {
        let read = wait(store.read(std::slice::from_ref(&first.name))).unwrap();
        assert!(matches!(read[..], [Some(_)]), "{read:?}");
    });
    let refused = player.claim("first");
    counted("a refusal", 1, 10, &mut || {
        let answer = wait(store.acquire(std::slice::from_ref(&refused))).unwrap();
        assert!(matches!(answer[..], [Acquired::Refused(_)]), "{answer:?}");
    });
    let holds = player.holds(&claims, &grants);
    counted("a beat of all", NAMES as i64, 10 * NAMES as i64, &mut || {
        let renewed = wait(store.renew(&holds)).unwrap();
        assert!(renewed.iter().all(|one| matches!(one, Renewed::Renewed(_))));
    });
    let release = player.release(&first, &grant);
    counted("a release", 1, 20, &mut || {
        let released = wait(store.release(std::slice::from_ref(&release))).unwrap();
        assert!(matches!(released[..], [Released::Released(_)]), "{released:?}");
    });
    wait(store.close()).unwrap();
}
