//! The contract of all stores as tests, which run on each kind of store alike.
//!
//! Owns the tests, the list of them, and what they ask of a kind of store: a [`Place`]. What always holds: a test sees a store
//! through [`seen_store::Store`] alone; and every store runs every test, because the one list below makes the `#[test]`s.
//! Knows neither files nor servers.
//!
//! A place whose clock cannot be stepped has real time. So that the same test holds there, each time in it is a number of
//! units of the place, and what must not have happened yet has many units left. What makes no sense there is left out by a
//! test itself, if [`Place::keeps_its_own_clock`] says so:
//!
//! - `lifetimes::a_mark_expires_at_the_very_moment_its_ttl_is_over`: all of it. It needs a clock that stands still.
//! - `lifetimes::a_clock_that_is_set_back_a_little_revives_nothing`: all of it. It needs a clock that is set back.
//! - `model::...`: no time passes in the random sequences, and neither the times of entries nor the
//!   counts of duplicates are compared.
//! - Elsewhere a time that a store has read from its clock is compared with a margin: `bench::Bench::assert_near`.
//!
//! Three things are left open by the contract, so no test asks for one of the answers: which expired marks a purge or a
//! removal counts and a listing by their state tells of (those that a retention keeps are there), how many duplicates a
//! second store knows of at once, and whether a batch that meets a conflict has marked the ids before it.

mod abandoned;
mod batches;
mod bench;
mod beside_marks;
mod changes;
mod claim_batches;
mod claims;
mod errors;
mod forgetting;
mod handles;
mod ids;
mod leases;
mod lifetimes;
mod listings;
mod marks;
mod model;
mod once;
mod outcomes;
mod renewing;
mod restoring;
mod retention;
mod retries;
mod stats;
mod threads;
mod tidying;
mod versions;
mod waiting;
mod windows;

use std::fmt;
use std::time::Duration;

use seen_store::{Config, Store};

/// One kind of store.
pub trait Place: Sync {
    /// Opens a new empty store with these settings, and with the clock of this place.
    fn open(&self, config: Config) -> Opened;
    /// Lets this much time pass for the stores of this place: steps their clock, or sleeps.
    fn time_passes(&self, by: Duration);
    /// Sets the clock back. Not called where the place [keeps its own clock](Self::keeps_its_own_clock).
    fn clock_is_set_back(&self, by: Duration) {
        unreachable!("a clock of its own was to be set back by {by:?}");
    }
    /// Returns the time in which the tests reckon: so long that a few calls take a small part of it.
    fn unit(&self) -> Duration;
    /// Returns whether time passes by itself.
    fn keeps_its_own_clock(&self) -> bool;
    /// Returns whether [`Opened::again`] opens another store.
    fn is_shared(&self) -> bool;
}

/// A store, and the way to open it once more.
pub struct Opened {
    /// The store.
    pub store: Box<dyn Store>,
    again: Box<dyn Fn() -> Box<dyn Store> + Send + Sync>,
}

impl Opened {
    /// `again` opens a second store on the same ids, with the same settings. Where there is no such thing, it returns another
    /// handle on the same store.
    pub fn new(
        store: Box<dyn Store>,
        again: impl Fn() -> Box<dyn Store> + Send + Sync + 'static,
    ) -> Self {
        Self { store, again: Box::new(again) }
    }

