//! The store itself: the core's lease over records, on objects.

use std::sync::Arc;
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::identity::Name;
use tenure_core::preconditions::{Ignored, Trial};
use tenure_core::record_leases::RecordLeases;
use tenure_core::record_mark;
use tenure_core::record_store::RecordStore;
use tenure_core::store::{
    Acquired, Answer, Claim, Expiry, Hold, Level, OrderRequest, Ordered, Page, Profile, Query,
    Release, Released, Renewed, Snapshot, Store, Wake,
};
use tenure_core::{Error, Operation};

use crate::config::{ObjectConfig, Place};
use crate::records::Objects;
use crate::shared::SharedObject;
use crate::{client, errors};

/// The shortest ttl: a request may well take a fifth of a second, and must fit into its sixth.
const SHORTEST_TTL: Duration = Duration::from_secs(3);
/// The same where an object may be written once a second only: a claim, a renewal and a release
/// in one ttl, and one that is repeated.
const GOOGLES_SHORTEST_TTL: Duration = Duration::from_secs(6);
/// How many items one batch carries at most; each is a request of its own.
const BATCH_MAX: usize = 1000;

/// Leases as objects in S3, Google Cloud Storage or Azure Blob Storage, as one session sees them.
pub struct ObjectLeases {
    leases: RecordLeases<Objects>,
    shared: Option<SharedObject>,
}

impl ObjectLeases {
    /// Connects, proves that writes on a condition are honoured, and gives the store an id if it
    /// has none.
    ///
    /// `chance` draws that id. Call it on a tokio runtime with its I/O and time drivers.
    ///
    /// # Timing
    /// Three refused writes and two reads; at most some tens of seconds where nobody answers.
    ///
    /// # Errors
    /// - `Invalid`: the configuration's values.
    /// - `Misconfigured`: no such bucket, another region, an endpoint that ignores conditions,
    ///   another cluster's mark. The message names the cure.
    /// - `Denied`: credentials, or a permission that tenure needs.
    /// - `Unavailable`: the endpoint doesn't answer.
    ///
    /// # Cancel safety
    /// Whatever was begun is done anew by the next opening.
    pub async fn open(config: ObjectConfig, mut chance: Chance) -> Result<Self, Error> {
        let objects = objects(&config)?;
        let beside = objects.beside();
        let located = |error: Error| objects.located(error.during(Operation::Open));
        let mut trial = Trial::new(&beside, Chance::seeded(chance.next_u64()));
        if let Some(ignored) = tried(&mut trial).await.map_err(located)? {
            return Err(located(errors::unfit(ignored)));
        }
        let mark = config.cluster.as_deref();
        record_mark::compare(&beside, &objects, mark).await.map_err(located)?;
        let shared = match &config.layout {
            Some(layout) => {
                let bucket = objects.bucket.clone();
                let opened = SharedObject::open(layout.clone(), bucket, config.poll).await;
                Some(opened.map_err(located)?)
            }
            None => None,
        };
        let leases = RecordLeases::open(objects.clone(), chance).await.map_err(located)?;
        Ok(Self { leases, shared })
    }

    /// The client of a configuration, for tests that look behind a store's back.
    #[doc(hidden)]
    pub fn client(config: &ObjectConfig) -> Result<Arc<dyn object_store::ObjectStore>, Error> {
        Ok(client::bucket(config)?.store)
    }

    /// The records underneath, for tests of their preconditions.
    #[doc(hidden)]
    pub fn records(&self) -> Arc<dyn RecordStore> {
        Arc::new(self.leases.records().clone())
    }

    pub(crate) fn objects(&self) -> &Objects {
        self.leases.records()
    }

    fn located(&self, error: Error) -> Error {
        self.objects().located(error)
    }

    /// The refusal of a ttl that can't be kept here.
    fn too_short(&self, claim: &Claim) -> Option<Error> {
        let shortest = self.profile().shortest_ttl;
        let why = || {
            let message = format!("a ttl of {:?} can't be kept; {shortest:?} can", claim.ttl);
            self.located(Error::invalid(message).during(Operation::Acquire).with_name(&claim.name))
        };
        (claim.ttl < shortest).then(why)
    }

