//! The operator's side: what `init` creates and what `doctor` finds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenure_core::chance::Chance;
use tenure_core::cluster;
use tenure_core::identity::StoreId;
use tenure_core::store::{Answer, Finding, InitOptions, StoreAdmin, Verdict};
use tenure_core::{Error, ErrorKind, Operation};
use tokio::sync::Mutex;

use crate::client::Client;
use crate::config::EtcdConfig;
use crate::errors::Effect;
use crate::keys::Keys;
use crate::layout::Layout;
use crate::leases::{TTL_LEAST, seconds};
use crate::link::{delete, put, range, ranged};
use crate::store::About;
use crate::wire::{
    Compare, LeaseGrantRequest, LeaseGrantResponse, LeaseRequest, LeaseRevokeResponse,
    RangeRequest, StatusRequest, StatusResponse, TxnRequest, TxnResponse, path,
};

/// How many commits `doctor` times.
const COMMITS: u32 = 8;
/// A commit that is slower than this makes a short ttl hard to keep.
const COMMIT_MOST: Duration = Duration::from_millis(100);

const DOCTOR: Operation = Operation::Diagnose;

/// The operator's side of a store that may not be one yet.
pub struct EtcdAdmin {
    client: Client,
    config: EtcdConfig,
    keys: Keys,
    location: Arc<str>,
    chance: Mutex<Chance>,
}

impl EtcdAdmin {
    /// Prepares to connect; nothing is sent yet.
    ///
    /// # Errors
    /// `Invalid` or `Misconfigured`: the configuration, the certificates that it names.
    pub fn new(config: EtcdConfig, chance: Chance) -> Result<Self, Error> {
        let client = Client::new(&config)?;
        let keys = Keys::new(&config.prefix, &config.namespace, config.layout.clone());
        let location = config.location().into();
        Ok(Self { client, config, keys, location, chance: Mutex::new(chance) })
    }

    async fn create(&self, options: &InitOptions) -> Result<StoreId, Error> {
        if options.observed {
            let message = "etcd itself ends what has expired, by the clock of whichever server \
                           leads; contenders can't observe it instead";
            return Err(Error::new(ErrorKind::Misconfigured, Operation::Init, message));
        }
        let mut chance = self.chance.lock().await;
        let (about, _) = About::find_or_make(&self.client, &self.keys, &mut chance).await?;
        if let Some(mark) = &options.cluster {
            cluster::check(mark)?;
            let key = self.keys.cluster();
            let question = TxnRequest {
                compare: vec![Compare::created(key.clone(), 0)],
                success: vec![put(key.clone(), mark.clone().into(), 0)],
                failure: vec![range(RangeRequest::one(key))],
            };
            let answer = self.txn(&question, Effect::Writes, Operation::Init).await?;
            let found = answer.responses.into_iter().find_map(ranged);
            let found = found.and_then(|range| range.kvs.into_iter().next());
            if found.is_some_and(|found| found.value != mark.as_bytes()) {
                return Err(cluster::taken(mark));
            }
        }
        Ok(about.belief.store)
    }

    async fn txn(
        &self,
        question: &TxnRequest,
        effect: Effect,
        operation: Operation,
    ) -> Result<TxnResponse, Error> {
        self.client.ask(path::TXN, question, effect, operation).await.map_err(Error::from)
    }

    async fn look(&self) -> Result<Vec<Finding>, Error> {
        let mut findings = vec![self.servers().await];
        let status: StatusResponse =
            self.client.ask(path::STATUS, &StatusRequest {}, Effect::Reads, DOCTOR).await?;
        findings.push(Finding::new("version", Verdict::Good, status.version.clone()));
        findings.push(alarms(&status));
        findings.push(self.durability().await?);
        findings.push(self.clock().await?);
        findings.extend(self.config.layout.as_ref().map(sharing));
        Ok(findings)
    }

