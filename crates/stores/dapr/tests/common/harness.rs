//! The harness of every component: a prefix of its own, and time that is turned.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenure_conformance::drive::Work;
use tenure_conformance::harness::{Capability, ConnectionFault, Harness};
use tenure_conformance::proxy::{Fault, FaultProxy, Then};
use tenure_core::clock::Instant;
use tenure_core::identity::{Name, Namespace};
use tenure_core::record_store::RecordStore;
use tenure_core::store::{Store, StoreAdmin};
use tenure_dapr::{DaprAdmin, DaprConfig, DaprLeases};

use super::{address, ask, chance, config_of, run, try_open};

/// A fresh store below a prefix of its own.
pub struct Component {
    name: &'static str,
    config: DaprConfig,
    turned: AtomicU64,
    begun: std::time::Instant,
    /// Every namespace that was opened: the sidecar can't be asked which keys there are.
    opened: Mutex<Vec<Namespace>>,
    backup: Mutex<BTreeMap<String, String>>,
}

impl Component {
    pub fn at(name: &'static str, component: &str) -> Self {
        Self {
            name,
            config: config_of(component),
            turned: AtomicU64::new(0),
            begun: std::time::Instant::now(),
            opened: Mutex::default(),
            backup: Mutex::default(),
        }
    }

    fn config(&self, namespace: &Namespace) -> DaprConfig {
        self.opened.lock().unwrap().push(namespace.clone());
        let mut config = self.config.clone();
        config.namespace = namespace.clone();
        config
    }

    fn path(&self) -> String {
        format!("/v1.0/state/{}", self.config.component)
    }

    /// The text that is kept under a key.
    fn get(&self, key: &str) -> Option<String> {
        let (status, body) = ask("GET", &format!("{}/{key}", self.path()), "");
        match status {
            200 => Some(serde_json::from_str(&body).unwrap()),
            204 => None,
            status => panic!("{key}: {status} {body}"),
        }
    }

    fn put(&self, key: &str, text: &str) {
        // As the components see first writes, so that they still refuse others afterwards.
        let (_, etag) = self.etag(key);
        let etag = etag.map(|etag| format!(",\"etag\":{}", serde_json::to_string(&etag).unwrap()));
        let text = serde_json::to_string(text).unwrap();
        let body = format!(
            "[{{\"key\":\"{key}\",\"value\":{text}{},\
             \"options\":{{\"concurrency\":\"first-write\"}}}}]",
            etag.unwrap_or_default()
        );
        let (status, said) = ask("POST", &self.path(), &body);
        assert_eq!(status, 204, "{key}: {said}");
    }

    fn etag(&self, key: &str) -> (u16, Option<String>) {
        let body = format!("{{\"keys\":[\"{key}\"]}}");
        let (status, said) = ask("POST", &format!("{}/bulk", self.path()), &body);
        let items: serde_json::Value = serde_json::from_str(&said).unwrap();
        (status, items[0]["etag"].as_str().map(str::to_owned))
    }

    fn delete(&self, key: &str) {
        let (status, said) = ask("DELETE", &format!("{}/{key}", self.path()), "");
        assert_eq!(status, 204, "{key}: {said}");
    }

    /// All keys that there may be.
    fn all(&self) -> Vec<String> {
        let mut keys = vec![format!("{}.._40mark", self.config.prefix)];
        let mut namespaces = self.opened.lock().unwrap().clone();
        namespaces.sort();
        namespaces.dedup();
        for namespace in &namespaces {
            let mut config = self.config.clone();
            config.namespace = namespace.clone();
            keys.extend(run(DaprLeases::every_key(&config)).unwrap());
        }
        keys
    }

    fn key(&self, namespace: &Namespace, name: &Name) -> String {
        let mut config = self.config.clone();
        config.namespace = namespace.clone();
        config.key(name)
    }
}

impl Harness for Component {
    fn name(&self) -> &str {
        self.name
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        Arc::new(try_open(self.config(namespace)).unwrap())
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

    fn drive(&self, work: Work<'_>) {
        run(work);
    }

    fn thrift(&self) -> usize {
        50
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        match capability {
            Capability::Batches => {
                Some("each renewal is a write and a read through the sidecar: 10 000 take minutes")
            }
            Capability::StoreClock => Some("Dapr tells no clock: contenders observe expiry"),
            Capability::Push => Some("state is polled"),
            Capability::FencedTx => Some("no effect is in one write with a lease"),
            Capability::ProvesDeath => Some("nothing in state proves a process dead"),
            Capability::Purge => {
                Some("records are never deleted: Redis would take old etags again")
            }
            Capability::Endpoints => {
                Some("each replica has a sidecar of its own, with one endpoint")
            }
            Capability::Restart => Some("the sidecar keeps nothing"),
            Capability::Credentials => {
                Some("the token is the sidecar's, which is this process's own")
            }
            Capability::WatchFaults => Some("no connection carries hints"),
            _ => None,
        }
    }

    fn forget(&self) {
        for key in self.all() {
            self.delete(&key);
        }
    }

    fn back_up(&self) {
        let mut backup = self.backup.lock().unwrap();
        for key in self.all() {
            if let Some(text) = self.get(&key) {
                backup.insert(key, text);
            }
        }
    }

    fn restore_backup(&self) {
        self.forget();
        for (key, text) in &*self.backup.lock().unwrap() {
            self.put(key, text);
        }
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        self.delete(&self.key(namespace, name));
    }

    fn writes(&self) -> u64 {
        self.config.writes.load(Ordering::SeqCst)
    }

    fn raw_read(&self, namespace: &Namespace, name: &Name) -> Option<Vec<u8>> {
        self.get(&self.key(namespace, name)).map(String::into_bytes)
    }

    fn raw_write(&self, namespace: &Namespace, name: &Name, json: &[u8]) {
        self.put(&self.key(namespace, name), std::str::from_utf8(json).unwrap());
    }

    fn open_faulty(&self, fault: ConnectionFault, namespace: &Namespace) -> Arc<dyn Store> {
        let proxy = FaultProxy::start(address()).unwrap();
        let mut config = self.config(namespace);
        config.address = format!("http://{}", proxy.address());
        let store = Arc::new(try_open(config).unwrap());
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
        try_open(self.config(namespace)).unwrap().records()
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        let config = self.config(&Namespace::default());
        Arc::new(DaprAdmin::new(config, chance()).unwrap())
    }
}
