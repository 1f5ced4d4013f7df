//! The harness of every object store: a prefix of its own, and time that is turned.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tenure_conformance::drive::Work;
use tenure_conformance::harness::{Capability, ConnectionFault, Harness};
use tenure_conformance::proxy::{Fault, FaultProxy, Then};
use tenure_core::clock::Instant;
use tenure_core::identity::{Name, Namespace};
use tenure_core::record_store::RecordStore;
use tenure_core::store::{Store, StoreAdmin};
use tenure_object::{Layout, ObjectAdmin, ObjectConfig, ObjectLeases, object_store};

use super::{address_of, chance, config_at, name, open_patiently, run, through};

/// By how much repetitions are cut on a server: each request takes it some milliseconds.
const THRIFT: usize = 50;

/// A fresh store below a prefix of its own.
pub struct Objects {
    name: &'static str,
    url: String,
    config: ObjectConfig,
    /// The one name that is shared with a neighbour.
    shared: Option<&'static str>,
    thrift: usize,
    turned: AtomicU64,
    begun: std::time::Instant,
    backup: Mutex<BTreeMap<Path, Vec<u8>>>,
}

impl Objects {
    pub fn at(name: &'static str, url: String) -> Self {
        let config = config_at(&url);
        Self { url, thrift: THRIFT, ..Self::of(name, config) }
    }

    /// On a configuration that may be of no server at all.
    pub fn of(name: &'static str, config: ObjectConfig) -> Self {
        Self {
            name,
            url: String::new(),
            config,
            shared: None,
            thrift: 1,
            turned: AtomicU64::new(0),
            begun: std::time::Instant::now(),
            backup: Mutex::default(),
        }
    }

    /// With one name shared with a neighbour.
    pub fn shared(self, of: &'static str) -> Self {
        Self { shared: Some(of), ..self }
    }

    /// With fewer repetitions.
    pub fn thrifty(self) -> Self {
        Self { thrift: THRIFT, ..self }
    }

    /// The neighbour's object. It knows no namespaces, so each has one of its own here.
    pub fn entry(&self, namespace: &Namespace) -> Path {
        Path::from(format!("{}-neighbour/{namespace}.json", self.config.prefix))
    }

    pub fn config(&self, namespace: &Namespace) -> ObjectConfig {
        let mut config = self.config.clone();
        config.namespace = namespace.clone();
        config.layout =
            self.shared.map(|of| Layout::leader_election(name(of), self.entry(namespace).as_ref()));
        config
    }

    /// A client behind the store's back.
    pub fn by_hand(&self) -> Arc<dyn ObjectStore> {
        ObjectLeases::client(&self.config).unwrap()
    }

    fn all(&self) -> Vec<Path> {
        let client = self.by_hand();
        let prefix = Path::from(self.config.prefix.as_str());
        let listed = run(client.list(Some(&prefix)).try_collect::<Vec<_>>()).unwrap();
        listed.into_iter().map(|meta| meta.location).collect()
    }

    fn get(&self, object: &Path) -> Option<Vec<u8>> {
        let client = self.by_hand();
        let got = run(async { client.get(object).await?.bytes().await });
        match got {
            Ok(bytes) => Some(bytes.to_vec()),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => panic!("{object}: {error}"),
        }
    }

    fn put(&self, object: &Path, bytes: &[u8]) {
        run(self.by_hand().put(object, bytes.to_vec().into())).unwrap();
    }

    fn object(&self, namespace: &Namespace, name: &Name) -> Path {
        self.config(namespace).object(name).unwrap()
    }
}

impl Harness for Objects {
    fn name(&self) -> &str {
        self.name
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        Arc::new(open_patiently(&self.config(namespace)))
    }

    fn now(&self) -> Instant {
        let turned = Duration::from_nanos(self.turned.load(Ordering::SeqCst));
        let nanos = (self.begun.elapsed() + turned).as_nanos();
        Instant::from_nanos(1_000_000_000 + u64::try_from(nanos).unwrap())
    }

    /// Contenders observe, by this clock alone: the store has none to wait for.
    fn advance(&self, by: Duration) {
        self.turned.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
    }

    /// Real time passes beside the one that is turned.
    fn slack(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn thrift(&self) -> usize {
        self.thrift
    }

    fn drive(&self, work: Work<'_>) {
        run(work);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        match capability {
            Capability::StoreClock => Some("objects have no clock: contenders observe expiry"),
            Capability::Push => Some("objects are polled"),
            Capability::FencedTx => Some("no effect is in one write with a lease"),
            Capability::ProvesDeath => Some("nothing in a bucket proves a process dead"),
            Capability::Purge => Some("objects are never deleted: that costs a name some bytes"),
            Capability::Endpoints => Some("there is one endpoint"),
            Capability::Restart => Some("the server of these tests keeps all in memory"),
            Capability::Credentials => {
                Some("they come from the environment, and the client reads its identity's anew")
            }
            Capability::Batches if self.thrift > 1 => {
                Some("each renewal is a write of its own: hold thousands of names elsewhere")
            }
            Capability::WatchFaults => Some("no connection carries hints"),
            Capability::ConnectionFaults if self.url.is_empty() => {
                Some("no connection lies between the objects and their sessions")
            }
            Capability::ConnectionFaults if !self.url.contains("endpoint=http:") => {
                Some("no proxy can stand before an endpoint that proves its name")
            }
            _ => None,
        }
    }

    fn forget(&self) {
        let client = self.by_hand();
        for object in self.all() {
            run(client.delete(&object)).unwrap();
        }
    }

    fn back_up(&self) {
        let mut backup = self.backup.lock().unwrap();
        for object in self.all() {
            let bytes = self.get(&object).unwrap();
            backup.insert(object, bytes);
        }
    }

    fn restore_backup(&self) {
        self.forget();
        for (object, bytes) in &*self.backup.lock().unwrap() {
            self.put(object, bytes);
        }
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        run(self.by_hand().delete(&self.object(namespace, name))).unwrap();
    }

    fn writes(&self) -> u64 {
        self.config.writes.load(Ordering::SeqCst)
    }

    fn raw_read(&self, namespace: &Namespace, name: &Name) -> Option<Vec<u8>> {
        self.get(&self.object(namespace, name))
    }

    fn raw_write(&self, namespace: &Namespace, name: &Name, json: &[u8]) {
        self.put(&self.object(namespace, name), json);
    }

    fn open_faulty(&self, fault: ConnectionFault, namespace: &Namespace) -> Arc<dyn Store> {
        let proxy = FaultProxy::start(address_of(&self.url)).unwrap();
        let config = through(&self.config(namespace), &self.url, proxy.address());
        let store = Arc::new(open_patiently(&config));
        match fault {
            ConnectionFault::Refused => {
                // The connections that opening has left would still do.
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

    fn open_records(&self, namespace: &Namespace) -> Arc<dyn RecordStore> {
        open_patiently(&self.config(namespace)).records()
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(ObjectAdmin::new(self.config(&Namespace::default()), chance()).unwrap())
    }
}
