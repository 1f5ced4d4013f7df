//! What differs with a host's sqlx pool: what is sent, what an answer that was lost leaves, and
//! transactions of the host's under a guard.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::Duration;

use tenure_conformance::proxy::{Fault, FaultProxy};
use tenure_core::ErrorKind;
use tenure_core::identity::FencingToken;
use tenure_core::store::{Acquired, Claim, Released, Renewed, Store, Wake};
use tenure_postgres::{HighWater, PostgresConfig, PostgresStore, Schema, Tls, tokio_postgres};

use common::instance::{Player, acquire, renew};
use common::{Scratch, chance, on_sqlx, url, wait};

/// A proxy before the server, and the way through it.
fn proxied(scratch: &Scratch) -> (FaultProxy, PostgresConfig) {
    let server = url();
    let address = server.split('@').nth(1).unwrap().split('/').next().unwrap();
    let proxy = FaultProxy::start(address).unwrap();
    let mut config = scratch.config(&server.replace(address, &proxy.address().to_string()));
    config.push = false;
    (proxy, config)
}

#[test]
fn acquire_renewals_and_release_take_one_round_trip_each() {
    let scratch = Scratch::new();
    let (proxy, config) = proxied(&scratch);
    let (store, pool) = on_sqlx::open(config, on_sqlx::swift());
    let mut player = Player::new();
    // With what sqlx asks a connection that comes back, which nobody waits for.
    let turns = |act: &mut dyn FnMut()| {
        let before = proxy.count().turns();
        act();
        let answered = proxy.count().turns() - before;
        on_sqlx::settle(&pool);
        (answered, proxy.count().turns() - before)
    };

    let claims: Vec<Claim> = (0..1000).map(|n| player.claim(&format!("n{n:04}"))).collect();
    let mut grant = None;
    let taken = turns(&mut || grant = Some(acquire(&store, &claims[0]).unwrap()));
    assert!(taken.0 <= 2 && taken.1 == 2, "acquiring a free name: {taken:?}");
    let grants = wait(store.acquire(&claims[1..])).unwrap();
    on_sqlx::settle(&pool);
    let holds = player.holds(&claims[1..], &grants);
    let taken = turns(&mut || {
        let renewed = wait(store.renew(&holds)).unwrap();
        assert!(renewed.iter().all(|one| matches!(one, Renewed::Renewed(_))));
    });
    // As many arrive with one write as the kernel takes; an answer may begin before the last.
    assert!(taken.1 <= 2, "999 renewals: {taken:?}");
    let release = player.release(&claims[0], &grant.unwrap());
    let taken = turns(&mut || {
        let released = wait(store.release(std::slice::from_ref(&release))).unwrap().remove(0);
        assert!(matches!(released, Released::Released(_)), "{released:?}");
    });
    assert!(taken.0 <= 2 && taken.1 == 2, "a release: {taken:?}");
    wait(store.close()).unwrap();
    assert!(!pool.is_closed(), "it is the host's");
    let error = acquire(&store, &claims[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn by_default_sqlx_asks_a_connection_first_and_with_parameters_it_takes_two_round_trips() {
    let scratch = Scratch::new();
    let (proxy, config) = proxied(&scratch);
    let (store, pool) = on_sqlx::open(config, on_sqlx::swift().test_before_acquire(true));
    let turns = || {
        on_sqlx::settle(&pool);
        proxy.count().turns()
    };
    let before = turns();
    acquire(&store, &Player::new().claim("job")).unwrap();
    assert_eq!(turns() - before, 3, "is it well? the claim; is it still well?");
    // Why statements are written out: a pooler may come between the two.
    let taken = wait(async {
        let mut connection = pool.acquire().await.unwrap();
        let before = proxy.count().turns();
        let asked = sqlx::query_scalar("SELECT $1").bind("x").persistent(false);
        let answer: String = asked.fetch_one(&mut *connection).await.unwrap();
        assert_eq!(answer, "x");
        proxy.count().turns() - before
    });
    assert_eq!(taken, 2);
}

#[test]
fn a_lost_answer_is_unknown_and_found_again_and_its_connection_is_given_up() {
    let scratch = Scratch::new();
    let (proxy, mut config) = proxied(&scratch);
    config.timeout = Duration::from_millis(300);
    let (store, pool) = on_sqlx::open(config, on_sqlx::swift());
    let mut player = Player::new();
    let claim = player.claim("job");
    proxy.set(Fault::drop_answers());
    let error = acquire(&store, &claim).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(pool.size(), 0, "nobody gets a connection whose statement wasn't answered");
    proxy.heal();
    let grant = acquire(&store, &claim).unwrap();
    assert_eq!(grant.token, FencingToken::FIRST, "the first was granted, and is found");

    // A read that isn't answered changed nothing; one that is given up by its caller neither.
    on_sqlx::settle(&pool);
    proxy.set(Fault::drop_answers());
    let names = [claim.name.clone()];
    let error = wait(store.read(&names)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    proxy.heal();
    acquire(&store, &player.claim("another")).unwrap();
    on_sqlx::settle(&pool);
    proxy.set(Fault::drop_answers());
    wait(async {
        let given_up = tokio::time::timeout(Duration::from_millis(50), store.read(&names)).await;
        assert!(given_up.is_err());
    });
    assert_eq!(pool.size(), 0);
    proxy.heal();
    assert!(matches!(renew(&store, &player.hold(&claim, &grant)), Ok(Renewed::Renewed(_))));
}

#[test]
fn without_a_server_or_a_connection_it_is_unavailable_in_the_time_to_connect() {
    let scratch = Scratch::new();
    let (proxy, mut config) = proxied(&scratch);
    config.server.connect_timeout(Duration::from_millis(200));
    let (store, pool) = on_sqlx::open(config, on_sqlx::swift());
    let claim = Player::new().claim("job");
    let held = wait(pool.acquire()).unwrap();
    let error = acquire(&store, &claim).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "it is out: {error}");
    wait(held.close()).unwrap();
    // sqlx itself would go on trying for half a minute.
    proxy.set(Fault::Refuse);
    let error = acquire(&store, &claim).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "no server: {error}");
    proxy.heal();
    acquire(&store, &claim).unwrap();
}

#[test]
fn a_pooler_in_transaction_mode_mixes_no_requests_up() {
    let scratch = Scratch::new();
    let pooler = common::env("TENURE_TEST_PGBOUNCER", "pgbouncer");
    let config = scratch.config(&pooler);
    // Eight sessions at once, on fewer connections to the server behind the pooler.
    std::thread::scope(|scope| {
        for session in 0..8 {
            let config = config.clone();
            scope.spawn(move || {
                let (store, _) = on_sqlx::open(config, on_sqlx::swift());
                assert!(matches!(store.profile().wake, Wake::Poll(_)), "it passes nothing on");
                let mut player = Player::new();
                for round in 0..10 {
                    let claim = player.claim(&format!("s{session}-{round}"));
                    let grant = acquire(&store, &claim).unwrap();
                    let renewed = renew(&store, &player.hold(&claim, &grant)).unwrap();
                    assert!(matches!(renewed, Renewed::Renewed(_)), "{renewed:?}");
                    let snapshot =
                        wait(store.read(std::slice::from_ref(&claim.name))).unwrap().remove(0);
                    assert_eq!(snapshot.unwrap().record.name, claim.name);
                }
            });
        }
    });
}

#[test]
fn a_pool_says_where_it_leads_and_without_a_server_for_hints_waiters_poll() {
    let scratch = Scratch::new();
    let through = scratch.config(&url());
    let pool = on_sqlx::pool(&through, on_sqlx::swift());
    let mut config = PostgresConfig::of(tokio_postgres::Config::new());
    config.schema = Schema::new(&scratch.schema).unwrap();
    config.tls = Tls::Disable;
    let store = wait(PostgresStore::open_on(pool, config, chance())).unwrap();
    let profile = store.profile();
    assert!(matches!(profile.wake, Wake::Poll(_)), "{:?}", profile.wake);
    assert!(profile.location.starts_with("postgres://127.0.0.1:"), "{}", profile.location);
    assert!(acquire(&store, &Player::new().claim("it's \\ \"a\" $1 name")).is_ok());
}

#[test]
fn what_is_missing_is_named_as_ever() {
    let nothing = Scratch::unused();
    let config = nothing.config(&url());
    let pool = on_sqlx::pool(&config, on_sqlx::swift());
    let error = wait(PostgresStore::open_on(pool, config, chance())).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    let said = error.to_string();
    assert!(said.contains(&format!("{}.leases", nothing.schema)), "{said}");
    assert!(said.contains("tenure init"), "{said}");
}

#[test]
fn a_guard_in_a_transaction_holds_off_the_next_grant_and_an_old_token_rolls_back() {
    let scratch = Scratch::new();
    let (store, _) = on_sqlx::open(scratch.config(&url()), on_sqlx::swift());
    let schema = &scratch.schema;
    scratch.run(&format!("CREATE TABLE {schema}.effects (said text)"));
    let effect =
        |said: &str| sqlx::AssertSqlSafe(format!("INSERT INTO {schema}.effects VALUES ('{said}')"));
    let host = on_sqlx::pool(&scratch.config(&url()), on_sqlx::swift());
    let mut player = Player::new();
    let claim = player.claim("guarded");
    let grant = acquire(&store, &claim).unwrap();
    wait(async {
        let mut transaction = host.begin().await.unwrap();
        store.guard().check_sqlx(&mut transaction, &claim.name, grant.token).await.unwrap();
        sqlx::raw_sql(effect("in time")).execute(&mut *transaction).await.unwrap();
        let hold = player.hold(&claim, &grant);
        let renewed = store.renew(&[hold]).await.unwrap();
        assert!(matches!(renewed[..], [Renewed::Renewed(_)]), "it goes on: {renewed:?}");
        store.release(&[player.release(&claim, &grant)]).await.unwrap();
        let next = player.claim("guarded");
        let early = store.acquire(std::slice::from_ref(&next)).await.unwrap().remove(0);
        assert!(
            matches!(&early, Acquired::Failed(error) if error.kind() == ErrorKind::Unavailable),
            "{early:?}"
        );
        transaction.commit().await.unwrap();
        let granted = store.acquire(&[next]).await.unwrap().remove(0);
        assert!(matches!(&granted, Acquired::Granted(next) if next.token > grant.token));

        // What was guarded by the old token is over, also for who overlooks it.
        let mut transaction = host.begin().await.unwrap();
        sqlx::raw_sql(effect("before")).execute(&mut *transaction).await.unwrap();
        let late = store.guard().check_sqlx(&mut transaction, &claim.name, grant.token).await;
        assert!(late.unwrap_err().is_refusal());
        assert!(sqlx::raw_sql(effect("after")).execute(&mut *transaction).await.is_err());
        let _ = transaction.commit().await;
    });
    let effects = scratch.value(&format!("SELECT string_agg(said, ',') FROM {schema}.effects"));
    assert_eq!(effects.as_deref(), Some("in time"));
}

#[test]
fn high_water_lets_no_older_token_through() {
    let scratch = Scratch::new();
    let marks = HighWater::new(Schema::new(&scratch.schema).unwrap());
    let host = on_sqlx::pool(&scratch.config(&url()), on_sqlx::swift());
    let token = |number| FencingToken::new(number).unwrap();
    wait(async {
        for (number, passes) in [(4, true), (4, true), (7, true), (6, false), (8, true)] {
            let mut transaction = host.begin().await.unwrap();
            let admitted = marks.admit_sqlx(&mut transaction, "the 'ledger'", token(number)).await;
            assert_eq!(admitted.is_ok(), passes, "{number}: {admitted:?}");
            match admitted {
                Ok(()) => transaction.commit().await.unwrap(),
                Err(error) => {
                    assert!(error.to_string().contains("token 7 has been here"), "{error}");
                }
            }
        }
    });
}
