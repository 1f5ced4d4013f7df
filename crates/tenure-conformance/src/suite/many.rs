//! 70–73: a thousand leases are as good as one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenure_core::error::{ErrorKind, Operation};
use tenure_core::identity::Name;
use tenure_core::record::Demand;
use tenure_core::store::{Acquired, Claim, Hold, Release, Released, Renewed};

use crate::faulty::{Fault, Faulty};
use crate::harness::Harness;
use crate::player::{Held, Player, name, namespace};

fn numbered(count: usize) -> Vec<Name> {
    (0..count).map(|n| name(&format!("many/{n:05}"))).collect()
}

/// Acquires all, a batch at a time.
fn acquire_all(player: &Player<'_>, claims: &[Claim]) -> Vec<Held> {
    let mut held = Vec::with_capacity(claims.len());
    for batch in claims.chunks(player.store.profile().batch_max) {
        let sent = player.harness.now();
        let answers = player.run(player.store.acquire(batch)).expect("a batch of claims");
        assert_eq!(answers.len(), batch.len(), "one answer a claim");
        for (claim, answer) in batch.iter().zip(answers) {
            let Acquired::Granted(grant) = answer else {
                panic!("`{}` came to {answer:?}", claim.name);
            };
            held.push(player.held(claim, grant, sent));
        }
    }
    held
}

/// Renews all, a batch at a time, in the order given.
fn renew_all(player: &Player<'_>, held: &mut [Held]) -> Vec<Renewed> {
    let mut renewed = Vec::with_capacity(held.len());
    for batch in held.chunks_mut(player.store.profile().batch_max) {
        let sent = player.harness.now();
        let holds: Vec<Hold> = batch.iter().map(|held| player.renewal(held)).collect();
        let answers = player.run(player.store.renew(&holds)).expect("a batch of renewals");
        assert_eq!(answers.len(), batch.len(), "one answer a hold");
        for (held, answer) in batch.iter_mut().zip(answers) {
            if let Renewed::Renewed(version) | Renewed::Asked(version, _) = &answer {
                held.version = version.clone();
                held.confirmed = sent;
            }
            renewed.push(answer);
        }
    }
    renewed
}

#[track_caller]
fn all_renewed(answers: &[Renewed]) {
    for (position, answer) in answers.iter().enumerate() {
        assert!(matches!(answer, Renewed::Renewed(_)), "hold {position} came to {answer:?}");
    }
}

/// 70: a thousand holds of mixed ttls are renewed in one beat, each by its own ttl.
pub fn renews_1000_in_one_beat(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let ttl = harness.ttl();
    let claims: Vec<Claim> = numbered(1000 / harness.thrift())
        .iter()
        .enumerate()
        .map(|(n, name)| Claim { ttl: ttl * (1 + n as u32 % 3), ..a.claim(name) })
        .collect();
    let mut held = acquire_all(&a, &claims);
    for _ in 0..2 {
        harness.advance(ttl / 3);
        all_renewed(&renew_all(&a, &mut held));
    }
    for held in held.iter().take(3) {
        assert_eq!(b.is_refused(&held.name).record.ttl, held.ttl);
    }
    // A ttl later those of one ttl are lost, and no other.
    a.pass(ttl);
    for (answer, held) in renew_all(&a, &mut held.clone()).iter().zip(&held) {
        let lost = matches!(answer, Renewed::NotHeld(_));
        assert_eq!(lost, held.ttl == ttl, "`{}` of {:?}: {answer:?}", held.name, held.ttl);
    }
}

