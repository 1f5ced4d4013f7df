//! The suite's harness on a real etcd: the server's clock can't be turned, so time is slept.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use tenure_conformance::executor::Work;
use tenure_conformance::harness::{
    Capability, ConnectionFault, GuardedBy, GuardedTransaction, Harness,
};
use tenure_conformance::player::{Player, name};
use tenure_conformance::proxy::{Fault, FaultProxy, Then};
use tenure_core::chance::Chance;
use tenure_core::clock::Instant;
use tenure_core::guard::GuardError;
use tenure_core::identity::{Name, Namespace};
use tenure_core::store::{
    Acquired, Answer, Claim, Hold, OrderRequest, Ordered, Page, Profile, Query, Release, Released,
    Renewed, Snapshot, Store, StoreAdmin,
};
use tenure_core::{Error, ErrorKind, Operation};
use tenure_etcd::{EtcdAdmin, EtcdConfig, EtcdStore, Layout};

use super::wire::PutRequest;
use super::{Hand, Server, block_on, config, draw, line, open, own_prefix};

/// Even, so that its half is a whole number of seconds: etcd tells no others.
const TTL: Duration = Duration::from_secs(8);
/// etcd tells what is left in whole seconds.
const SLACK: Duration = Duration::from_secs(1);
/// How long a client takes to notice that its connection was reset.
const NOTICED: Duration = Duration::from_millis(500);
/// How long a request is waited for that will have no answer.
const PATIENCE: Duration = Duration::from_millis(700);

/// How many behaviours run at once: they sleep more than they work.
pub(crate) const AT_ONCE: usize = 24;
/// Those that work, and would cost others the ttls that they have to keep.
pub(crate) const ALONE_ON_THE_MACHINE: [&str; 8] = [
    "one_winner_of_64",
    "one_winner_of_64_on_expired",
    "one_winner_across_endpoints",
    "unique_over_10k_grants_from_64",
    "renews_1000_in_one_beat",
    "loss_of_one_of_1000_is_told_for_that_one",
    "renews_10k_within_a_third_of_ttl",
    "list_pages_2500_by_prefix",
];

/// How far behaviours that repeat themselves are cut short where nobody asks for the whole: each
/// grant is a write that is synced.
const THRIFT: usize = 5;

/// Behaviours that need a server of their own: it is wiped or restarted, or all its writes are
/// counted.
const ALONE: [&str; 8] = [
    "increases_after_server_restart",
    "store_that_forgot_is_noticed",
    "store_restored_from_a_backup_is_noticed",
    "wakes_on_expiry_without_polling_storm",
    "no_herd",
    "observer_never_writes",
    "watch_resumes_after_reconnect_and_compaction",
    ROTATES,
];
const ROTATES: &str = "credentials_rotate_while_waiting";

pub(crate) struct Etcd {
    name: &'static str,
    /// Its servers, with the prefix that is this harness's own.
    urls: Vec<String>,
    hand: Hand,
    alone: Option<Server>,
    secret: Option<std::path::PathBuf>,
    /// What the keys of a neighbour begin with that names are shared with.
    shared: Option<String>,
}

impl Etcd {
    /// On the node of `etcd`, with all names shared with HAMode.
    pub(crate) fn shared(behaviour: &str) -> Self {
        let mut etcd = Self::single(behaviour);
        etcd.name = "etcd (hamode)";
        etcd.shared = Some(format!("shared-{:016x}/", draw()));
        etcd
    }

    /// The neighbour's key of a name. It knows no namespaces, so each has keys of its own here.
    pub(crate) fn entry(&self, namespace: &Namespace, name: &str) -> Option<String> {
        self.shared.as_ref().map(|shared| format!("{shared}{namespace}\t{name}"))
    }

    fn config(&self, url: &str, namespace: &Namespace) -> EtcdConfig {
        let mut config = config(url, namespace);
        config.layout = self.entry(namespace, "").map(|prefix| Layout::Hamode { prefix });
        config
    }

    /// On the node of `etcd`.
    pub(crate) fn single(behaviour: &str) -> Self {
        if !ALONE.contains(&behaviour) {
            return Self::on("etcd", &line("TENURE_TEST_ETCD"), None);
        }
        let server = Server::start();
        let url = server.url();
        let mut etcd = Self::on("etcd", &url, Some(server));
        if behaviour == ROTATES {
            etcd.ask_for_a_password();
        }
        etcd
    }

    /// On the three nodes of `etcd-cluster`.
    pub(crate) fn cluster(_: &str) -> Self {
        Self::on("etcd (three nodes)", &line("TENURE_TEST_ETCD_CLUSTER"), None)
    }

    fn on(name: &'static str, server: &str, alone: Option<Server>) -> Self {
        let (url, prefix) = own_prefix(server);
        let hand = Hand::on(server, &prefix);
        let nodes = server.trim_start_matches("etcd://").split(',');
        let mut urls: Vec<String> = nodes.map(|node| format!("etcd://{node}/{prefix}")).collect();
        urls[0] = url;
        Self { name, urls, hand, alone, secret: None, shared: None }
    }

