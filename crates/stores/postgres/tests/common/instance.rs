//! An instance that claims, renews and releases at a store, request by request.

use std::time::Duration;

use tenure_core::Error;
use tenure_core::chance::Chance;
use tenure_core::identity::{ClaimId, Incarnation, Instance, Name, Nonce};
use tenure_core::record::Metadata;
use tenure_core::store::{Acquired, Claim, Grant, Hold, Release, Renewed, Store};
use tenure_postgres::{PostgresConfig, PostgresStore};

use super::{chance, wait};

const TTL: Duration = Duration::from_secs(30);

pub(crate) fn open(config: PostgresConfig) -> Result<PostgresStore, Error> {
    wait(PostgresStore::open(config, chance()))
}

/// One instance and its draws.
pub(crate) struct Player {
    instance: Instance,
    chance: Chance,
}

impl Player {
    pub(crate) fn new() -> Self {
        let mut chance = chance();
        let incarnation = Incarnation::draw(&mut chance);
        Self { instance: Instance::new(Name::new("p").unwrap(), incarnation), chance }
    }

    pub(crate) fn claim(&mut self, name: &str) -> Claim {
        Claim {
            name: Name::new(name).unwrap(),
            instance: self.instance.clone(),
            id: ClaimId::draw(&mut self.chance),
            nonce: Nonce::draw(&mut self.chance),
            ttl: TTL,
            min_hold: Duration::ZERO,
            metadata: Metadata::new(),
            bound_to: None,
            at: Default::default(),
            unanswered_for: Duration::ZERO,
            watched: None,
            above: None,
            ends_with_process: false,
        }
    }

    pub(crate) fn hold(&mut self, claim: &Claim, grant: &Grant) -> Hold {
        Hold {
            name: claim.name.clone(),
            instance: claim.instance.clone(),
            claim: claim.id,
            token: grant.token,
            ttl: TTL,
            not_before: Duration::ZERO,
            version: grant.version.clone(),
            nonce: Nonce::draw(&mut self.chance),
            unconfirmed_for: Duration::ZERO,
        }
    }

    /// The renewals of claims, all of which were granted.
    pub(crate) fn holds(&mut self, claims: &[Claim], answers: &[Acquired]) -> Vec<Hold> {
        let hold = |(claim, answer): (&Claim, &Acquired)| match answer {
            Acquired::Granted(grant) => self.hold(claim, grant),
            other => panic!("{other:?}"),
        };
        claims.iter().zip(answers).map(hold).collect()
    }

    pub(crate) fn release(&mut self, claim: &Claim, grant: &Grant) -> Release {
        Release {
            name: claim.name.clone(),
            instance: claim.instance.clone(),
            claim: claim.id,
            token: grant.token,
            version: grant.version.clone(),
            nonce: Nonce::draw(&mut self.chance),
            successor: None,
            why: "done".to_owned(),
            at: Default::default(),
        }
    }
}

pub(crate) fn acquire(store: &PostgresStore, claim: &Claim) -> Result<Grant, Error> {
    match wait(store.acquire(std::slice::from_ref(claim)))?.remove(0) {
        Acquired::Granted(grant) => Ok(grant),
        Acquired::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn renew(store: &PostgresStore, hold: &Hold) -> Result<Renewed, Error> {
    match wait(store.renew(std::slice::from_ref(hold)))?.remove(0) {
        Renewed::Failed(error) => Err(error),
        other => Ok(other),
    }
}
