//! A table that is shared with HAMode, whose exact statements are the other side.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::Duration;

use tenure_conformance::contended::{Contenders, Neighbour, race};
use tenure_conformance::harness::Harness;
use tenure_conformance::player::{Player, name};
use tenure_conformance::stamp::failures;
use tenure_core::ErrorKind;
use tenure_core::chance::Chance;
use tenure_core::decide::{Occupancy, occupancy};
use tenure_core::identity::Successor;
use tenure_core::neighbour::{LAYOUT, holder_id, is_made_up};
use tenure_core::record::Demand;
use tenure_core::store::{
    Level, Ordered, Prefix, Query, Reserved, Store, StoreAdmin, Verdict, Wake,
};
use tenure_postgres::{Hamode, PostgresAdmin, PostgresStore, SKEW_DEFAULT};

use common::harness::Postgres;
use common::peer::Peer;
use common::{Scratch, chance, client, runtime, url, wait};

const TTL: Duration = Duration::from_secs(30);

fn peer(postgres: &Postgres) -> Peer {
    Peer::connect(&url(), &postgres.scratch.schema)
}

/// What a neighbour's entry of a name says: holder, version, and how long it lasts by the clock
/// of the tests.
fn entry(postgres: &Postgres, name: &str) -> Option<(String, i64, i64)> {
    let schema = &postgres.scratch.schema;
    let query = format!(
        "SELECT holder_id, version, (extract(epoch FROM expires_at_utc - {schema}.clock()) * \
         1000)::bigint FROM {schema}.app_runtime_leases WHERE lease_name = '{name}'"
    );
    wait(async {
        let rows = client(&url()).await.query_typed(&query, &[]).await.unwrap();
        rows.first().map(|row| (row.get(0), row.get(1), row.get(2)))
    })
}

#[test]
fn contended_rounds_have_one_holder_by_either_sides_rule() {
    let postgres = Postgres::shared();
    let tally = race(&postgres, || peer(&postgres), Contenders::from_env());
    println!("{tally:?}");
}

#[test]
fn contended_rounds_have_one_holder_through_a_pooler() {
    let postgres = Postgres::shared_and_pooled();
    let contenders = Contenders { rounds: 200, ..Contenders::from_env() };
    println!("{:?}", race(&postgres, || peer(&postgres), contenders));
}

#[test]
fn behaviours_hold_through_a_pooler_too() {
    let only = ["acquire_held", "takeover_against_renewal", "lost_answer_of_a_claim"];
    assert_eq!(failures(Postgres::shared_and_pooled, Some(&only)), Vec::new());
}

#[test]
fn what_a_neighbour_holds_is_refused_and_shown_until_it_is_released() {
    let postgres = Postgres::shared();
    let (mut pod, a) = (peer(&postgres), Player::new(&postgres, "a"));
    assert!(pod.acquire("sweep", "pod-1", TTL));
    let by = a.is_refused(&name("sweep"));
    assert!(is_made_up(&by.record) && by.record.metadata.get(LAYOUT) == Some("hamode"));
    assert_eq!(by.record.holder.name().as_str(), "pod-1");
    let Occupancy::Left(left) = occupancy(&by, &a.instance) else { panic!("{by:?}") };
    assert!(left > TTL / 2 && left <= TTL + SKEW_DEFAULT, "{left:?}");
    assert_eq!(a.sees(&name("sweep")).record.holder, by.record.holder);
    // Among names of ours, in order, and without those that can't be ours.
    a.acquire(&name("backup"));
    a.acquire(&name("update"));
    assert!(pod.acquire("@odd", "pod-1", TTL) && pod.acquire("a\tb", "pod-1", TTL));
    let listed = a.run(a.store.list(&Query::new(Prefix::all()), None)).unwrap();
    let names: Vec<_> = listed.snapshots.iter().map(|seen| seen.record.name.as_str()).collect();
    assert_eq!(names, ["backup", "sweep", "update"]);
    pod.release("sweep", "pod-1");
    assert_eq!(a.read(&name("sweep")), None);
    a.acquire(&name("sweep"));
}

#[test]
fn what_we_hold_a_neighbour_is_refused_until_it_is_given_back() {
    let postgres = Postgres::shared();
    let (mut pod, a) = (peer(&postgres), Player::new(&postgres, "a"));
    let mut held = a.acquire(&name("sweep"));
    let (holder, version, lasts) = entry(&postgres, "sweep").unwrap();
    assert_eq!((holder, version), (holder_id(&a.instance), 1));
    assert!(Duration::from_millis(lasts.cast_unsigned()) > postgres.ttl(), "{lasts} ms");
    assert!(!pod.acquire("sweep", "pod-1", TTL));
    a.keeps(&mut held);
    assert_eq!(entry(&postgres, "sweep").unwrap().1, 2, "a renewal counts, as theirs do");
    // A release of theirs that isn't theirs changes nothing.
    pod.release("sweep", "pod-1");
    a.keeps(&mut held);
    a.release(&held);
    assert_eq!(entry(&postgres, "sweep").unwrap().1, 4, "it stays, and is past");
    assert!(pod.acquire("sweep", "pod-1", TTL));
    // Their release deletes the row, and with it their version: our token doesn't mind.
    pod.release("sweep", "pod-1");
    a.acquire(&name("sweep")).follows(&held);
}

