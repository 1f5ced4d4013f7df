//! What operators, servers and networks do to leases in etcd.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::harness::Etcd;
use common::wire::{
    LeaseRequest, LeaseRevokeResponse, PutRequest, StatusRequest, StatusResponse, path,
};
use common::{Hand, block_on, config, draw, line, open, own_prefix, runtime, signal};
use tenure_conformance::drive;
use tenure_conformance::player::{Held, Player, name, namespace};
use tenure_conformance::proxy::{Fault, FaultProxy};
use tenure_core::chance::Chance;
use tenure_core::guard::GuardError;
use tenure_core::record::Demand;
use tenure_core::store::{Acquired, Claim, Hold, Prefix, Release, Released, Renewed, Store};
use tenure_core::{Error, ErrorKind};
use tenure_etcd::{EtcdConfig, EtcdStore};

/// Short, and long enough that a busy machine keeps it.
const TTL: Duration = Duration::from_secs(4);
/// How long something may take that needs a few tries.
const SOON: Duration = Duration::from_secs(15);

fn shared() -> Etcd {
    Etcd::single("of the faults")
}

fn acquire(player: &Player<'_>, text: &str, ttl: Duration) -> Held {
    player.acquire_by(&Claim { ttl, ..player.claim(&name(text)) })
}

#[track_caller]
fn in_time(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < until, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Beats for so long.
fn renew_until(player: &Player<'_>, held: &mut Held, lasts: Duration) {
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        player.keeps(held);
        std::thread::sleep(held.ttl / 6);
    }
}

#[test]
fn a_revoke_of_one_name_leaves_those_that_share_its_lease() {
    let etcd = shared();
    let (a, b) = Player::two(&etcd);
    let (revoked, mut stays) = (acquire(&a, "revoked", TTL), acquire(&a, "stays", TTL));
    b.orders(&revoked.name, Demand::Revoke);
    a.has_lost(&revoked);
    a.keeps(&mut stays);
    b.is_refused(&revoked.name);
    // Its holder never releases it; the lease that it hangs on goes on living.
    renew_until(&a, &mut stays, TTL * 2);
    b.acquire(&revoked.name).follows(&revoked);
    a.keeps(&mut stays);
    b.is_refused(&stays.name);
}

#[test]
fn a_key_that_was_deleted_by_hand_is_lost_although_its_lease_lives() {
    let etcd = shared();
    let (a, b) = Player::two(&etcd);
    let (deleted, mut stays) = (acquire(&a, "deleted", TTL), acquire(&a, "stays", TTL));
    etcd.hand().delete(etcd.hand().key(&namespace(), &deleted.name, "held"));
    a.has_lost(&deleted);
    a.keeps(&mut stays);
    b.acquire(&deleted.name).follows(&deleted);
    a.has_lost(&deleted);
}

#[test]
fn what_nobody_claimed_is_deleted_from_a_lease_that_lives() {
    let etcd = shared();
    let (a, b) = Player::two(&etcd);
    let mut held = acquire(&a, "held", TTL);
    let hand = etcd.hand();
    let copied = hand.get(hand.key(&namespace(), &held.name, "held")).unwrap();
    // As a copy of a claim would, that the network delivered when nobody waited for it any more.
    let orphan = hand.key(&namespace(), &name("orphan"), "held");
    let (key, value, lease) = (orphan.clone(), copied.value, copied.lease);
    hand.put(PutRequest { key, value, lease, ..PutRequest::default() });
    b.is_refused(&name("orphan"));
    in_time("the beat deletes it", || {
        a.keeps(&mut held);
        hand.get(orphan.clone()).is_none()
    });
    b.acquire(&name("orphan"));
    b.is_refused(&held.name);
}

#[test]
fn an_etcd_lease_that_an_operator_revoked_is_noticed_and_replaced() {
    let etcd = shared();
    let (a, b) = Player::two(&etcd);
    let held = acquire(&a, "held", TTL);
    let hand = etcd.hand();
    let id = hand.get(hand.key(&namespace(), &held.name, "held")).unwrap().lease;
    let _: LeaseRevokeResponse = block_on(hand.ask(path::LEASE_REVOKE, LeaseRequest { id }));
    a.has_lost(&held);
    let next = acquire(&a, "held", TTL);
    next.follows(&held);
    b.is_refused(&held.name);
    let id = hand.get(hand.key(&namespace(), &held.name, "held")).unwrap().lease;
    let _: LeaseRevokeResponse = block_on(hand.ask(path::LEASE_REVOKE, LeaseRequest { id }));
    // Before any beat, too: the claim that meets the hole grants itself another.
    acquire(&a, "held", TTL).follows(&next);
}

