//! Leases of etcd's, one by one: granted, prolonged, asked about, given back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tenure_core::{Error, ErrorKind, Operation};

use crate::all::{Job, all};
use crate::entry::{Left, left_of};
use crate::errors::{Effect, Failure, garbled};
use crate::link::{Link, seen};
use crate::wire::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseRequest,
    LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, path,
};

/// What a lease's keep-alive came to.
#[derive(Clone, Debug)]
pub(crate) enum Pulse {
    /// Prolonged, in this term.
    Alive(u64),
    /// The lease is gone, and what hung on it.
    Gone,
    /// Nobody knows.
    Failed(Error),
}

impl Link {
    /// Prolongs a lease, and notes that.
    pub(crate) async fn keep_alive(&self, lease: i64, operation: Operation) -> Pulse {
        let sent = Instant::now();
        let question = LeaseRequest { id: lease };
        let answered = self.client.listen(path::LEASE_KEEP_ALIVE, &question, operation).await;
        let (mut answers, answer): (_, LeaseKeepAliveResponse) = match answered {
            Ok(answered) => answered,
            Err(Failure::LeaseGone(_)) => {
                self.ledger.gone(lease);
                return Pulse::Gone;
            }
            Err(failure) => return Pulse::Failed(failure.into()),
        };
        // The stream ends in order, rather than by a reset that the server would count.
        tokio::spawn(async move {
            let _ = tokio::time::timeout(Duration::from_secs(1), answers.message()).await;
        });
        match answer.header {
            _ if answer.ttl <= 0 => {
                self.ledger.gone(lease);
                Pulse::Gone
            }
            Some(header) => {
                self.ledger.prolonged(lease, sent, header.raft_term);
                Pulse::Alive(header.raft_term)
            }
            None => Pulse::Failed(garbled(operation, Effect::Writes)),
        }
    }

    /// Grants a lease of so many seconds, and says under whom, if that is certain: whoever led when
    /// the cluster answered before it was asked for, if the same one leads now.
    ///
    /// # Errors
    /// `Invalid`: the servers grant none so short.
    pub(crate) async fn grant(
        &self,
        seconds: i64,
        operation: Operation,
    ) -> Result<(i64, Option<u64>), Error> {
        let before = self.ledger.term();
        let question = LeaseGrantRequest { ttl: seconds };
        // Whether it was granted or not, nobody's lease changes.
        let answer: LeaseGrantResponse =
            self.client.ask(path::LEASE_GRANT, &question, Effect::Reads, operation).await?;
        if answer.ttl > seconds {
            self.revoke(answer.id, operation).await;
            return Err(Error::new(
                ErrorKind::Invalid,
                operation,
                format!(
                    "the servers grant no lease shorter than {} s, by their election timeout; \
                     make the ttl at least that long",
                    answer.ttl
                ),
            ));
        }
        let now = seen(answer.header, operation, Effect::Reads)?.term;
        self.ledger.led(now);
        Ok((answer.id, before.filter(|before| *before == now)))
    }

    /// Gives a lease back that nothing hangs on. If that fails, it ends by itself.
    pub(crate) async fn revoke(&self, lease: i64, operation: Operation) {
        let question = LeaseRequest { id: lease };
        let revoked: Result<LeaseRevokeResponse, _> =
            self.client.ask(path::LEASE_REVOKE, &question, Effect::Writes, operation).await;
        if let Err(failure) = revoked {
            let error = Error::from(failure);
            tracing::debug!(%error, "an etcd lease is left to end by itself");
        }
    }

    /// What hangs on a lease.
    pub(crate) async fn hangs_on(
        &self,
        lease: i64,
        operation: Operation,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let question = LeaseTimeToLiveRequest { id: lease, keys: true };
        let answer: LeaseTimeToLiveResponse =
            self.client.ask(path::LEASE_TIME_TO_LIVE, &question, Effect::Reads, operation).await?;
        Ok(answer.keys)
    }

    /// How long leases have left.
    pub(crate) async fn left(
        &self,
        leases: BTreeSet<i64>,
        operation: Operation,
    ) -> Result<Left, Error> {
        let mut jobs: Vec<Job<'_, _>> = Vec::new();
        for lease in leases {
            jobs.push(Box::pin(self.left_one(lease, operation)));
        }
        all(jobs).await.into_iter().collect()
    }

    async fn left_one(&self, lease: i64, operation: Operation) -> Result<(i64, Duration), Error> {
        let question = LeaseTimeToLiveRequest { id: lease, keys: false };
        let answer: LeaseTimeToLiveResponse =
            self.client.ask(path::LEASE_TIME_TO_LIVE, &question, Effect::Reads, operation).await?;
        Ok((lease, left_of(answer.ttl)))
    }
}
