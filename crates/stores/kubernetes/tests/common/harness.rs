//! The harness: a real API server, and a clock that is turned, since no server's clock decides anything.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use http::{Method, Request};
use kube::core::WatchEvent;
use serde_json::{Value, json};
use tenure_conformance::drive::Work;
use tenure_conformance::harness::{Capability, ConnectionFault, Harness};
use tenure_conformance::proxy::{Fault, FaultProxy, Then};
use tenure_core::clock::{Clock, Instant, ManualClock};
use tenure_core::identity::{Name, Namespace};
use tenure_core::record_store::{RecordStore, TOKENS_KEY};
use tenure_core::store::{Store, StoreAdmin};
use tenure_kubernetes::{KubernetesAdmin, KubernetesStore, kube};

use super::{Home, RUNTIME, address_of, chance, client, run, unique, until, url_of, variable};

/// The record of a lease, in its object.
const RECORD: &str = "tenure/record";
/// An object that is none of tenure's.
const MARKER: &str = "marker";

/// A fresh store on the API server.
pub struct Kubernetes {
    pub home: Home,
    clock: ManualClock,
    /// What sessions are reached through whose watches shall be cut.
    pub proxy: Option<FaultProxy>,
    seen: Arc<Mutex<Seen>>,
    backup: Mutex<Vec<Value>>,
}

/// What the namespace's watch has told.
#[derive(Default)]
struct Seen {
    begun: bool,
    writes: u64,
    /// The last state of the marker, by its own count.
    marked: u64,
}

impl Kubernetes {
    pub fn new(_behaviour: &'static str) -> Self {
        let home = Home::new();
        let seen = Arc::<Mutex<Seen>>::default();
        let clock = ManualClock::starting_at(Instant::from_nanos(1_000_000_000_000));
        if home.others.is_some() {
            return Self { home, clock, proxy: None, seen, backup: Mutex::default() };
        }
        RUNTIME.spawn(count_writes(home.leases(None), Arc::clone(&seen)));
        until(|| seen.lock().unwrap().begun.then_some(()));
        let proxy = Some(FaultProxy::start(address_of(&variable())).unwrap());
        Self { home, clock, proxy, seen, backup: Mutex::default() }
    }

    fn session(&self, url: &str, namespace: &Namespace) -> KubernetesStore {
        let config = self.home.config(url, namespace);
        run(KubernetesStore::open(config, chance())).unwrap()
    }

    fn address(&self) -> SocketAddr {
        address_of(&variable()).parse().unwrap()
    }
}

/// Counts what changes in a namespace, until its server goes away.
async fn count_writes(path: String, seen: Arc<Mutex<Seen>>) {
    let request = Request::get(format!("{path}?watch=true")).body(Vec::new()).unwrap();
    let client = client(&variable()).await;
    let events = client.request_events::<Value>(request).await.unwrap();
    let mut events = events.boxed();
    seen.lock().unwrap().begun = true;
    while let Ok(Some(event)) = events.try_next().await {
        let (WatchEvent::Added(object)
        | WatchEvent::Modified(object)
        | WatchEvent::Deleted(object)) = event
        else {
            continue;
        };
        let mut seen = seen.lock().unwrap();
        if object["metadata"]["name"] == MARKER {
            let count = object["metadata"]["labels"]["count"].as_str().unwrap_or_default();
            seen.marked = count.parse().unwrap_or(0);
        } else {
            seen.writes += 1;
        }
    }
}

impl Harness for Kubernetes {
    fn name(&self) -> &str {
        "kubernetes"
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        let proxy = self.proxy.as_ref().map(|proxy| proxy.address().to_string());
        Arc::new(self.session(&self.home.url(proxy.as_deref()), namespace))
    }

