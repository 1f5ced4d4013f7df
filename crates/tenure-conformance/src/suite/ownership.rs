//! 17–20, 25, 27: what is lost stays lost, and late requests of its former holder change nothing.

use std::time::Duration;

use tenure_core::identity::Name;
use tenure_core::record::State;
use tenure_core::store::{Acquired, Renewed};

use crate::harness::Harness;
use crate::player::{Held, Player, name};
use crate::suite::basics::is_held_as;

/// A's hold, expired and taken over by B.
fn succeeded<'h>(a: &Player<'h>, b: &Player<'h>, name: &Name) -> (Held, Held) {
    let late = a.acquire(name);
    let successor = b.take_over(name);
    successor.follows(&late);
    (late, successor)
}

/// 17: A expires, B acquires, A releases: NotHeld, and B still holds.
pub fn late_release_leaves_successor(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let (late, mut successor) = succeeded(&a, &b, &name("job"));
    let there = a.releases_in_vain(&late).expect("the successor's record");
    is_held_as(&there, &successor);
    is_held_as(&b.sees(&late.name), &successor);
    b.keeps(&mut successor);
    Player::new(harness, "c").is_refused(&late.name);
}

/// 18: A expires, B acquires, A renews: NotHeld, and B's grant is neither taken nor prolonged.
pub fn late_renewal_leaves_successor(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let (late, mut successor) = succeeded(&a, &b, &name("job"));
    let before = b.sees(&late.name);
    a.has_lost(&late);
    // Also with a clock that stood still, and with the version that stands there now.
    let mut sly = a.renewal(&late);
    sly.unconfirmed_for = Duration::ZERO;
    assert!(matches!(a.send_renewal(&sly), Renewed::NotHeld(_)), "renewed by a slow clock");
    sly.version = successor.version.clone();
    assert!(matches!(a.send_renewal(&sly), Renewed::NotHeld(_)), "renewed on a stolen version");
    let after = b.sees(&late.name);
    assert_eq!(after.version, before.version, "a late renewal wrote something");
    is_held_as(&after, &successor);
    b.keeps(&mut successor);
}

/// 19: a renewal after expiry fails, though nobody took the name.
pub fn renewal_after_expiry_fails(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("expired"));
    a.pass(held.ttl);
    let there = a.has_lost(&held).expect("the record stays");
    assert_eq!(there.version, held.version, "nobody wrote, and yet it changed");
    if there.age.is_some() {
        // A store with a clock refuses also a holder whose own clock stood still.
        let mut sly = a.renewal(&held);
        sly.unconfirmed_for = Duration::ZERO;
        assert!(matches!(a.send_renewal(&sly), Renewed::NotHeld(_)), "renewed by a slow clock");
    }
    b.take_over(&held.name);
    a.has_lost(&held);
}

/// 20: after A→B→A, a renewal or release by A's first token fails.
pub fn renewal_with_old_token_fails(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let first = a.acquire(&name("aba"));
    let between = b.take_over(&first.name);
    b.release(&between);
    let mut second = a.acquire(&first.name);
    let old = Held { confirmed: second.confirmed, version: second.version.clone(), ..first };
    a.has_lost(&old);
    a.releases_in_vain(&old);
    for half_old in
        [Held { token: old.token, ..second.clone() }, Held { claim: old.claim, ..second.clone() }]
    {
        a.has_lost(&half_old);
        a.releases_in_vain(&half_old);
    }
    is_held_as(&b.sees(&old.name), &second);
    a.keeps(&mut second);
}

/// 25: once a release has returned, nothing of the former holder's changes the record: not its
/// late claim, not its late renewals, and not those that raced with the release.
pub fn no_write_after_release(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let claim = a.claim(&name("quiet"));
    let mut held = a.acquire_by(&claim);
    let first = a.renewal(&held);
    a.keeps(&mut held);
    let second = a.renewal(&held);
    let tombstone = a.release(&held);
    for late in [&first, &second, &a.renewal(&Held { version: tombstone.clone(), ..held.clone() })]
    {
        assert!(matches!(a.send_renewal(late), Renewed::NotHeld(_)), "a late renewal was done");
    }
    match a.ask(&claim) {
        Acquired::Refused(_) => {}
        other => panic!("a late copy of the claim came to {other:?}"),
    }
    a.releases_in_vain(&held);
    assert_eq!(a.sees(&held.name).version, tombstone, "the tombstone was changed");
    for round in 0..50 {
        let held = a.acquire(&name(&format!("race {round}")));
        let tombstone = std::thread::scope(|scope| {
            let renewals = scope.spawn(|| {
                for _ in 0..3 {
                    a.send_renewal(&a.renewal(&held));
                }
            });
            let released = a.send_release(&a.release_of(&held));
            let seen = a.sees(&held.name);
            assert!(
                matches!(seen.record.state, State::Released { .. }),
                "after the release came to {released:?}: {seen:?}"
            );
            renewals.join().expect("renewals don't panic");
            seen.version
        });
        assert_eq!(a.sees(&held.name).version, tombstone, "a renewal came after the release");
    }
}

/// 27: a renewal, a release or an order on a record that isn't there finds nothing, and makes
/// none.
pub fn conditional_write_on_missing_record_fails(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let held = a.acquire(&name("there"));
    let missing = Held { name: name("missing"), ..held };
    assert!(a.has_lost(&missing).is_none());
    assert!(a.releases_in_vain(&missing).is_none());
    let order = a.order(&missing.name, tenure_core::record::Demand::Revoke, None);
    assert!(matches!(order, tenure_core::store::Ordered::NotHeld(None)), "{order:?}");
    assert!(a.read(&missing.name).is_none(), "a conditional write made a record");
}
