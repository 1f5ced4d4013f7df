//! The list of all behaviours: the one place where each has its number, its name and its test.

use crate::behaviour::{Behaviour, Place};

/// Hands the whole list to a macro of this crate, so that the table and the stamped tests can't
/// differ. An entry is `(number section name in module)`, with `if Capability` where it needs
/// one, or `(number section name at Place)` where it is tested elsewhere.
#[doc(hidden)]
#[macro_export]
macro_rules! with_behaviours {
    ($then:ident $($given:tt)*) => { $crate::$then! { [$($given)*]
        ("1" Basics acquire_free in basics)
        ("2" Basics acquire_held in basics)
        ("3" Basics same_session_second_claim_refused in basics)
        ("4" Basics same_name_other_incarnation_refused in basics)
        ("5" Basics names_are_independent in names)
        ("6" Basics names_case_sensitive in names)
        ("7" Basics names_unicode_slashes_spaces_longest in names)
        ("8" Basics prefix_isolation in names if Namespaces)
        ("9" Basics reacquire_after_release in basics)
        ("10" Basics release_twice in basics)
        ("11" Basics release_never_granted in basics)
        ("12" Basics ttl_out_of_range in basics)
        ("13" Basics ttl_below_store_minimum in basics)
        ("14" Basics metadata_4KiB_round_trip in basics)
        ("14" Basics unknown_fields_survive_our_writes in records if RawRecords)
        ("14" Basics newer_format_is_not_written in records if RawRecords)
        ("14" Basics each_write_has_a_new_nonce in basics)
        ("14" Basics each_renewal_has_a_new_nonce in basics if RenewalWrites)
        ("15" Basics read_reports_holder_token_acquired_left in basics)
        ("16" Basics list_pages_2500_by_prefix in names)

        ("17" Ownership late_release_leaves_successor in ownership)
        ("18" Ownership late_renewal_leaves_successor in ownership)
        ("19" Ownership renewal_after_expiry_fails in ownership)
        ("20" Ownership renewal_with_old_token_fails in ownership)
        ("21" Ownership one_winner_of_64 in contention)
        ("22" Ownership one_winner_of_64_on_expired in contention)
        ("23" Ownership one_winner_across_endpoints in contention if Endpoints)
        ("24" Ownership takeover_against_renewal in contention)
        ("25" Ownership no_write_after_release in ownership)
        ("25" Ownership no_write_after_release at Session)
        ("26" Ownership release_against_takeover in contention)
        ("27" Ownership conditional_write_on_missing_record_fails in ownership)
        ("28" Ownership lost_answer_of_a_claim in answers)
        ("29" Ownership lost_answer_of_renewal_and_release in answers)
        ("30" Ownership unknown_is_not_success in answers if ConnectionFaults)
        ("31" Ownership revoke_ends_renewals_and_keeps_token in orders)
        ("31" Ownership revoked_is_not_granted_before_holder_released_or_ttl in orders)
        ("31" Ownership now_skips_the_wait_and_says_so in orders)
        ("31" Ownership resign_is_asked_at_the_next_beat in orders)
        ("31" Ownership order_on_another_grant_does_nothing in orders)

        ("32" Tokens increases_on_each_grant in tokens)
        ("33" Tokens constant_across_renewals in tokens)
        ("34" Tokens increases_after_release in tokens)
        ("35" Tokens increases_after_expiry in tokens)
        ("36" Tokens increases_after_revoke in tokens)
        ("37" Tokens increases_after_purge_racing_with_a_first_grant in tokens if Purge)
        ("38" Tokens increases_after_server_restart in tokens if Restart)
        ("39" Tokens increases_after_record_deleted_by_hand in tokens if DeleteByHand)
        ("39" Tokens increases_after_counter_deleted_by_hand in tokens if Records)
        ("40" Tokens unique_over_10k_grants_from_64 in contention)
        ("41" Tokens store_that_forgot_is_noticed in reset if Forget)
        ("41" Tokens store_that_forgot_is_noticed at Session)
        ("41" Tokens store_restored_from_a_backup_is_noticed in reset if Restore)
        ("42" Tokens guard_rejects_older at Session)
        ("43" Tokens guard_accepts_equal_and_newer at Session)
        ("44" Tokens guard_survives_restart at Session)
        ("45" Tokens guarded_transaction_rolls_back_when_lost in guard if FencedTx)
        ("45" Tokens guarded_transaction_holds_off_takeover_until_commit in guard if FencedTx)
        ("45" Tokens guarded_transaction_delays_no_other_hold in guard if FencedTx)

        ("46" Time not_granted_again_before_ttl in time)
        ("47" Time granted_again_within_ttl_plus_declared in time)
        ("48" Time deadline_counts_from_send at Session)
        ("49" Time stops_before_any_takeover at Simulation)
        ("50" Time hung_renewal_does_not_delay_loss at Session)
        ("51" Time hung_release_does_not_delay_loss at Session)
        ("52" Time blocked_runtime_does_not_delay_loss at Session)
        ("53" Time wall_clock_steps_on_holder in time)
        ("53" Time wall_clock_steps_on_holder at Session)
        ("53" Time wall_clock_steps_on_contender in time)
        ("53" Time wall_clock_steps_on_contender at Session)
        ("53" Time wall_clock_steps_on_both_apart at Simulation)
        ("54" Time rate_error_1_percent at Simulation)
        ("55" Time suspend_past_ttl_is_lost_on_wake at Session)
        ("56" Time stopped_past_the_ttl_it_is_succeeded_and_no_act_passes_a_guard at Command)
        ("57" Time cold_contender_does_not_wait_where_store_has_clock in time if StoreClock)
        ("58" Time cold_contender_waits_ttl_where_it_has_none in time if ObservedExpiry)
        ("59" Time slow_grant_is_given_back at Session)
        ("59" Time next_attempt_has_a_new_claim_id at Session)
        ("59" Time own_id_in_a_tombstone_is_refused in answers)

        ("60" Waiting wait_times_out_and_leaves_no_trace at Session)
        ("61" Waiting cancelled_wait_leaves_no_trace at Session)
        ("62" Waiting already_cancelled_never_touches_store at Session)
        ("63" Waiting wakes_on_release in waiting if Push)
        ("63" Waiting wakes_on_release at Session)
        ("64" Waiting wakes_on_expiry_without_polling_storm in waiting if CountsWrites)
        ("64" Waiting wakes_on_expiry_without_polling_storm at Session)
        ("65" Waiting lost_event_is_healed in waiting)
        ("65" Waiting lost_event_is_healed at Session)
        ("66" Waiting no_herd in waiting if CountsWrites)
        ("66" Waiting no_herd at Session)
        ("67" Waiting own_loss_ends_the_wait at Session)
        ("68" Waiting credentials_rotate_while_waiting in waiting if Credentials)
        ("69" Waiting watch_resumes_after_reconnect_and_compaction in waiting if WatchFaults)

        ("70" Many renews_1000_in_one_beat in many)
        ("70" Many renews_1000_in_one_beat at Session)
        ("70" Many half_a_batch_unknown_is_told_per_item in many)
        ("71" Many loss_of_one_of_1000_is_told_for_that_one in many)
        ("71" Many loss_of_one_of_1000_is_told_for_that_one at Session)
        ("72" Many renews_10k_within_a_third_of_ttl in many if Batches)
        ("73" Many death_frees_all_within_ttl in many)

        ("74" Election overlap_zero at Simulation)
        ("75" Election release_only_after_work_ended at Session)
        ("76" Election panic_in_work_ends_the_term at Session)
        ("77" Election campaigns_again_after_loss at Session)
        ("78" Election transfer_to_named in election)
        ("78" Election transfer_to_named at Session)
        ("79" Election transfer_target_dead_falls_back in election)
        ("79" Election transfer_target_dead_falls_back at Session)
        ("80" Election unhealthy_leader_steps_down at Session)
        ("80" Election unhealthy_never_campaigns at Session)
        ("81" Election observer_never_writes in waiting if CountsWrites)
        ("81" Election observer_never_writes at Session)
        ("82" Election min_hold_respected in election)
        ("82" Election min_hold_respected at Session)
        ("82" Election min_hold_ends_with_a_transfer in election)
        ("82" Election min_hold_outlives_a_proven_death in election if ProvesDeath)
        ("83" Election ready_after_first_round at Session)
        ("84" Election late_reply_of_old_term_is_dropped at Session)
        ("85" Election changes_stream_never_shows_two_leaders_at_one_token at Session)

        ("86" Command exit_codes_0_to_255_are_passed_on at Command)
        ("87" Command killed_by_signal_n_is_128_plus_n at Command)
        ("88" Command signals_are_passed_on_while_running at Command)
        ("89" Command signals_end_the_wait_and_leave_no_trace at Command)
        ("89" Command a_grant_that_comes_after_a_signal_runs_nothing_and_is_given_back at Command)
        ("90" Command a_child_that_ignores_term_is_killed_at_the_deadline at Command)
        ("91" Command grandchildren_die_too_also_of_a_child_that_exited_0 at Command)
        ("91" Command chains_that_fork_and_exit_are_swept_to_the_last at Command)
        ("91" Command a_child_that_cannot_be_killed_leaves_the_name_to_its_ttl at Command)
        ("92" Command supervisor_killed_everything_is_gone_and_the_name_free_within_a_second at Command)
        ("92" Command keeper_killed_everything_is_gone_and_the_name_free_within_a_second at Command)
        ("92" Command both_killed_costs_the_ttl_and_the_child_dies at Command)
        ("93" Command keeper_stopped_past_the_ttl_the_child_is_dead_by_the_deadline at Command)
        ("93" Command keeper_and_child_stopped_the_child_never_acts_again at Command)
        ("93" Command all_three_stopped_the_child_is_dead_right_after_they_go_on at Command)
        ("94" Command store_unreachable_for_longer_than_the_ttl_ends_the_child_before_the_ttl at Command)
        ("95" Command stdin_stdout_and_stderr_are_untouched at Command)
        ("95" Command cat_works_on_a_terminal_and_ends_with_it at Command)
        ("95" Command an_interactive_shell_works_under_it at Command)
        ("95" Command ctrl_z_stops_the_child_only at Command)
        ("95" Command works_as_pid_1_and_reaps at Command)
        ("96" Command not_acquired_is_75_or_what_was_asked_for at Command)
        ("96" Command a_loss_lets_the_child_end_by_itself_within_the_grace at Command)
        ("96" Command a_store_that_does_not_answer_is_69 at Command)
        ("96" Command what_cannot_be_run_is_126_and_what_is_not_found_127 at Command)
        ("97" Command json_is_one_object_a_line at Command)
        ("97" Command json_says_in_which_state_a_lease_is at Command)
        ("98" Command secrets_are_never_printed at Command)
        ("99" Command bad_input_is_64_and_one_line_with_its_cure at Command)
        ("99" Command what_is_misconfigured_is_78_and_names_the_cure at Command)
        ("99a" Command no_store_named_says_which_file_is_used_and_what_it_spans at Command)
        ("99a" Command no_store_named_is_refused_in_kubernetes_and_for_elect at Command)
        ("99b" Command nested_run_of_the_same_name_is_refused at Command)

        ("100" Doctor precondition_if_absent_honoured in doctor if Records)
        ("101" Doctor precondition_if_match_honoured in doctor if Records)
        ("102" Doctor precondition_on_missing_key in doctor if Records)
        ("103" Doctor precondition_atomic_under_64 in doctor if Records)
        ("104" Doctor read_your_write_other_endpoint in doctor if Endpoints)
        ("105" Doctor durability in doctor if Doctor)
        ("106" Doctor clock_offset_and_steps in doctor if Doctor)
        ("107" Doctor verdict_is_machine_readable in doctor if Doctor)
    } };
}

