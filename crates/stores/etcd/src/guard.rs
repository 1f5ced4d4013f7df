//! The checking side of a token: what a Txn of the user's own compares.
//!
//! A Txn of etcd's is one instant: there is nothing between its comparison and its writes, so no
//! take-over needs to be held off while it runs.

use std::sync::Arc;

use tenure_core::decide;
use tenure_core::guard::GuardError;
use tenure_core::identity::{FencingToken, Name};
use tenure_core::{Error, ErrorKind, Operation};

use crate::entry::{Entry, Left};
use crate::keys::Kind;
use crate::link::{Link, Unwritten, delete, put, range, ranged};
use crate::wire::{Compare, RequestOp, TxnRequest};

const GUARD: Operation = Operation::Guard;

/// What a Txn of the user's own must compare, with whichever client it is sent: both keys'
/// **create revisions**. They are equal only while the grant is in force and not revoked.
///
/// With `etcdctl txn` that is `create("KEY") = "REVISION"`, with the Go client
/// `Compare(CreateRevision(key), "=", revision)`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guard {
    /// The key that the grant created.
    pub key: Vec<u8>,
    /// The revision that created it: the token, unless a backup was ever restored.
    pub create_revision: i64,
    /// The key that an operator's revoke creates; its create revision must be 0.
    pub revoked: Vec<u8>,
}

impl Guard {
    pub(crate) fn of(link: &Link, name: &Name, token: FencingToken) -> Self {
        let create_revision = match link.ledger.held_by_token(name, token) {
            Some(known) => known.created,
            // No key is created by a negative revision: what can't be is compared in vain.
            None => i64::try_from(token.get())
                .ok()
                .zip(i64::try_from(link.belief().floor).ok())
                .map_or(-1, |(token, floor)| if token > floor { token - floor } else { -1 }),
        };
        Self {
            key: link.keys.of(name, Kind::Held),
            create_revision,
            revoked: link.keys.of(name, Kind::Revoked),
        }
    }
}

/// Writes on the leases' own etcd that are carried out together, and only while a grant is in
/// force. Nothing is sent before [`commit`](Self::commit).
///
/// # Example
/// ```no_run
/// # async fn shown(store: &tenure_etcd::EtcdStore, name: &tenure_core::identity::Name,
/// #     token: tenure_core::identity::FencingToken) -> Result<(), Box<dyn std::error::Error>> {
/// store.guarded(name, token).put("app/config", "new").delete("app/draft").commit().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is written before `commit`"]
pub struct GuardedTxn {
    link: Arc<Link>,
    guard: Guard,
    name: Name,
    token: FencingToken,
    writes: Vec<RequestOp>,
}

impl GuardedTxn {
    pub(crate) fn of(link: Arc<Link>, name: &Name, token: FencingToken) -> Self {
        let guard = Guard::of(&link, name, token);
        Self { link, guard, name: name.clone(), token, writes: Vec::new() }
    }

    /// Writes a key; no two writes of one Txn may be of the same.
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.writes.push(put(key.into(), value.into(), 0));
        self
    }

    /// Deletes a key, if it is there.
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.writes.push(delete(key.into()));
        self
    }

    /// Carries everything out, if the grant is in force, and returns the revision of that.
    ///
    /// # Errors
    /// [`GuardError::NotInForce`]: nothing was written; another may act already.
    /// [`GuardError::Failed`]: the error's kind says whether it may have been written.
    ///
    /// # Cancel safety
    /// Dropping the future is an unknown outcome.
    pub async fn commit(self) -> Result<i64, GuardError> {
        let failed = |error: Error| {
            let error = error.during(GUARD).with_name(&self.name);
            GuardError::Failed(error.with_store(Arc::clone(&self.link.location)))
        };
        let Guard { key, create_revision, revoked } = self.guard.clone();
        let txn = TxnRequest {
            compare: vec![Compare::created(key, create_revision), Compare::created(revoked, 0)],
            success: self.writes.clone(),
            failure: vec![range(self.link.keys.all_of(&self.name))],
        };
        let belief = self.link.belief();
        let (answers, seen) = match self.link.write(GUARD, vec![txn], belief, false).await {
            Ok(written) => written,
            Err(Unwritten::FloorMoved) => return Err(failed(moved())),
            Err(Unwritten::Failed(failure)) => return Err(failed(failure.into())),
        };
        let Some(answer) = answers.into_iter().next() else { return Err(failed(moved())) };
        if answer.succeeded {
            return Ok(seen.revision);
        }
        let found = answer.responses.into_iter().find_map(ranged).unwrap_or_default();
        let entry = Entry::read(&self.name, &self.link.keys, &found.kvs).map_err(failed)?;
        let snapshot = entry.snapshot(&self.name, belief.store, &Left::new());
        let why = match &snapshot {
            None => "the name isn't held".to_owned(),
            Some(by) => match decide::in_force(&by.record, self.token, by.age) {
                Err(why) => why,
                Ok(()) => "the key that the grant created was made anew".to_owned(),
            },
        };
        Err(GuardError::not_in_force(self.token, why))
    }
}

fn moved() -> Error {
    let message = "the store's own keys changed meanwhile, and nothing was written; try again";
    Error::new(ErrorKind::Unavailable, GUARD, message)
}
