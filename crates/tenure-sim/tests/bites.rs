//! With a rule switched off the simulation finds the violation; with all of them on, the same
//! seeds are clean. The switches live here.

use std::time::Duration;

use tenure_core::clock::Reading;
use tenure_core::error::ErrorKind;
use tenure_core::protocol::hold::Limits;
use tenure_core::record::{Demand, State};
use tenure_core::store::{Acquired, Claim, Grant, Snapshot};
use tenure_sim::{Acting, Config, Invariant, Rules, StoreKind, run, run_under};

/// How many seeds a sabotage may hide from.
const SEEDS_MAX: u64 = 2_000;

/// Asserts that the sabotage is found by this invariant, and that the very seed is clean
/// without it (`group.rs` runs all seeds without).
///
/// `seed` is where it was found when this was written: it is tried first, and nothing but time
/// is lost when the machines draw otherwise some day.
fn found(rules: &dyn Rules, store: StoreKind, by: Invariant, seed: u64) {
    let config = Config { only: vec![by], ..Config::on(store) };
    let violation = std::iter::once(seed)
        .chain(0..SEEDS_MAX)
        .find_map(|seed| run_under(seed, &config, rules).err())
        .unwrap_or_else(|| panic!("{SEEDS_MAX} seeds on {store} don't find it by {by}"));
    assert_eq!(violation.invariant, by);
    let (seed, faults) = (violation.seed, violation.schedule.faults.len());
    eprintln!(
        "{}: {store}: found by {by} at seed {seed}; {faults} of {} faults are needed: {}",
        std::thread::current().name().unwrap_or_default(),
        violation.faults_at_first,
        violation.what
    );
    assert!(faults <= violation.faults_at_first);
    assert!(!violation.course.is_empty(), "the shrunk run can be read");
    if let Err(violation) = run(seed, &Config::on(store)) {
        panic!("{store} without the sabotage: {violation}");
    }
}

struct DeadlineFromTheAnswer;

impl Rules for DeadlineFromTheAnswer {
    fn counted_from(&self, sent: Reading, answered: Reading, late: bool) -> Reading {
        if late { sent } else { answered }
    }
}

#[test]
fn deadline_from_the_answer() {
    found(&DeadlineFromTheAnswer, StoreKind::WithClock, Invariant::ExclusionOfAction, 825);
    found(&DeadlineFromTheAnswer, StoreKind::OfRecords, Invariant::HonestAnswers, 75);
}

struct LateSuccessCountedFromNow;

impl Rules for LateSuccessCountedFromNow {
    fn counted_from(&self, sent: Reading, answered: Reading, late: bool) -> Reading {
        if late { answered } else { sent }
    }
}

#[test]
fn late_success_counted_from_now() {
    found(&LateSuccessCountedFromNow, StoreKind::WithClock, Invariant::ExclusionOfAction, 818);
    found(&LateSuccessCountedFromNow, StoreKind::OfRecords, Invariant::HonestAnswers, 43);
}

struct ExpiredGrantsAreRenewed;

impl Rules for ExpiredGrantsAreRenewed {
    fn age_at_renewal(&self, _age: Duration) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn renewal_of_an_expired_grant_allowed() {
    found(&ExpiredGrantsAreRenewed, StoreKind::WithClock, Invariant::ExclusionInStore, 404);
}

struct DeleteOnRelease;

impl Rules for DeleteOnRelease {
    fn keeps_tombstones(&self) -> bool {
        false
    }
}

#[test]
fn delete_on_release() {
    found(&DeleteOnRelease, StoreKind::WithClock, Invariant::Fencing, 5);
    found(&DeleteOnRelease, StoreKind::OfRecords, Invariant::Fencing, 0);
}

struct SameNameIsSameHolder;

impl Rules for SameNameIsSameHolder {
    fn claimed(&self, claim: &Claim, decided: Acquired) -> Acquired {
        match decided {
            Acquired::Refused(by)
                if by.record.holder.name() == claim.instance.name()
                    && by.record.state == State::Held =>
            {
                let Snapshot { record, version, store, .. } = *by;
                Acquired::Granted(Grant { token: record.token, version, store })
            }
            decided => decided,
        }
    }
}

#[test]
fn same_name_counts_as_same_holder() {
    found(&SameNameIsSameHolder, StoreKind::WithClock, Invariant::ExclusionOfAction, 3);
    found(&SameNameIsSameHolder, StoreKind::OfRecords, Invariant::ExclusionOfAction, 1);
}

struct RevokeFreesAtOnce;

impl Rules for RevokeFreesAtOnce {
    fn demanded(&self, demand: Demand) -> Demand {
        match demand {
            Demand::Revoke => Demand::RevokeNow,
            demand => demand,
        }
    }
}

#[test]
fn revoke_frees_at_once() {
    found(&RevokeFreesAtOnce, StoreKind::WithClock, Invariant::ExclusionOfAction, 0);
    found(&RevokeFreesAtOnce, StoreKind::OfRecords, Invariant::ExclusionInStore, 0);
}

struct ObservationCountedFromTheSend;

impl Rules for ObservationCountedFromTheSend {
    fn observed_at(&self, asked: Reading, _received: Reading) -> Reading {
        asked
    }
}

#[test]
fn observation_counted_from_the_send() {
    found(&ObservationCountedFromTheSend, StoreKind::OfRecords, Invariant::ExclusionInStore, 5);
}

struct LossNoticedBetweenRenewals;

impl Rules for LossNoticedBetweenRenewals {
    fn may_act(&self, limits: &Limits, now: Reading, acting: Acting, renewing: bool) -> bool {
        match acting {
            _ if renewing => true,
            Acting::Checked => limits.check(now).is_ok(),
            Acting::Unchecked => now.elapsed < limits.deadline,
        }
    }

    fn tells_time_while_renewing(&self) -> bool {
        false
    }
}

#[test]
fn loss_only_noticed_between_renewals() {
    found(&LossNoticedBetweenRenewals, StoreKind::WithClock, Invariant::ExclusionOfAction, 51);
    found(&LossNoticedBetweenRenewals, StoreKind::OfRecords, Invariant::ExclusionOfAction, 15);
}

struct SecondClaimWhileOneIsUnknown;

impl Rules for SecondClaimWhileOneIsUnknown {
    fn unanswered_claim(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

#[test]
fn second_claim_while_one_is_unknown() {
    found(&SecondClaimWhileOneIsUnknown, StoreKind::WithClock, Invariant::HonestAnswers, 4);
    found(&SecondClaimWhileOneIsUnknown, StoreKind::OfRecords, Invariant::HonestAnswers, 13);
}

struct NobodyWaitsAfterAReset;

impl Rules for NobodyWaitsAfterAReset {
    fn waits_after_reset(&self) -> bool {
        false
    }
}

#[test]
fn whoever_hears_of_a_reset_contends_at_once() {
    found(&NobodyWaitsAfterAReset, StoreKind::ForgetfulWithClock, Invariant::ExclusionOfAction, 0);
}
