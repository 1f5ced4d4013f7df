//! A hold, written down, so that another process of ours can give it back.

use serde::{Deserialize, Serialize};
use tenure_core::error::{Error, Operation};
use tenure_core::identity::{ClaimId, FencingToken, Instance, Name, Nonce};
use tenure_core::store::{Release, Released, Version};

use crate::session::Session;
use crate::shared::no_answer;

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

impl Session {
    /// Gives back what another process of ours held, after its work was proven to have ended.
    /// True: it was held until now.
    ///
    /// # Errors
    /// As any request to the store. A name that isn't held by that ticket any more is no error.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it unknown whether the name was given back.
    pub async fn release_ticket(&self, ticket: &Ticket, why: &str) -> Result<bool, Error> {
        let shared = &self.shared;
        let release = Release {
            name: ticket.name.clone(),
            instance: ticket.instance.clone(),
            claim: ticket.claim,
            token: ticket.token,
            version: Version::new(ticket.version.clone()),
            nonce: Nonce::draw(&mut shared.chance()),
            successor: None,
            why: why.to_owned(),
            at: shared.time.now().wall,
        };
        match shared.store.release(std::slice::from_ref(&release)).await?.pop() {
            Some(Released::Released(_)) => Ok(true),
            Some(Released::NotHeld(_)) => Ok(false),
            Some(Released::Failed(error)) => Err(error),
            _ => Err(no_answer(Operation::Release)),
        }
    }
}
