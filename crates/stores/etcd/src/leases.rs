//! The etcd leases of a session: granted when they are first needed, prolonged by claims and beats.

use std::time::{Duration, Instant};

use tenure_core::identity::Name;
use tenure_core::timing::TTL_MAX;
use tenure_core::{Error, Operation};

use crate::all::{Job, all};
use crate::entry::Entry;
use crate::keys::Kind;
use crate::ledger::{Class, Purpose};
use crate::link::{Link, delete};
use crate::wire::{Compare, TxnRequest};

/// The shortest ttl: etcd grants no shorter lease with its usual election timeout.
pub(crate) const TTL_LEAST: Duration = Duration::from_secs(2);
/// How many ttls a record stays at least.
const RECORD_TTLS: i64 = 4;

/// Whole seconds, rounded up: a lease must not be shorter than what hangs on it.
pub(crate) fn seconds(duration: Duration) -> i64 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// Whether a ttl can be kept.
///
/// # Errors
/// `Invalid`.
pub(crate) fn check(ttl: Duration, operation: Operation) -> Result<(), Error> {
    if (TTL_LEAST..=TTL_MAX).contains(&ttl) {
        return Ok(());
    }
    let message = format!("a ttl of {ttl:?} can't be kept; {TTL_LEAST:?} to {TTL_MAX:?} can");
    Err(Error::invalid(message).during(operation))
}

/// The lease that grants of a ttl hang on.
pub(crate) fn holding(ttl: Duration) -> Class {
    (Purpose::Holding, seconds(ttl))
}

impl Link {
    /// The lease that records of grants of a ttl hang on.
    pub(crate) fn recording(&self, ttl: Duration) -> Class {
        (Purpose::Recording, self.outlives(ttl))
    }

    /// The lease that tombstones of grants of a ttl hang on.
    pub(crate) fn resting(&self, ttl: Duration) -> Class {
        (Purpose::Resting, self.outlives(ttl))
    }

    fn outlives(&self, ttl: Duration) -> i64 {
        seconds(self.history).max(seconds(ttl).saturating_mul(RECORD_TTLS))
    }

    /// Whether the session has all these leases.
    pub(crate) fn has(&self, classes: &[Class]) -> bool {
        classes.iter().all(|class| self.ledger.lease(*class).is_some())
    }

    /// The ids of leases, granting those that aren't there; all at once.
    pub(crate) async fn leases(
        &self,
        classes: &[Class],
        operation: Operation,
    ) -> Result<Vec<i64>, Error> {
        let _one_at_a_time = match self.has(classes) {
            true => None,
            false => Some(self.granting.lock().await),
        };
        let mut jobs: Vec<Job<'_, _>> = Vec::new();
        for class in classes {
            jobs.push(Box::pin(self.lease_of(*class, operation)));
        }
        all(jobs).await.into_iter().collect()
    }

    async fn lease_of(&self, class: Class, operation: Operation) -> Result<i64, Error> {
        if let Some(lease) = self.ledger.lease(class) {
            return Ok(lease.id);
        }
        let sent = Instant::now();
        let (id, born) = self.grant(class.1, operation).await?;
        self.ledger.granted(class, id, sent, born);
        Ok(id)
    }

    /// Deletes what hangs on leases but has been neither held nor claimed for a ttl: as long as
    /// the session prolongs them for others, nothing else would end it.
    pub(crate) fn sweep(self: &std::sync::Arc<Self>, prolonged: &[i64], operation: Operation) {
        for lease in self.ledger.sweeps_due(prolonged) {
            let link = std::sync::Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = link.sweep_one(lease, operation).await {
                    tracing::debug!(%error, "an etcd lease is looked through again later");
                }
            });
        }
    }

    async fn sweep_one(&self, lease: i64, operation: Operation) -> Result<(), Error> {
        let hanging = self.hangs_on(lease, operation).await?;
        let mut names: Vec<Name> =
            hanging.iter().filter_map(|key| self.keys.name_of(key)).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| self.ledger.abandon(name, lease));
        let belief = self.belief();
        for names in names.chunks(crate::link::TXN_OPS) {
            let entries = self.entries(operation, names).await?;
            let txns = names.iter().zip(&entries).filter_map(|(name, (entry, _))| {
                self.abandonment(name, entry.as_ref().ok()?, lease)
            });
            let txns: Vec<_> = txns.collect();
            if !txns.is_empty() {
                tracing::info!(names = ?names, "nobody renews these any more: they are free now");
                match self.write(operation, txns, belief, false).await {
                    Ok(_) => {}
                    Err(crate::link::Unwritten::FloorMoved) => return Ok(()),
                    Err(crate::link::Unwritten::Failed(failure)) => return Err(failure.into()),
                }
            }
            names.iter().for_each(|name| self.ledger.abandoned(name));
        }
        Ok(())
    }

    /// The Txn that deletes what hangs on a lease of a name: a grant with its entry, or an entry
    /// whose grant somebody ended who knows of no neighbour.
    fn abandonment(&self, name: &Name, entry: &Entry, lease: i64) -> Option<TxnRequest> {
        if let Some(held) = entry.held.as_ref().filter(|held| held.lease == lease) {
            let marks = [Kind::Held, Kind::Asked, Kind::Revoked];
            let marks = marks.map(|kind| delete(self.keys.of(name, kind)));
            return Some(TxnRequest {
                compare: vec![Compare::created(self.keys.of(name, Kind::Held), held.created)],
                success: marks
                    .into_iter()
                    .chain(self.keys.give_entry(name, held.holder()))
                    .collect(),
                failure: Vec::new(),
            });
        }
        let theirs = entry.theirs.as_ref().filter(|theirs| theirs.lease == lease)?;
        let key = self.keys.entry(name)?;
        Some(TxnRequest {
            compare: vec![Compare::written(key.clone(), theirs.revision)],
            success: vec![delete(key)],
            failure: Vec::new(),
        })
    }
}