    /// Whether each server that is named answers, and knows a leader.
    async fn servers(&self) -> Finding {
        let (mut down, mut clusters) = (Vec::new(), Vec::new());
        for (server, address) in self.config.endpoints.iter().enumerate() {
            let asked = self.client.ask_server(server, path::STATUS, &StatusRequest {}, DOCTOR);
            match asked.await {
                Ok::<StatusResponse, _>(status) if status.leader == 0 => {
                    down.push(format!("{address} knows no leader"));
                }
                Ok(status) => clusters.extend(status.header.map(|header| header.cluster_id)),
                Err(error) => down.push(format!("{address}: {error}")),
            }
        }
        clusters.dedup();
        let count = self.client.servers();
        if clusters.len() > 1 {
            let detail = "the servers that are named are of different clusters: two leaders";
            Finding::new("servers", Verdict::Bad, detail)
        } else if down.is_empty() {
            Finding::new("servers", Verdict::Good, format!("{count} named, and all answer"))
        } else {
            Finding::new("servers", Verdict::Limited, down.join("; "))
        }
    }

    async fn durability(&self) -> Result<Finding, Error> {
        let key = self.keys.doctor();
        let mut slowest = Duration::ZERO;
        for round in 0..COMMITS {
            let write = match round % 2 {
                0 => put(key.clone(), b"a commit that is timed".into(), 0),
                _ => delete(key.clone()),
            };
            let question = TxnRequest { success: vec![write], ..TxnRequest::default() };
            let begun = Instant::now();
            self.txn(&question, Effect::Writes, DOCTOR).await?;
            slowest = slowest.max(begun.elapsed());
        }
        let (verdict, advice) = if slowest > COMMIT_MOST {
            (Verdict::Limited, "; keep the ttl long")
        } else {
            (Verdict::Good, "")
        };
        let detail = format!(
            "the slowest of {COMMITS} commits took {slowest:?}{advice}; whether the servers run \
             with --unsafe-no-fsync can't be seen from here"
        );
        Ok(Finding::new("durability", verdict, detail))
    }

    /// Which lease is the shortest: by it the servers' election timeout is known.
    async fn clock(&self) -> Result<Finding, Error> {
        let question = LeaseGrantRequest { ttl: 1 };
        let lease: LeaseGrantResponse =
            self.client.ask(path::LEASE_GRANT, &question, Effect::Writes, DOCTOR).await?;
        let gone = LeaseRequest { id: lease.id };
        let revoked: Result<LeaseRevokeResponse, _> =
            self.client.ask(path::LEASE_REVOKE, &gone, Effect::Writes, DOCTOR).await;
        revoked?;
        let verdict = if lease.ttl > seconds(TTL_LEAST) { Verdict::Limited } else { Verdict::Good };
        let detail = format!(
            "leases end by the interval clock of whichever server leads, which nobody sets; the \
             shortest is {} s, and a new leader begins each anew",
            lease.ttl
        );
        Ok(Finding::new("clock", verdict, detail))
    }
}

impl StoreAdmin for EtcdAdmin {
    fn setup(&self) -> String {
        let prefix = &self.config.prefix;
        let shared = self.config.layout.as_ref().map(|layout| {
            let theirs = layout.prefix();
            format!("etcdctl role grant-permission tenure readwrite --prefix=true {theirs}\n")
        });
        let shared = shared.unwrap_or_default();
        format!(
            "# etcd needs no setting up: the first who opens writes `{prefix}@store`.\n\
             # Where it asks who one is:\n\
             etcdctl role add tenure\n\
             etcdctl role grant-permission tenure readwrite --prefix=true {prefix}\n\
             {shared}\
             etcdctl user add app\n\
             etcdctl user grant-role app tenure\n"
        )
    }

    fn init<'a>(&'a self, options: &'a InitOptions) -> Answer<'a, StoreId> {
        Box::pin(async move {
            let created = self.create(options).await;
            created.map_err(|error| {
                error.during(Operation::Init).with_store(Arc::clone(&self.location))
            })
        })
    }

    fn diagnose(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async move {
            self.look().await.map_err(|error| error.with_store(Arc::clone(&self.location)))
        })
    }
}

fn sharing(layout: &Layout) -> Finding {
    let detail = format!(
        "names are shared with {} at `{}`: its holders carry no token, so the level is `lease`; \
         leave the layout out once all of it has moved",
        layout.word(),
        layout.prefix()
    );
    Finding::new("layout", Verdict::Limited, detail)
}

fn alarms(status: &StatusResponse) -> Finding {
    let size = status.db_size / (1 << 20);
    if status.errors.is_empty() {
        return Finding::new("alarms", Verdict::Good, format!("none; its data are {size} MiB"));
    }
    Finding::new("alarms", Verdict::Bad, format!("{}; {size} MiB", status.errors.join("; ")))
}
