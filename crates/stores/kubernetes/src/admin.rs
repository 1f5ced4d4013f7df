//! The operator's side: the Role that `init` prints, and what `doctor` finds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use tenure_core::chance::Chance;
use tenure_core::identity::StoreId;
use tenure_core::neighbour::{LAYOUT, is_made_up};
use tenure_core::record_store::{RecordStore, store_key};
use tenure_core::store::{Answer, Finding, InitOptions, Prefix, Query, Store, StoreAdmin, Verdict};
use tenure_core::{Error, ErrorKind, Operation};

use crate::config::{KubernetesConfig, Place};
use crate::link::Reply;
use crate::store::KubernetesStore;

/// What tenure does to leases; `delete` isn't among it.
const VERBS: [&str; 5] = ["get", "list", "watch", "create", "patch"];
/// An answer that takes longer than this makes a short ttl hard to keep.
const ANSWER_MOST: Duration = Duration::from_millis(200);
/// How often the round trip is measured.
const ROUND_TRIPS: usize = 8;
/// A clock that is off by more than this is worth a word.
const OFFSET_MOST_SECONDS: u64 = 5;

/// The operator's side of a store that isn't opened yet: what must be there before it can be.
pub struct KubernetesAdmin {
    config: KubernetesConfig,
    seed: u64,
}

impl KubernetesAdmin {
    /// The operator's side of a store.
    #[must_use]
    pub fn new(config: KubernetesConfig, mut chance: Chance) -> Self {
        Self { config, seed: chance.next_u64() }
    }

    async fn opened(&self) -> Result<KubernetesStore, Error> {
        // The mark is given by `init`, and `diagnose` says which there is: neither is refused for it.
        let config = KubernetesConfig { cluster: None, ..self.config.clone() };
        KubernetesStore::open(config, Chance::seeded(self.seed)).await
    }

    /// Where the objects lie, as far as it is known without asking.
    fn kube_namespace(&self) -> Option<&str> {
        match &self.config.place {
            Place::Found(found) => found.kube_namespace.as_deref(),
            Place::Client { kube_namespace, .. } => Some(kube_namespace),
        }
    }
}

impl StoreAdmin for KubernetesAdmin {
    fn setup(&self) -> String {
        role(self.kube_namespace().unwrap_or("NAMESPACE"))
    }

    /// Opening writes the id; this adds the mark.
    fn init<'a>(&'a self, options: &'a InitOptions) -> Answer<'a, StoreId> {
        Box::pin(async move {
            if options.observed {
                return Err(Error::new(
                    ErrorKind::Misconfigured,
                    Operation::Init,
                    "on Kubernetes contenders observe expiry anyway; leave the clock out",
                ));
            }
            let store = self.opened().await?;
            let wanted = options.cluster.as_ref().or(self.config.cluster.as_ref());
            let given = async {
                if let Some(mark) = wanted {
                    tenure_core::cluster::check(mark)?;
                    store.bear(mark).await?;
                }
                store.id().await
            };
            let id = given.await.map_err(|error| store.located(error));
            store.close().await?;
            id
        })
    }

    fn diagnose(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async move {
            let store = self.opened().await?;
            let found = findings(&store).await.map_err(|error| store.located(error));
            store.close().await?;
            found
        })
    }
}