#[test]
fn requests_are_counted_and_few() {
    let etcd = shared();
    let store = Arc::new(open(config(etcd.url(), &namespace())));
    let a = Player::on(&etcd, "a", store.clone());
    let counted = |what: &str, most: u64, act: &mut dyn FnMut()| {
        let before = store.requests();
        act();
        let sent = store.requests() - before;
        assert!(sent <= most, "{what} took {sent} requests, not {most}");
    };
    let first = a.acquire(&name("warms up"));
    a.release(&first);
    let mut held = None;
    // The Txn, and beside it the keep-alive.
    counted("a claim", 2, &mut || held = Some(a.acquire(&name("counted"))));
    let mut held = held.unwrap();
    // A keep-alive, the key, and which store it is.
    counted("a beat", 3, &mut || a.keeps(&mut held));
    counted("a refusal", 3, &mut || drop(a.is_refused(&held.name)));
    counted("a release", 1, &mut || drop(a.release(&held)));
    counted("a claim of what it gave back", 2, &mut || drop(a.acquire(&held.name)));
    let claims: Vec<Claim> = (0..1000).map(|n| a.claim(&name(&format!("many {n}")))).collect();
    let mut granted = Vec::new();
    counted("a thousand claims", 11, &mut || granted = a.run(store.acquire(&claims)).unwrap());
    let held: Vec<Held> = claims
        .iter()
        .zip(granted)
        .map(|(claim, answer)| match answer {
            Acquired::Granted(grant) => a.held(claim, grant, a.harness.now()),
            other => panic!("{other:?}"),
        })
        .collect();
    let holds: Vec<Hold> = held.iter().map(|held| a.renewal(held)).collect();
    let mut renewed = Vec::new();
    counted("a beat of a thousand", 4, &mut || renewed = a.run(store.renew(&holds)).unwrap());
    assert!(renewed.iter().all(|one| matches!(one, Renewed::Renewed(_))));
    let releases: Vec<Release> = held.iter().map(|held| a.release_of(held)).collect();
    let mut released = Vec::new();
    counted("a thousand releases", 10, &mut || released = a.run(store.release(&releases)).unwrap());
    assert!(released.iter().all(|one| matches!(one, Released::Released(_))));
}

#[test]
fn readers_that_give_up_leave_the_server_alone() {
    // A read-only Txn that is cancelled brings down etcd 3.5.1: no read may be one.
    let etcd = Etcd::single("no_herd");
    let store = Arc::new(open(config(etcd.url(), &namespace())));
    let a = Player::on(&etcd, "a", store.clone());
    let names: Vec<_> = (0..200).map(|n| name(&format!("read {n}"))).collect();
    let claims: Vec<Claim> = names.iter().map(|name| a.claim(name)).collect();
    a.run(store.acquire(&claims)).unwrap();
    block_on(async {
        for micros in (0..4000).step_by(20) {
            let patience = Duration::from_micros(micros);
            let _ = tokio::time::timeout(patience, store.read(&names)).await;
        }
    });
    assert!(etcd.hand().answers(), "the server is gone");
    assert!(a.read(&names[0]).is_some());
}

#[test]
fn a_watch_that_was_cut_hears_what_was_compacted_meanwhile() {
    let etcd = Etcd::single("watch_resumes_after_reconnect_and_compaction");
    let address = etcd.url().trim_start_matches("etcd://").split('/').next().unwrap().to_owned();
    let proxy = FaultProxy::start(&address).unwrap();
    let url = etcd.url().replace(&address, &proxy.address().to_string());
    let (a, b) = (Player::new(&etcd, "a"), Arc::new(open(config(&url, &namespace()))));
    let mut hints = block_on(b.watch(&Prefix::all())).unwrap().unwrap();
    let hinted = |hints: &mut tenure_core::store::Hints| {
        drive::run_for(&etcd, SOON, hints.next()).expect("a hint comes").unwrap();
    };
    let held = a.acquire(&name("job"));
    hinted(&mut hints);
    proxy.set(Fault::Reset);
    a.release(&held);
    a.acquire(&held.name);
    etcd.compact();
    // The break itself is a hint; then the watch goes on from what is kept.
    hinted(&mut hints);
    proxy.heal();
    hinted(&mut hints);
    a.acquire(&name("later"));
    hinted(&mut hints);
}

