//! What the tests of this crate share: a sidecar, and sessions through it.
#![allow(unreachable_pub, reason = "each test uses a part of it")]

pub mod harness;

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tenure_core::Error;
use tenure_core::chance::Chance;
use tenure_dapr::{DaprConfig, DaprLeases};
use tokio::runtime::Runtime;

/// The runtime that all sessions of these tests live on.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

pub fn run<F: Future>(future: F) -> F::Output {
    RUNTIME.handle().block_on(future)
}

/// The server that a variable names, which `cargo xtask stores up` prints.
pub fn url_of(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask stores up`, and set what it prints")
    })
}

/// A number that no other test of this or another process draws.
pub fn unique() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let process = u64::from(std::process::id());
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (since.as_secs() << 34) | (process << 12) | DRAWN.fetch_add(1, Ordering::Relaxed)
}

/// Chance that differs between processes and calls, as the runtime's does.
pub fn chance() -> Chance {
    Chance::seeded(unique())
}

/// A configuration of a test's own on a component of the sidecar.
pub fn config_of(component: &str) -> DaprConfig {
    let address = url_of("TENURE_TEST_DAPR");
    let mut config = DaprConfig::from_url(&format!("dapr:{component}?address={address}")).unwrap();
    config.prefix = format!("test-{:x}", unique());
    config
}

/// Where the sidecar listens.
pub fn address() -> SocketAddr {
    url_of("TENURE_TEST_DAPR").trim_start_matches("http://").parse().unwrap()
}

/// Asks the sidecar behind the store's back: the status, and the body.
pub fn ask(method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address()).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: dapr\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, body.to_owned())
}

pub fn try_open(config: DaprConfig) -> Result<DaprLeases, Error> {
    run(DaprLeases::open(config, chance()))
}
