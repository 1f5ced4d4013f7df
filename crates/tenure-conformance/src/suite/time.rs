//! 46–47, 53, 57–58: a grant lasts its ttl, no less and hardly more, whatever the wall clocks say.

use std::time::Duration;

use tenure_core::clock::Timestamp;
use tenure_core::store::Claim;

use crate::harness::Harness;
use crate::player::{Player, name};
use crate::suite::basics::is_held_as;

/// How far before the end of a grant the suite still looks: far enough for a slow machine.
fn margin(ttl: Duration) -> Duration {
    ttl / 10
}

/// 46: a name isn't granted again before a ttl has passed since its last renewal.
pub fn not_granted_again_before_ttl(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut held = a.acquire(&name("job"));
    for _ in 0..3 {
        harness.advance(held.ttl - margin(held.ttl));
        is_held_as(&b.is_refused(&held.name), &held);
        a.keeps(&mut held);
    }
    let watched = b.sees(&held.name).version;
    harness.advance(held.ttl - margin(held.ttl));
    b.is_refused(&held.name);
    a.keeps(&mut held);
    // Who watched a version that was renewed since has watched in vain.
    let mut claim = b.claim(&held.name);
    claim.watched = Some(watched);
    is_held_as(&b.refused_by(&claim), &held);
    // A renewal may bring another ttl, which counts from then on.
    held.ttl *= 2;
    a.keeps(&mut held);
    harness.advance(held.ttl - margin(held.ttl));
    is_held_as(&b.is_refused(&held.name), &held);
    a.keeps(&mut held);
}

/// 47: a name is granted again a ttl after its last renewal, plus what the profile declares.
pub fn granted_again_within_ttl_plus_declared(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut held = a.acquire(&name("job"));
    harness.advance(held.ttl / 2);
    a.keeps(&mut held);
    let since = harness.now();
    let next = b.take_over(&held.name);
    let waited = harness.now().since(since);
    let declared = held.ttl + held.ttl / 100 + b.store.profile().detection;
    let most = declared + harness.slack() * 4;
    assert!(waited <= most, "granted again after {waited:?}; declared were {declared:?}");
    next.follows(&held);
    a.has_lost(&held);
}

/// An hour, as wall clocks are set wrong by.
const HOUR_MS: i64 = 60 * 60 * 1000;

fn stepped(at: Timestamp, by_millis: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis() + by_millis)
}

/// 53: a holder whose wall clock is an hour off keeps its name for a ttl, no less and no more.
pub fn wall_clock_steps_on_holder(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    for off in [-HOUR_MS, HOUR_MS] {
        let mut claim = a.claim(&name(&format!("off by {off}")));
        claim.at = stepped(claim.at, off);
        let mut held = a.acquire_by(&claim);
        b.is_refused(&held.name);
        harness.advance(held.ttl - margin(held.ttl));
        b.is_refused(&held.name);
        a.keeps(&mut held);
        let since = harness.now();
        b.take_over(&held.name);
        let waited = harness.now().since(since);
        assert!(waited < held.ttl * 2, "a holder's wall clock kept the name for {waited:?}");
    }
}

/// 53: a contender whose wall clock is an hour off is granted a name neither sooner nor later.
pub fn wall_clock_steps_on_contender(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    for off in [-HOUR_MS, HOUR_MS] {
        let mut held = a.acquire(&name(&format!("off by {off}")));
        let claim = || {
            let claim = b.claim(&held.name);
            Claim { at: stepped(claim.at, off), ..claim }
        };
        b.refused_by(&claim());
        let last = claim();
        a.keeps(&mut held);
        let next = b.take_over_by(last);
        next.follows(&held);
        let before = harness.now();
        assert!(before.since(held.confirmed) < held.ttl * 2, "waited for its own wall clock");
    }
}

/// 57: where the store has a clock, a contender that comes when a grant has expired doesn't
/// wait at all.
pub fn cold_contender_does_not_wait_where_store_has_clock(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let held = a.acquire(&name("job"));
    a.pass(held.ttl + a.store.profile().detection);
    let cold = Player::new(harness, "cold");
    let next = cold.acquire(&held.name);
    next.follows(&held);
    a.has_lost(&held);
}

/// 58: where it has none, a contender that comes late still watches for a whole ttl: it can't
/// know how old the record is. What it watched is void as soon as the record changes.
pub fn cold_contender_waits_ttl_where_it_has_none(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("job"));
    a.pass(held.ttl * 3);
    let cold = Player::new(harness, "cold");
    let refusal = cold.is_refused(&held.name);
    assert_eq!(refusal.age, None, "a store without a clock told an age");
    let mut claim = cold.claim(&held.name);
    claim.watched = Some(refusal.version);
    // Another contender was there before, has watched it long enough, and takes it.
    let mut warm = b.claim(&held.name);
    warm.watched = Some(held.version.clone());
    let mut taken = b.acquire_by(&warm);
    is_held_as(&cold.refused_by(&claim), &taken);
    b.keeps(&mut taken);
    let since = harness.now();
    cold.take_over(&held.name);
    let waited = harness.now().since(since);
    assert!(waited >= taken.ttl, "a cold contender waited only {waited:?}");
}