    /// Opens a second store on the same ids: see [`new`](Self::new).
    #[must_use]
    pub fn again(&self) -> Box<dyn Store> {
        (self.again)()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Makes a `#[test]` of each test of the contract. The expression is evaluated anew in each of them.
///
/// ```ignore
/// contract_suite::tests!(place());
/// contract_suite::tests!(place(), if |test: &str| is_there(test));
/// ```
///
/// With a condition, a test for whose name it returns false is left out.
#[macro_export]
macro_rules! tests {
    ($place:expr) => {
        $crate::tests!($place, if |_: &str| true);
    };
    ($place:expr, if $is_there:expr) => {
        $crate::listed! { tests_on {$place, $is_there} }
    };
}

/// The list of all tests.
#[doc(hidden)]
#[macro_export]
macro_rules! listed {
    ($how:ident $with:tt) => {
        $crate::$how! { $with
            marks {
                a_new_id_is_new_once_and_then_a_duplicate
                a_mark_tells_when_it_was_made_and_until_when_it_lasts
                a_refresh_keeps_the_earliest_and_the_latest_time_and_never_shortens
                duplicates_are_counted_and_told_at_once
                duplicates_of_a_mark_move_its_last_time_and_not_its_end
                a_seed_marks_all_and_counts_the_new
                to_observe_tells_what_was_known_before
            }
            lifetimes {
                an_expired_mark_is_new_again_to_every_verb
                a_mark_with_a_ttl_of_zero_is_never_seen
                a_mark_that_never_expires_stays
                a_mark_of_the_past_expires_one_ttl_after_its_time
                marks_of_any_time_are_taken
                a_mark_expires_at_the_very_moment_its_ttl_is_over
                a_clock_that_is_set_back_a_little_revives_nothing
            }
            windows {
                an_id_stays_seen_as_long_as_it_comes_back
                a_sighting_by_another_verb_prolongs_nothing
                a_sliding_window_ends_at_its_maximum_age
                the_age_of_a_confirmed_id_counts_from_its_claim
            }
            retention {
                an_expired_id_is_kept_and_told
                a_window_tells_of_those_before_it
                every_verb_that_begins_a_window_tells_of_the_one_before
                what_is_kept_is_gone_when_its_retention_is_over
                a_retention_as_long_as_the_ttl_keeps_nothing_beyond_it
            }
            ids {
                every_byte_is_part_of_an_id
                ids_are_neither_trimmed_nor_folded_nor_decoded
                an_id_has_1_to_65536_bytes
                the_border_between_scope_and_id_is_never_confused
                an_id_is_known_in_its_scope_alone
                what_is_asked_for_with_one_token_is_of_one_id
            }
            batches {
                a_batch_answers_for_each_id_in_its_order
                a_batch_of_thousands_of_ids_is_decided_like_a_small_one
                an_invalid_id_among_them_refuses_a_batch_and_nothing_is_changed
                a_batch_may_have_several_versions_of_an_id
            }
            versions {
                an_id_in_another_version_has_changed_once
                a_changed_version_keeps_the_first_time_and_the_duplicates_and_lasts_anew
                an_id_without_a_version_takes_the_first_that_it_is_shown
                every_verb_that_marks_records_the_version
                another_payload_is_a_conflict_and_changes_nothing
                an_item_with_a_version_and_a_payload_is_refused
                a_payload_binds_while_the_id_is_claimed
            }
            changes {
                a_changed_version_is_granted_and_the_id_stays_seen_until_it_is_confirmed
                an_attempt_at_a_change_that_fails_loses_neither_the_mark_nor_the_change
                the_attempts_at_one_version_say_nothing_of_the_next
                a_mark_beside_the_claim_of_a_change_ends_it_only_in_its_version
                a_change_that_was_taken_over_is_lost_to_its_holder
                a_held_change_waits_for_a_decision
                the_claim_of_a_change_outlives_the_mark_beside_it
            }
            retries {
                a_check_made_again_with_its_token_is_new_again
                an_observation_made_again_gives_its_verdict_again
                a_batch_made_again_gives_its_verdicts_again
                a_changed_version_checked_again_is_to_be_handled_again
                a_check_that_did_not_mark_is_decided_anew
            }
            forgetting {
                a_forgotten_mark_is_new_again_everywhere
                a_worker_whose_id_was_forgotten_has_lost_its_claim
                whatever_is_known_of_an_id_is_forgotten
            }
            claims {
                an_id_is_granted_to_one_worker_and_the_others_are_told_who_has_it
                refusals_are_counted_and_stay_with_the_id
                a_confirmed_id_is_marked_as_by_a_mark
                to_confirm_twice_is_to_confirm_once
                a_receipt_is_kept_byte_for_byte
                a_receipt_that_is_too_long_is_refused_and_the_claim_stays
                a_token_works_through_its_text_and_through_another_store
            }
            outcomes {
                the_next_attempt_is_told_how_the_one_before_ended
                a_failed_id_can_be_claimed_again_after_its_delay
                a_delay_that_doubles_lies_between_its_half_and_its_whole
                an_id_that_failed_finally_is_given_up_until_a_decision
                after_as_many_attempts_as_allowed_an_id_is_given_up
                the_reason_of_a_failure_is_kept_up_to_its_limit
                attempts_are_forgotten_one_ttl_after_their_end
                what_is_over_can_be_resolved
                a_lease_of_no_length_is_refused
            }
            abandoned {
                an_abandoned_id_is_granted_and_its_new_holder_is_told
                a_claim_may_be_confirmed_late_unless_it_was_taken_over
                a_holder_whose_claim_was_taken_over_has_lost_it_and_changes_nothing
                an_id_that_was_abandoned_too_often_is_given_up
                a_held_claim_binds_everybody_until_a_decision
                a_held_claim_is_decided_or_confirmed_late
                a_held_claim_does_not_expire
            }
            beside_marks {
                a_mark_ends_a_claim_and_its_holder_may_confirm_it
                a_mark_of_a_claimed_id_lasts_until_its_lease_ends_at_least
                a_check_leaves_a_claim_in_flight_alone
                a_mark_of_an_id_whose_attempt_is_over_knows_of_it
                a_mark_that_is_over_by_itself_is_decided_beside_the_claim
                items_of_a_batch_that_differ_are_decided_beside_the_claim
            }
            leases {
                a_renewed_lease_ends_later
                a_lease_that_is_dropped_is_released
                a_lease_whose_end_was_told_is_not_released_when_it_is_dropped
                a_lease_tells_whether_it_is_held
                a_lease_outlives_the_handle_that_granted_it
            }
            claim_batches {
                a_batch_of_claims_answers_for_each_id_in_its_order
                a_batch_of_claims_may_have_several_versions_of_an_id
                batches_of_ends_tell_what_was_held
                a_claim_that_is_twice_in_a_batch_is_ended_once
                thousands_of_claims_are_granted_and_confirmed_at_once
            }
            waiting {
                a_waiter_is_granted_what_its_holder_gives_up
                a_waiter_gets_the_receipt_of_what_was_done
                a_waiter_gets_what_its_holder_abandons
                a_waiter_whose_time_is_over_is_told_who_has_the_id
                a_waiter_does_not_wait_for_what_is_decided
                each_of_many_waiters_has_its_turn
            }
            renewing {
                a_lease_that_renews_itself_outlives_its_length
                a_lease_is_renewed_no_longer_than_asked_for
                a_renewal_never_shortens_a_lease
                a_lease_that_was_lost_is_not_renewed
            }
            once {
                work_is_done_once_and_its_answer_replayed
                an_error_of_the_work_comes_back_and_the_id_is_free
                a_panic_of_the_work_goes_on_and_the_id_is_free
                who_comes_while_it_is_done_is_told_or_waits
                an_answer_that_is_too_long_is_told_and_the_work_is_done
                refusals_of_the_store_are_told_as_they_are
                another_version_is_work_to_be_done_anew_and_another_payload_is_refused
                work_that_takes_longer_than_its_lease_keeps_its_id
            }
            threads {
                of_many_checks_of_an_id_one_is_new_in_each_window
                of_many_batches_one_has_each_id_as_new
                of_many_checks_of_a_version_one_has_changed
                an_id_is_granted_to_one_of_many_workers
                each_kind_of_caller_leaves_an_id_to_the_first
                workers_that_wait_never_hold_an_id_together
            }
            listings {
                a_listing_tells_of_each_mark_and_claim_what_a_get_tells
                a_filter_selects_by_state
                a_filter_selects_by_scope_and_prefix
                a_filter_selects_by_age
                a_removal_takes_what_its_filter_counts_and_no_more
                a_removal_spares_claims_that_bind_unless_asked_for_them
                what_has_expired_is_listed_only_if_asked_for
                a_long_listing_has_each_entry_once
                a_listing_can_be_iterated_by_hand
            }
            restoring {
                what_one_store_has_listed_is_restored_in_another
                a_restored_entry_shortens_and_overwrites_nothing
                an_entry_that_no_store_takes_is_left_out_alone
                a_restored_claim_is_confirmed_by_no_worker
            }
            tidying {
                a_purge_takes_nothing_that_is_of_use
                a_cleanup_takes_what_was_last_seen_long_ago
                a_cleanup_takes_claims_that_are_over_and_spares_those_that_bind
                a_cleanup_of_no_age_takes_all_that_is_not_of_now
                what_marks_no_id_does_not_judge_for_how_long_marks_are_kept
                times_before_1970_are_listed_as_they_are
            }
            stats {
                entries_are_counted_by_state
                what_is_seen_is_counted_by_scope
                the_answers_of_a_store_are_counted_since_it_was_opened
            }
            handles {
                a_handle_has_its_settings_and_leaves_those_of_others_alone
                a_claim_follows_the_handle_that_it_was_granted_by
                a_handle_tells_for_how_long_its_leases_are_renewed
                handles_are_used_by_threads_and_outlive_one_another
            }
            errors {
                a_closed_store_answers_nothing
                a_retention_that_ends_before_the_ttl_is_refused
                an_error_says_what_was_wrong
                what_is_shown_for_debugging_has_no_ids_tokens_or_receipts
            }
            model {
                a_store_answers_as_one_in_memory_does
                two_stores_on_the_same_ids_answer_as_one_in_memory_does
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! tests_on {
    ({$place:expr, $is_there:expr} $($module:ident { $($test:ident)* })*) => {
        $(mod $module {
            use super::*;
            $(#[test]
            fn $test() {
                let is_there = $is_there;
                if is_there(stringify!($test)) {
                    $crate::listed::$module::$test(&$place);
                }
            })*
        })*
    };
}

macro_rules! entrances {
    ({} $($module:ident { $($test:ident)* })*) => {
        /// The tests as functions. One that is not in the list is not here, and the compiler says that it is not used.
        pub mod listed {
            $(#[doc = concat!("See `", stringify!($module), ".rs`.")]
            pub mod $module {
                $(#[doc = concat!("Checks `", stringify!($test), "`.")]
                pub fn $test(place: &dyn crate::Place) {
                    crate::$module::$test(place);
                })*
            })*
        }
    };
}
pub(crate) use entrances;

listed! { entrances {} }
