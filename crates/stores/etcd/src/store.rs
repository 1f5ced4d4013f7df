//! The store itself: it opens, and hands requests on.

use std::sync::Arc;
use std::time::Duration;

use tenure_core::batch;
use tenure_core::chance::Chance;
use tenure_core::cluster;
use tenure_core::identity::{FencingToken, Name, StoreId};
use tenure_core::store::{
    Acquired, Answer, Claim, Expiry, Hints, Hold, Level, OrderRequest, Ordered, Page, Prefix,
    Profile, Query, Release, Released, Renewed, Snapshot, Store, Wake,
};
use tenure_core::{Error, ErrorKind, Operation};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::all::{Job, all};
use crate::client::Client;
use crate::config::EtcdConfig;
use crate::errors::{Effect, Failure};
use crate::guard::{Guard, GuardedTxn};
use crate::keys::Keys;
use crate::leases::TTL_LEAST;
use crate::link::{Belief, Link, Seen, one, put, read_floor, seen};
use crate::watch::Source;
use crate::wire::{
    Compare, KeyValue, RangeRequest, RangeResponse, StatusRequest, StatusResponse, TxnRequest,
    TxnResponse, path,
};

/// How often a waiter reads although no hint came, in case one was lost.
const POLL: Duration = Duration::from_secs(5);
/// How much later than the ttl an expiry is noticed: a ttl is rounded up to whole seconds, and
/// etcd looks for leases that have ended twice a second.
const DETECTION: Duration = Duration::from_secs(2);
/// The oldest server: comparing leases, and leases that survive a change of leader as they should.
const SERVER_LEAST: (u32, u32) = (3, 4);

/// Leases in etcd, as one session sees them.
///
/// One connection serves it, to one of the servers at a time. It needs a tokio runtime around it.
pub struct EtcdStore {
    profile: Profile,
    pub(crate) link: Arc<Link>,
    closed: watch::Sender<bool>,
}

impl EtcdStore {
    /// Connects, and makes sure that the store is one. Where there is none, its id is written.
    ///
    /// # Timing
    /// Two round trips, one more with a password, and one more the first time of all; at most
    /// the configuration's timeout for each.
    ///
    /// # Errors
    /// - `Unavailable`: no server answers, or none has a leader.
    /// - `Denied`: the servers refuse the credentials, or the user may not use the keys.
    /// - `Misconfigured`: another cluster's mark, servers before 3.4, certificates.
    /// - `Invalid`: the configuration.
    ///
    /// # Cancel safety
    /// At most the store's id was written.
    pub async fn open(config: EtcdConfig, chance: Chance) -> Result<Self, Error> {
        let client = Client::new(&config);
        Self::open_by(client, config, chance).await
    }

    /// The same over channels that the host has already, one to each server of one cluster: over
    /// their connections, with their encryption. One is asked, and the next when it fails. They
    /// are left as they are when the session is closed.
    ///
    /// Of the configuration `tls` and `root_certificates` aren't used, and `endpoints` is but how
    /// messages name the servers; all else counts, `user` included. An `etcd_client::Client` can be
    /// made of the same channel, with `from_channel` (its feature `raw-channel`).
    ///
    /// A channel should have a limit for connecting, and ping a connection that somebody waits
    /// on (`http2_keep_alive_interval`): what it doesn't notice, a request waits out. With
    /// `http2_max_local_error_reset_streams(None)` readers that give up by the thousand don't
    /// end it. Nothing before it may send a request twice.
    ///
    /// # Timing
    /// As [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open); `Invalid` also without a channel.
    ///
    /// # Cancel safety
    /// At most the store's id was written.
    ///
    /// # Example
    /// ```no_run
    /// use tenure_core::chance::Chance;
    /// use tenure_etcd::tonic::transport::Endpoint;
    /// use tenure_etcd::{EtcdConfig, EtcdStore};
    ///
    /// # async fn shown() -> Result<(), Box<dyn std::error::Error>> {
    /// let channel = Endpoint::from_static("http://etcd-0:2379").connect_lazy();
    /// // let client = etcd_client::Client::from_channel(Channel::Tonic(channel.clone()), None).await?;
    /// let config = EtcdConfig::new(["etcd-0:2379"]);
    /// let store = EtcdStore::open_on([channel], config, Chance::seeded(7)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn open_on(
        channels: impl IntoIterator<Item = Channel>,
        config: EtcdConfig,
        chance: Chance,
    ) -> Result<Self, Error> {
        let client = Client::on(channels.into_iter().collect(), &config);
        Self::open_by(client, config, chance).await
    }

    async fn open_by(
        client: Result<Client, Error>,
        config: EtcdConfig,
        chance: Chance,
    ) -> Result<Self, Error> {
        let location: Arc<str> = config.location().into();
        let opened = async { Self::connect(client?, config, Arc::clone(&location), chance).await };
        opened.await.map_err(|error| error.with_store(location))
    }

    async fn connect(
        client: Client,
        config: EtcdConfig,
        location: Arc<str>,
        mut chance: Chance,
    ) -> Result<Self, Error> {
        let keys = Keys::new(&config.prefix, &config.namespace, config.layout.clone());
        let (about, seen) = About::find_or_make(&client, &keys, &mut chance).await?;
        let status: StatusResponse = client
            .ask(path::STATUS, &StatusRequest {}, Effect::Reads, Operation::Open)
            .await
            .map_err(Error::from)?;
        suitable(&status.version)?;
        cluster::compare(config.cluster.as_deref(), about.cluster.as_deref())?;
        let mut profile = Profile::new("etcd", Arc::clone(&location));
        profile.level = Level::FencedTx;
        if config.layout.is_some() {
            profile.level = Level::Lease;
            profile.limited_by = Some(tenure_core::neighbour::LIMIT);
        }
        profile.expiry = Expiry::StoreClock;
        profile.wake = Wake::Push(POLL);
        profile.shortest_ttl = TTL_LEAST;
        profile.detection = DETECTION;
        let link = Link::new(client, keys, location, config.history, about.belief, seen, chance);
        // A permission that sharing needs is missed now, and not when somebody claims.
        if let Some(theirs) = link.keys.entries_under(&Prefix::all()) {
            let one = RangeRequest { limit: 1, keys_only: true, ..theirs.into() };
            link.look(Operation::Open, vec![one]).await?;
        }
        Ok(Self { profile, link: Arc::new(link), closed: watch::Sender::new(false) })
    }

    /// What a Txn of the user's own compares, so that it is carried out only while a grant is in
    /// force.
    #[must_use]
    pub fn guard(&self, name: &Name, token: FencingToken) -> Guard {
        Guard::of(&self.link, name, token)
    }

    /// A Txn on the leases' own etcd that is carried out only while a grant is in force.
    pub fn guarded(&self, name: &Name, token: FencingToken) -> GuardedTxn {
        GuardedTxn::of(Arc::clone(&self.link), name, token)
    }

    /// How many requests this session has sent until now.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.link.client.sent()
    }
}

