//! 28–30, 59: answers that were lost, and what may be taken for done.

use std::sync::Arc;

use tenure_core::error::{ErrorKind, Operation};
use tenure_core::record::State;
use tenure_core::store::{Acquired, Released, Renewed};

use crate::faulty::{Fault, Faulty};
use crate::harness::{ConnectionFault, Harness};
use crate::player::{Player, name, namespace};
use crate::suite::basics::is_held_as;

/// A player whose requests can be lost on demand.
fn unlucky<'h>(harness: &'h dyn Harness) -> (Player<'h>, Arc<Faulty>) {
    let faulty = Arc::new(Faulty::new(harness.open(&namespace())));
    (Player::on(harness, "a", faulty.clone()), faulty)
}

/// 28: a claim whose answer was lost is repeated, finds itself, and is granted the same token;
/// finding extends nothing.
pub fn lost_answer_of_a_claim(harness: &dyn Harness) {
    let (a, faulty) = unlucky(harness);
    let b = Player::new(harness, "b");
    let mut claim = a.claim(&name("lost"));
    let sent = harness.now();
    faulty.plan(Operation::Acquire, Fault::AnswerLost);
    let lost = a.ask(&claim);
    assert!(matches!(&lost, Acquired::Failed(e) if e.kind() == ErrorKind::OutcomeUnknown));
    let written = b.sees(&claim.name);
    harness.advance(claim.ttl / 2);
    claim.unanswered_for = harness.now().since(sent);
    let Acquired::Granted(grant) = a.ask(&claim) else { panic!("the claim didn't find itself") };
    assert_eq!(grant.token, written.record.token, "the repeated claim has another token");
    let held = a.held(&claim, grant, sent);
    let found = b.sees(&claim.name);
    is_held_as(&found, &held);
    assert_eq!(found.version, written.version, "finding wrote something");
    // A ttl after the first send the grant is over, as if it had never been found.
    a.pass(claim.ttl / 2);
    a.has_lost(&held);
    claim.unanswered_for = harness.now().since(sent);
    match a.ask(&claim) {
        Acquired::Refused(_) => {}
        other => panic!("an expired claim came to {other:?}"),
    }
    // A claim that the store never saw, or saw twice, is granted once.
    for fault in [Fault::LostOnTheWay, Fault::NotSent, Fault::Twice] {
        let claim = a.claim(&name("repeated"));
        faulty.plan(Operation::Acquire, fault);
        let held = a.acquire_by(&claim);
        is_held_as(&b.sees(&claim.name), &held);
        a.release(&held);
    }
}

/// 29: a renewal or a release whose answer was lost is repeated, and comes to the same.
pub fn lost_answer_of_renewal_and_release(harness: &dyn Harness) {
    let (a, faulty) = unlucky(harness);
    let b = Player::new(harness, "b");
    let mut held = a.acquire(&name("lost"));
    for fault in [Fault::AnswerLost, Fault::LostOnTheWay, Fault::Twice] {
        harness.advance(held.ttl / 2);
        faulty.plan(Operation::Renew, fault);
        a.renew(&mut held);
        a.keeps(&mut held);
        is_held_as(&b.is_refused(&held.name), &held);
    }
    let old = held.version.clone();
    faulty.plan(Operation::Renew, Fault::AnswerLost);
    let lost = a.renew(&mut held);
    assert!(matches!(lost, Renewed::Failed(e) if e.kind() == ErrorKind::OutcomeUnknown));
    assert_eq!(held.version, old, "a lost answer told a version");
    // On a version that our own lost renewal has replaced.
    let release = a.release_of(&held);
    faulty.plan(Operation::Release, Fault::AnswerLost);
    let lost = a.send_release(&release);
    assert!(matches!(lost, Released::Failed(e) if e.kind() == ErrorKind::OutcomeUnknown));
    let tombstone = b.sees(&held.name);
    assert!(matches!(tombstone.record.state, State::Released { .. }), "{tombstone:?}");
    match a.send_release(&release) {
        Released::Released(version) => assert_eq!(version, tombstone.version),
        Released::NotHeld(by) => assert_eq!(by.map(|by| by.version), Some(tombstone.version)),
        other => panic!("the repeated release came to {other:?}"),
    }
    b.acquire(&held.name);
    assert!(matches!(a.send_release(&release), Released::NotHeld(_)), "a late copy released B's");
    is_refused_by(&a, &b, &held.name);
}