    pub(crate) fn hand(&self) -> &Hand {
        &self.hand
    }

    pub(crate) fn url(&self) -> &str {
        &self.urls[0]
    }

    /// Discards what is kept of the history.
    pub(crate) fn compact(&self) {
        let revision = self.hand.revision().to_string();
        self.alone().must(&["compact", &revision]);
    }

    fn alone(&self) -> &Server {
        self.alone.as_ref().expect("the behaviour is one of `ALONE`")
    }

    fn ask_for_a_password(&mut self) {
        let server = self.alone();
        server.must(&["user", "add", "root", "--new-user-password=first"]);
        server.must(&["user", "grant-role", "root", "root"]);
        server.must(&["auth", "enable"]);
        let secret = std::env::temp_dir().join(format!("tenure-etcd-secret-{:016x}", draw()));
        std::fs::write(&secret, "first\n").unwrap();
        let url = self.urls[0].replace("etcd://", "etcd://root@");
        self.urls[0] = format!("{url}?password_file={}", secret.display());
        self.secret = Some(secret);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(secret) = &self.secret {
            let _ = std::fs::remove_file(secret);
        }
    }
}

impl Harness for Etcd {
    fn name(&self) -> &str {
        self.name
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        Arc::new(open(self.config(&self.urls[0], namespace)))
    }

    fn now(&self) -> Instant {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        let start = *START.get_or_init(std::time::Instant::now);
        Instant::from_nanos(u64::try_from(start.elapsed().as_nanos()).unwrap())
    }

    fn advance(&self, by: Duration) {
        std::thread::sleep(by);
    }

    fn thrift(&self) -> usize {
        if std::env::var_os("TENURE_TEST_WHOLE").is_none() { THRIFT } else { 1 }
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        let one = self.urls.len() == 1;
        match capability {
            Capability::ObservedExpiry => Some("etcd itself ends what has expired, by its clock"),
            Capability::Records => Some("it decides in a Txn, without a layer of records below"),
            Capability::ProvesDeath => Some("a server can't tell a dead process from a slow one"),
            Capability::Purge => Some("its tombstones end by themselves, by etcd leases"),
            Capability::RenewalWrites => {
                Some("a renewal prolongs an etcd lease and writes nothing")
            }
            Capability::FencedTx if self.shared.is_some() => {
                Some("a neighbour's work carries no token that a guard could compare")
            }
            Capability::Endpoints if one => Some("one node has one address; see the three nodes"),
            Capability::Restart
            | Capability::Forget
            | Capability::Restore
            | Capability::CountsWrites
            | Capability::Credentials
            | Capability::WatchFaults
            | Capability::ConnectionFaults
                if !one =>
            {
                Some("done to a node of its own; the cluster's faults are in tests/faults.rs")
            }
            _ => None,
        }
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    fn slack(&self) -> Duration {
        SLACK
    }

    fn drive(&self, work: Work<'_>) {
        block_on(work);
    }

    fn forget(&self) {
        self.alone().wipe();
    }

    fn back_up(&self) {
        self.alone().back_up();
    }

    fn restore_backup(&self) {
        self.alone().restore();
    }

    fn restart(&self) {
        self.alone().kill();
        self.alone().run();
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        for kind in ["asked", "held", "kept", "record", "reserved", "revoked"] {
            self.hand.delete(self.hand.key(namespace, name, kind));
        }
        if let Some(entry) = self.entry(namespace, name.as_str()) {
            self.hand.delete(entry.into_bytes());
        }
    }

    fn writes(&self) -> u64 {
        self.hand.revision().unsigned_abs()
    }

    fn raw_read(&self, namespace: &Namespace, name: &Name) -> Option<Vec<u8>> {
        let key = self.hand.get(self.hand.key(namespace, name, "record"))?;
        let mut json: serde_json::Value = serde_json::from_slice(&key.value).unwrap();
        // As a reader sees it: the token of a grant is the revision that wrote it.
        if let Some(above) = json.as_object_mut().unwrap().remove("token_above") {
            let token = above.as_u64().unwrap() + key.mod_revision.unsigned_abs();
            json["token"] = token.into();
            let last = json["transitions"].as_array_mut().unwrap().last_mut().unwrap();
            last["token"] = token.into();
        }
        Some(json.to_string().into_bytes())
    }

    fn raw_write(&self, namespace: &Namespace, name: &Name, json: &[u8]) {
        let key = self.hand.key(namespace, name, "record");
        let value = json.to_vec();
        self.hand.put(PutRequest { key, value, ignore_lease: true, ..PutRequest::default() });
    }

    fn open_at(&self, endpoint: usize, namespace: &Namespace) -> Arc<dyn Store> {
        let url = match endpoint {
            0 => self.urls[0].split_once(',').map_or(self.urls[0].clone(), |(first, rest)| {
                format!("{first}/{}", rest.split_once('/').unwrap().1)
            }),
            other => self.urls[other].clone(),
        };
        Arc::new(open(self.config(&url, namespace)))
    }

    fn open_faulty(&self, fault: ConnectionFault, namespace: &Namespace) -> Arc<dyn Store> {
        let address = self.urls[0].trim_start_matches("etcd://").split('/').next().unwrap();
        let address = address.to_socket_addrs().unwrap().next().unwrap();
        let proxy = FaultProxy::start(address).unwrap();
        let url = self.urls[0].replace(&address.to_string(), &proxy.address().to_string());
        let mut config = self.config(&url, namespace);
        config.timeout = PATIENCE;
        let store = Arc::new(open(config));
        // With its etcd leases already, so that the next claim is one Txn.
        let warm = Player::on(self, "warm", store.clone());
        let held = warm.acquire(&name(&format!("warms up {:x}", draw())));
        warm.release(&held);
        let unlucky = Unlucky { store, proxy, fault: std::sync::Mutex::new(Some(fault)) };
        Arc::new(unlucky)
    }

    fn rotate_credentials(&self) {
        let next = format!("next-{:x}", draw());
        let user = ["--user", "root:first"];
        let change = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!(
                "echo {next} | {} --endpoints {} {} user passwd root --interactive=false",
                super::program("etcdctl").display(),
                self.alone().url().trim_start_matches("etcd://"),
                user.join(" ")
            ))
            .output()
            .unwrap();
        assert!(change.status.success(), "{change:?}");
        std::fs::write(self.secret.as_ref().unwrap(), next).unwrap();
    }

