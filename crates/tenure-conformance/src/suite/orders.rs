//! 31: an operator's orders, which the holder carries out.

use tenure_core::identity::Successor;
use tenure_core::record::{Demand, Happened, State};
use tenure_core::store::{Ordered, Renewed};

use crate::harness::Harness;
use crate::player::{Held, Player, name};
use crate::suite::basics::is_held_as;

/// 31: a revoke ends renewals, and the record keeps holder and token.
pub fn revoke_ends_renewals_and_keeps_token(harness: &dyn Harness) {
    let (a, operator) = (Player::new(harness, "a"), Player::new(harness, "operator"));
    let mut held = a.acquire(&name("revoked"));
    a.keeps(&mut held);
    let marked = operator.orders(&held.name, Demand::Revoke).record;
    assert_eq!(marked.state, State::Revoked);
    assert_eq!((&marked.holder, marked.token), (&held.instance, held.token));
    let last = marked.transitions.last().expect("the history says who did it");
    assert_eq!((last.what, last.who.as_str()), (Happened::Revoked, "an operator"));
    assert_eq!(last.why, "the suite says so");
    let there = a.has_lost(&held).expect("the record stays");
    assert_eq!(there.record.state, State::Revoked);
    a.has_lost(&Held { version: there.version, ..held.clone() });
    a.release(&held);
    let next = operator.acquire(&held.name);
    next.follows(&held);
}

/// 31: what is revoked is granted to nobody before its holder has released, or a ttl has run
/// out since its last renewal; the revoke itself prolongs nothing.
pub fn revoked_is_not_granted_before_holder_released_or_ttl(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let released = a.acquire(&name("released"));
    let expires = a.acquire(&name("expires"));
    for held in [&released, &expires] {
        b.orders(&held.name, Demand::Revoke);
        assert_eq!(b.is_refused(&held.name).record.state, State::Revoked);
    }
    a.release(&released);
    b.acquire(&released.name);
    let margin = expires.ttl / 10;
    harness.advance(expires.ttl - margin);
    b.is_refused(&expires.name);
    if let Some(age) = b.sees(&expires.name).age {
        let least = (expires.ttl - margin).saturating_sub(harness.slack());
        assert!(age >= least, "the revoke started the ttl anew: {age:?}");
    }
    let next = b.take_over(&expires.name);
    next.follows(&expires);
}

/// 31: `--now` frees the name at once, and the history says that it did.
pub fn now_skips_the_wait_and_says_so(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut claim = a.claim(&name("now"));
    claim.min_hold = claim.ttl * 2;
    let held = a.acquire_by(&claim);
    let freed = b.orders(&held.name, Demand::RevokeNow).record;
    assert!(matches!(freed.state, State::Released { .. }), "{freed:?}");
    let said = freed.transitions.iter().any(|happened| happened.what == Happened::RevokedNow);
    assert!(said, "the history is silent: {:?}", freed.transitions);
    a.has_lost(&held);
    let mut next = b.acquire(&held.name);
    next.follows(&held);
    assert!(b.sees(&held.name).record.not_before.is_zero(), "the former min-hold stays");
    a.releases_in_vain(&held);
    b.keeps(&mut next);
}

/// 31: a request to resign reaches the holder with its next renewal, and takes nothing away.
pub fn resign_is_asked_at_the_next_beat(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut held = a.acquire(&name("asked"));
    let to = Some(Successor::from(b.instance.clone()));
    harness.advance(held.ttl / 2);
    b.orders(&held.name, Demand::Resign { to: to.clone() });
    if let Some(age) = b.sees(&held.name).age {
        let least = (held.ttl / 2).saturating_sub(harness.slack());
        assert!(age >= least, "an order prolonged the grant: {age:?} old");
    }
    is_held_as(&b.is_refused(&held.name), &held);
    for beat in 0..2 {
        match a.renew(&mut held) {
            Renewed::Asked(_, order) => assert_eq!(order.demand, Demand::Resign { to: to.clone() }),
            other => panic!("beat {beat} came to {other:?}"),
        }
    }
    a.release(&held);
    assert_eq!(b.sees(&held.name).record.order, None, "nothing is asked of a tombstone");
    let mut next = b.acquire(&held.name);
    assert_eq!(b.sees(&held.name).record.order, None, "the next holder inherits the order");
    b.keeps(&mut next);
    // An order dies with the grant that it was given to, however that ended.
    a.orders(&held.name, Demand::Resign { to: None });
    let mut after = a.take_over(&held.name);
    a.keeps(&mut after);
}

/// 31: an order that meets nobody, or another grant than the one meant, does nothing.
pub fn order_on_another_grant_does_nothing(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let old = a.acquire(&name("ordered"));
    a.release(&old);
    let order = b.order(&old.name, Demand::Revoke, None);
    assert!(matches!(order, Ordered::NotHeld(_)), "nobody holds it: {order:?}");
    let mut next = b.acquire(&old.name);
    let order = a.order(&old.name, Demand::RevokeNow, Some(old.token));
    assert!(matches!(order, Ordered::NotHeld(_)), "another grant was meant: {order:?}");
    is_held_as(&a.is_refused(&old.name), &next);
    b.keeps(&mut next);
    // What is revoked has nothing left to be asked.
    a.orders(&old.name, Demand::Revoke);
    let order = a.order(&old.name, Demand::Resign { to: None }, None);
    assert!(matches!(order, Ordered::NotHeld(_)), "asked a revoked holder: {order:?}");
    assert_eq!(a.sees(&old.name).record.state, State::Revoked);
    a.pass(next.ttl);
    if a.sees(&old.name).age.is_some() {
        let order = a.order(&old.name, Demand::Revoke, None);
        assert!(matches!(order, Ordered::NotHeld(_)), "ordered an expired holder: {order:?}");
    }
}
