//! Which server has which bucket: one for all, or the cluster's word for each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::Value;
use tenure_core::{Error, ErrorKind, Operation};
use tokio::sync::Mutex;

use crate::config::{Address, Login, Place, Server, Tls};
use crate::errors::unintelligible;
use crate::keys::{BUCKETS, Keys};
use crate::link::{Link, Target};
use crate::reply::{list, text};

/// The oldest server whose scripts may write after they have read its clock.
const VERSION_MIN: u32 = 5;

/// A link for each bucket.
pub(crate) type Links = [Arc<Link>; BUCKETS];

/// Which server has which bucket.
pub(crate) enum Route {
    One(Arc<Link>),
    Cluster(Cluster),
}

pub(crate) struct Cluster {
    seeds: Vec<Arc<Link>>,
    /// The host of each seed: nodes that don't know their own are reached there.
    hosts: Vec<String>,
    tls: Option<Tls>,
    login: Login,
    /// Whether the map may be of yesterday.
    stale: AtomicBool,
    map: Mutex<Map>,
}

#[derive(Default)]
struct Map {
    owners: Option<Links>,
    nodes: HashMap<Address, Arc<Link>>,
    replicas: usize,
}

impl Route {
    pub(crate) fn new(place: Place) -> Self {
        match place {
            Place::One(server) => Self::One(Link::new(Target::Server(server))),
            Place::Client(client) => Self::One(Link::new(Target::Client(client))),
            Place::Sentinel { sentinels, service, master, tls } => {
                Self::One(Link::new(Target::Sentinel { sentinels, service, master, tls }))
            }
            Place::Cluster(servers) => Self::Cluster(Cluster {
                tls: servers.first().and_then(|server| server.tls.clone()),
                login: servers.first().map(|server| server.login.clone()).unwrap_or_default(),
                hosts: servers.iter().map(|server| host_of(&server.address)).collect(),
                seeds: servers
                    .into_iter()
                    .map(|server| Link::new(Target::Server(server)))
                    .collect(),
                stale: AtomicBool::new(false),
                map: Mutex::default(),
            }),
        }
    }

    /// The link of each bucket.
    pub(crate) async fn links(&self) -> Result<Links, Error> {
        match self {
            Self::One(link) => Ok(std::array::from_fn(|_| Arc::clone(link))),
            Self::Cluster(cluster) => cluster.links().await,
        }
    }

    /// Each server that has a bucket, once.
    pub(crate) async fn servers(&self) -> Result<Vec<Arc<Link>>, Error> {
        let mut servers: Vec<Arc<Link>> = Vec::new();
        for link in self.links().await? {
            if !servers.iter().any(|known| Arc::ptr_eq(known, &link)) {
                servers.push(link);
            }
        }
        Ok(servers)
    }

    /// Whether a replica may take a master's place by itself, and lose what that had acknowledged.
    pub(crate) async fn fails_over(&self) -> bool {
        match self {
            Self::One(link) => link.is_by_sentinel(),
            Self::Cluster(cluster) => cluster.map.lock().await.replicas > 0,
        }
    }

