//! 32–39: tokens increase for ever, whatever ended the grant before.

use std::sync::Barrier;

use tenure_core::identity::FencingToken;
use tenure_core::record::Demand;
use tenure_core::record_store::tokens_key;
use tenure_core::store::{Acquired, Level};

use crate::harness::Harness;
use crate::player::{Player, name, namespace};

/// 32: each grant of a name has a larger token than all before it.
pub fn increases_on_each_grant(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut last = a.acquire(&name("job"));
    a.release(&last);
    for round in 0..20 {
        let (player, other) = if round % 2 == 0 { (&b, &a) } else { (&a, &b) };
        let held = player.acquire(&last.name);
        held.follows(&last);
        other.is_refused(&held.name);
        player.release(&held);
        last = held;
    }
}

/// 33: renewals leave the token as it is.
pub fn constant_across_renewals(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut held = a.acquire(&name("job"));
    for _ in 0..10 {
        harness.advance(held.ttl / 3);
        a.keeps(&mut held);
        assert_eq!(b.sees(&held.name).record.token, held.token);
    }
}

/// 34: the token grows after a release, also where nothing but the name is left.
pub fn increases_after_release(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let first = a.acquire(&name("job"));
    a.release(&first);
    let second = b.acquire(&first.name);
    second.follows(&first);
    b.release(&second);
    // A session that opens later knows nothing of either.
    let third = Player::new(harness, "c").acquire(&first.name);
    third.follows(&second);
}

/// 35: the token grows after an expiry.
pub fn increases_after_expiry(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut last = a.acquire(&name("job"));
    for round in 0..3 {
        let player = if round % 2 == 0 { &b } else { &a };
        let held = player.take_over(&last.name);
        held.follows(&last);
        last = held;
    }
}

/// 36: the token grows after a revoke, with and without waiting.
pub fn increases_after_revoke(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let first = a.acquire(&name("job"));
    b.orders(&first.name, Demand::RevokeNow);
    let second = b.acquire(&first.name);
    second.follows(&first);
    a.orders(&first.name, Demand::Revoke);
    let third = a.take_over(&first.name);
    third.follows(&second);
}

/// 37: the token grows after a purge, also one that races with a first grant.
pub fn increases_after_purge_racing_with_a_first_grant(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let job = name("purged");
    let mut last: Option<FencingToken> = None;
    for round in 0..100 {
        let start = Barrier::new(2);
        let claim = b.claim(&job);
        let acquired = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                harness.purge();
            });
            start.wait();
            b.ask_patiently(&claim)
        });
        let Acquired::Granted(grant) = acquired else {
            panic!("round {round} came to {acquired:?}");
        };
        assert!(Some(grant.token) > last, "round {round}: {} follows {last:?}", grant.token);
        assert_eq!(a.sees(&job).record.token, grant.token, "the grant was purged");
        last = Some(grant.token);
        b.release(&b.held(&claim, grant, harness.now()));
        if round % 2 == 1 {
            harness.purge();
        }
    }
    let held = a.acquire(&job);
    harness.purge();
    assert_eq!(a.sees(&job).record.token, held.token, "a grant in force was purged");
}

/// 38: the token grows after a restart of the server, and what was acknowledged is still there.
pub fn increases_after_server_restart(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let (released, mut kept) = (a.acquire(&name("released")), a.acquire(&name("kept")));
    a.release(&released);
    harness.restart();
    let again = b.acquire(&released.name);
    again.follows(&released);
    let (claim, seen) = (b.claim(&kept.name), b.ask_patiently(&b.claim(&kept.name)));
    assert!(matches!(seen, Acquired::Refused(_)), "{claim:?} came to {seen:?}");
    a.keeps(&mut kept);
    harness.restart();
    let taken = b.take_over(&kept.name);
    taken.follows(&kept);
}

/// 39: the token grows after somebody deleted the record by hand; or the profile says `lease`.
pub fn increases_after_record_deleted_by_hand(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("deleted"));
    harness.delete_by_hand(&namespace(), &held.name);
    let there = a.has_lost(&held);
    assert!(there.is_none(), "a renewal brought the record back: {there:?}");
    assert!(b.read(&held.name).is_none(), "the hook deleted nothing");
    let next = b.acquire(&held.name);
    if b.store.profile().level >= Level::Fenced {
        next.follows(&held);
    }
    a.releases_in_vain(&held);
}

/// 39: the token grows after somebody deleted the store's counter of tokens by hand: the record
/// counts, too.
pub fn increases_after_counter_deleted_by_hand(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let first = a.acquire(&name("other"));
    let held = a.acquire(&name("counted"));
    held.follows(&first);
    a.release(&held);
    harness.delete_by_hand(&namespace(), &tokens_key());
    b.acquire(&held.name).follows(&held);
}