/// Whether a server is new enough.
fn suitable(version: &str) -> Result<(), Error> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let number = (numbers.next().flatten(), numbers.next().flatten());
    match number {
        (Some(major), Some(minor)) if (major, minor) >= SERVER_LEAST => Ok(()),
        _ => {
            let (major, minor) = SERVER_LEAST;
            Err(Error::new(
                ErrorKind::Misconfigured,
                Operation::Open,
                format!("the server is etcd {version}; tenure needs {major}.{minor} or newer"),
            ))
        }
    }
}

/// What the keys about the store itself say.
pub(crate) struct About {
    pub(crate) belief: Belief,
    pub(crate) cluster: Option<String>,
}

impl About {
    /// Reads the store's id, and writes one where there is none.
    pub(crate) async fn find_or_make(
        client: &Client,
        keys: &Keys,
        chance: &mut Chance,
    ) -> Result<(Self, Seen), Error> {
        let fresh = StoreId::draw(chance).to_string();
        let make = TxnRequest {
            compare: vec![Compare::created(keys.store(), 0)],
            success: vec![put(keys.store(), fresh.into(), 0)],
            failure: Vec::new(),
        };
        // Made by whoever is first, and then read like any other.
        for is_made in [false, true] {
            if is_made {
                let _: TxnResponse =
                    client.ask(path::TXN, &make, Effect::Writes, Operation::Open).await?;
            }
            let about = [keys.store(), keys.floor(), keys.cluster()].map(RangeRequest::one);
            let mut jobs: Vec<Job<'_, Result<RangeResponse, Failure>>> = Vec::new();
            for range in about {
                jobs.push(Box::pin(async move {
                    client.ask(path::RANGE, &range, Effect::Reads, Operation::Open).await
                }));
            }
            let found = all(jobs).await.into_iter().collect::<Result<Vec<_>, _>>()?;
            let header = found.first().and_then(|store| store.header);
            let seen = seen(header, Operation::Open, Effect::Reads)?;
            let found: Vec<Option<KeyValue>> = found.into_iter().map(one).collect();
            if let [Some(store), floor, cluster] = found.as_slice() {
                return Ok((Self::read(store, floor.as_ref(), cluster.as_ref())?, seen));
            }
        }
        let message = "the store's id was written, and is gone again; try again";
        Err(Error::new(ErrorKind::Unavailable, Operation::Open, message))
    }

    fn read(
        store: &KeyValue,
        floor: Option<&KeyValue>,
        cluster: Option<&KeyValue>,
    ) -> Result<Self, Error> {
        let id = std::str::from_utf8(&store.value).ok().and_then(|id| id.parse().ok());
        let store = id.ok_or_else(|| {
            let key = String::from_utf8_lossy(&store.key);
            let message = format!("the key `{key}` has no store's id in it; name another prefix");
            Error::new(ErrorKind::Misconfigured, Operation::Open, message)
        })?;
        let (floor, floor_revision) = read_floor(floor);
        let cluster = cluster.map(|key| String::from_utf8_lossy(&key.value).into_owned());
        Ok(Self { belief: Belief { store, floor, floor_revision }, cluster })
    }
}

impl Store for EtcdStore {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Acquire, claims.len())?;
            Ok(self.link.acquire(claims).await)
        })
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Renew, holds.len())?;
            Ok(self.link.renew(holds).await)
        })
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Release, releases.len())?;
            Ok(self.link.release(releases).await)
        })
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Read, names.len())?;
            self.link.read(names).await
        })
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        Box::pin(self.link.list(query, after))
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        Box::pin(async move {
            match self.link.order(name, request).await {
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                    Ok(Ordered::Failed(error))
                }
                other => other,
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        Box::pin(async move {
            let source = Source::begin(Arc::clone(&self.link), prefix, self.closed.subscribe());
            Ok(Some(Hints::new(source.await?)))
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.closed.send_replace(true);
            self.link.client.close();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused() {
        assert!(
            suitable("3.4.0").is_ok() && suitable("3.5.1").is_ok() && suitable("4.0.0").is_ok()
        );
        for old in ["3.3.27", "2.3.8", "", "new"] {
            assert_eq!(suitable(old).unwrap_err().kind(), ErrorKind::Misconfigured, "{old}");
        }
    }
}
