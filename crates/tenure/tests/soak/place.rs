//! The stores that contenders compete on: where they are, and how to begin and end there.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenure_core::store::InitOptions;

use crate::draw;
use crate::fault::Kind;

/// A store, on real servers but for SQLite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Sqlite,
    Postgres,
    /// Without persistence: a server that was killed comes back empty.
    Redis,
    RedisDurable,
    Etcd,
    EtcdCluster,
    Kubernetes,
    /// In memory, both: a server that was killed comes back without its bucket.
    S3,
    Azure,
    /// A sidecar before PostgreSQL.
    Dapr,
}

use Place::{
    Azure, Dapr, Etcd, EtcdCluster, Kubernetes, Postgres, Redis, RedisDurable, S3, Sqlite,
};

const PLACES: [Place; 10] =
    [Sqlite, Postgres, Redis, RedisDurable, Etcd, EtcdCluster, Kubernetes, S3, Azure, Dapr];

impl Place {
    /// Keeps other tests of this process from its servers, as long as what is returned lives.
    pub(crate) fn alone(self) -> MutexGuard<'static, ()> {
        static USED: [Mutex<()>; PLACES.len()] = [const { Mutex::new(()) }; PLACES.len()];
        // What another test met there is over.
        USED[self as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn named(name: &str) -> Self {
        let found = PLACES.into_iter().find(|place| place.name() == name);
        found.unwrap_or_else(|| panic!("`{name}` is none of {:?}", PLACES.map(Self::name)))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Sqlite => "sqlite",
            Postgres => "postgres",
            Redis => "redis",
            RedisDurable => "redis-durable",
            Etcd => "etcd",
            EtcdCluster => "etcd-cluster",
            S3 => "s3",
            Azure => "azure",
            Dapr => "dapr",
            Kubernetes => "kubernetes",
        }
    }

    /// Short, so that many faults fit into a minute, and what the store grants.
    pub(crate) fn ttl(self) -> Duration {
        match self {
            Etcd | EtcdCluster | Kubernetes => Duration::from_secs(2),
            S3 | Azure | Dapr => Duration::from_secs(3),
            _ => Duration::from_millis(1500),
        }
    }

    /// The processes of its servers, as `$TENURE_TEST_STORES` has them.
    pub(crate) fn processes(self) -> Vec<PathBuf> {
        let names: &[&str] = match self {
            Sqlite => return Vec::new(),
            Postgres => &["postgres"],
            Redis => &["redis"],
            RedisDurable => &["redis-durable"],
            Etcd => &["etcd"],
            EtcdCluster => &["etcd-cluster-1", "etcd-cluster-2", "etcd-cluster-3"],
            S3 => &["s3"],
            Azure => &["azure"],
            // The sidecar alone: it doesn't start while its database is down.
            Dapr => &["dapr"],
            // And not its etcd, without which the API server ends in order, for a minute.
            Kubernetes => &["kubernetes-1"],
        };
        let stores = PathBuf::from(self.line("TENURE_TEST_STORES"));
        names.iter().map(|name| stores.join(name)).collect()
    }

