//! The work that runs under one grant: how it acts, and when it ends.

use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::Instant;
use tenure_core::identity::{ClaimId, FencingToken};
use tenure_core::timing::Timing;

use crate::rules::Acting;

/// The work under one grant.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) acting: Acting,
    pub(crate) act_at: Instant,
    /// When it ends by itself, or after it was told to.
    pub(crate) ends_at: Option<Instant>,
    told: bool,
}

/// An effect that work has now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Act {
    pub(crate) token: FencingToken,
    pub(crate) claim: ClaimId,
    /// When that claim was first sent.
    pub(crate) sent: Instant,
}

impl Work {
    pub(crate) fn starting(acting: Acting, now: Instant, ends_at: Option<Instant>) -> Self {
        Self { acting, act_at: now, ends_at, told: false }
    }

    /// When it acts next.
    pub(crate) fn acted(&mut self, now: Instant, timing: &Timing, chance: &mut Chance) {
        self.act_at = now + chance.between(timing.ttl() / 60, timing.ttl() / 8);
    }

    /// It is told to stop, and takes its time: after a loss at most its grace, unless it is
    /// stubborn.
    pub(crate) fn told_to_stop(
        &mut self,
        lost: bool,
        now: Instant,
        timing: &Timing,
        chance: &mut Chance,
    ) {
        if self.told && !lost {
            return;
        }
        self.told = true;
        let longest = match lost {
            true if chance.one_in(4) => timing.ttl() * 2,
            true => timing.grace(),
            false => timing.ttl(),
        };
        let ends_at = now + chance.between(Duration::ZERO, longest);
        self.ends_at = Some(self.ends_at.map_or(ends_at, |before| before.min(ends_at)));
    }

    /// When it wants to go on.
    pub(crate) fn wake_at(&self) -> Instant {
        self.ends_at.map_or(self.act_at, |ends_at| ends_at.min(self.act_at))
    }
}
