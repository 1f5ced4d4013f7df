//! The leases of one namespace, as a session sees them.

use std::sync::Arc;

use tenure_core::chance::Chance;
use tenure_core::cluster;
use tenure_core::identity::{Name, StoreId};
use tenure_core::record_leases::RecordLeases;
use tenure_core::record_store::{Expected, RecordStore, Stored, Written, store_key};
use tenure_core::store::{
    Acquired, Answer, Claim, Hints, Hold, OrderRequest, Ordered, Page, Prefix, Profile, Query,
    Release, Released, Renewed, Snapshot, Store,
};
use tenure_core::{Error, ErrorKind, Operation};

use crate::config::KubernetesConfig;
use crate::link::Link;
use crate::records::{LeaseRecords, TTL_MIN};

/// How often a mark is written before it is given up: each conflict means that somebody else wrote.
const MARK_TRIES_MAX: usize = 8;

/// Leases in the `Lease` objects of a namespace of Kubernetes.
pub struct KubernetesStore {
    pub(crate) leases: RecordLeases<Arc<LeaseRecords>>,
    pub(crate) records: Arc<LeaseRecords>,
}

impl KubernetesStore {
    /// Opens the store, on a tokio runtime; the first to do so writes its id.
    ///
    /// # Errors
    /// - [`Unavailable`](ErrorKind::Unavailable): the API server can't be reached.
    /// - [`Denied`](ErrorKind::Denied): it refuses the credentials, or a Role is missing.
    /// - [`Misconfigured`](ErrorKind::Misconfigured): no kubeconfig, no such context or namespace, a
    ///   certificate that isn't trusted, or a store that bears another mark.
    ///
    /// # Cancel safety
    /// The id may be written; opening again finds it.
    pub async fn open(config: KubernetesConfig, chance: Chance) -> Result<Self, Error> {
        let records = Self::open_records(&config).await?;
        let located = |error: Error| error.with_store(Arc::clone(&records.profile().location));
        let opened = async {
            let leases = RecordLeases::open(Arc::clone(&records), chance).await?;
            if config.cluster.is_some() {
                let (mark, _) = mark(&records).await?;
                cluster::compare(config.cluster.as_deref(), mark.as_deref())?;
            }
            Ok(leases)
        };
        let leases = opened.await.map_err(located)?;
        Ok(Self { leases, records })
    }

    /// The records under such a store, without a session: for tests of their preconditions.
    ///
    /// # Errors
    /// As [`open`](Self::open), as far as no request is needed to tell.
    pub async fn open_records(config: &KubernetesConfig) -> Result<Arc<LeaseRecords>, Error> {
        let link = Link::open(config.place.clone()).await?;
        Ok(Arc::new(LeaseRecords::new(link, config.namespace.clone())))
    }

    pub(crate) fn located(&self, error: Error) -> Error {
        error.with_store(Arc::clone(&self.records.profile().location))
    }

    /// Gives the store a mark, if it has none.
    pub(crate) async fn bear(&self, wanted: &str) -> Result<(), Error> {
        for _ in 0..MARK_TRIES_MAX {
            let (mark, stored) = mark(&self.records).await?;
            match mark {
                Some(mark) if mark == wanted => return Ok(()),
                Some(_) => return Err(cluster::taken(wanted)),
                None => {}
            }
            let mut value = json(&stored)?;
            value["cluster"] = wanted.into();
            let bytes = value.to_string().into_bytes();
            let expected = Expected::Version(&stored.version);
            match self.records.write_if(&store_key(), &bytes, expected).await? {
                Written::Written(_) => return Ok(()),
                Written::Conflict => {}
            }
        }
        let message = "others changed the store's id again and again; try again";
        Err(Error::new(ErrorKind::Unavailable, Operation::Init, message))
    }

    /// The store's id, as it is kept.
    pub(crate) async fn id(&self) -> Result<StoreId, Error> {
        let (_, stored) = mark(&self.records).await?;
        tenure_core::exchange::store_id(&stored)
    }

    async fn told<'a, T>(&'a self, answer: Answer<'a, T>) -> Result<T, Error> {
        answer.await.map_err(|error| self.located(error))
    }
}

/// The mark of the store, and what keeps it: the record of its id.
async fn mark(records: &LeaseRecords) -> Result<(Option<String>, Stored), Error> {
    let read = records.read(&[store_key()]).await?.pop().flatten();
    let stored = read.ok_or_else(|| {
        let message = "the store's id vanished while it was opened; open it again";
        Error::new(ErrorKind::Unavailable, Operation::Open, message)
    })?;
    let mark = json(&stored)?.get("cluster").and_then(|mark| mark.as_str()).map(str::to_owned);
    Ok((mark, stored))
}

fn json(stored: &Stored) -> Result<serde_json::Value, Error> {
    serde_json::from_slice(&stored.bytes).map_err(|error| {
        let message = "the store's id (`@store`) can't be read; nothing was overwritten";
        Error::new(ErrorKind::Corrupt, Operation::Open, message).with_source(error)
    })
}

/// Refused before any request: client-go's replicas would take it for longer than it is.
fn too_short(claim: &Claim) -> Acquired {
    Acquired::Failed(
        Error::new(
            ErrorKind::Invalid,
            Operation::Acquire,
            format!("a ttl of {:?} is too short; the shortest here is {TTL_MIN:?}", claim.ttl),
        )
        .with_name(&claim.name),
    )
}

impl Store for KubernetesStore {
    fn profile(&self) -> &Profile {
        self.records.profile()
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        Box::pin(async move {
            let (short, kept): (Vec<&Claim>, Vec<&Claim>) =
                claims.iter().partition(|claim| claim.ttl < TTL_MIN);
            let answers = if short.is_empty() {
                self.told(self.leases.acquire(claims)).await?
            } else {
                let kept: Vec<Claim> = kept.into_iter().cloned().collect();
                let mut answers = self.told(self.leases.acquire(&kept)).await?.into_iter();
                let each = claims.iter().map(|claim| {
                    if claim.ttl < TTL_MIN { Some(too_short(claim)) } else { answers.next() }
                });
                each.flatten().collect()
            };
            let located = |answer| match answer {
                Acquired::Failed(error) => Acquired::Failed(self.located(error)),
                answer => answer,
            };
            Ok(answers.into_iter().map(located).collect())
        })
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        Box::pin(async move {
            let answers = self.told(self.leases.renew(holds)).await?;
            let located = |answer| match answer {
                Renewed::Failed(error) => Renewed::Failed(self.located(error)),
                answer => answer,
            };
            Ok(answers.into_iter().map(located).collect())
        })
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        Box::pin(async move {
            let answers = self.told(self.leases.release(releases)).await?;
            let located = |answer| match answer {
                Released::Failed(error) => Released::Failed(self.located(error)),
                answer => answer,
            };
            Ok(answers.into_iter().map(located).collect())
        })
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        Box::pin(self.told(self.leases.read(names)))
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        Box::pin(self.told(self.leases.list(query, after)))
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        Box::pin(async move {
            let ordered = self.told(self.leases.order(name, request)).await?;
            Ok(match ordered {
                Ordered::Failed(error) => Ordered::Failed(self.located(error)),
                ordered => ordered,
            })
        })
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        Box::pin(self.told(self.leases.watch(prefix)))
    }

    fn close(&self) -> Answer<'_, ()> {
        self.records.close();
        Box::pin(std::future::ready(Ok(())))
    }
}