    fn cut_watches(&self) {
        self.compact();
        self.restart();
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        let config = self.config(&self.urls[0], &Namespace::default());
        let _in = super::runtime().enter();
        Arc::new(EtcdAdmin::new(config, Chance::seeded(draw())).unwrap())
    }

    fn begin_guarded(
        &self,
        namespace: &Namespace,
        grant: &GuardedBy,
    ) -> Result<Box<dyn GuardedTransaction>, Error> {
        let store = open(self.config(&self.urls[0], namespace));
        let key = format!("{}guarded", self.urls[0].rsplit_once("/test-").unwrap().1);
        let (grant, value) = (grant.clone(), None);
        Ok(Box::new(Guarded { store, key, grant, value }))
    }

    fn read_guarded(&self) -> Option<String> {
        let key = format!("{}guarded", self.urls[0].rsplit_once("/test-").unwrap().1);
        self.hand.get(key.into_bytes()).map(|key| String::from_utf8(key.value).unwrap())
    }
}

/// A transaction of the user's own: etcd carries it out in one instant, so until then it is only
/// remembered.
struct Guarded {
    store: EtcdStore,
    key: String,
    grant: GuardedBy,
    value: Option<String>,
}

impl GuardedTransaction for Guarded {
    fn write(&mut self, value: &str) -> Result<(), Error> {
        self.value = Some(value.to_owned());
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), Error> {
        let guarded = self.store.guarded(&self.grant.name, self.grant.token);
        let guarded = guarded.put(self.key.as_str(), self.value.unwrap_or_default());
        match block_on(guarded.commit()) {
            Ok(_) => Ok(()),
            Err(GuardError::Failed(error)) => Err(error),
            Err(refused) => {
                Err(Error::new(ErrorKind::Unavailable, Operation::Guard, refused.to_string()))
            }
        }
    }
}

/// A session whose next claim, renewal or release meets a fault of its connection.
struct Unlucky {
    store: Arc<EtcdStore>,
    proxy: FaultProxy,
    fault: std::sync::Mutex<Option<ConnectionFault>>,
}

impl Unlucky {
    async fn through<T>(&self, answer: Answer<'_, T>) -> Result<T, Error> {
        let fault = self.fault.lock().unwrap().take();
        match fault {
            None => return answer.await,
            Some(ConnectionFault::Refused) => {
                self.proxy.set(Fault::Reset);
                tokio::time::sleep(NOTICED).await;
                self.proxy.set(Fault::Refuse);
            }
            Some(ConnectionFault::ResetBefore) => self.proxy.set(Fault::Reset),
            Some(ConnectionFault::ResetAfter) => {
                self.proxy.set(Fault::DropAnswers { pass: 0, then: Then::Reset });
            }
            Some(ConnectionFault::NoAnswer) => self.proxy.set(Fault::drop_answers()),
        }
        let outcome = answer.await;
        self.proxy.heal();
        tokio::time::sleep(NOTICED).await;
        outcome
    }
}

impl Store for Unlucky {
    fn profile(&self) -> &Profile {
        self.store.profile()
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        Box::pin(self.through(self.store.acquire(claims)))
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        Box::pin(self.through(self.store.renew(holds)))
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        Box::pin(self.through(self.store.release(releases)))
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        self.store.read(names)
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        self.store.list(query, after)
    }

    fn order<'a>(&'a self, name: &'a Name, order: &'a OrderRequest) -> Answer<'a, Ordered> {
        self.store.order(name, order)
    }
}
