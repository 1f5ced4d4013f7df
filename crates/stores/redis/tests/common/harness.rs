//! The harness of every kind of server: a key space of its own, and a clock that is turned.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::Value;
use tenure_conformance::drive::Work;
use tenure_conformance::harness::{Capability, ConnectionFault, Harness};
use tenure_conformance::proxy::{Fault, FaultProxy, Then};
use tenure_core::Error;
use tenure_core::clock::Instant;
use tenure_core::identity::{Name, Namespace};
use tenure_core::store::{Store, StoreAdmin};
use tenure_redis::{Layout, RedisConfig, RedisStore, redis};

use super::{DURABLE, Server, name, run, try_open, unique};

/// Where the harness's store lives.
pub enum Home {
    /// A server that others use, too.
    Shared(String),
    /// A server of this harness's own.
    Own(Mutex<Server>),
    /// A cluster, by its URL.
    Cluster(String),
}

/// With whom names are shared.
#[derive(Clone, Copy)]
pub enum Word {
    Hamode,
    /// This one name.
    LeaderElection(&'static str),
}

/// A fresh store on a server.
pub struct Redis {
    name: &'static str,
    home: Home,
    prefix: String,
    layout: Option<Word>,
    offset: Arc<AtomicI64>,
    begun: std::time::Instant,
    backup: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Redis {
    pub fn at(name: &'static str, home: Home) -> Self {
        Self {
            name,
            home,
            prefix: format!("test-{:x}", unique()),
            layout: None,
            offset: Arc::default(),
            begun: std::time::Instant::now(),
            backup: Mutex::default(),
        }
    }

    /// With names shared with a neighbour, whose keys are this harness's own, too.
    pub fn shared(name: &'static str, home: Home, layout: Word) -> Self {
        Self { layout: Some(layout), ..Self::at(name, home) }
    }

    /// The neighbour's key of a name. It knows no namespaces, so each has keys of its own here.
    pub fn entry(&self, namespace: &Namespace, name: &str) -> String {
        format!("{}:neighbour:{}:{name}", self.prefix, escaped(namespace))
    }

    /// A server of its own, that keeps each write.
    pub fn own(name: &'static str) -> Self {
        Self::at(name, Home::Own(Mutex::new(Server::start(&DURABLE))))
    }

    pub fn url(&self) -> String {
        match &self.home {
            Home::Shared(url) | Home::Cluster(url) => url.clone(),
            Home::Own(server) => server.lock().unwrap().url(),
        }
    }

    fn config(&self, url: &str, namespace: &Namespace) -> RedisConfig {
        let mut config = RedisConfig::from_url(url).unwrap();
        config.namespace = namespace.clone();
        config.prefix = self.prefix.clone();
        config.layout = self.layout.map(|word| match word {
            Word::Hamode => Layout::Hamode { prefix: self.entry(namespace, "") },
            Word::LeaderElection(of) => {
                Layout::LeaderElection { name: name(of), key: self.entry(namespace, of) }
            }
        });
        config.clock_offset = Arc::clone(&self.offset);
        config
    }

    fn session(&self, namespace: &Namespace) -> RedisStore {
        // Opening is no behaviour: a machine that stands still for seconds may take a few tries.
        let open = || try_open(self.config(&self.url(), namespace));
        let patient = |_: Error| open().or_else(|_| open());
        open().or_else(patient).unwrap()
    }

    /// A connection behind the store's back to each server.
    fn by_hand(&self) -> Vec<redis::Connection> {
        let url = self.url();
        let hosts = match &self.home {
            Home::Cluster(_) => url
                .split_once("://")
                .map(|(_, hosts)| hosts.trim_end_matches('/').split(',').collect())
                .unwrap_or_default(),
            _ => vec![url.as_str()],
        };
        let open = |host: &str| {
            let url =
                if host.contains("://") { host.to_owned() } else { format!("redis://{host}") };
            redis::Client::open(url).unwrap().get_connection().unwrap()
        };
        hosts.into_iter().map(open).collect()
    }

    /// Every key of this harness's, with the connection that has it.
    fn keys(&self) -> Vec<(usize, Vec<u8>, redis::Connection)> {
        let pattern = format!("{}:*", self.prefix);
        let mut found = Vec::new();
        for (n, mut connection) in self.by_hand().into_iter().enumerate() {
            let mut command = redis::cmd("KEYS");
            let keys: Vec<Vec<u8>> = command.arg(&pattern).query(&mut connection).unwrap();
            for key in keys {
                found.push((n, key, self.by_hand().remove(n)));
            }
        }
        found
    }

    /// Does something to each key.
    fn each(&self, mut act: impl FnMut(&[u8], &mut redis::Connection)) {
        for mut connection in self.by_hand() {
            let pattern = format!("{}:*", self.prefix);
            let keys: Vec<Vec<u8>> =
                redis::cmd("KEYS").arg(&pattern).query(&mut connection).unwrap();
            for key in keys {
                act(&key, &mut connection);
            }
        }
    }

    /// The key of a lease, and a connection to where it is.
    fn lease(&self, namespace: &Namespace, name: &Name) -> Option<(Vec<u8>, redis::Connection)> {
        let end = format!("}}:lease:{}:{name}", escaped(namespace));
        let keys = self.keys();
        let found = keys.into_iter().find(|(_, key, _)| key.ends_with(end.as_bytes()));
        found.map(|(_, key, connection)| (key, connection))
    }

    fn address(&self) -> SocketAddr {
        let url = self.url();
        let host = url.split_once("://").map(|(_, host)| host).unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let host = host.split('/').next().unwrap_or_default();
        host.to_socket_addrs().unwrap().next().unwrap()
    }
}

/// A namespace as it stands in keys.
fn escaped(namespace: &Namespace) -> String {
    namespace.as_str().replace('%', "%25").replace(':', "%3A")
}

impl Harness for Redis {
    fn name(&self) -> &str {
        self.name
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        Arc::new(self.session(namespace))
    }

