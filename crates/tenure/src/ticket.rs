//! A hold, written down, so that another process of ours can give it back.

use serde::{Deserialize, Serialize};
use tenure_core::identity::{ClaimId, FencingToken, Instance, Name};

/// What a release needs to know of a hold. The `tenure` command's supervisor keeps one, and
/// gives the name back when its keeper has died and everything that it started is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What is held.
    pub name: Name,
    /// By whom.
    pub instance: Instance,
    /// By which claim.
    pub claim: ClaimId,
    /// With which token.
    pub token: FencingToken,
    /// The record's version when the ticket was written.
    pub version: String,
}