    fn now(&self) -> Instant {
        self.clock.now().elapsed
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// 10 000 renewals are as many requests, of which a busy machine carries out some 70 a second.
    fn ttl(&self) -> Duration {
        Duration::from_secs(900)
    }

    fn drive(&self, work: Work<'_>) {
        run(work);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        match capability {
            Capability::StoreClock => Some("no server's clock decides: contenders observe expiry"),
            Capability::FencedTx => Some("no effect beside a guard is in one transaction with it"),
            Capability::ProvesDeath => Some("nothing that ended proves a process dead"),
            Capability::Purge => Some("objects are never deleted: tokens would start again"),
            Capability::Restart => Some("the server is shared by all tests; `soak` kills it"),
            Capability::Forget
            | Capability::Restore
            | Capability::DeleteByHand
            | Capability::CountsWrites
            | Capability::RawRecords
            | Capability::Endpoints
            | Capability::ConnectionFaults
            | Capability::Credentials
            | Capability::WatchFaults
                if self.home.others.is_some() =>
            {
                Some("the cluster is a user's own: nothing is done to it but what tenure does")
            }
            _ => None,
        }
    }

    fn forget(&self) {
        self.home.forget();
    }

    fn back_up(&self) {
        *self.backup.lock().unwrap() = self.home.all();
    }

    fn restore_backup(&self) {
        self.home.forget();
        for kept in &*self.backup.lock().unwrap() {
            let metadata = &kept["metadata"];
            let object = json!({
                "metadata": {
                    "name": metadata["name"], "labels": metadata["labels"],
                    "annotations": metadata["annotations"],
                },
                "spec": kept["spec"],
            });
            self.home.ask(Method::POST, &self.home.leases(None), &object).unwrap();
        }
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        let object = self.home.object(namespace, name);
        let path = self.home.leases(Some(&object));
        // The count of tokens is the cluster's own, and no object.
        let counts = name.as_str() == TOKENS_KEY;
        assert!(self.home.ask(Method::DELETE, &path, &json!({})).is_ok() || counts);
    }

    /// What a watch has told, once it has told of a write of ours that came after all others.
    fn writes(&self) -> u64 {
        let count = unique();
        let labels =
            json!({ "metadata": { "name": MARKER, "labels": { "count": count.to_string() } } });
        let path = self.home.leases(Some(MARKER));
        if self.home.ask(Method::PATCH, &path, &labels).is_err() {
            self.home.ask(Method::POST, &self.home.leases(None), &labels).unwrap();
        }
        until(|| {
            let seen = self.seen.lock().unwrap();
            (seen.marked == count).then_some(seen.writes)
        })
    }

    fn raw_read(&self, namespace: &Namespace, name: &Name) -> Option<Vec<u8>> {
        let lease = self.home.lease(&self.home.object(namespace, name))?;
        Some(lease["metadata"]["annotations"][RECORD].as_str()?.as_bytes().to_vec())
    }

    fn raw_write(&self, namespace: &Namespace, name: &Name, json: &[u8]) {
        let record = std::str::from_utf8(json).unwrap();
        let annotations: HashMap<&str, &str> = HashMap::from([(RECORD, record)]);
        let patch = json!({ "metadata": { "annotations": annotations } });
        self.home.patch(&self.home.object(namespace, name), &patch);
    }

    fn open_at(&self, endpoint: usize, namespace: &Namespace) -> Arc<dyn Store> {
        let cluster =
            if endpoint == 0 { variable() } else { url_of("TENURE_TEST_KUBERNETES_SECOND") };
        Arc::new(self.session(&self.home.url_at(&cluster, None), namespace))
    }

    fn open_faulty(&self, fault: ConnectionFault, namespace: &Namespace) -> Arc<dyn Store> {
        let proxy = FaultProxy::start(self.address()).unwrap();
        let url = self.home.url(Some(&proxy.address().to_string()));
        let store = Arc::new(self.session(&url, namespace));
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

    fn rotate_credentials(&self) {
        self.home.replace_account();
    }

    fn cut_watches(&self) {
        self.proxy.as_ref().expect("the server is our own").set_for_existing(Fault::Reset);
    }

    fn open_records(&self, namespace: &Namespace) -> Arc<dyn RecordStore> {
        let config = self.home.config(&self.home.url(None), namespace);
        run(KubernetesStore::open_records(&config)).unwrap()
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        let config = self.home.config(&self.home.url(None), &Namespace::default());
        Arc::new(KubernetesAdmin::new(config, chance()))
    }
}

/// Behaviours of so many requests that they need the server to themselves.
pub const ALONE: [&str; 7] = [
    "one_winner_of_64",
    "one_winner_of_64_on_expired",
    "one_winner_across_endpoints",
    "unique_over_10k_grants_from_64",
    "renews_10k_within_a_third_of_ttl",
    "precondition_atomic_under_64",
    "list_pages_2500_by_prefix",
];
/// How many behaviours at once: each waits for the server more than it works.
pub const AT_ONCE: usize = 4;
