//! What the tests of this crate share: servers, sessions, and instances that claim.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod harness;

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::Timestamp;
use tenure_core::identity::{ClaimId, Incarnation, Instance, Name, Nonce};
use tenure_core::record::Metadata;
use tenure_core::store::{Acquired, Claim, Grant, Hold, Release, Released, Renewed, Store};
use tenure_core::{Error, ErrorKind};
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

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A new claim by a new instance, for 30 s.
pub fn claim(of: &str, chance: &mut Chance) -> Claim {
    Claim {
        name: name(of),
        instance: Instance::new(name("test"), Incarnation::draw(chance)),
        id: ClaimId::draw(chance),
        nonce: Nonce::draw(chance),
        ttl: Duration::from_secs(30),
        min_hold: Duration::ZERO,
        metadata: Metadata::new(),
        bound_to: None,
        at: Timestamp::default(),
        unanswered_for: Duration::ZERO,
        watched: None,
        above: None,
        ends_with_process: true,
    }
}

pub fn acquire(store: &dyn Store, claim: &Claim) -> Result<Acquired, Error> {
    Ok(run(store.acquire(std::slice::from_ref(claim)))?.remove(0))
}

#[track_caller]
pub fn granted(store: &dyn Store, claim: &Claim) -> Grant {
    match acquire(store, claim) {
        Ok(Acquired::Granted(grant)) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

pub fn hold(claim: &Claim, grant: &Grant, chance: &mut Chance) -> Hold {
    Hold {
        name: claim.name.clone(),
        instance: claim.instance.clone(),
        claim: claim.id,
        token: grant.token,
        ttl: claim.ttl,
        not_before: Duration::ZERO,
        version: grant.version.clone(),
        nonce: Nonce::draw(chance),
        unconfirmed_for: Duration::ZERO,
    }
}

pub fn renew(store: &dyn Store, hold: &Hold) -> Result<Renewed, Error> {
    Ok(run(store.renew(std::slice::from_ref(hold)))?.remove(0))
}

pub fn release_of(claim: &Claim, grant: &Grant, chance: &mut Chance) -> Release {
    Release {
        name: claim.name.clone(),
        instance: claim.instance.clone(),
        claim: claim.id,
        token: grant.token,
        version: grant.version.clone(),
        nonce: Nonce::draw(chance),
        successor: None,
        why: "it is done".to_owned(),
        at: Timestamp::default(),
    }
}

pub fn release(store: &dyn Store, release: &Release) -> Result<Released, Error> {
    Ok(run(store.release(std::slice::from_ref(release)))?.remove(0))
}

/// Asserts that an outcome is a failure of this kind, and says these words.
#[track_caller]
pub fn says<T: std::fmt::Debug>(outcome: Result<T, Error>, kind: ErrorKind, words: &[&str]) {
    let error = outcome.expect_err("it should have failed");
    let said = error.to_string();
    assert_eq!(error.kind(), kind, "{error:?}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in: {said}");
    }
}
