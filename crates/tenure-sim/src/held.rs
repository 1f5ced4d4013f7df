//! The grant that a lane has: its holder's machine, its work and what is known of its record.

use tenure_core::clock::Instant;
use tenure_core::exchange::Known;
use tenure_core::identity::{ClaimId, FencingToken};
use tenure_core::protocol::contend::Ticket;
use tenure_core::protocol::hold::Holding;
use tenure_core::store::Grant;

use crate::rules::{Acting, Rules};
use crate::work::Work;

/// A grant that this lane has.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) holding: Holding,
    pub(crate) ticket: Ticket,
    pub(crate) token: FencingToken,
    pub(crate) grant: Grant,
    pub(crate) known: Option<Known>,
    pub(crate) work: Option<Work>,
    /// How many renewals are on their way.
    pub(crate) renewing: usize,
    /// When the check first said that it had expired.
    pub(crate) expired: bool,
}

/// What a lane's `check()` says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standpoint {
    pub(crate) claim: ClaimId,
    pub(crate) leads: bool,
    /// It had said that the hold had expired, and takes it back.
    pub(crate) revived: bool,
}

impl Held {
    pub(crate) fn wake_at(&self, rules: &dyn Rules) -> Option<Instant> {
        let machine = self.holding.wake_at();
        let deaf = self.renewing > 0 && !rules.tells_time_while_renewing();
        let work = self.work.as_ref().map(|work| {
            let killed_at = match work.acting {
                Acting::Unchecked if !deaf => Some(self.holding.limits().deadline),
                _ => None,
            };
            killed_at.map_or(work.wake_at(), |at| at.min(work.wake_at()))
        });
        [machine.filter(|_| !deaf), work].into_iter().flatten().min()
    }
}
