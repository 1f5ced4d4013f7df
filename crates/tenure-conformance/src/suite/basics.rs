//! 1–3, 9–15: a name is acquired, read, released, and acquired again.

use std::time::Duration;

use tenure_core::clock::Timestamp;
use tenure_core::decide::{Occupancy, occupancy};
use tenure_core::error::ErrorKind;
use tenure_core::identity::{ClaimId, FencingToken, Nonce};
use tenure_core::record::{Demand, METADATA_BYTES_MAX, Metadata, State};
use tenure_core::store::{Acquired, Snapshot};
use tenure_core::timing::{TTL_MAX, TTL_MIN, Timing};

use crate::harness::Harness;
use crate::player::{Held, Player, name};

/// Asserts that a record says what its holder believes.
#[track_caller]
pub(crate) fn is_held_as(snapshot: &Snapshot, held: &Held) {
    let record = &snapshot.record;
    assert_eq!(record.name, held.name, "the record is of another name");
    assert_eq!(record.state, State::Held, "`{}` isn't held", held.name);
    assert_eq!(record.holder, held.instance, "`{}` has another holder", held.name);
    assert_eq!(record.claim, held.claim, "`{}` was granted to another claim", held.name);
    assert_eq!(record.token, held.token, "`{}` has another token", held.name);
}

/// How long a refusal says that the name is taken for, as `player` must understand it.
#[track_caller]
pub(crate) fn taken_for(player: &Player<'_>, snapshot: &Snapshot) -> Duration {
    match occupancy(snapshot, &player.instance) {
        Occupancy::Left(left) | Occupancy::Watch(left) => left,
        Occupancy::Free => panic!("what refused says that it is free: {snapshot:?}"),
    }
}

/// 1: a free name is granted, with a token of at least 1, and the record says so.
pub fn acquire_free(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let free = name("free");
    assert!(a.read(&free).is_none(), "a fresh store has no record of `{free}`");
    let held = a.acquire(&free);
    assert!(held.token >= FencingToken::FIRST);
    let seen = a.sees(&free);
    is_held_as(&seen, &held);
    assert_eq!(seen.version, held.version, "the grant told another version than a read does");
    assert_eq!(seen.store, held.store, "the grant told another store id than a read does");
}

/// 2: a held name is refused, with holder, token and time left; that is no error, and writes
/// nothing.
pub fn acquire_held(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("held"));
    let refusal = b.is_refused(&held.name);
    is_held_as(&refusal, &held);
    let left = taken_for(&b, &refusal);
    let most = held.ttl + held.ttl / 100;
    assert!(!left.is_zero() && left <= most, "{left:?} left of a ttl of {:?}", held.ttl);
    assert_eq!(b.sees(&held.name).version, held.version, "a refused claim wrote something");
}

/// 3: leases are not reentrant: the holder's own second claim is refused.
pub fn same_session_second_claim_refused(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let mut held = a.acquire(&name("once"));
    is_held_as(&a.is_refused(&held.name), &held);
    a.keeps(&mut held);
}

/// 4: the same readable name counts for nothing: another incarnation is another instance.
pub fn same_name_other_incarnation_refused(harness: &dyn Harness) {
    let (first, second) = (Player::new(harness, "api"), Player::new(harness, "api"));
    let mut held = first.acquire(&name("job"));
    is_held_as(&second.is_refused(&held.name), &held);
    let stolen = Held { instance: second.instance.clone(), ..held.clone() };
    second.has_lost(&stolen);
    second.releases_in_vain(&stolen);
    first.keeps(&mut held);
}

/// 9: a released name is acquired again, ten times over.
pub fn reacquire_after_release(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let job = name("again");
    let mut last = None;
    for round in 0..10 {
        let held = a.acquire(&job);
        assert!(Some(held.token) > last, "round {round} was granted {} again", held.token);
        last = Some(held.token);
        a.release(&held);
    }
}

/// 10: a second release says that nothing is held, and has no effect.
pub fn release_twice(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("twice"));
    let tombstone = a.release(&held);
    let there = a.releases_in_vain(&held).expect("the tombstone stays");
    assert_eq!(there.version, tombstone, "the second release wrote something");
    let mut next = b.acquire(&held.name);
    a.releases_in_vain(&held);
    b.keeps(&mut next);
}

/// 11: releasing what was never granted says that nothing is held, and has no effect.
pub fn release_never_granted(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut held = a.acquire(&name("granted"));
    let elsewhere = Held { name: name("never"), ..held.clone() };
    assert!(a.releases_in_vain(&elsewhere).is_none(), "there was no record of it");
    assert!(a.read(&elsewhere.name).is_none(), "a release in vain left a record");
    for made_up in [
        Held { instance: b.instance.clone(), ..held.clone() },
        Held { claim: ClaimId::from_u128(1), ..held.clone() },
        Held { token: held.token.next().expect("tokens are small"), ..held.clone() },
    ] {
        b.releases_in_vain(&made_up);
        is_held_as(&b.sees(&held.name), &held);
    }
    a.keeps(&mut held);
}