fn is_refused_by(a: &Player<'_>, b: &Player<'_>, name: &tenure_core::identity::Name) {
    assert_eq!(a.is_refused(name).record.holder, b.instance);
}

/// 30: what a connection did to a request is told as it is: certainly not done, or unknown.
pub fn unknown_is_not_success(harness: &dyn Harness) {
    let witness = Player::new(harness, "witness");
    for (fault, may_be_done) in [
        (ConnectionFault::Refused, false),
        (ConnectionFault::ResetBefore, false),
        (ConnectionFault::ResetAfter, true),
        (ConnectionFault::NoAnswer, true),
    ] {
        let unlucky = || Player::on(harness, "a", harness.open_faulty(fault, &namespace()));
        // A claim.
        let a = unlucky();
        let claim = a.claim(&name(&format!("claim {fault:?}")));
        let told = match a.ask(&claim) {
            Acquired::Failed(error) => Some(error.kind()),
            // A store's client may have repeated it by itself: then it must be true.
            Acquired::Granted(_) => None,
            other => panic!("{fault:?} of a claim came to {other:?}"),
        };
        is_true(fault, told, witness.read(&claim.name).is_some(), may_be_done);
        let held = a.acquire_by(&claim);
        // A renewal, on another session that knows nothing of the grant.
        let told = match unlucky().send_renewal(&a.renewal(&held)) {
            Renewed::Failed(error) => Some(error.kind()),
            Renewed::Renewed(_) => None,
            other => panic!("{fault:?} of a renewal came to {other:?}"),
        };
        let done = witness.sees(&held.name).version != held.version;
        is_true(fault, told, done, may_be_done);
        // A release.
        let told = match unlucky().send_release(&a.release_of(&held)) {
            Released::Failed(error) => Some(error.kind()),
            Released::Released(_) => None,
            other => panic!("{fault:?} of a release came to {other:?}"),
        };
        let done = matches!(witness.sees(&held.name).record.state, State::Released { .. });
        is_true(fault, told, done, may_be_done);
    }
}

/// Asserts that what was told of a request (none: done) fits what became of it.
#[track_caller]
fn is_true(fault: ConnectionFault, told: Option<ErrorKind>, done: bool, may_be_done: bool) {
    match told {
        None => assert!(done, "{fault:?}: told as done, and it wasn't"),
        Some(ErrorKind::OutcomeUnknown) => {
            assert!(fault != ConnectionFault::Refused, "a refused connection is no mystery");
            assert!(!done || may_be_done, "{fault:?}: done all the same");
        }
        Some(ErrorKind::Unavailable) => assert!(!done, "{fault:?}: told as not done, and it was"),
        Some(other) => panic!("{fault:?} was told as {other}"),
    }
}

/// 59: a tombstone refuses the claim whose grant it ended: a late copy is granted to nobody.
pub fn own_id_in_a_tombstone_is_refused(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let claim = a.claim(&name("given back"));
    let held = a.acquire_by(&claim);
    let tombstone = a.release(&held);
    let refusal = a.refused_by(&claim);
    assert_eq!(refusal.version, tombstone, "the late copy wrote something");
    a.pass(claim.ttl);
    a.refused_by(&claim);
    // The next attempt has a new id, and is granted.
    let next = a.acquire(&claim.name);
    next.follows(&held);
    a.release(&next);
    b.acquire(&claim.name);
}