#[test]
fn a_guard_lets_no_one_through_who_was_revoked_or_succeeded() {
    let etcd = shared();
    let store = Arc::new(open(config(etcd.url(), &namespace())));
    let (a, b) = (Player::on(&etcd, "a", store.clone()), Player::new(&etcd, "b"));
    let held = a.acquire(&name("guarded"));
    let key = format!("guarded-{:x}", draw());
    let write = |held: &Held| {
        block_on(store.guarded(&held.name, held.token).put(key.as_str(), "x").commit())
    };
    write(&held).unwrap();
    let guard = store.guard(&held.name, held.token);
    let stored = etcd.hand().get(guard.key.clone()).unwrap();
    assert_eq!(stored.create_revision, guard.create_revision);
    assert_eq!(guard.create_revision.unsigned_abs(), held.token.get());
    b.orders(&held.name, Demand::Revoke);
    assert!(etcd.hand().get(guard.revoked).is_some());
    let refused = write(&held).unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("revoked"), "{refused}");
    a.release(&held);
    b.acquire(&held.name);
    assert!(matches!(write(&held), Err(GuardError::NotInForce { .. })));
    let never = Held { name: name("never"), ..held };
    assert!(write(&never).unwrap_err().to_string().contains("isn't held"));
    etcd.hand().delete(key.into_bytes());
}

/// The folder of one node of the cluster.
fn folder(node: usize) -> PathBuf {
    let folder = format!("etcd-cluster-{}", node + 1);
    Path::new(&line("TENURE_TEST_STORES")).join(folder)
}

fn process(node: usize) -> u32 {
    let pid = std::fs::read_to_string(folder(node).join("pid")).unwrap();
    pid.split(' ').next().unwrap().parse().unwrap()
}

fn leader(hands: &[Hand]) -> usize {
    let leads = |hand: &Hand| {
        let status: StatusResponse = block_on(hand.ask(path::STATUS, StatusRequest {}));
        status.leader == status.header.unwrap().member_id
    };
    hands.iter().position(leads).expect("somebody leads")
}

/// The cluster, for one test at a time that stops its nodes.
fn cluster_alone() -> (MutexGuard<'static, ()>, Vec<Hand>, Etcd) {
    static USED: Mutex<()> = Mutex::new(());
    let alone = USED.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = line("TENURE_TEST_ETCD_CLUSTER");
    let nodes = cluster.trim_start_matches("etcd://").split(',');
    let hands = nodes.map(|node| Hand::on(&format!("etcd://{node}"), "")).collect();
    (alone, hands, Etcd::cluster("of the faults"))
}

fn open_patiently<'a>(etcd: &'a Etcd, text: &str) -> Player<'a> {
    let mut config = config(etcd.url(), &namespace());
    config.timeout = Duration::from_secs(1);
    Player::on(etcd, text, Arc::new(open(config)))
}

/// The holder's beats get through, and nobody else is granted the name.
fn survives(a: &Player<'_>, b: &Player<'_>, held: &mut Held) {
    in_time("a beat gets through", || match a.renew(held) {
        Renewed::Renewed(_) => true,
        Renewed::Failed(error) => {
            assert!(error.kind().is_transient(), "{error:?}");
            false
        }
        other => panic!("the hold was told {other:?}"),
    });
    in_time("the contender is refused", || match b.ask(&b.claim(&held.name)) {
        Acquired::Refused(by) => by.record.token == held.token,
        Acquired::Failed(error) => !error.kind().is_transient(),
        other => panic!("the contender was told {other:?}"),
    });
}

