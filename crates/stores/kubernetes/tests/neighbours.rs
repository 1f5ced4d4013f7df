//! What client-go's replicas see of us, what we see of them, and what is nobody's to change.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::Duration;

use common::harness::Kubernetes;
use common::name;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tenure_conformance::harness::Harness;
use tenure_conformance::player::Player;
use tenure_core::ErrorKind;
use tenure_core::identity::Namespace;
use tenure_core::neighbour::{holder_id, is_made_up};
use tenure_core::record::{Demand, State};
use tenure_core::store::{Acquired, Ordered, Renewed};

/// A Lease as a replica of client-go writes it: the whole spec, and the metadata left alone.
fn theirs(holder: Option<&str>, transitions: i64, seconds: i64) -> Value {
    json!({ "spec": {
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": format!("2026-01-01T00:00:{transitions:02}.000000Z"),
        "leaseTransitions": transitions,
    } })
}

/// A player in the namespace whose names client-go's replicas share.
fn one<'h>(harness: &'h Kubernetes, who: &str) -> Player<'h> {
    Player::on(harness, who, harness.open(&Namespace::default()))
}

fn two(harness: &Kubernetes) -> (Player<'_>, Player<'_>) {
    (one(harness, "a"), one(harness, "b"))
}

fn time(spec: &Value, field: &str) -> Timestamp {
    let text = spec[field].as_str().unwrap();
    assert_eq!(text.len(), "2026-01-01T00:00:00.000000Z".len(), "{text}");
    text.parse().unwrap()
}

#[test]
fn client_go_sees_a_holder_that_renews_a_count_of_changes_and_a_free_lease() {
    let harness = Kubernetes::new("sees");
    let (a, b) = two(&harness);
    let mut held = a.acquire(&name("billing"));
    let first = harness.home.spec("billing");
    assert_eq!(first["holderIdentity"], holder_id(&a.instance), "{first}");
    assert_eq!(first["leaseDurationSeconds"], 900);
    assert_eq!(first["leaseTransitions"], 0);
    // However soon a renewal comes, its time is later by whole seconds: that is all that they see.
    let mut last = time(&first, "renewTime");
    for _ in 0..5 {
        a.keeps(&mut held);
        let spec = harness.home.spec("billing");
        let now = time(&spec, "renewTime");
        assert!(now.as_second() > last.as_second(), "{last} and then {now}");
        assert_eq!(spec["acquireTime"], first["acquireTime"]);
        assert_eq!(spec["leaseTransitions"], 0);
        last = now;
    }
    a.release(&held);
    let free = harness.home.spec("billing");
    assert!(free.get("holderIdentity").is_none(), "{free}");
    assert_eq!((&free["leaseDurationSeconds"], &free["leaseTransitions"]), (&json!(1), &json!(0)));
    b.acquire(&held.name);
    assert_eq!(harness.home.spec("billing")["leaseTransitions"], 1);
}

#[test]
fn their_hold_keeps_us_out_until_it_was_seen_unchanged_for_as_long_as_it_says() {
    let harness = Kubernetes::new("theirs");
    let (a, b) = two(&harness);
    let before = a.acquire(&name("job"));
    a.release(&before);
    harness.home.patch("job", &theirs(Some("go-pod_1"), 7, 15));
    let seen = b.sees(&before.name);
    assert!(is_made_up(&seen.record) && seen.record.state == State::Held);
    assert_eq!(seen.record.holder.name().as_str(), "go-pod_1");
    assert_eq!(seen.record.ttl, Duration::from_secs(15));
    b.refused_by(&b.claim(&before.name));
    // It takes no orders: client-go would read none.
    match b.order(&before.name, Demand::Revoke, None) {
        Ordered::Failed(error) => {
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains("`go-pod_1` of client-go"), "{error}");
        }
        other => panic!("an order for a neighbour came to {other:?}"),
    }
    // Its renewal is another version, so watching begins anew.
    harness.home.patch("job", &theirs(Some("go-pod_1"), 8, 15));
    let mut claim = b.claim(&before.name);
    claim.watched = Some(seen.version);
    b.refused_by(&claim);
    claim = b.claim(&before.name);
    claim.watched = Some(b.sees(&before.name).version);
    let held = b.acquire_by(&claim);
    assert!(held.token > before.token);
    assert_eq!(harness.home.spec("job")["leaseTransitions"], 9, "a take-over counts");
}

#[test]
fn what_they_took_we_have_lost_and_what_they_give_back_is_free() {
    let harness = Kubernetes::new("taken");
    let (a, b) = two(&harness);
    let mut held = a.acquire(&name("job"));
    harness.home.patch("job", &theirs(Some("go-pod_1"), 1, 15));
    match a.renew(&mut held) {
        Renewed::NotHeld(Some(by)) => assert_eq!(by.record.holder.name().as_str(), "go-pod_1"),
        other => panic!("a hold that client-go took was {other:?}"),
    }
    a.releases_in_vain(&held);
    assert_eq!(harness.home.spec("job")["holderIdentity"], "go-pod_1", "theirs was overwritten");
    harness.home.patch("job", &theirs(None, 1, 1));
    assert_eq!(b.sees(&held.name).record.state, State::Released { reserved_for: None });
    let next = b.acquire(&held.name);
    assert!(next.token > held.token);
}

#[test]
fn a_lease_that_only_they_have_held_can_be_had_once_it_is_free() {
    let harness = Kubernetes::new("made-by-them");
    let (a, b) = two(&harness);
    let mut lease = theirs(Some("go-pod_1"), 0, 15);
    lease["metadata"] = json!({ "name": "scheduler", "labels": { "app": "scheduler" } });
    harness.home.ask(Method::POST, &harness.home.leases(None), &lease).unwrap();
    a.refused_by(&a.claim(&name("scheduler")));
    harness.home.patch("scheduler", &theirs(None, 0, 1));
    let mut held = a.acquire(&name("scheduler"));
    a.keeps(&mut held);
    b.is_refused(&held.name);
    assert_eq!(harness.home.spec("scheduler")["leaseTransitions"], 1);
}

