//! 78–79, 82: what a store does for an election: transfers, reservations and min-hold.

use std::time::Duration;

use tenure_core::decide::{Occupancy, occupancy};
use tenure_core::identity::Successor;
use tenure_core::record::{Happened, State};
use tenure_core::store::{Claim, Expiry, Renewed, Reserved};

use crate::harness::Harness;
use crate::player::{Player, name, namespace};

/// 78: a name that was released for a successor is kept for it, and refused to all others.
pub fn transfer_to_named(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let other = Player::new(harness, "b");
    let lasts = harness.ttl() / 3;
    for (exactly, text) in [(true, "one incarnation"), (false, "any of the name")] {
        let mut held = a.acquire(&name(text));
        a.keeps(&mut held);
        let successor = Successor {
            name: b.instance.name().clone(),
            incarnation: exactly.then(|| b.instance.incarnation()),
        };
        a.transfer(&held, Reserved { successor, lasts });
        let there = a.is_refused(&held.name).record;
        assert!(matches!(there.state, State::Released { reserved_for: Some(_) }), "{there:?}");
        assert_eq!(there.transitions.last().map(|last| last.what), Some(Happened::Transferred));
        if exactly {
            other.is_refused(&held.name);
        }
        // The successor waits for nothing, whoever's clock it is.
        let next = b.acquire(&held.name);
        next.follows(&held);
        a.has_lost(&held);
        a.is_refused(&held.name);
    }
}

/// 79: a successor that never comes keeps the name only as long as it was kept for it.
pub fn transfer_target_dead_falls_back(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("job"));
    let dead: Successor = "nobody".parse().expect("it is a name");
    let lasts = harness.ttl() / 3;
    a.transfer(&held, Reserved { successor: dead, lasts });
    b.is_refused(&held.name);
    let since = harness.now();
    let next = b.take_over(&held.name);
    let waited = harness.now().since(since);
    let most = lasts + lasts / 100 + b.store.profile().detection + harness.slack() * 4;
    assert!(waited <= most, "a reservation of {lasts:?} lasted {waited:?}");
    next.follows(&held);
}

fn holding(player: &Player<'_>, text: &str, min_hold: Duration) -> Claim {
    Claim { min_hold, ..player.claim(&name(text)) }
}

/// 82: min-hold keeps the name after an early release, counted from the grant.
pub fn min_hold_respected(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let ttl = harness.ttl();
    let held = a.acquire_by(&holding(&a, "ends early", ttl * 2));
    a.release(&held);
    a.is_refused(&held.name);
    harness.advance(ttl);
    b.is_refused(&held.name);
    let since = held.confirmed;
    let next = b.take_over(&held.name);
    let kept = harness.now().since(since);
    assert!(kept >= ttl * 2, "a min-hold of {:?} lasted {kept:?}", ttl * 2);
    next.follows(&held);
    // A holder that neither renews nor releases is kept out by the longer of the two.
    let held = a.acquire_by(&holding(&a, "falls silent", ttl * 2));
    let since = held.confirmed;
    a.pass(ttl);
    b.is_refused(&held.name);
    assert!(matches!(a.renew(&mut held.clone()), Renewed::NotHeld(_)), "min-hold isn't a ttl");
    b.take_over(&held.name);
    let kept = harness.now().since(since);
    assert!(kept >= ttl * 2, "a min-hold of {:?} lasted {kept:?}", ttl * 2);
    // A release in between leaves the rest of it: just that, where the store has a clock.
    let held = a.acquire_by(&holding(&a, "ends halfway", ttl));
    harness.advance(ttl / 2);
    a.release(&held);
    b.is_refused(&held.name);
    let since = harness.now();
    b.take_over(&held.name);
    let (kept, waited) = (harness.now().since(held.confirmed), harness.now().since(since));
    assert!(kept >= ttl, "a min-hold of {ttl:?} lasted {kept:?}");
    let rest = if b.store.profile().expiry == Expiry::StoreClock { ttl / 2 } else { ttl };
    let most = rest + rest / 100 + b.store.profile().detection + harness.slack() * 4;
    assert!(waited <= most, "the rest of {rest:?} lasted {waited:?}");
    // Renewals count it down; after it the name is free with its release.
    let mut held = a.acquire_by(&holding(&a, "goes on", ttl));
    for _ in 0..3 {
        harness.advance(ttl / 2);
        a.keeps(&mut held);
    }
    a.release(&held);
    b.acquire(&held.name);
}

/// 82: a transfer ends min-hold.
pub fn min_hold_ends_with_a_transfer(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire_by(&holding(&a, "handed over", harness.ttl() * 10));
    let successor = b.instance.clone().into();
    a.transfer(&held, Reserved { successor, lasts: harness.ttl() / 3 });
    b.acquire(&held.name);
}

/// 82: a proven death frees a name at once, but not before its min-hold.
pub fn min_hold_outlives_a_proven_death(harness: &dyn Harness) {
    let b = Player::new(harness, "b");
    let (store, die) = harness.open_mortal(&namespace());
    let mortal = Player::on(harness, "mortal", store);
    let plain = mortal.acquire(&name("plain"));
    let kept = mortal.acquire_by(&holding(&mortal, "kept", harness.ttl() * 2));
    b.is_refused(&plain.name);
    b.is_refused(&kept.name);
    let mut outlives = mortal.claim(&name("its work outlives it"));
    outlives.ends_with_process = false;
    let outlives = mortal.acquire_by(&outlives);
    b.is_refused(&outlives.name);
    let since = kept.confirmed;
    drop(mortal);
    die();
    assert_eq!(occupancy(&b.sees(&plain.name), &b.instance), Occupancy::Free, "it is dead");
    let next = b.acquire(&plain.name);
    next.follows(&plain);
    b.is_refused(&kept.name);
    b.is_refused(&outlives.name);
    b.take_over(&kept.name);
    let lasted = harness.now().since(since);
    assert!(lasted >= harness.ttl() * 2, "the min-hold lasted only {lasted:?}");
}