#[test]
fn a_hold_whose_entry_was_taken_or_deleted_is_lost_and_stays_lost() {
    let postgres = Postgres::shared();
    let (mut pod, a, b) =
        (peer(&postgres), Player::new(&postgres, "a"), Player::new(&postgres, "b"));
    let deleted = a.acquire(&name("deleted"));
    pod.release("deleted", &holder_id(&a.instance));
    a.has_lost(&deleted);
    assert_eq!(entry(&postgres, "deleted"), None, "a renewal creates nothing");
    assert_eq!(b.is_refused(&name("deleted")).record.holder, a.instance, "its ttl runs on");
    // A clock that is ahead by more than the skew takes what is held, which is found out.
    let stolen = a.acquire(&name("stolen"));
    pod.ahead = postgres.ttl() + SKEW_DEFAULT + Duration::from_secs(2);
    assert!(pod.acquire("stolen", "pod-1", TTL));
    let by = a.has_lost(&stolen).unwrap();
    assert_eq!(by.record.holder.name().as_str(), "pod-1");
    a.release(&stolen);
    assert_eq!(entry(&postgres, "stolen").unwrap().0, "pod-1", "a late release leaves it alone");
    let doctor = wait(postgres.admin().diagnose()).unwrap();
    let layout = doctor.iter().find(|finding| finding.check == "layout").unwrap();
    assert!(layout.verdict == Verdict::Bad && layout.detail.contains("ahead"), "{layout:?}");
}

#[test]
fn clocks_that_differ_by_less_than_the_skew_take_nothing_that_is_held() {
    let postgres = Postgres::shared();
    let (mut fast, mut slow) = (peer(&postgres), peer(&postgres));
    let a = Player::new(&postgres, "a");
    fast.ahead = SKEW_DEFAULT - Duration::from_secs(2);
    slow.behind = fast.ahead;
    // Ours, one second before its end by the server's clock: a fast one must believe it still.
    let mut held = a.acquire(&name("ours"));
    a.keeps(&mut held);
    fast.ahead += postgres.ttl() - Duration::from_secs(1);
    assert!(!fast.acquire("ours", "pod-1", TTL));
    // Theirs, which a slow clock wrote: past by the server's clock, and believed for a while.
    assert!(slow.acquire("theirs", "pod-1", slow.behind - Duration::from_secs(1)));
    let by = a.is_refused(&name("theirs"));
    assert!(is_made_up(&by.record));
    a.pass(SKEW_DEFAULT);
    a.acquire(&name("theirs"));
}

#[test]
fn a_dead_neighbour_is_taken_over_from_when_its_entry_has_run_out() {
    let postgres = Postgres::shared();
    let a = Player::new(&postgres, "a");
    assert!(peer(&postgres).acquire("sweep", "pod-1", TTL));
    let held = a.take_over(&name("sweep"));
    assert_eq!(entry(&postgres, "sweep").unwrap().0, holder_id(&held.instance));
}

#[test]
fn replicas_with_and_without_the_layout_exclude_each_other() {
    let mut postgres = Postgres::shared();
    let shared = postgres.open(&tenure_conformance::player::namespace());
    let a = shared;
    postgres.scratch.shared = false;
    let plain = Player::new(&postgres, "plain");
    let shared = Player::on(&postgres, "shared", a);
    assert_eq!(plain.store.profile().level, Level::FencedTx);
    let first = shared.acquire(&name("job"));
    assert_eq!(plain.is_refused(&name("job")).record.holder, shared.instance);
    shared.release(&first);
    let mut second = plain.acquire(&name("job"));
    second.follows(&first);
    assert_eq!(shared.is_refused(&name("job")).record.holder, plain.instance);
    plain.keeps(&mut second);
    plain.pass(postgres.ttl());
    shared.acquire(&name("job")).follows(&second);
}