/// 12: a ttl out of range is refused with a typed error. [`Timing`] refuses it before any I/O;
/// a store that is asked all the same refuses it too, or keeps it faithfully.
pub fn ttl_out_of_range(harness: &dyn Harness) {
    for ttl in [Duration::ZERO, TTL_MIN / 2, TTL_MAX + Duration::from_secs(1), Duration::MAX] {
        let error = Timing::of_ttl(ttl).expect_err("a ttl out of range is refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{ttl:?}");
    }
    let (a, b) = Player::two(harness);
    let mut none = a.claim(&name("no ttl"));
    none.ttl = Duration::ZERO;
    if let Acquired::Failed(error) = a.ask(&none) {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    }
    b.take_over(&none.name);
    let mut endless = a.claim(&name("endless"));
    endless.ttl = Duration::MAX;
    match a.ask(&endless) {
        Acquired::Failed(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}"),
        Acquired::Granted(_) => {
            let kept = b.is_refused(&endless.name).record.ttl;
            assert!(kept >= TTL_MAX, "the longest ttl became {kept:?}");
        }
        other => panic!("a free name: {other:?}"),
    }
}

/// 13: a ttl below the store's minimum is an error, or rounded up so that the record says so.
pub fn ttl_below_store_minimum(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let shortest = a.store.profile().shortest_ttl;
    assert!((TTL_MIN..=TTL_MAX).contains(&shortest), "a shortest ttl of {shortest:?}");
    assert!(harness.ttl() >= shortest, "the harness's ttl is below the store's own minimum");
    let mut claim = a.claim(&name("short"));
    claim.ttl = if shortest > TTL_MIN { TTL_MIN } else { shortest };
    match a.ask(&claim) {
        Acquired::Failed(error) => {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
            assert!(claim.ttl < shortest, "the shortest ttl of the profile is refused: {error}");
            assert!(a.read(&claim.name).is_none(), "what was refused left a record");
        }
        Acquired::Granted(_) => {
            let ttl = a.sees(&claim.name).record.ttl;
            assert!(ttl >= shortest, "the store keeps {ttl:?}, below its minimum {shortest:?}");
        }
        other => panic!("a free name: {other:?}"),
    }
}

/// 14: 4 KiB of metadata come back as they were.
#[allow(non_snake_case, reason = "the name is that of the list of behaviours")]
pub fn metadata_4KiB_round_trip(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let awkward = "ä \"quoted\" \\ \n\t\u{1f600} \u{202e}'; DROP TABLE leases; --\u{1}";
    let rest = METADATA_BYTES_MAX - awkward.len() - "awkward".len() - "rest".len();
    let metadata = Metadata::new()
        .with("awkward", awkward)
        .and_then(|metadata| metadata.with("rest", "x".repeat(rest)))
        .expect("it is exactly as long as allowed");
    let mut claim = a.claim(&name("metadata"));
    claim.metadata = metadata.clone();
    let mut held = a.acquire_by(&claim);
    assert_eq!(b.sees(&held.name).record.metadata, metadata, "after the grant");
    a.keeps(&mut held);
    assert_eq!(b.is_refused(&held.name).record.metadata, metadata, "after a renewal");
    a.release(&held);
    b.acquire(&held.name);
    let now = b.sees(&held.name).record.metadata;
    assert!(now.is_empty(), "the next holder inherits words that aren't its own: {now:?}");
}

/// 14: each write has a new nonce, so that no two are byte-equal: a version that is a hash of
/// the content changes with each.
pub fn each_write_has_a_new_nonce(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("written"));
    let mut nonces = vec![b.sees(&held.name).record.nonce];
    nonces.push(b.orders(&held.name, Demand::Resign { to: None }).record.nonce);
    a.release(&held);
    nonces.push(b.sees(&held.name).record.nonce);
    b.acquire(&held.name);
    nonces.push(b.sees(&held.name).record.nonce);
    are_all_different(nonces);
}

/// 14: so has each renewal, where it is a write of the record.
pub fn each_renewal_has_a_new_nonce(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut held = a.acquire(&name("renewed"));
    let mut nonces = vec![b.sees(&held.name).record.nonce];
    for _ in 0..2 {
        a.keeps(&mut held);
        nonces.push(b.sees(&held.name).record.nonce);
    }
    are_all_different(nonces);
}

#[track_caller]
fn are_all_different(mut nonces: Vec<Nonce>) {
    let all = nonces.len();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), all, "a nonce was written twice: {nonces:?}");
}

/// 15: a read reports holder, token, when it was acquired, and how long it has left.
pub fn read_reports_holder_token_acquired_left(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut claim = a.claim(&name("reported"));
    claim.at = Timestamp::from_millis(1_700_000_000_123);
    let mut held = a.acquire_by(&claim);
    let before = taken_for(&b, &b.sees(&held.name));
    harness.advance(held.ttl / 2);
    let seen = b.sees(&held.name);
    is_held_as(&seen, &held);
    assert_eq!(seen.record.acquired_at, claim.at);
    assert_eq!(seen.record.ttl, claim.ttl);
    if seen.age.is_some() {
        let gone = before.saturating_sub(taken_for(&b, &seen));
        let most = held.ttl / 2 + harness.slack();
        assert!((held.ttl / 2..=most).contains(&gone), "half a ttl was told as {gone:?}");
    }
    a.keeps(&mut held);
    let renewed = b.sees(&held.name);
    assert_eq!(renewed.record.acquired_at, claim.at, "a renewal isn't a grant");
    let left = taken_for(&b, &renewed) + harness.slack();
    assert!(left >= held.ttl, "{left:?} left just after a renewal");
}