#[test]
fn what_others_have_written_beside_stays() {
    let harness = Kubernetes::new("beside");
    let a = one(&harness, "a");
    let mut held = a.acquire(&name("job"));
    let others = json!({
        "metadata": { "labels": { "app": "shop" }, "annotations": { "owner": "payments" } },
        "spec": { "strategy": "example.com/oldest" },
    });
    harness.home.patch("job", &others);
    a.keeps(&mut held);
    a.release(&held);
    let lease = harness.home.lease("job").unwrap();
    assert_eq!(lease["metadata"]["labels"]["app"], "shop");
    assert_eq!(lease["metadata"]["annotations"]["owner"], "payments");
    assert_eq!(lease["spec"]["strategy"], "example.com/oldest");
}

#[test]
fn in_a_coordinated_election_we_take_nothing_and_make_way_for_whom_the_cluster_prefers() {
    let harness = Kubernetes::new("coordinated");
    let (a, b) = two(&harness);
    let mut held = a.acquire(&name("job"));
    let strategy = json!({ "spec": { "strategy": "OldestEmulationVersion" } });
    harness.home.patch("job", &strategy);
    a.keeps(&mut held);
    let preferred = json!({ "spec": { "preferredHolder": "go-pod_2" } });
    harness.home.patch("job", &preferred);
    match a.renew(&mut held) {
        Renewed::Asked(_, order) => {
            assert_eq!(order.demand, Demand::Resign { to: None });
            assert!(order.reason.contains("go-pod_2"), "{}", order.reason);
        }
        other => panic!("a holder that isn't preferred was {other:?}"),
    }
    a.release(&held);
    let spec = harness.home.spec("job");
    assert_eq!(spec["preferredHolder"], "go-pod_2", "whom it prefers is the cluster's to say");
    match b.ask(&b.claim(&held.name)) {
        Acquired::Failed(error) => {
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains("`strategy`"), "{error}");
        }
        other => panic!("a claim in a coordinated election came to {other:?}"),
    }
    assert!(harness.home.spec("job").get("holderIdentity").is_none());
}

/// How often a write races a deletion by hand.
const RACES: usize = 100;

#[test]
fn a_write_that_races_a_deletion_never_makes_the_object_anew() {
    let harness = Kubernetes::new("races");
    let a = one(&harness, "a");
    let (mut before, mut after) = (0, 0);
    for n in 0..RACES {
        let held = a.acquire(&name(&format!("job-{n}")));
        let object = held.name.to_string();
        let path = harness.home.leases(Some(&object));
        let renewal = a.renewal(&held);
        let renewed = std::thread::scope(|scope| {
            let renewing = scope.spawn(|| a.send_renewal(&renewal));
            harness.home.ask(Method::DELETE, &path, &json!({})).unwrap();
            renewing.join().unwrap()
        });
        match renewed {
            Renewed::Renewed(_) => before += 1,
            Renewed::NotHeld(None) => after += 1,
            other => panic!("a renewal beside a deletion came to {other:?}"),
        }
        assert!(harness.home.lease(&object).is_none(), "the renewal made `{object}` anew");
        // Nor does one that comes late.
        assert!(matches!(a.send_renewal(&renewal), Renewed::NotHeld(None)));
        assert!(harness.home.lease(&object).is_none(), "a late renewal made `{object}` anew");
    }
    println!("{RACES} races: {before} renewals came before the deletion, {after} after it");
}

#[test]
fn tokens_go_on_increasing_after_a_deletion_by_hand_without_a_session_that_knows() {
    let harness = Kubernetes::new("deleted");
    let mut last = None;
    for round in 0..20 {
        // A new session each time, at one API server and the other: nothing but the cluster remembers.
        let store = harness.open_at(round % 2, &Namespace::default());
        let player = Player::on(&harness, "p", store);
        let held = player.acquire(&name("job"));
        assert!(last.is_none_or(|last| held.token > last), "{} after {last:?}", held.token);
        last = Some(held.token);
        harness.home.ask(Method::DELETE, &harness.home.leases(Some("job")), &json!({})).unwrap();
    }
}

#[test]
fn a_renewal_and_a_release_are_one_request_each() {
    let harness = Kubernetes::new("counted");
    let a = one(&harness, "a");
    let mut held = a.acquire(&name("job"));
    let turns = |work: &mut dyn FnMut()| {
        let before = harness.proxy.as_ref().unwrap().count().turns();
        work();
        harness.proxy.as_ref().unwrap().count().turns() - before
    };
    assert_eq!(turns(&mut || a.keeps(&mut held)), 1);
    let held = held;
    assert_eq!(
        turns(&mut || {
            a.release(&held);
        }),
        1
    );
}

#[test]
fn namespaces_of_tenures_are_kept_apart_and_default_shares_its_names() {
    let harness = Kubernetes::new("namespaces");
    let shop = Namespace::new("shop").unwrap();
    let ours = one(&harness, "a");
    let theirs = Player::on(&harness, "b", harness.open(&shop));
    let (one, other) = (ours.acquire(&name("job")), theirs.acquire(&name("job")));
    assert_eq!(harness.home.object(&shop, &other.name), "tenure-x.shop.job");
    assert!(harness.home.lease("tenure-x.shop.job").is_some());
    assert!(harness.home.lease(one.name.as_str()).is_some());
}