#[test]
fn a_reservation_and_a_min_hold_keep_neighbours_out_too() {
    let postgres = Postgres::shared();
    let (a, b) = Player::two(&postgres);
    let mut pod = peer(&postgres);
    let held = a.acquire(&name("handed"));
    let successor = Successor::from(b.instance.clone());
    a.transfer(&held, Reserved { successor, lasts: Duration::from_secs(5) });
    assert!(!pod.acquire("handed", "pod-1", TTL));
    b.acquire(&name("handed")).follows(&held);
    let mut claim = a.claim(&name("kept"));
    claim.min_hold = Duration::from_secs(60);
    let held = a.acquire_by(&claim);
    a.release(&held);
    assert!(!pod.acquire("kept", "pod-1", TTL));
    assert!(entry(&postgres, "kept").unwrap().2 > 55_000, "until min-hold has passed");
}

#[test]
fn an_order_reaches_our_holder_and_never_a_neighbour() {
    let postgres = Postgres::shared();
    let (mut pod, a) = (peer(&postgres), Player::new(&postgres, "a"));
    let held = a.acquire(&name("job"));
    a.orders(&held.name, Demand::Revoke);
    assert!(!pod.acquire("job", "pod-1", TTL), "revoked, it runs out as ours does");
    a.orders(&held.name, Demand::RevokeNow);
    assert!(pod.acquire("job", "pod-1", TTL), "freed at once on both sides");
    match a.order(&held.name, Demand::RevokeNow, None) {
        Ordered::Failed(error) => {
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains("`pod-1` of hamode"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guard_still_stops_an_older_grant_of_ours() {
    let postgres = Postgres::shared();
    let a = Player::new(&postgres, "a");
    let held = a.acquire(&name("job"));
    let guarded = |token: u64| {
        let namespace = tenure_conformance::player::namespace();
        let schema = &postgres.scratch.schema;
        let check = format!("SELECT {schema}.guard('job', {token}, '{namespace}')");
        wait(async { client(&url()).await.batch_execute(&check).await.is_ok() })
    };
    assert!(guarded(held.token.get()));
    a.release(&held);
    let next = a.acquire(&name("job"));
    assert!(!guarded(held.token.get()) && guarded(next.token.get()));
}

#[test]
fn a_table_that_cannot_be_shared_is_named_with_the_way_out() {
    let scratch = Scratch::new();
    let schema = scratch.schema.clone();
    let open = |table: &str| {
        let mut config = scratch.config(&url());
        config.hamode = Some(Hamode::default().with_table(&schema, table).unwrap());
        wait(PostgresStore::open(config, chance())).map(drop)
    };
    let missing = open("It's \"mine\".here").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Misconfigured);
    let said = missing.to_string();
    assert!(said.contains(&format!("{schema}.It's \"mine\".here")), "{said}");
    assert!(said.contains("create it") && said.contains("&table="), "{said}");
    let other = open("leases").unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Misconfigured);
    assert!(other.to_string().contains("five columns"), "{other}");
    // A table of any legal name, all its columns there.
    scratch.run(&format!(
        "CREATE TABLE {schema}.\"It's \"\"mine\"\".here\" (lease_name varchar(200) PRIMARY KEY, \
         holder_id varchar(200), version int, acquired_at_utc timestamptz, \
         expires_at_utc timestamptz)"
    ));
    open("It's \"mine\".here").unwrap();
    let mut config = scratch.config(&url());
    let odd = Hamode::default().with_table(&schema, "It's \"mine\".here").unwrap();
    config.hamode = Some(odd);
    let store = wait(PostgresStore::open(config, chance())).unwrap();
    let profile = store.profile();
    assert_eq!(profile.level, Level::BestEffort);
    assert!(profile.limited_by.unwrap().contains("HAMode"));
    assert!(matches!(profile.wake, Wake::Push(every) if every == Duration::from_secs(1)));
    let postgres = Postgres::shared();
    let a = Player::on(&postgres, "a", std::sync::Arc::new(store));
    let mut held = a.acquire(&name("job"));
    a.keeps(&mut held);
    a.release(&held);
}

#[test]
fn init_brings_the_functions_to_a_schema_of_before() {
    let postgres = Postgres::shared();
    let schema = &postgres.scratch.schema;
    postgres.scratch.run(&format!(
        "DO $$ DECLARE f regprocedure; BEGIN
             FOR f IN SELECT oid::regprocedure FROM pg_proc
                 WHERE pronamespace = '{schema}'::regnamespace AND proname LIKE 'hamode%'
             LOOP EXECUTE 'DROP FUNCTION ' || f; END LOOP;
         END $$"
    ));
    let a = Player::new(&postgres, "a");
    let claim = a.claim(&name("job"));
    let before = a.ask(&claim);
    assert!(format!("{before:?}").contains("tenure init"), "{before:?}");
    let admin = PostgresAdmin::new(postgres.scratch.config(&url()), Chance::seeded(1)).unwrap();
    runtime().block_on(admin.init(&Default::default())).unwrap();
    a.acquire_by(&claim);
}
