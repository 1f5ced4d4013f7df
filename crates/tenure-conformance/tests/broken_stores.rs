//! The suite can fail: stores that are broken as others in the field were, and what catches them.

mod common;
mod flawed;

use flawed::records::{TamperedRecords, Tampering};
use flawed::{Flaw, Flawed};
use tenure_conformance::harness::Harness;
use tenure_conformance::stamp::failures;

/// Runs these behaviours, each of which must fail.
fn is_caught<H: Harness>(make: impl Fn() -> H, by: &[&str]) {
    let caught: Vec<_> = failures(make, Some(by)).iter().map(|one| one.behaviour).collect();
    let missed: Vec<_> = by.iter().filter(|name| !caught.contains(name)).collect();
    assert!(missed.is_empty(), "not caught by {missed:?}");
}

/// Runs everything, of which nothing may fail.
fn passes<H: Harness>(make: impl Fn() -> H) {
    let failed = failures(make, None);
    assert!(failed.is_empty(), "{failed:#?}");
}

macro_rules! caught {
    ($($test:ident: $make:expr => $($by:ident),+;)*) => {$(
        #[test]
        fn $test() {
            is_caught(|| $make, &[$(stringify!($by)),+]);
        }
    )*};
}

/// Without its flaw the store passes: it is the flaw that is caught, and nothing else.
#[test]
fn the_store_without_a_flaw_passes() {
    passes(|| Flawed::new(Flaw::None));
}

/// No two writes of ours are byte-equal, so a version that is a hash of the content will do.
#[test]
fn a_hash_of_the_content_is_a_version() {
    passes(|| TamperedRecords::new(Tampering::ContentTag));
}

caught! {
    d6_token_that_restarts_after_release: Flawed::new(Flaw::TokenRestarts) =>
        increases_after_release, increases_on_each_grant, renewal_with_old_token_fails;
    d7_generation_reset_and_wall_clock: Flawed::new(Flaw::WallClock) =>
        increases_after_release, wall_clock_steps_on_holder, wall_clock_steps_on_contender;
    d8_token_constant_after_release: Flawed::new(Flaw::TokenConstant) =>
        increases_after_release, increases_after_expiry, increases_after_revoke;
    d9_blind_acquire_and_renewal: Flawed::new(Flaw::BlindWrites) =>
        late_renewal_leaves_successor, one_winner_of_64, one_winner_of_64_on_expired;
    d10_blind_force_of_an_expired_lease: Flawed::new(Flaw::BlindForce) =>
        one_winner_of_64_on_expired;
    d11_release_without_ownership_check: Flawed::new(Flaw::UncheckedRelease) =>
        late_release_leaves_successor, release_twice, release_never_granted;
    check_then_act: Flawed::new(Flaw::TwoSteps) =>
        one_winner_of_64, one_winner_of_64_on_expired;
    acknowledged_renewals_are_lost: Flawed::new(Flaw::ForgetsRenewals) =>
        not_granted_again_before_ttl, constant_across_renewals;
    data_is_lost_in_silence: Flawed::new(Flaw::ForgetsSilently) =>
        store_that_forgot_is_noticed;
    expired_grant_comes_back: Flawed::new(Flaw::Resurrects) =>
        renewal_after_expiry_fails;
    instances_known_by_name: Flawed::new(Flaw::KnowsNamesOnly) =>
        same_name_other_incarnation_refused;
    reentrant_lease: Flawed::new(Flaw::Reentrant) =>
        same_session_second_claim_refused;
    renewal_without_a_token: Flawed::new(Flaw::IgnoresTokens) =>
        renewal_with_old_token_fails;
    finding_extends: Flawed::new(Flaw::FindingExtends) =>
        lost_answer_of_a_claim;
    tombstone_grants_its_own_claim: Flawed::new(Flaw::TombstoneGrants) =>
        own_id_in_a_tombstone_is_refused, no_write_after_release;
    names_without_case: Flawed::new(Flaw::FoldsCase) =>
        names_case_sensitive, names_unicode_slashes_spaces_longest;
    names_joined_to_namespaces: Flawed::new(Flaw::JoinsNames) =>
        prefix_isolation;
    revoke_that_frees: Flawed::new(Flaw::RevokeFrees) =>
        revoked_is_not_granted_before_holder_released_or_ttl;
    order_that_prolongs: Flawed::new(Flaw::OrderProlongs) =>
        resign_is_asked_at_the_next_beat;
    reservation_for_nobody: Flawed::new(Flaw::IgnoresReservations) =>
        transfer_to_named, transfer_target_dead_falls_back;
    inherited_metadata: Flawed::new(Flaw::InheritsMetadata) =>
        metadata_4KiB_round_trip;
    forgotten_min_hold: Flawed::new(Flaw::ForgetsMinHold) =>
        min_hold_respected;
    batch_that_fails_as_one: Flawed::new(Flaw::BatchIsOne) =>
        loss_of_one_of_1000_is_told_for_that_one;
    listing_with_gaps: Flawed::new(Flaw::SkipsBetweenPages) =>
        list_pages_2500_by_prefix;
    ignored_if_match: TamperedRecords::new(Tampering::IgnoresIfMatch) =>
        precondition_if_match_honoured, precondition_atomic_under_64, one_winner_of_64_on_expired;
    ignored_if_absent: TamperedRecords::new(Tampering::IgnoresIfAbsent) =>
        precondition_if_absent_honoured, one_winner_of_64;
    missing_keys_made: TamperedRecords::new(Tampering::MakesMissingKeys) =>
        precondition_on_missing_key, increases_after_record_deleted_by_hand;
    version_of_content_without_nonce: TamperedRecords::new(Tampering::ContentTagWithoutNonce) =>
        precondition_if_match_honoured, not_granted_again_before_ttl;
    precondition_in_two_steps: TamperedRecords::new(Tampering::TwoSteps) =>
        precondition_atomic_under_64, one_winner_of_64;
    lost_writes: TamperedRecords::new(Tampering::LosesWrites) =>
        precondition_atomic_under_64, increases_on_each_grant;
}