/// 70: where half of a batch has no answer, the other half is told all the same, and the batch
/// is simply repeated.
pub fn half_a_batch_unknown_is_told_per_item(harness: &dyn Harness) {
    let faulty = Arc::new(Faulty::new(harness.open(&namespace())));
    let a = Player::on(harness, "a", faulty.clone());
    let b = Player::new(harness, "b");
    let claims: Vec<Claim> = numbered(20).iter().map(|name| a.claim(name)).collect();
    faulty.plan(Operation::Acquire, Fault::HalfUnknown);
    let first = a.run(a.store.acquire(&claims)).expect("a batch of claims");
    let unknown = |answer: &Acquired| matches!(answer, Acquired::Failed(e) if e.kind() == ErrorKind::OutcomeUnknown);
    assert_eq!(first.iter().filter(|answer| unknown(answer)).count(), 10);
    let mut held = acquire_all(&a, &claims);
    for (held, first) in held.iter().zip(&first) {
        if let Acquired::Granted(grant) = first {
            assert_eq!(held.token, grant.token, "the repeated batch has another token");
        }
    }
    faulty.plan(Operation::Renew, Fault::HalfUnknown);
    let half = renew_all(&a, &mut held);
    assert_eq!(half.iter().filter(|one| matches!(one, Renewed::Failed(_))).count(), 10);
    // Half of the versions are of before the renewal that nobody told of.
    all_renewed(&renew_all(&a, &mut held));
    let releases: Vec<Release> = held.iter().map(|held| a.release_of(held)).collect();
    faulty.plan(Operation::Release, Fault::HalfUnknown);
    a.run(a.store.release(&releases)).expect("a batch of releases");
    for again in a.run(a.store.release(&releases)).expect("the same batch again") {
        assert!(matches!(again, Released::Released(_) | Released::NotHeld(_)), "{again:?}");
    }
    for held in &held {
        b.acquire(&held.name);
    }
}

/// 71: one of a thousand is lost, and just that one is told so.
pub fn loss_of_one_of_1000_is_told_for_that_one(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let count = (1000 / harness.thrift()).max(10);
    let claims: Vec<Claim> = numbered(count).iter().map(|name| a.claim(name)).collect();
    let mut held = acquire_all(&a, &claims);
    let lost = count * 617 / 1000;
    b.orders(&held[lost].name, Demand::RevokeNow);
    b.acquire(&held[lost].name);
    b.orders(&held[3].name, Demand::Resign { to: None });
    for (position, answer) in renew_all(&a, &mut held).iter().enumerate() {
        let right = match position {
            at if at == lost => {
                matches!(answer, Renewed::NotHeld(Some(by)) if by.record.holder == b.instance)
            }
            3 => matches!(answer, Renewed::Asked(..)),
            _ => matches!(answer, Renewed::Renewed(_)),
        };
        assert!(right, "hold {position} was told {answer:?}");
    }
}

/// 72: ten thousand renewals take less than a third of a default ttl, on a real clock.
pub fn renews_10k_within_a_third_of_ttl(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let ttl = Duration::from_secs(30).max(harness.ttl());
    let claims: Vec<Claim> =
        numbered(10_000).iter().map(|name| Claim { ttl, ..a.claim(name) }).collect();
    let mut held = acquire_all(&a, &claims);
    let start = Instant::now();
    all_renewed(&renew_all(&a, &mut held));
    let took = start.elapsed();
    assert!(took < ttl / 3, "10 000 renewals took {took:?} of a ttl of {ttl:?}");
}

/// 73: all that a dead session held is free a ttl after its last beat.
pub fn death_frees_all_within_ttl(harness: &dyn Harness) {
    let (dead, b) = Player::two(harness);
    let claims: Vec<Claim> = numbered(100).iter().map(|name| dead.claim(name)).collect();
    let mut held = acquire_all(&dead, &claims);
    harness.advance(harness.ttl() / 2);
    all_renewed(&renew_all(&dead, &mut held));
    let declared = tenure_core::timing::observed(harness.ttl()) + b.store.profile().detection;
    b.pass(declared);
    for held in &held {
        // The contender has watched since the last beat, if it has to.
        let mut claim = b.claim(&held.name);
        claim.watched = Some(held.version.clone());
        let next = b.acquire_by(&claim);
        next.follows(held);
    }
}
