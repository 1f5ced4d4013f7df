//! What is due at which time: pure decisions over the page and the clock.

/// How far a grant has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is granted.
    Waiting = 0,
    /// The name is held, CMD doesn't run yet.
    Granted = 1,
    /// CMD runs, or may run.
    Running = 2,
    /// CMD has ended and what it left was swept; the name is still held.
    Ended = 3,
}

impl Phase {
    pub(super) fn from_word(word: u32) -> Self {
        match word {
            0 => Self::Waiting,
            1 => Self::Granted,
            3 => Self::Ended,
            // What can't be read may run.
            _ => Self::Running,
        }
    }
}

/// What the page said at one moment. Times are nanoseconds of CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) phase: Phase,
    pub(super) deadline: u64,
    pub(super) grace: u64,
    /// Latched: this term is over, whatever the deadline says.
    pub(super) lost: bool,
    /// The keeper is killing what the term started.
    pub(super) sweeping: bool,
}

/// What is to be done now, and when to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing until then; a deadline that has moved by then is found by looking again.
    Rest { until: Option<u64> },
    /// The term is lost: TERM once, then look again at `kill_at`.
    Terminate { kill_at: u64 },
    /// Kill everything.
    Kill,
}

/// Which of the two processes asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Keeper,
    Supervisor,
}

const MILLISECOND: u64 = 1_000_000;

/// The keeper kills this long before the deadline, so that the dying is over by then.
pub(super) const KEEPER_LEAD: u64 = 20 * MILLISECOND;
/// The supervisor kills this long before the deadline if the keeper hasn't begun.
pub(super) const SUPERVISOR_LEAD: u64 = 6 * MILLISECOND;
/// If it has begun, the supervisor steps in this long after the deadline; the margin between
/// deadline and ttl (at least 250 ms) covers it.
pub(super) const SWEEP_LAG: u64 = 50 * MILLISECOND;
/// How long after its deadline a keeper may go on giving back a name whose work has ended.
pub(super) const RELEASE_LAG: u64 = 10_000 * MILLISECOND;

/// When the term is lost unless extended.
pub(super) fn lost_at(deadline: u64, grace: u64) -> u64 {
    deadline.saturating_sub(grace.max(KEEPER_LEAD))
}

/// Decides what `side` has to do at `now`.
pub(super) fn due(view: &View, side: Side, now: u64) -> Verdict {
    let kill_at = match (view.phase, side) {
        (Phase::Waiting, _) | (Phase::Ended, Side::Keeper) => return Verdict::Rest { until: None },
        (Phase::Ended, Side::Supervisor) => {
            let overdue = view.deadline.saturating_add(RELEASE_LAG);
            return if now >= overdue {
                Verdict::Kill
            } else {
                Verdict::Rest { until: Some(overdue) }
            };
        }
        (_, Side::Keeper) => view.deadline.saturating_sub(KEEPER_LEAD),
        (_, Side::Supervisor) if view.sweeping => view.deadline.saturating_add(SWEEP_LAG),
        (_, Side::Supervisor) => view.deadline.saturating_sub(SUPERVISOR_LEAD),
    };
    let lost_at = lost_at(view.deadline, view.grace);
    if now >= kill_at {
        Verdict::Kill
    } else if view.lost || now >= lost_at {
        Verdict::Terminate { kill_at }
    } else {
        Verdict::Rest { until: Some(lost_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000 * MILLISECOND;

    fn running() -> View {
        View {
            phase: Phase::Running,
            deadline: 100 * SECOND,
            grace: 5 * SECOND,
            lost: false,
            sweeping: false,
        }
    }

    #[test]
    fn nothing_is_due_before_the_grace_begins() {
        for side in [Side::Keeper, Side::Supervisor] {
            let rest = Verdict::Rest { until: Some(95 * SECOND) };
            assert_eq!(due(&running(), side, 95 * SECOND - 1), rest);
        }
    }

    #[test]
    fn work_is_terminated_when_the_grace_begins_and_killed_before_the_deadline() {
        let kill_at = 100 * SECOND - KEEPER_LEAD;
        let verdict = due(&running(), Side::Keeper, 95 * SECOND);
        assert_eq!(verdict, Verdict::Terminate { kill_at });
        assert_eq!(due(&running(), Side::Keeper, kill_at), Verdict::Kill);
    }

    #[test]
    fn a_latched_loss_terminates_however_far_the_deadline_is() {
        let lost = View { lost: true, ..running() };
        assert!(matches!(due(&lost, Side::Keeper, 1), Verdict::Terminate { .. }));
    }

    #[test]
    fn supervisor_leaves_the_keeper_a_head_start_and_more_once_it_sweeps() {
        let keeper_kills = 100 * SECOND - KEEPER_LEAD;
        assert!(matches!(
            due(&running(), Side::Supervisor, keeper_kills),
            Verdict::Terminate { .. }
        ));
        assert_eq!(due(&running(), Side::Supervisor, 100 * SECOND), Verdict::Kill);
        let sweeping = View { sweeping: true, ..running() };
        let verdict = due(&sweeping, Side::Supervisor, 100 * SECOND);
        assert!(matches!(verdict, Verdict::Terminate { .. }));
        assert_eq!(due(&sweeping, Side::Supervisor, 100 * SECOND + SWEEP_LAG), Verdict::Kill);
    }

    #[test]
    fn no_grace_still_loses_before_it_kills() {
        let view = View { grace: 0, ..running() };
        assert_eq!(lost_at(view.deadline, 0), 100 * SECOND - KEEPER_LEAD);
        assert_eq!(due(&view, Side::Keeper, 100 * SECOND - KEEPER_LEAD), Verdict::Kill);
    }

    #[test]
    fn nothing_is_killed_while_waiting_or_after_the_work_has_ended() {
        let waiting = View { phase: Phase::Waiting, ..running() };
        let ended = View { phase: Phase::Ended, ..running() };
        for side in [Side::Keeper, Side::Supervisor] {
            assert_eq!(due(&waiting, side, u64::MAX), Verdict::Rest { until: None });
        }
        assert_eq!(due(&ended, Side::Keeper, u64::MAX), Verdict::Rest { until: None });
        let verdict = due(&ended, Side::Supervisor, 101 * SECOND);
        assert_eq!(verdict, Verdict::Rest { until: Some(110 * SECOND) });
        assert_eq!(due(&ended, Side::Supervisor, 110 * SECOND), Verdict::Kill);
    }

    #[test]
    fn a_page_without_sense_counts_as_running() {
        assert_eq!(Phase::from_word(77), Phase::Running);
    }
}
