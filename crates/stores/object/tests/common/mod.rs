//! What the tests of this crate share: servers, sessions, and instances that claim.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod flawed;
pub mod harness;
pub mod unheeding;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::Timestamp;
use tenure_core::identity::{ClaimId, Incarnation, Instance, Name, Nonce};
use tenure_core::record::Metadata;
use tenure_core::store::{Acquired, Claim, Grant, Hold, Release, Released, Renewed, Store};
use tenure_core::{Error, ErrorKind};
use tenure_object::{ObjectConfig, ObjectLeases};
use tokio::runtime::Runtime;

/// How often opening is tried on a server that stands still.
const OPENINGS_MAX: usize = 5;

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

/// A configuration of a test's own on the server of this URL.
pub fn config_at(url: &str) -> ObjectConfig {
    let mut config = ObjectConfig::from_url(url).unwrap();
    config.prefix = format!("test/{:x}", unique());
    config
}

/// Where the endpoint of a URL listens.
pub fn address_of(url: &str) -> SocketAddr {
    let (_, rest) = url.split_once("endpoint=http://").expect("the URL names an endpoint");
    let host = rest.split(['/', '&']).next().unwrap_or_default();
    host.parse().unwrap()
}

/// The same configuration, with all that is sent going through an address in between.
pub fn through(config: &ObjectConfig, url: &str, address: SocketAddr) -> ObjectConfig {
    let url = url.replace(&address_of(url).to_string(), &address.to_string());
    let mut through = ObjectConfig::from_url(&url).unwrap();
    through.prefix = config.prefix.clone();
    through.namespace = config.namespace.clone();
    through.layout = config.layout.clone();
    through
}

pub fn try_open(config: ObjectConfig) -> Result<ObjectLeases, Error> {
    run(ObjectLeases::open(config, chance()))
}

/// The same on a server that is there, but may stand still for seconds, as Azurite does. Nothing
/// else is tried again: that an opening fails may be what catches a flaw.
pub fn open_patiently(config: &ObjectConfig) -> ObjectLeases {
    for _ in 1..OPENINGS_MAX {
        match try_open(config.clone()) {
            Err(error) if error.to_string().contains("no answer came") => {}
            opened => return opened.unwrap(),
        }
    }
    try_open(config.clone()).unwrap()
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
