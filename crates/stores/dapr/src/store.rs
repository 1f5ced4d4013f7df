//! The store itself: the core's lease over values of a state store.

use std::sync::Arc;

use tenure_core::chance::Chance;
use tenure_core::identity::Name;
use tenure_core::preconditions::Trial;
use tenure_core::record_leases::RecordLeases;
use tenure_core::record_mark;
use tenure_core::record_store::{RecordStore, STORE_KEY, TOKENS_KEY};
use tenure_core::store::{
    Acquired, Answer, Claim, Expiry, Hold, OrderRequest, Ordered, Page, Profile, Query, Release,
    Released, Renewed, Snapshot, Store, Wake,
};
use tenure_core::{Error, ErrorKind, Operation};

use crate::component::{self, Found, Kinds};
use crate::config::DaprConfig;
use crate::keys::INDEXES;
use crate::records::Records;
use crate::sidecar::Sidecar;
use crate::values::Values;

/// How many items a request may have: each is a few requests of its own.
const BATCH_MAX: usize = 10_000;

/// Leases in a Dapr state store, as one session sees them.
pub struct DaprLeases {
    leases: RecordLeases<Records>,
}

impl DaprLeases {
    /// Asks the sidecar what component it is, proves that its preconditions hold, and gives the
    /// store an id if it has none.
    ///
    /// `chance` draws that id. Call it on a tokio runtime with its I/O and time drivers.
    ///
    /// # Timing
    /// Some ten requests to the sidecar; at most the configuration's timeout for each.
    ///
    /// # Errors
    /// - `Invalid`: the configuration's values.
    /// - `Misconfigured`: no such component, one on which no lease can be had, another cluster's
    ///   mark, or something else than a sidecar. The message names the cure.
    /// - `Denied`: the sidecar refuses this process.
    /// - `Unavailable`: no sidecar answers, or its store doesn't.
    ///
    /// # Cancel safety
    /// Whatever was begun is done anew by the next opening.
    pub async fn open(config: DaprConfig, mut chance: Chance) -> Result<Self, Error> {
        let config = config.checked()?;
        let place = Place::find(&config, Kinds::Accepted).await?;
        let records = place.records;
        let located = |error: Error| records.located(error.during(Operation::Open));
        let mut trial = Trial::new(&records, Chance::seeded(chance.next_u64()));
        if let Some(ignored) = trial.quick().await.map_err(located)? {
            let message = format!(
                "the state store `{}` can't be used: {}; use another component",
                config.component,
                ignored.fact()
            );
            return Err(located(Error::new(ErrorKind::Misconfigured, Operation::Open, message)));
        }
        let mark = config.cluster.as_deref();
        record_mark::compare(&records.beside(), &records, mark).await.map_err(located)?;
        let leases = RecordLeases::open(records.clone(), chance).await.map_err(located)?;
        Ok(Self { leases })
    }

    /// The records underneath, for tests of their preconditions.
    #[doc(hidden)]
    pub fn records(&self) -> Arc<dyn RecordStore> {
        Arc::new(self.leases.records().clone())
    }

    /// Every key of a configuration's namespace, for the same tests.
    #[doc(hidden)]
    pub async fn every_key(config: &DaprConfig) -> Result<Vec<String>, Error> {
        let records = Place::find(config, Kinds::Any).await?.records;
        let own = [STORE_KEY, TOKENS_KEY, "@probe"].map(|key| Name::reserved(key).ok());
        let names = records.index.names().await?.into_iter().chain(own.into_iter().flatten());
        let keys: Vec<String> = names.map(|name| records.keys.record(&name)).collect();
        Ok(keys.into_iter().chain((0..INDEXES).map(|n| records.keys.index(n))).collect())
    }
}

/// A component that was found, and its records.
pub(crate) struct Place {
    pub(crate) found: Found,
    pub(crate) records: Records,
}

impl Place {
    /// Asks the sidecar.
    pub(crate) async fn find(config: &DaprConfig, kinds: Kinds) -> Result<Self, Error> {
        let location: Arc<str> = config.to_string().into();
        let located = |error: Error| error.with_store(Arc::clone(&location));
        let sidecar = Sidecar::new(config).map_err(located)?;
        let metadata = sidecar.metadata().await.map_err(located)?;
        let found = component::find(config, metadata, kinds).map_err(located)?;
        let mut profile = Profile::new("dapr", Arc::clone(&location));
        (profile.level, profile.limited_by) = found.level();
        profile.expiry = Expiry::Observed;
        profile.wake = Wake::Poll(config.poll);
        profile.batch_max = BATCH_MAX;
        let values = Values {
            sidecar,
            looks_first: found.makes_missing_keys(),
            writes: Arc::clone(&config.writes),
        };
        let records = Records::new(profile, config.keys(), values);
        Ok(Self { found, records })
    }
}

impl Store for DaprLeases {
    fn profile(&self) -> &Profile {
        self.leases.profile()
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        self.leases.acquire(claims)
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        self.leases.renew(holds)
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        self.leases.release(releases)
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        self.leases.read(names)
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        self.leases.list(query, after)
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        self.leases.order(name, request)
    }
}