#[doc(hidden)]
#[macro_export]
macro_rules! list_behaviours {
    ([] $($entry:tt)*) => { &[$($crate::list_behaviour! $entry),*] };
}

#[doc(hidden)]
#[macro_export]
macro_rules! list_behaviour {
    ($number:literal $section:ident $name:ident in $module:ident) => {
        $crate::behaviour::Behaviour::of_store(
            $number,
            $crate::behaviour::Section::$section,
            stringify!($name),
            $crate::suite::$module::$name,
            None,
        )
    };
    ($number:literal $section:ident $name:ident in $module:ident if $capability:ident) => {
        $crate::behaviour::Behaviour::of_store(
            $number,
            $crate::behaviour::Section::$section,
            stringify!($name),
            $crate::suite::$module::$name,
            Some($crate::harness::Capability::$capability),
        )
    };
    ($number:literal $section:ident $name:ident at $place:ident) => {
        $crate::behaviour::Behaviour::elsewhere(
            $number,
            $crate::behaviour::Section::$section,
            stringify!($name),
            $crate::behaviour::Place::$place,
        )
    };
}

/// All behaviours, in the order of their numbers, wherever they are tested.
///
/// One that a store and a session must both show stands here twice, once for each place.
pub const BEHAVIOURS: &[Behaviour] = with_behaviours!(list_behaviours);

/// The behaviours that are tested here, on each store.
pub fn store_behaviours() -> impl Iterator<Item = &'static Behaviour> {
    BEHAVIOURS.iter().filter(|behaviour| behaviour.is_of_store())
}

/// The behaviours that `tenure` tests with sessions, each by a test of the same name.
pub fn session_behaviours() -> impl Iterator<Item = &'static Behaviour> {
    BEHAVIOURS.iter().filter(|behaviour| matches!(behaviour.place, Place::Session))
}

/// The behaviours that `tenure-cli` tests with real processes, each by a test of the same name.
pub fn command_behaviours() -> impl Iterator<Item = &'static Behaviour> {
    BEHAVIOURS.iter().filter(|behaviour| matches!(behaviour.place, Place::Command))
}

/// The behaviours that `tenure-sim` tests over many schedules.
pub fn simulation_behaviours() -> impl Iterator<Item = &'static Behaviour> {
    BEHAVIOURS.iter().filter(|behaviour| matches!(behaviour.place, Place::Simulation))
}

/// The behaviour of this name that is tested on each store.
#[must_use]
pub fn store_behaviour(name: &str) -> Option<&'static Behaviour> {
    store_behaviours().find(|behaviour| behaviour.name == name)
}
