//! One instance's requests, straight to a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use tenure::core::identity::{ClaimId, Nonce};
use tenure::core::store::{Acquired, Claim, Grant, Hold, Release, Released, Renewed};
use tenure::{Instance, Metadata, Name, Session, Store};

/// The ttl of everything here: nothing expires while it is measured.
const TTL: Duration = Duration::from_secs(300);

/// One instance's requests, straight to the store.
#[derive(Clone)]
pub(crate) struct Caller {
    store: Arc<dyn Store>,
    instance: Instance,
}

/// What was granted, and to which claim.
pub(crate) struct Held {
    claim: Claim,
    grant: Grant,
}

fn drawn() -> u128 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    u128::from(LAST.fetch_add(1, Ordering::Relaxed) + 1)
}

impl Caller {
    pub(crate) fn new(session: &Session) -> Self {
        Self { store: Arc::clone(session.store()), instance: session.instance().clone() }
    }

    fn claim(&self, name: &str) -> Result<Claim> {
        Ok(Claim {
            name: Name::new(name)?,
            instance: self.instance.clone(),
            id: ClaimId::from_u128(drawn()),
            nonce: Nonce::from_u128(drawn()),
            ttl: TTL,
            min_hold: Duration::ZERO,
            metadata: Metadata::new(),
            bound_to: None,
            at: Default::default(),
            unanswered_for: Duration::ZERO,
            watched: None,
            above: None,
            ends_with_process: false,
        })
    }

    /// Acquires names, all in one request.
    pub(crate) async fn acquire(&self, names: &[String]) -> Result<Vec<Held>> {
        let claims: Vec<Claim> =
            names.iter().map(|name| self.claim(name)).collect::<Result<_>>()?;
        let answers = self.store.acquire(&claims).await?;
        let granted = claims.into_iter().zip(answers).map(|(claim, answer)| match answer {
            Acquired::Granted(grant) => Ok(Held { claim, grant }),
            other => bail!("not granted: {other:?}"),
        });
        granted.collect()
    }

    /// Renews, all in one request.
    pub(crate) async fn renew(&self, held: &[Held]) -> Result<()> {
        let holds: Vec<Hold> = held.iter().map(Held::hold).collect();
        for answer in self.store.renew(&holds).await? {
            if !matches!(answer, Renewed::Renewed(_)) {
                bail!("not renewed: {answer:?}");
            }
        }
        Ok(())
    }

    /// Releases, all in one request.
    pub(crate) async fn release(&self, held: &[Held]) -> Result<()> {
        let releases: Vec<Release> = held.iter().map(Held::release).collect();
        for answer in self.store.release(&releases).await? {
            if !matches!(answer, Released::Released(_)) {
                bail!("not released: {answer:?}");
            }
        }
        Ok(())
    }
}

impl Held {
    fn hold(&self) -> Hold {
        Hold {
            name: self.claim.name.clone(),
            instance: self.claim.instance.clone(),
            claim: self.claim.id,
            token: self.grant.token,
            ttl: TTL,
            not_before: Duration::ZERO,
            version: self.grant.version.clone(),
            nonce: Nonce::from_u128(drawn()),
            unconfirmed_for: Duration::ZERO,
        }
    }

    fn release(&self) -> Release {
        Release {
            name: self.claim.name.clone(),
            instance: self.claim.instance.clone(),
            claim: self.claim.id,
            token: self.grant.token,
            version: self.grant.version.clone(),
            nonce: Nonce::from_u128(drawn()),
            successor: None,
            why: "measured".to_owned(),
            at: Default::default(),
        }
    }
}
