//! A Redis Cluster of three masters.

use std::process::Command;

use super::ask::ask;
use super::command::run;
use super::install::{Package, program};
use super::redis::{REDIS, process};
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct RedisCluster;

const NODES: usize = 3;
/// After how long a silent node counts as failed, in milliseconds.
const NODE_TIMEOUT: &str = "2000";

impl Server for RedisCluster {
    fn name(&self) -> &'static str {
        "redis-cluster"
    }

    fn packages(&self) -> &'static [Package] {
        &[REDIS]
    }

    /// For clients, then for the nodes among themselves.
    fn ports(&self) -> usize {
        2 * NODES
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let node = |index: usize| {
            let name = format!("{}-{}", self.name(), index + 1);
            let bus = site.port(self.name(), NODES + index).to_string();
            let process = process(site, &REDIS, &name, site.port(self.name(), index))?;
            Ok(process
                .with_args(["--cluster-enabled", "yes", "--cluster-port", &bus])
                .with_args(["--cluster-node-timeout", NODE_TIMEOUT])
                .with_args(["--cluster-config-file", "nodes.conf"]))
        };
        (0..NODES).map(node).collect()
    }

    fn answers(&self, site: &Site) -> Result<(), String> {
        let states = (0..NODES).map(|index| state(site.port(self.name(), index)));
        let states: Vec<String> = states.collect::<Result<_, _>>()?;
        // Nodes that never met know no slots; those that did remember them in nodes.conf.
        if states.iter().all(|state| state.contains("cluster_slots_assigned:0\r")) {
            let nodes = (0..NODES).map(|index| site.address(self.name(), index));
            let mut create = Command::new(program("redis-cli")?);
            run(create.args(["--cluster-yes", "--cluster", "create"]).args(nodes))?;
            return Err("the cluster has just been made".to_owned());
        }
        if states.iter().all(|state| state.contains("cluster_state:ok")) {
            return Ok(());
        }
        Err(format!("not every node says cluster_state:ok:\n{}", states.join("\n")))
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        let nodes: Vec<String> = (0..NODES).map(|index| site.address(self.name(), index)).collect();
        vec![("TENURE_TEST_REDIS_CLUSTER", format!("redis+cluster://{}", nodes.join(",")))]
    }
}

fn state(port: u16) -> Result<String, String> {
    ask(port, "CLUSTER INFO\r\nQUIT\r\n")
}