/// The Role that tenure needs, and a binding for a service account.
fn role(kube_namespace: &str) -> String {
    let verbs = VERBS.join(", ");
    format!(
        "# kubectl apply -f -
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: tenure
  namespace: {kube_namespace}
rules:
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [{verbs}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: tenure
  namespace: {kube_namespace}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: tenure
subjects:
- kind: ServiceAccount
  name: default # the account that the pods run under
  namespace: {kube_namespace}
# The store's id and its count of tokens are Leases as well, written when it is first opened and used.
"
    )
}

async fn findings(store: &KubernetesStore) -> Result<Vec<Finding>, Error> {
    let version = store.records.link.server_version().await?;
    let durability = format!(
        "Kubernetes {version} acknowledges what a majority of its etcd has on disk, and is read at a quorum; \
         restoring etcd's backup is noticed only where a token or the store's id went back"
    );
    Ok(vec![
        Finding::new("durability", Verdict::Good, durability),
        clock(store).await?,
        latency(store).await?,
        permissions(store).await?,
        neighbours(store).await?,
    ])
}

/// No decision compares clocks. But each write carries the writer's time, for people.
async fn clock(store: &KubernetesStore) -> Result<Finding, Error> {
    // The server says when it made an object; that it is to be tried alone keeps it from being made.
    let path = format!("{}?dryRun=All", store.records.link.path(None));
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let trial = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "tenure-x.trial" },
    });
    let link = &store.records.link;
    let made =
        link.ask::<Value>(Method::POST, &path, trial.to_string().into(), Operation::Diagnose);
    let at = match made.await? {
        Reply::Done(made) => made["metadata"]["creationTimestamp"].as_str().and_then(seconds),
        _ => None,
    };
    let Some(there) = at else {
        let detail = "the API server didn't say what time it is; no decision asks it";
        return Ok(Finding::new("clock", Verdict::Limited, detail));
    };
    let apart = there.abs_diff(here);
    let side = if there < here { "behind" } else { "ahead of" };
    let detail = format!("the API server's clock is {apart} s {side} this machine's");
    Ok(if apart > OFFSET_MOST_SECONDS {
        let cure =
            "no decision compares the two, but people will read `renewTime`: run NTP on both";
        Finding::new("clock", Verdict::Limited, format!("{detail}; {cure}"))
    } else {
        Finding::new("clock", Verdict::Good, detail)
    })
}

fn seconds(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_second()).ok()
}

async fn latency(store: &KubernetesStore) -> Result<Finding, Error> {
    let mut slowest = Duration::ZERO;
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        store.records.read(&[store_key()]).await?;
        slowest = slowest.max(begun.elapsed());
    }
    let detail = format!("the slowest of {ROUND_TRIPS} answers took {slowest:.1?}");
    Ok(if slowest > ANSWER_MOST {
        Finding::new("latency", Verdict::Limited, format!("{detail}: use a longer ttl"))
    } else {
        Finding::new("latency", Verdict::Good, detail)
    })
}

/// Asks the server what we may do, verb by verb, instead of trying it.
async fn permissions(store: &KubernetesStore) -> Result<Finding, Error> {
    let link = &store.records.link;
    let mut missing = Vec::new();
    for verb in VERBS {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": {
                "namespace": link.kube_namespace, "group": "coordination.k8s.io",
                "resource": "leases", "verb": verb,
            } },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let asked =
            link.ask::<Value>(Method::POST, path, review.to_string().into(), Operation::Diagnose);
        match asked.await? {
            Reply::Done(answer) if answer["status"]["allowed"] == true => {}
            _ => missing.push(verb),
        }
    }
    Ok(if missing.is_empty() {
        Finding::new("permissions", Verdict::Good, "this account may do what is needed")
    } else {
        let missing = missing.join(", ");
        let detail = format!(
            "this account lacks {missing} on leases; `tenure init --print` prints the Role"
        );
        Finding::new("permissions", Verdict::Bad, detail)
    })
}

/// Whether others than tenure hold what tenure has held: their work carries no token.
async fn neighbours(store: &KubernetesStore) -> Result<Finding, Error> {
    let query = Query::new(Prefix::all());
    let mut theirs = Vec::new();
    let mut after = None;
    loop {
        let page = store.leases.list(&query, after.as_ref()).await?;
        for snapshot in page.snapshots {
            if is_made_up(&snapshot.record) && snapshot.record.metadata.get(LAYOUT).is_some() {
                theirs.push(format!(
                    "`{}` by `{}`",
                    snapshot.record.name,
                    snapshot.record.holder.name()
                ));
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(if theirs.is_empty() {
        let detail = "tenure alone holds what it has ever held here";
        Finding::new("neighbours", Verdict::Good, detail)
    } else {
        let first = theirs.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let detail = format!(
            "{} held by other programs ({first}): their work carries no token, so no guard stops it",
            theirs.len()
        );
        Finding::new("neighbours", Verdict::Limited, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_names_the_namespace_and_every_verb_and_no_other() {
        let config = KubernetesConfig::from_url("kubernetes://prod").unwrap();
        let setup = KubernetesAdmin::new(config, Chance::seeded(1)).setup();
        assert_eq!(setup.matches("namespace: prod").count(), 3, "{setup}");
        assert!(setup.contains("verbs: [get, list, watch, create, patch]"), "{setup}");
    }
}