    /// A folder of this run's own.
    pub(crate) fn folder(self, purpose: &str, number: u64) -> PathBuf {
        let (name, process) = (self.name(), std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.join(format!("{purpose}-{name}-{process}-{number}"));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// A place of this run's own, without the proxies that each contender puts before it.
    pub(crate) fn url(self, folder: &Path) -> String {
        let own = format!("faults_{:012x}", crate::clock() >> 8);
        match self {
            Sqlite => format!("sqlite:{}", folder.join("leases.db").display()),
            Postgres => {
                let url = self.line("TENURE_TEST_POSTGRES");
                format!("{url}?sslmode=disable&schema={own}")
            }
            Redis => format!("{}?prefix={own}", self.line("TENURE_TEST_REDIS")),
            RedisDurable => format!("{}?prefix={own}", self.line("TENURE_TEST_REDIS_DURABLE")),
            Etcd => format!("{}/{own}", self.line("TENURE_TEST_ETCD")),
            EtcdCluster => format!("{}/{own}", self.line("TENURE_TEST_ETCD_CLUSTER")),
            S3 => below(&self.line("TENURE_TEST_S3"), &own),
            Azure => below(&self.line("TENURE_TEST_AZURE"), &own),
            Dapr => {
                let address = self.line("TENURE_TEST_DAPR");
                format!("dapr:postgres?address={address}&namespace={own}&poll_ms=200")
            }
            // The address stands in the kubeconfig: each way through a proxy has one of its own.
            Kubernetes => format!("{}&namespace={own}", self.line("TENURE_TEST_KUBERNETES")),
        }
    }

    /// Creates what the store needs.
    pub(crate) fn init(url: &str) {
        let mut chance = tenure::chance_of_system().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let admin = tenure::connect::admin(url, &mut chance).await.unwrap();
            admin.init(&InitOptions::default()).await.unwrap();
        });
    }

    /// Removes what a later run would find in the way.
    pub(crate) fn clear(self, url: &str) {
        let Some((_, schema)) = url.split_once("schema=") else { return };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = postgres(&self.line("TENURE_TEST_POSTGRES")).await;
            let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
            client.batch_execute(&drop).await.unwrap();
        });
    }

    /// Ends every connection that clients have at the server, as its operator may.
    pub(crate) fn end_connections(self, url: &str) {
        match self {
            Postgres => {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let ended = runtime.block_on(async {
                    let client = postgres(url.split('?').next().unwrap()).await;
                    let query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
                    client.query_one(query, &[]).await.unwrap().get::<_, i64>(0)
                });
                assert!(ended > 0, "no backend was there to be ended");
            }
            Redis | RedisDurable => {
                let address = crate::wire::addresses(url).remove(0);
                let question =
                    "CLIENT KILL TYPE normal SKIPME yes\r\nCLIENT KILL TYPE pubsub\r\nQUIT\r\n";
                let ended = crate::server::ask(&address, question).unwrap();
                assert!(ended.starts_with(':') && !ended.starts_with(":0"), "{ended}");
            }
            _ => panic!("{} has no such command", self.name()),
        }
    }

    /// The faults that a place can have; or one alone of them, if TENURE_SOAK_ONLY names it.
    pub(crate) fn kinds(self) -> Vec<Kind> {
        let only = std::env::var("TENURE_SOAK_ONLY").ok();
        let wanted = |kind: &Kind| only.as_ref().is_none_or(|only| *only == format!("{kind:?}"));
        let kinds: Vec<_> =
            Kind::ALL.into_iter().filter(|kind| kind.befalls(self) && wanted(kind)).collect();
        assert!(!kinds.is_empty(), "{} has no fault {only:?}", self.name());
        kinds
    }

    /// So many faults, each kind about as often, in an order drawn from `state`.
    pub(crate) fn schedule(self, count: usize, state: &mut u64) -> Vec<Kind> {
        let mut all = Vec::new();
        while all.len() < count {
            let mut kinds = self.kinds();
            while !kinds.is_empty() {
                all.push(kinds.swap_remove((draw(state) % kinds.len() as u64) as usize));
            }
        }
        all.truncate(count);
        all
    }

    fn line(self, variable: &str) -> String {
        std::env::var(variable).unwrap_or_else(|_| {
            let name = self.name();
            panic!("{variable} is not set; run `export $(cargo xtask stores up {name})` first")
        })
    }
}

/// A prefix of its own in a bucket, and a poll that suits a short ttl.
fn below(url: &str, own: &str) -> String {
    let (bucket, options) = url.split_once('?').unwrap();
    format!("{bucket}/{own}?{options}&poll_ms=200")
}

async fn postgres(url: &str) -> tenure::postgres::tokio_postgres::Client {
    use tenure::postgres::tokio_postgres::{NoTls, connect};
    let (client, connection) = connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
