//! A sidecar of Dapr 1.16, with a state store in Redis, one in PostgreSQL and one in SQLite.

use std::fs;

use super::ask::ask;
use super::go::GoProgram;
use super::install::Package;
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct Dapr;

const SIDECAR: Package = Package::Go(GoProgram {
    name: "daprd",
    version: "1.16.5",
    package: ".",
    set: &[],
    files: &[
        ("main.go", include_str!("../../go/daprd/main.go")),
        ("go.mod", include_str!("../../go/daprd/go.mod")),
        ("go.sum", include_str!("../../go/daprd/go.sum")),
    ],
});
/// The components, by the names that tests know.
const COMPONENTS: [&str; 3] = ["redis", "postgres", "sqlite"];

impl Server for Dapr {
    fn name(&self) -> &'static str {
        "dapr"
    }

    fn packages(&self) -> &'static [Package] {
        &[SIDECAR]
    }

    /// For HTTP, for gRPC, and for other sidecars.
    fn ports(&self) -> usize {
        3
    }

    fn needs(&self) -> &'static [&'static str] {
        &["redis", "postgres"]
    }

    fn is_built(&self) -> bool {
        true
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let port = |index| site.port(self.name(), index).to_string();
        let mut process = Process::new(
            site,
            self.name(),
            SIDECAR.program(site.cache())?,
            site.port(self.name(), 0),
        );
        site.make(&process.data)?;
        let components = site.folder(self.name()).join("components");
        site.make(&components)?;
        for name in COMPONENTS {
            let file = components.join(format!("{name}.yaml"));
            let (kind, version, key, value) = match name {
                "redis" => ("redis", "v1", "redisHost", site.address("redis", 0)),
                "postgres" => {
                    let url =
                        format!("postgres://postgres@{}/postgres", site.address("postgres", 0));
                    ("postgresql", "v2", "connectionString", url)
                }
                _ => {
                    let file = process.data.join("state.db").display().to_string();
                    ("sqlite", "v1", "connectionString", file)
                }
            };
            let text = format!(
                "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: {name} }}\n\
                 spec:\n  type: state.{kind}\n  version: {version}\n  \
                 metadata: [{{ name: {key}, value: \"{value}\" }}]\n"
            );
            fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        process.stops_slowly = true;
        Ok(vec![process.with_args([
            "--http-port".to_owned(),
            port(0),
            "--grpc-port".to_owned(),
            port(1),
            "--internal-port".to_owned(),
            port(2),
            "--resources".to_owned(),
            components.display().to_string(),
        ])])
    }

    fn answers(&self, site: &Site) -> Result<(), String> {
        let address = site.address(self.name(), 0);
        let question = format!("GET /v1.0/healthz/outbound HTTP/1.0\r\nHost: {address}\r\n\r\n");
        let answer = ask(site.port(self.name(), 0), &question)?;
        if answer.contains(" 204 ") {
            return Ok(());
        }
        Err(format!("{address} answers {:?}", answer.lines().next().unwrap_or_default()))
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        vec![("TENURE_TEST_DAPR", format!("http://{}", site.address(self.name(), 0)))]
    }
}