#[test]
fn a_leader_that_stands_still_or_dies_costs_no_hold() {
    let (_alone, hands, etcd) = cluster_alone();
    let (a, b) = (open_patiently(&etcd, "a"), open_patiently(&etcd, "b"));
    let mut held = acquire(&a, "job", Duration::from_secs(20));
    for last_word in ["STOP", "KILL"] {
        let leads = leader(&hands);
        let node = process(leads);
        signal(node, last_word);
        let outcome = catch_unwind(AssertUnwindSafe(|| survives(&a, &b, &mut held)));
        match last_word {
            "STOP" => signal(node, "CONT"),
            _ => drop(Command::new("setsid").arg(folder(leads).join("run")).spawn().unwrap()),
        }
        outcome.unwrap_or_else(|why| resume_unwind(why));
        in_time("the node is back", || hands[leads].answers());
    }
    a.keeps(&mut held);
    let release = a.release_of(&held);
    in_time("it is given back", || matches!(a.send_release(&release), Released::Released(_)));
    b.acquire(&held.name).follows(&held);
}

/// A leader that stood still ends the leases that ran out by its own count when it goes on, although
/// its successor has prolonged them (etcd issue 15247): now and then, so the lease is looked at, too.
#[test]
fn a_leader_that_stood_still_past_the_ttl_ends_no_hold_that_its_successor_prolonged() {
    let (_alone, hands, etcd) = cluster_alone();
    let (a, b) = (open_patiently(&etcd, "a"), open_patiently(&etcd, "b"));
    let mut held: Vec<Held> = (0..3).map(|n| acquire(&a, &format!("job {n}"), TTL)).collect();
    let hangs_on = |held: &Held| {
        let key = etcd.hand().key(&namespace(), &held.name, "held");
        etcd.hand().get(key).expect("it is held").lease
    };
    for _ in 0..3 {
        let before: Vec<i64> = held.iter().map(hangs_on).collect();
        let leads = leader(&hands);
        let node = process(leads);
        signal(node, "STOP");
        let outcome = catch_unwind(AssertUnwindSafe(|| beat_for(&a, &mut held, TTL * 3 / 2)));
        signal(node, "CONT");
        outcome.unwrap_or_else(|why| resume_unwind(why));
        beat_for(&a, &mut held, TTL / 2);
        in_time("the node is back", || hands[leads].answers());
        let led = leader(&hands) != leads;
        let moved = held.iter().zip(before).all(|(held, before)| hangs_on(held) != before);
        assert!(moved || !led, "another leads, and they hang on what the one before knows");
    }
    held.iter_mut().for_each(|held| survives(&a, &b, held));
}

/// Beats for so long; none may say that the hold is lost.
fn beat_for(player: &Player<'_>, held: &mut [Held], lasts: Duration) {
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        for one in held.iter_mut() {
            match player.renew(one) {
                Renewed::Renewed(_) => {}
                Renewed::Failed(error) => assert!(error.kind().is_transient(), "{error:?}"),
                other => panic!("{} was told {other:?}", one.name),
            }
        }
        std::thread::sleep(TTL / 40);
    }
}

#[test]
fn credentials_and_certificates_that_are_wrong_are_told() {
    let url = line("TENURE_TEST_ETCD_TLS");
    let authority = line("TENURE_TEST_CA");
    let (own, _) = own_prefix(&url);
    let opened = |url: &str| -> Result<EtcdStore, Error> {
        let config = EtcdConfig::from_url(url)?;
        let _in = runtime().enter();
        block_on(EtcdStore::open(config, Chance::seeded(draw())))
    };
    let told = |url: String| {
        let error = opened(&url).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("root:"), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
        error
    };
    let store = opened(&format!("{own}?ca={authority}")).unwrap();
    assert!(block_on(store.read(&[name("job")])).unwrap()[0].is_none());
    let untrusted = told(own.clone());
    assert_eq!(untrusted.kind(), ErrorKind::Misconfigured, "{untrusted}");
    for wrong in [own.replace("root:tenure@", "root:wrong@"), own.replace("root:tenure@", "")] {
        let refused = told(format!("{wrong}?ca={authority}"));
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    }
    let absent = told(format!("{own}?ca=/nowhere.pem"));
    assert_eq!(absent.kind(), ErrorKind::Misconfigured, "{absent}");
    let down = opened("etcd://127.0.0.1:1,127.0.0.1:2").err().unwrap();
    assert_eq!(down.kind(), ErrorKind::Unavailable, "{down}");
}
