//! LocalStack 4.5.0 for S3: of the servers that run here the one that is atomic and has AWS's codes.

use super::ask::ask;
use super::install::Package;
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct S3;

const PACKAGE: Package = Package::Python {
    name: "localstack-core",
    version: "4.5.0",
    all: include_str!("localstack.txt"),
};
/// The bucket that tests share, each below a prefix of its own.
const BUCKET: &str = "tenure-tests";

impl Server for S3 {
    fn name(&self) -> &'static str {
        "s3"
    }

    fn packages(&self) -> &'static [Package] {
        &[PACKAGE]
    }

    fn ports(&self) -> usize {
        1
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let port = site.port(self.name(), 0);
        let mut process = Process::new(site, self.name(), PACKAGE.program(site.cache())?, port);
        site.make(&process.data)?;
        process.env = vec![
            ("LOCALSTACK_VOLUME_DIR", process.data.display().to_string()),
            ("GATEWAY_LISTEN", site.address(self.name(), 0)),
            ("SERVICES", "s3".to_owned()),
            // Nothing is told to, or fetched from, anybody.
            ("DISABLE_EVENTS", "1".to_owned()),
            ("SKIP_SSL_CERT_DOWNLOAD", "1".to_owned()),
            ("DNS_ADDRESS", "0".to_owned()),
        ];
        // It keeps everything in memory.
        process.stops_slowly = true;
        Ok(vec![process.with_args(["-m", "localstack.runtime.main"])])
    }

    /// Whoever asks makes the bucket; it may be there already.
    fn answers(&self, site: &Site) -> Result<(), String> {
        let host = site.address(self.name(), 0);
        let question = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = ask(site.port(self.name(), 0), &question)?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        if ["200", "409"].contains(&status) {
            return Ok(());
        }
        Err(format!("{host} answers {:?}", answer.lines().next().unwrap_or_default()))
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        let address = site.address(self.name(), 0);
        let url = format!("s3://{BUCKET}?endpoint=http://{address}&region=us-east-1");
        vec![
            ("TENURE_TEST_S3", url),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ]
    }
}
