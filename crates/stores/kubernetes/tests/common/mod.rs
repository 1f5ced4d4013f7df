//! What the tests of this crate share: a namespace of Kubernetes of their own, and hands that reach around tenure.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod harness;

use std::future::Future;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tenure_core::chance::Chance;
use tenure_core::identity::{Name, Namespace};
use tenure_core::store::StoreAdmin;
use tenure_kubernetes::{KubernetesAdmin, KubernetesConfig, KubernetesStore, kube};
use tokio::runtime::Runtime;

/// The runtime that all sessions of these tests live on.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

pub fn run<F: Future>(future: F) -> F::Output {
    RUNTIME.handle().block_on(future)
}

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// The cluster that a variable names, which `cargo xtask stores up kubernetes` prints.
pub fn url_of(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run `cargo xtask stores up kubernetes`, and set what it prints"
        )
    })
}

pub fn variable() -> String {
    url_of("TENURE_TEST_KUBERNETES")
}

/// A number that no other test of this or another process draws.
pub fn unique() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    (u64::from(std::process::id()) << 24) | DRAWN.fetch_add(1, Ordering::Relaxed)
}

pub fn chance() -> Chance {
    Chance::seeded(unique())
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A user's own cluster, by its whole URL: `cargo xtask conformance kubernetes --url URL` sets it.
const OTHERS_VARIABLE: &str = "TENURE_TEST_KUBERNETES_URL";

/// A user's own cluster, where tests may do no more than tenure's Role says.
pub fn others() -> Option<String> {
    std::env::var(OTHERS_VARIABLE).ok()
}

/// A namespace of Kubernetes of a test's own, with an account that may do what tenure's Role says.
pub struct Home {
    pub kube_namespace: String,
    /// Where the account's token and kubeconfig lie.
    pub folder: PathBuf,
    admin: Client,
    /// A user's own cluster, and what keeps this test's leases apart there.
    pub others: Option<(String, String)>,
}

impl Home {
    pub fn new() -> Self {
        if let Some(url) = others() {
            return Self::on_a_users_cluster(url);
        }
        let kube_namespace = format!("t-{:x}", unique());
        let folder = std::env::temp_dir().join(format!("tenure-{kube_namespace}"));
        std::fs::create_dir_all(&folder).unwrap();
        let admin = run(client(&variable()));
        let home = Self { kube_namespace, folder, admin, others: None };
        let named = json!({ "metadata": { "name": home.kube_namespace } });
        home.ask(Method::POST, "/api/v1/namespaces", &named).unwrap();
        home.make_account();
        home.permit();
        home.write_token();
        home.wait_for_permission();
        home
    }

    /// What is left there can be told by its namespace, and is removed with `kubectl`.
    fn on_a_users_cluster(url: String) -> Self {
        let own = format!("test-{:x}", unique());
        let folder = std::env::temp_dir().join(format!("tenure-{own}"));
        std::fs::create_dir_all(&folder).unwrap();
        let admin = run(client(&url));
        let given = url.trim_start_matches("kubernetes://").split('?').next().unwrap_or_default();
        let kube_namespace =
            if given.is_empty() { admin.default_namespace() } else { given }.to_owned();
        Self { kube_namespace, folder, admin, others: Some((url, own)) }
    }

    /// Gives the account what `tenure init --print` says, and nothing more.
    fn permit(&self) {
        let config =
            KubernetesConfig::from_url(&format!("kubernetes://{}", self.kube_namespace)).unwrap();
        let printed = KubernetesAdmin::new(config, chance()).setup();
        let verbs = printed.split_once("verbs: [").unwrap().1.split_once(']').unwrap().0;
        let verbs: Vec<&str> = verbs.split(", ").collect();
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}", self.kube_namespace);
        let role = json!({
            "metadata": { "name": "tenure" },
            "rules": [{
                "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs,
            }],
        });
        self.ask(Method::POST, &format!("{rbac}/roles"), &role).unwrap();
        let binding = json!({
            "metadata": { "name": "tenure" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenure" },
            "subjects": [{
                "kind": "ServiceAccount", "name": "default", "namespace": self.kube_namespace,
            }],
        });
        self.ask(Method::POST, &format!("{rbac}/rolebindings"), &binding).unwrap();
    }

    fn accounts(&self) -> String {
        format!("/api/v1/namespaces/{}/serviceaccounts", self.kube_namespace)
    }

    fn make_account(&self) {
        let account = json!({ "metadata": { "name": "default" } });
        self.ask(Method::POST, &self.accounts(), &account).unwrap();
    }

    pub fn write_token(&self) {
        let path = format!("{}/default/token", self.accounts());
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {},
        });
        let made = self.ask(Method::POST, &path, &asked).unwrap();
        let token = made["status"]["token"].as_str().unwrap();
        // Whole or not at all: sessions read it meanwhile.
        let part = self.folder.join("token.part");
        std::fs::write(&part, token).unwrap();
        std::fs::rename(part, self.folder.join("token")).unwrap();
    }

    /// Ends the account and its tokens, and makes another of its name.
    pub fn replace_account(&self) {
        self.ask(Method::DELETE, &format!("{}/default", self.accounts()), &json!({})).unwrap();
        self.make_account();
        self.write_token();
    }

    /// The server learns of a Role by a watch of its own.
    fn wait_for_permission(&self) {
        let config = KubernetesConfig::from_url(&self.url(None)).unwrap();
        let admin = KubernetesAdmin::new(config, chance());
        until(|| {
            let found = run(admin.diagnose()).ok()?;
            let permissions = found.iter().find(|finding| finding.check == "permissions")?;
            (permissions.verdict == tenure_core::store::Verdict::Good).then_some(())
        });
        // What looking has written is no part of a test.
        self.ask(Method::DELETE, &self.leases(None), &json!({})).unwrap();
    }

    /// The account's URL, at a server's own address or a proxy's.
    pub fn url(&self, address: Option<&str>) -> String {
        if let Some((url, _)) = &self.others {
            return url.clone();
        }
        self.url_at(&variable(), address)
    }

    /// The same at the cluster of another URL.
    pub fn url_at(&self, cluster: &str, address: Option<&str>) -> String {
        let (server, authority) = run(server_of(cluster));
        let server = address.map_or(server, |address| format!("https://{address}"));
        let token = self.folder.join("token");
        let text = format!(
            "apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster: {{ server: \"{server}\", certificate-authority: \"{authority}\" }}
users:
- name: account
  user: {{ tokenFile: \"{}\" }}
contexts:
- name: test
  context: {{ cluster: test, user: account, namespace: {} }}
",
            token.display(),
            self.kube_namespace
        );
        let file = self.folder.join(format!("kubeconfig-{:x}", unique()));
        std::fs::write(&file, text).unwrap();
        format!("kubernetes://?kubeconfig={}", file.display())
    }

    pub fn config(&self, url: &str, namespace: &Namespace) -> KubernetesConfig {
        let mut config = KubernetesConfig::from_url(url).unwrap();
        config.namespace = match &self.others {
            Some((_, own)) => Namespace::new(format!("{own}-{namespace}")).unwrap(),
            None => namespace.clone(),
        };
        config
    }

    pub fn open(&self, namespace: &Namespace) -> KubernetesStore {
        let config = self.config(&self.url(None), namespace);
        run(KubernetesStore::open(config, chance())).unwrap()
    }

    pub fn leases(&self, object: Option<&str>) -> String {
        let all = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.kube_namespace);
        object.map_or_else(|| all.clone(), |object| format!("{all}/{object}"))
    }

    /// The object of a lease.
    pub fn object(&self, namespace: &Namespace, name: &Name) -> String {
        self.config("kubernetes://", namespace).object(name)
    }

    /// A request of the administrator's.
    pub fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if method == Method::GET { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path);
        let request = request.header("content-type", kind).body(body).unwrap();
        run(self.admin.request(request))
    }

    pub fn lease(&self, object: &str) -> Option<Value> {
        self.ask(Method::GET, &self.leases(Some(object)), &json!({})).ok()
    }

    /// What client-go's replicas see.
    pub fn spec(&self, object: &str) -> Value {
        self.lease(object).unwrap()["spec"].clone()
    }

    pub fn patch(&self, object: &str, patch: &Value) -> Value {
        self.ask(Method::PATCH, &self.leases(Some(object)), patch).unwrap()
    }

    pub fn all(&self) -> Vec<Value> {
        let mut found = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!("{}?limit=500{next}", self.leases(None));
            let page = self.ask(Method::GET, &path, &json!({})).unwrap();
            found.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = format!("&continue={token}"),
                _ => return found,
            }
        }
    }

    pub fn forget(&self) {
        self.ask(Method::DELETE, &self.leases(None), &json!({})).unwrap();
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
        if self.others.is_some() {
            return;
        }
        // There is no controller that would empty a namespace, so only what is in it goes.
        if !std::thread::panicking() {
            let _ = self.ask(Method::DELETE, &self.leases(None), &json!({}));
        }
    }
}

fn kubeconfig_of(url: &str) -> PathBuf {
    PathBuf::from(url.split_once("kubeconfig=").expect("the URL names a kubeconfig").1)
}

async fn config_of(url: &str) -> Config {
    if !url.contains("kubeconfig=") {
        return Config::infer().await.unwrap();
    }
    let file = Kubeconfig::read_from(kubeconfig_of(url)).unwrap();
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()
}

pub async fn client(url: &str) -> Client {
    Client::try_from(config_of(url).await).unwrap()
}

/// The server's URL, and the file of its authority.
async fn server_of(url: &str) -> (String, String) {
    let file = Kubeconfig::read_from(kubeconfig_of(url)).unwrap();
    let cluster = file.clusters[0].cluster.clone().unwrap();
    let authority = cluster.certificate_authority.unwrap();
    (cluster.server.unwrap(), authority)
}

/// `HOST:PORT` of a server.
pub fn address_of(url: &str) -> String {
    let (server, _) = run(server_of(url));
    server.trim_start_matches("https://").trim_end_matches('/').to_owned()
}

/// Looks until there is something to see.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}
