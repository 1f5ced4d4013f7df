//! 14: records of another release, written behind the store's back.

use serde_json::{Value, json};
use tenure_core::error::ErrorKind;
use tenure_core::record::{Demand, FORMAT};
use tenure_core::store::{Acquired, Ordered, Released, Renewed};

use crate::harness::Harness;
use crate::player::{Player, name, namespace};

#[track_caller]
fn raw(harness: &dyn Harness, text: &str) -> Value {
    let bytes = harness.raw_read(&namespace(), &name(text)).expect("there is a record");
    serde_json::from_slice(&bytes).expect("a record is JSON")
}

fn overwrite(harness: &dyn Harness, text: &str, json: &Value) {
    harness.raw_write(&namespace(), &name(text), json.to_string().as_bytes());
}

/// 14: fields that a newer release wrote survive each of our writes.
pub fn unknown_fields_survive_our_writes(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut held = a.acquire(&name("unknown"));
    let mut json = raw(harness, "unknown");
    json["colour"] = json!({ "deep": ["blue", null, 7] });
    overwrite(harness, "unknown", &json);
    let survived = |after: &str| {
        let now = raw(harness, "unknown");
        assert_eq!(now["colour"]["deep"][2], 7, "lost after {after}: {now}");
    };
    held.version = a.sees(&held.name).version;
    a.keeps(&mut held);
    survived("a renewal");
    b.orders(&held.name, Demand::Resign { to: None });
    survived("an order");
    a.release(&held);
    survived("a release");
    b.acquire(&held.name);
    survived("a grant");
}

/// 14: a record in a newer format is refused with a typed error, and never written.
pub fn newer_format_is_not_written(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("newer"));
    let mut json = raw(harness, "newer");
    json["format"] = json!(FORMAT + 1);
    json["state"] = json!({ "is": "something new" });
    overwrite(harness, "newer", &json);
    let newer = raw(harness, "newer");
    a.pass(held.ttl * 2);
    let misfit = |kind: ErrorKind| assert_eq!(kind, ErrorKind::Misconfigured);
    match b.ask(&b.claim(&held.name)) {
        Acquired::Failed(error) => misfit(error.kind()),
        other => panic!("a claim came to {other:?}"),
    }
    match a.send_renewal(&a.renewal(&held)) {
        Renewed::Failed(error) => misfit(error.kind()),
        Renewed::NotHeld(_) => {}
        other => panic!("a renewal came to {other:?}"),
    }
    match a.send_release(&a.release_of(&held)) {
        Released::Failed(error) => misfit(error.kind()),
        Released::NotHeld(_) => {}
        other => panic!("a release came to {other:?}"),
    }
    match b.order(&held.name, Demand::RevokeNow, None) {
        Ordered::Failed(error) => misfit(error.kind()),
        other => panic!("an order came to {other:?}"),
    }
    match b.run(b.store.read(std::slice::from_ref(&held.name))) {
        Err(error) => misfit(error.kind()),
        Ok(read) => panic!("a read came to {read:?}"),
    }
    assert_eq!(raw(harness, "newer"), newer, "the newer record was overwritten");
}
