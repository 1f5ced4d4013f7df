//! A Redis primary, a replica, and the sentinel that puts the one in the other's place.

use std::fs;
use std::process::Command;

use super::ask::ask;
use super::command::run;
use super::install::{Package, program};
use super::redis::{REDIS, process};
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct RedisSentinel;

/// What the sentinel calls the primary, and clients ask it for.
const PRIMARY: &str = "tenure";
/// After how long a silent primary counts as failed, in milliseconds.
const DOWN_AFTER: u32 = 1000;
/// How long the sentinel lets a failover take, and waits before the next, in milliseconds.
const FAILOVER_TIMEOUT: u32 = 3000;

/// A primary neither waits for more replicas before it sends its data, nor for theirs to be
/// complete before it ends: 5 and up to 10 s by default.
const AT_ONCE: [&str; 4] = ["--repl-diskless-sync-delay", "0", "--shutdown-timeout", "0"];

/// How often the sentinel asks for news of the others and gives its own, in milliseconds: 10 and
/// 2 s by default, and it acts on a primary that came back only after four of the latter.
const PERIODS: [&str; 5] = ["DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "200"];

impl Server for RedisSentinel {
    fn name(&self) -> &'static str {
        "redis-sentinel"
    }

    fn packages(&self) -> &'static [Package] {
        &[REDIS]
    }

    /// The sentinel's, then those of the first primary and of the first replica.
    fn ports(&self) -> usize {
        3
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let [sentinel, primary, replica] = [0, 1, 2].map(|index| site.port(self.name(), index));
        let port = primary.to_string();
        Ok(vec![
            process(site, &REDIS, "redis-sentinel-1", primary)?.with_args(AT_ONCE),
            process(site, &REDIS, "redis-sentinel-2", replica)?.with_args(AT_ONCE).with_args([
                "--replicaof",
                "127.0.0.1",
                &port,
            ]),
            sentinel_process(site, self.name(), sentinel, primary)?,
        ])
    }

    /// Whoever is primary by now: it has a replica that follows it, and the sentinel knows both.
    fn answers(&self, site: &Site) -> Result<(), String> {
        let told = |index| ask(site.port(self.name(), index), "INFO replication\r\nQUIT\r\n");
        let nodes = [told(1)?, told(2)?];
        let says = |fact: &str| nodes.iter().filter(|node| node.contains(fact)).count() == 1;
        if !(says("role:master") && says("connected_slaves:1") && says("master_link_status:up")) {
            return Err(format!("not one primary with one replica:\n{}", nodes.join("\n")));
        }
        // A sentinel has no QUIT, so it isn't asked like the others.
        let port = site.port(self.name(), 0).to_string();
        let redis_cli = program("redis-cli")?;
        let sentinel = |words: &[&str]| {
            let mut asks = Command::new(&redis_cli);
            run(asks.args(["-h", "127.0.0.1", "-p", &port, "SENTINEL"]).args(words))
        };
        sentinel(&PERIODS)?;
        let knows = sentinel(&["MASTER", PRIMARY])?;
        if knows.contains("\nnum-slaves\n1\n") && knows.contains("\nflags\nmaster\n") {
            return Ok(());
        }
        Err(format!("the sentinel doesn't know a sound primary and its replica:\n{knows}"))
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        let address = site.address(self.name(), 0);
        vec![("TENURE_TEST_REDIS_SENTINEL", format!("redis+sentinel://{address}/{PRIMARY}"))]
    }
}

/// The sentinel. It keeps what it learns in its configuration, which is written once only.
fn sentinel_process(site: &Site, name: &str, port: u16, primary: u16) -> Result<Process, String> {
    let process = Process::new(site, name, REDIS.program(site.cache())?, port);
    site.make(&process.data)?;
    let settings = process.data.join("sentinel.conf");
    if !settings.exists() {
        let text = format!(
            "bind 127.0.0.1\n\
             port {port}\n\
             dir {}\n\
             sentinel monitor {PRIMARY} 127.0.0.1 {primary} 1\n\
             sentinel down-after-milliseconds {PRIMARY} {DOWN_AFTER}\n\
             sentinel failover-timeout {PRIMARY} {FAILOVER_TIMEOUT}\n",
            process.data.display(),
        );
        fs::write(&settings, text).map_err(|error| format!("{}: {error}", settings.display()))?;
    }
    Ok(process.with_args([settings.display().to_string(), "--sentinel".to_owned()]))
}
