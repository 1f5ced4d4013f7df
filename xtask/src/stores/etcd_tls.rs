//! etcd 3.5.1 of one node that wants TLS and a password.

use std::process::Command;

use super::certificates::Certificates;
use super::command::run;
use super::etcd::PACKAGE;
use super::install::Package;
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct EtcdTls;

/// The only user, who may do everything, and its password.
const USER: &str = "root";
const PASSWORD: &str = "tenure";

impl EtcdTls {
    /// What `etcdctl` says, as the user or as nobody.
    fn control(&self, site: &Site, user: Option<&str>, words: &[&str]) -> Result<String, String> {
        let mut etcdctl = Command::new(PACKAGE.program(site.cache())?.with_file_name("etcdctl"));
        etcdctl.args(["--dial-timeout", "1s", "--command-timeout", "2s", "--endpoints"]);
        etcdctl.arg(format!("https://{}", site.address(self.name(), 0)));
        etcdctl.arg("--cacert").arg(Certificates::of(site).authority);
        if let Some(user) = user {
            etcdctl.args(["--user", user]);
        }
        run(etcdctl.args(words))
    }
}

impl Server for EtcdTls {
    fn name(&self) -> &'static str {
        "etcd-tls"
    }

    fn packages(&self) -> &'static [Package] {
        &[PACKAGE]
    }

    /// For clients, and one for peers that it doesn't have.
    fn ports(&self) -> usize {
        2
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let port = site.port(self.name(), 0);
        let process = Process::new(site, self.name(), PACKAGE.program(site.cache())?, port);
        site.make(&site.folder(self.name()))?;
        let tls = Certificates::of(site);
        let [certificate, key, data] =
            [&tls.certificate, &tls.key, &process.data].map(|path| path.display().to_string());
        let client = format!("https://{}", site.address(self.name(), 0));
        let peer = format!("http://{}", site.address(self.name(), 1));
        let all = format!("{}={peer}", self.name());
        Ok(vec![
            process
                .with_args(["--name", self.name(), "--data-dir", &data, "--log-level", "warn"])
                .with_args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .with_args(["--cert-file", &certificate, "--key-file", &key])
                .with_args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .with_args(["--initial-cluster", &all]),
        ])
    }

    /// It answers the user, and nobody else.
    fn answers(&self, site: &Site) -> Result<(), String> {
        let user = format!("{USER}:{PASSWORD}");
        match self.control(site, None, &["get", "anything"]) {
            Ok(_) => {}
            Err(refusal) if refusal.contains("user name is empty") => {
                return self.control(site, Some(&user), &["endpoint", "health"]).map(|_| ());
            }
            Err(reason) => return Err(reason),
        }
        // An interrupted run may have done the first of these; only the last counts.
        let _ = self.control(site, None, &["user", "add", &user]);
        let _ = self.control(site, None, &["user", "grant-role", USER, "root"]);
        self.control(site, None, &["auth", "enable"])?;
        Err("its password has just been set".to_owned())
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        let address = site.address(self.name(), 0);
        vec![("TENURE_TEST_ETCD_TLS", format!("etcds://{USER}:{PASSWORD}@{address}"))]
    }
}
