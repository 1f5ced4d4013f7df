//! Hanging grants on another etcd lease when another leads the cluster.
//!
//! Before 3.5.13 a leader that stood still, and goes on when its successor has long prolonged a
//! lease, ends that lease by its own count (etcd issue 15247); later servers make it rare. It can
//! end only what it knows. So a deadline counts only from a lease that was granted, and prolonged,
//! under the leader who prolongs it now: whoever led before has never heard of it.

use tenure_core::identity::Name;
use tenure_core::{Error, ErrorKind, Operation};

use crate::all::{Job, all};
use crate::keys::Kind;
use crate::leases::holding;
use crate::ledger::Known;
use crate::link::{Link, TXN_OPS, Unwritten};
use crate::wire::{Compare, PutRequest, Request, TxnRequest};

/// One grant that hangs on a lease from another leader's time.
#[derive(Clone, Copy)]
pub(crate) struct Stale<'a> {
    pub(crate) name: &'a Name,
    pub(crate) known: &'a Known,
}

impl Link {
    /// Hangs grants on leases that the present leader has granted, and says which; none where the
    /// grant isn't in force any more, or is revoked. Holder, claim, token and value stay as they
    /// are. A hundred are one request; all are sent at once.
    ///
    /// # Errors
    /// `OutcomeUnknown`: yet another leads. `Unavailable` and others: of a request.
    pub(crate) async fn rehang(
        &self,
        stale: &[Stale<'_>],
        operation: Operation,
    ) -> Result<Vec<Option<i64>>, Error> {
        let mut classes: Vec<_> = stale.iter().map(|one| holding(one.known.ttl)).collect();
        classes.sort_unstable_by_key(|(_, seconds)| *seconds);
        classes.dedup();
        let granted = self.leases(&classes, operation).await?;
        let lease_of = |one: &Stale<'_>| {
            let class = holding(one.known.ttl);
            let at = classes.iter().position(|other| *other == class);
            at.and_then(|at| granted.get(at).copied()).unwrap_or_default()
        };
        let mut chunks: Vec<Job<'_, _>> = Vec::new();
        for chunk in stale.chunks(TXN_OPS) {
            let txns = chunk.iter().map(|one| self.rehang_txn(one, lease_of(one))).collect();
            chunks.push(Box::pin(self.write(operation, txns, self.belief(), false)));
        }
        let mut moved = Vec::with_capacity(stale.len());
        for (chunk, outcome) in stale.chunks(TXN_OPS).zip(all(chunks).await) {
            let (answers, seen) = outcome.map_err(|why| unwritten(why, operation))?;
            for (one, answer) in chunk.iter().zip(answers) {
                let lease = lease_of(one);
                if !answer.succeeded {
                    moved.push(None);
                    continue;
                }
                self.ledger.moved(one.name, one.known.token, lease);
                if self.ledger.born(lease) != Some(seen.term) {
                    return Err(other_leader(operation));
                }
                moved.push(Some(lease));
            }
        }
        Ok(moved)
    }

    fn rehang_txn(&self, one: &Stale<'_>, lease: i64) -> TxnRequest {
        let key = |kind| self.keys.of(one.name, kind);
        let moved =
            PutRequest { key: key(Kind::Held), lease, ignore_value: true, ..PutRequest::default() };
        let mut txn = TxnRequest {
            compare: vec![
                Compare::created(key(Kind::Held), one.known.created),
                // The mark hangs on the former lease: it would end before what it is about.
                Compare::created(key(Kind::Revoked), 0),
            ],
            success: vec![Request::Put(moved).into()],
            failure: Vec::new(),
        };
        self.keys.move_entry(&mut txn, one.name, &one.known.instance, lease);
        txn
    }
}

fn unwritten(why: Unwritten, operation: Operation) -> Error {
    match why {
        Unwritten::Failed(failure) => Error::from(failure),
        Unwritten::FloorMoved => Error::new(
            ErrorKind::Unavailable,
            operation,
            "the store's floor was raised meanwhile; try again",
        ),
    }
}

/// Nothing is known of how long a grant lasts that two leaders dealt with.
pub(crate) fn other_leader(operation: Operation) -> Error {
    let message = "another leader was elected meanwhile; the same is asked again";
    Error::new(ErrorKind::OutcomeUnknown, operation, message)
}
