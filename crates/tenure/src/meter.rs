//! The one small seam for metrics.

use std::time::Duration;

use tenure_core::error::{ErrorKind, Operation};
use tenure_core::protocol::hold::{Cause, Standing};
use tenure_core::protocol::store_clock::Jump;

/// Something that was measured. Names of leases are left out on purpose: there may be many.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Measured {
    /// `tenure_standing`: a hold's standing changed.
    Standing(Standing),
    /// `tenure_grants_total`: a name was granted.
    Granted,
    /// `tenure_losses_total{cause}`: a hold was lost.
    Lost(Cause),
    /// `tenure_slack_seconds`: what was left until the deadline when a renewal was confirmed,
    /// the early warning of a store that grows slow.
    Slack(Duration),
    /// `tenure_store_seconds{operation,outcome}`: one request.
    Request {
        /// What was asked.
        operation: Operation,
        /// How long the answer took.
        took: Duration,
        /// How it failed, if it did.
        failed: Option<ErrorKind>,
    },
    /// `tenure_clock_jumps_total`: the wall clock ran ahead of the interval clock.
    ClockJump,
    /// `tenure_store_clock_jumps_total`: the store's own clock was set, by more than the protocol
    /// allows within a ttl.
    StoreClockJump(Jump),
    /// `tenure_overruns_total`: work still ran at its deadline.
    Overrun,
    /// `tenure_leaderless_seconds_total`: so long a followed election had no leader.
    Leaderless(Duration),
}

/// Whoever counts. Called from the session's tasks and threads; it must not block.
pub trait Meter: Send + Sync + 'static {
    /// Takes in one measurement.
    fn record(&self, measured: Measured);
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoMeter;

impl Meter for NoMeter {
    fn record(&self, _measured: Measured) {}
}