    /// The map may be of yesterday: it is read anew before the next request.
    pub(crate) fn doubt(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.stale.store(true, Ordering::SeqCst);
        }
    }

    /// Refuses servers that the scripts can't run on, or that are another kind than the URL says.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let misfit =
            |message: String| Err(Error::new(ErrorKind::Misconfigured, Operation::Open, message));
        for link in self.servers().await? {
            let about = link.live().await?.about;
            let major = about.version.split('.').next().and_then(|major| major.parse().ok());
            if major.is_some_and(|major: u32| major < VERSION_MIN) {
                return misfit(format!(
                    "the server is version {}; tenure needs {VERSION_MIN} or newer",
                    about.version
                ));
            }
            match (self, about.mode.as_str()) {
                (_, "sentinel") => {
                    return misfit(
                        "the server is a sentinel; write `redis+sentinel://HOST/SERVICE`".into(),
                    );
                }
                (Self::One(_), "cluster") => {
                    return misfit(
                        "the server is a node of a cluster; write `redis+cluster://HOST/`".into(),
                    );
                }
                (Self::Cluster(_), "standalone") => {
                    return misfit("the server is in no cluster; write `redis://HOST`".into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets go of all connections.
    pub(crate) async fn close(&self) {
        match self {
            Self::One(link) => link.close().await,
            Self::Cluster(cluster) => {
                let nodes: Vec<_> = cluster.map.lock().await.nodes.values().cloned().collect();
                for link in cluster.seeds.iter().chain(&nodes) {
                    link.close().await;
                }
            }
        }
    }
}

impl Cluster {
    async fn links(&self) -> Result<Links, Error> {
        let mut map = self.map.lock().await;
        if let Some(owners) = map.owners.as_ref().filter(|_| !self.stale.load(Ordering::SeqCst)) {
            return Ok(owners.clone());
        }
        let mut failed = None;
        // Seeds first, which the host named; then whoever was in the cluster when last seen.
        let mut asked: Vec<(Arc<Link>, String)> =
            self.seeds.iter().cloned().zip(self.hosts.iter().cloned()).collect();
        asked.extend(map.nodes.iter().map(|(address, link)| (Arc::clone(link), host_of(address))));
        for (link, host) in asked {
            match self.slots(&link, &host).await {
                Ok(slots) => {
                    let owners = self.assign(&mut map, &slots)?;
                    self.stale.store(false, Ordering::SeqCst);
                    map.owners = Some(owners.clone());
                    return Ok(owners);
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| unintelligible(Operation::Open)))
    }

    /// Which ranges of slots which node has, as one node sees it.
    async fn slots(&self, link: &Link, host: &str) -> Result<Vec<Range>, Error> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let answer = link.ask(command, Operation::Open).await?;
        let ranges = list(&answer).unwrap_or_default().iter();
        let ranges: Option<Vec<Range>> = ranges.map(|range| Range::read(range, host)).collect();
        ranges.ok_or_else(|| unintelligible(Operation::Open))
    }

    fn assign(&self, map: &mut Map, ranges: &[Range]) -> Result<Links, Error> {
        map.replicas = ranges.iter().map(|range| range.replicas).max().unwrap_or(0);
        let mut owners = Vec::with_capacity(BUCKETS);
        for bucket in 0..BUCKETS {
            let slot = Keys::slot(bucket);
            let Some(range) = ranges.iter().find(|range| (range.from..=range.to).contains(&slot))
            else {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    Operation::Open,
                    format!("no node of the cluster has slot {slot}; look at CLUSTER INFO"),
                ));
            };
            let link = map.nodes.entry(range.owner.clone()).or_insert_with(|| {
                let address = range.owner.clone();
                Link::new(Target::Server(Server {
                    address,
                    tls: self.tls.clone(),
                    login: self.login.clone(),
                }))
            });
            owners.push(Arc::clone(link));
        }
        owners.try_into().map_err(|_| unintelligible(Operation::Open))
    }
}

/// A range of slots and who has it.
struct Range {
    from: u16,
    to: u16,
    owner: Address,
    replicas: usize,
}

impl Range {
    fn read(value: &Value, asked_at: &str) -> Option<Self> {
        let [Value::Int(from), Value::Int(to), owner, replicas @ ..] = list(value)? else {
            return None;
        };
        let [host, Value::Int(port), ..] = list(owner)? else { return None };
        // A node that doesn't know its own name is where it was asked.
        let host = text(host).filter(|host| !host.is_empty()).unwrap_or(asked_at).to_owned();
        Some(Self {
            from: u16::try_from(*from).ok()?,
            to: u16::try_from(*to).ok()?,
            owner: Address::Tcp { host, port: u16::try_from(*port).ok()? },
            replicas: replicas.len(),
        })
    }
}

fn host_of(address: &Address) -> String {
    match address {
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix(path) => path.display().to_string(),
    }
}