    /// Acquires a batch of which some claims are refused for their ttl.
    async fn acquire_but_short(&self, claims: &[Claim]) -> Result<Vec<Acquired>, Error> {
        let sent: Vec<Claim> =
            claims.iter().filter(|claim| self.too_short(claim).is_none()).cloned().collect();
        let mut answers = self.leases.acquire(&sent).await?.into_iter();
        let of = |claim| match self.too_short(claim) {
            Some(error) => Some(Acquired::Failed(error)),
            None => answers.next(),
        };
        Ok(claims.iter().filter_map(of).collect())
    }
}

/// What each opening can afford: three writes, all of which must be refused.
pub(crate) async fn tried(trial: &mut Trial<'_, Objects>) -> Result<Option<Ignored>, Error> {
    match trial.quick().await? {
        None => trial.missing().await,
        ignored => Ok(ignored),
    }
}

/// The objects of a configuration. Nothing is sent.
pub(crate) fn objects(config: &ObjectConfig) -> Result<Objects, Error> {
    let keys = config.keys()?;
    let (kind, shortest) = match config.place {
        Place::S3(_) => ("s3", SHORTEST_TTL),
        Place::Google(_) => ("gs", GOOGLES_SHORTEST_TTL),
        Place::Azure { .. } => ("az", SHORTEST_TTL),
        Place::Client(_) => ("object", SHORTEST_TTL),
    };
    let mut profile = Profile::new(kind, config.to_string());
    if config.layout.is_some() {
        profile.level = Level::BestEffort;
        profile.limited_by = Some(crate::shared::LIMIT);
    }
    profile.expiry = Expiry::Observed;
    profile.wake = Wake::Poll(config.poll);
    profile.shortest_ttl = shortest;
    profile.batch_max = BATCH_MAX;
    let bucket =
        client::bucket(config).map_err(|error| error.with_store(Arc::clone(&profile.location)))?;
    Ok(Objects { profile, keys, bucket })
}

impl Store for ObjectLeases {
    fn profile(&self) -> &Profile {
        self.leases.profile()
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        match &self.shared {
            None if claims.iter().any(|claim| self.too_short(claim).is_some()) => {
                Box::pin(self.acquire_but_short(claims))
            }
            None => self.leases.acquire(claims),
            Some(shared) => Box::pin(async move {
                let mut answers = Vec::with_capacity(claims.len());
                for claim in claims {
                    if let Some(error) = self.too_short(claim) {
                        answers.push(Acquired::Failed(error));
                        continue;
                    }
                    let acquired = shared.acquire(&self.leases, claim).await;
                    answers.push(acquired.unwrap_or_else(|error| {
                        let error = error.during(Operation::Acquire).with_name(&claim.name);
                        Acquired::Failed(self.located(error))
                    }));
                }
                Ok(answers)
            }),
        }
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        match &self.shared {
            None => self.leases.renew(holds),
            Some(shared) => Box::pin(async move {
                let mut answers = Vec::with_capacity(holds.len());
                for hold in holds {
                    let renewed = shared.renew(&self.leases, hold).await;
                    answers.push(renewed.unwrap_or_else(|error| {
                        let error = error.during(Operation::Renew).with_name(&hold.name);
                        Renewed::Failed(self.located(error))
                    }));
                }
                Ok(answers)
            }),
        }
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        match &self.shared {
            None => self.leases.release(releases),
            Some(shared) => Box::pin(async move {
                let mut answers = Vec::with_capacity(releases.len());
                for release in releases {
                    let released = shared.release(&self.leases, release).await;
                    answers.push(released.unwrap_or_else(|error| {
                        let error = error.during(Operation::Release).with_name(&release.name);
                        Released::Failed(self.located(error))
                    }));
                }
                Ok(answers)
            }),
        }
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        match &self.shared {
            None => self.leases.read(names),
            Some(shared) => Box::pin(async move {
                let read = self.leases.read(names).await?;
                let mut shown = Vec::with_capacity(read.len());
                for (name, ours) in names.iter().zip(read) {
                    let seen = shared.shown(&self.leases, name, ours).await;
                    shown.push(seen.map_err(|error| self.located(error.with_name(name)))?);
                }
                Ok(shown)
            }),
        }
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        self.leases.list(query, after)
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        match &self.shared {
            None => self.leases.order(name, request),
            Some(shared) => Box::pin(async move {
                let ordered = shared.order(&self.leases, name, request).await;
                Ok(ordered.unwrap_or_else(|error| {
                    let error = error.during(Operation::Order).with_name(name);
                    Ordered::Failed(self.located(error))
                }))
            }),
        }
    }
}