    fn now(&self) -> Instant {
        let turned = Duration::from_micros(self.offset.load(Ordering::SeqCst).unsigned_abs());
        let nanos = (self.begun.elapsed() + turned).as_nanos();
        Instant::from_nanos(1_000_000_000 + u64::try_from(nanos).unwrap())
    }

    fn advance(&self, by: Duration) {
        self.offset.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// Real time passes beside the one that is turned.
    fn slack(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn drive(&self, work: Work<'_>) {
        run(work);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        let owns = matches!(self.home, Home::Own(_));
        match capability {
            Capability::ObservedExpiry => Some("the server's clock decides"),
            Capability::FencedTx => Some("no effect beside a guard is in one transaction with it"),
            Capability::Records => Some("it decides in scripts, without preconditions"),
            Capability::ProvesDeath => Some("a connection that ended proves no process dead"),
            Capability::Purge => Some("tombstones end by themselves, a day after their grant"),
            Capability::Credentials => {
                Some("a URL's password is that of the session; open another with the new one")
            }
            Capability::Endpoints if !matches!(self.home, Home::Cluster(_)) => {
                Some("there is one server")
            }
            Capability::Restart if !owns => Some("the server is shared by all tests"),
            Capability::ConnectionFaults | Capability::WatchFaults
                if matches!(self.home, Home::Cluster(_)) =>
            {
                Some("tried on one server, whose connections are the same")
            }
            _ => None,
        }
    }

    fn forget(&self) {
        self.each(|key, connection| {
            redis::cmd("DEL").arg(key).query::<()>(connection).unwrap();
        });
    }

    fn back_up(&self) {
        let mut backup = self.backup.lock().unwrap();
        self.each(|key, connection| {
            let dump: Vec<u8> = redis::cmd("DUMP").arg(key).query(connection).unwrap();
            backup.insert(key.to_vec(), dump);
        });
    }

    fn restore_backup(&self) {
        self.forget();
        let backup = self.backup.lock().unwrap();
        for (key, dump) in &*backup {
            let restored = self.by_hand().iter_mut().any(|connection| {
                let mut command = redis::cmd("RESTORE");
                command.arg(key).arg(0).arg(dump).query::<()>(connection).is_ok()
            });
            assert!(restored, "a key wasn't restored");
        }
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        let (key, mut connection) = self.lease(namespace, name).unwrap();
        let mut command = redis::cmd("DEL");
        command.arg(key);
        if self.layout.is_some() {
            command.arg(self.entry(namespace, name.as_str()));
        }
        command.query::<()>(&mut connection).unwrap();
    }

    /// What every lease and every store counts of itself.
    fn writes(&self) -> u64 {
        let mut writes = 0;
        self.each(|key, connection| {
            for field in ["writes", "token"] {
                if field == "token" && !key.ends_with(b":store") {
                    continue;
                }
                let count = redis::cmd("HGET").arg(key).arg(field).query::<Option<u64>>(connection);
                writes += count.ok().flatten().unwrap_or(0);
            }
        });
        writes
    }

    fn restart(&self) {
        let Home::Own(server) = &self.home else { panic!("the server is shared") };
        server.lock().unwrap().restart();
    }

    fn raw_read(&self, namespace: &Namespace, name: &Name) -> Option<Vec<u8>> {
        let (key, mut connection) = self.lease(namespace, name)?;
        let mut command = redis::cmd("HMGET");
        let parts: [Option<String>; 4] = command
            .arg(key)
            .arg(&["format", "extra", "state", "writes"])
            .query(&mut connection)
            .unwrap();
        let [format, extra, state, writes] = parts;
        // What a test looks at, as it would stand in one JSON object.
        let mut record: serde_json::Value =
            serde_json::from_str(extra.as_deref().unwrap_or("{}")).unwrap();
        record["format"] = format?.parse().unwrap();
        record["state"] = state?.into();
        record["writes"] = writes?.into();
        Some(record.to_string().into_bytes())
    }

    fn raw_write(&self, namespace: &Namespace, name: &Name, json: &[u8]) {
        let (key, mut connection) = self.lease(namespace, name).unwrap();
        // As the release would write it that wrote such a record.
        let mut record: serde_json::Value = serde_json::from_slice(json).unwrap();
        let record = record.as_object_mut().unwrap();
        let [format, state, _] = ["format", "state", "writes"].map(|part| record.remove(part));
        let state = state.unwrap();
        let state = state.as_str().map_or_else(|| state["is"].to_string(), str::to_owned);
        let mut command = redis::cmd("HSET");
        command.arg(key).arg("format").arg(format.unwrap().to_string()).arg("state").arg(state);
        command.arg("extra").arg(serde_json::to_string(record).unwrap());
        command.query::<()>(&mut connection).unwrap();
    }

    fn open_at(&self, endpoint: usize, namespace: &Namespace) -> Arc<dyn Store> {
        // Each endpoint is named first, and the others after it.
        let url = self.url();
        let (scheme, hosts) = url.split_once("://").unwrap();
        let mut hosts: Vec<&str> = hosts.trim_end_matches('/').split(',').collect();
        let count = hosts.len();
        hosts.rotate_left(endpoint % count);
        let url = format!("{scheme}://{}/", hosts.join(","));
        Arc::new(try_open(self.config(&url, namespace)).unwrap())
    }

    fn open_faulty(&self, fault: ConnectionFault, namespace: &Namespace) -> Arc<dyn Store> {
        let proxy = FaultProxy::start(self.address()).unwrap();
        let url = format!("redis://{}", proxy.address());
        let store = Arc::new(try_open(self.config(&url, namespace)).unwrap());
        match fault {
            ConnectionFault::Refused => {
                // The connection that opening has left would still do.
                proxy.set(Fault::Reset);
                std::thread::sleep(Duration::from_secs(1));
                proxy.set(Fault::Refuse);
            }
            ConnectionFault::ResetBefore => proxy.set(Fault::Reset),
            ConnectionFault::ResetAfter => {
                proxy.set(Fault::DropAnswers { pass: 0, then: Then::Reset });
            }
            ConnectionFault::NoAnswer => proxy.set(Fault::drop_answers()),
        }
        proxy.for_one_request(store)
    }

    fn cut_watches(&self) {
        for mut connection in self.by_hand() {
            let mut command = redis::cmd("CLIENT");
            command.arg("KILL").arg("TYPE").arg("pubsub");
            command.query::<Value>(&mut connection).unwrap();
        }
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(self.session(&Namespace::default()))
    }
}
