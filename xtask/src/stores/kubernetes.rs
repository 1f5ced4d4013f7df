//! Kubernetes 1.35: two kube-apiservers over one etcd, and a replica that elects with client-go.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::certificates::Certificates;
use super::command::run;
use super::etcd::PACKAGE as ETCD;
use super::go::GoProgram;
use super::install::Package;
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct Kubernetes;

/// The API server, with nothing changed.
const API_SERVER: Package = Package::Go(GoProgram {
    name: "kube-apiserver",
    version: "1.35.4",
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
    set: &[
        "k8s.io/component-base/version.gitVersion=v1.35.4",
        "k8s.io/component-base/version.gitMajor=1",
        "k8s.io/component-base/version.gitMinor=35",
    ],
    files: &[
        ("tools.go", include_str!("../../go/kube-apiserver/tools.go")),
        ("go.mod", include_str!("../../go/kube-apiserver/go.mod")),
        ("go.sum", include_str!("../../go/kube-apiserver/go.sum")),
    ],
});

/// A program of client-go's election, for tests to compete with.
const PEER: Package = Package::Go(GoProgram {
    name: "client-go-peer",
    version: "0.35.4",
    package: ".",
    set: &[],
    files: &[
        ("main.go", include_str!("../../../crates/stores/kubernetes/tests/peer/main.go")),
        ("go.mod", include_str!("../../../crates/stores/kubernetes/tests/peer/go.mod")),
        ("go.sum", include_str!("../../../crates/stores/kubernetes/tests/peer/go.sum")),
    ],
});

/// The folders of the processes.
const STORE: &str = "kubernetes-etcd";
const SERVERS: [&str; 2] = ["kubernetes-1", "kubernetes-2"];
/// The administrator's token, and who that is.
const TOKEN: &str = "tenure-admin";
const TOKENS: &str = "tenure-admin,admin,1,system:masters\n";

impl Kubernetes {
    /// What tells a client of one of the servers all that it needs.
    fn kubeconfig(&self, site: &Site, index: usize) -> PathBuf {
        site.folder(SERVERS[index]).join("kubeconfig")
    }

    fn server(&self, site: &Site, index: usize) -> Result<Process, String> {
        let name = SERVERS[index];
        let folder = site.folder(name);
        site.make(&folder)?;
        let tokens = folder.join("tokens.csv");
        fs::write(&tokens, TOKENS).map_err(|error| format!("{}: {error}", tokens.display()))?;
        let address = site.address(self.name(), index);
        let tls = Certificates::of(site);
        let config = self.kubeconfig(site, index);
        fs::write(&config, kubeconfig(&address, &tls.authority.display().to_string()))
            .map_err(|error| format!("{}: {error}", config.display()))?;
        let shown = |path: &PathBuf| path.display().to_string();
        // One key of both: what one signs, the other takes.
        let key = site.folder(STORE).join("accounts.key");
        let port = site.port(self.name(), index);
        let process = Process::new(site, name, API_SERVER.program(site.cache())?, port);
        let etcd = site.address(self.name(), 2);
        Ok(process.with_args([
            format!("--etcd-servers=http://{etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", shown(&tls.certificate)),
            format!("--tls-private-key-file={}", shown(&tls.key)),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-signing-key-file={}", shown(&key)),
            format!("--service-account-key-file={}", shown(&key)),
            format!("--token-auth-file={}", shown(&tokens)),
            "--authorization-mode=RBAC".to_owned(),
            // Else the server drops what a coordinated election has written into a Lease.
            "--feature-gates=CoordinatedLeaderElection=true".to_owned(),
            "--runtime-config=coordination.k8s.io/v1beta1=true".to_owned(),
            // There are no pods, and no controllers that make accounts.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--shutdown-delay-duration=0s".to_owned(),
        ]))
    }
}

impl Server for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn packages(&self) -> &'static [Package] {
        &[ETCD, API_SERVER, PEER]
    }

    /// For the clients of each server; etcd's, and one for peers that it doesn't have.
    fn ports(&self) -> usize {
        4
    }

    fn is_built(&self) -> bool {
        true
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        site.make(&site.folder(STORE))?;
        let key = site.folder(STORE).join("accounts.key");
        if !key.exists() {
            run(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"))?;
        }
        let port = site.port(self.name(), 2);
        let etcd = Process::new(site, STORE, ETCD.program(site.cache())?, port);
        let client = format!("http://{}", site.address(self.name(), 2));
        let peer = format!("http://{}", site.address(self.name(), 3));
        let data = etcd.data.display().to_string();
        let etcd = etcd
            .with_args(["--name", STORE, "--data-dir", &data, "--log-level", "warn"])
            .with_args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .with_args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .with_args(["--initial-cluster", &format!("{STORE}={peer}")]);
        let mut processes = vec![etcd];
        for index in 0..SERVERS.len() {
            let mut server = self.server(site, index)?;
            // It ends its watches one by one.
            server.stops_slowly = true;
            processes.push(server);
        }
        Ok(processes)
    }

    fn answers(&self, site: &Site) -> Result<(), String> {
        for index in 0..SERVERS.len() {
            let mut ask = Command::new("curl");
            ask.args(["--silent", "--show-error", "--max-time", "2", "--cacert"]);
            ask.arg(Certificates::of(site).authority);
            ask.args(["--header", &format!("Authorization: Bearer {TOKEN}")]);
            let said =
                run(ask.arg(format!("https://{}/readyz", site.address(self.name(), index))))?;
            if said != "ok" {
                return Err(said);
            }
        }
        Ok(())
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        let url = |index| {
            format!("kubernetes://default?kubeconfig={}", self.kubeconfig(site, index).display())
        };
        let peer = PEER.program(site.cache()).unwrap_or_default().display().to_string();
        vec![
            ("TENURE_TEST_KUBERNETES", url(0)),
            ("TENURE_TEST_KUBERNETES_SECOND", url(1)),
            ("TENURE_TEST_KUBERNETES_PEER", peer),
        ]
    }
}

fn kubeconfig(address: &str, authority: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster: {{ server: \"https://{address}\", certificate-authority: \"{authority}\" }}
users:
- name: admin
  user: {{ token: {TOKEN} }}
contexts:
- name: test
  context: {{ cluster: test, user: admin, namespace: default }}
"
    )
}
