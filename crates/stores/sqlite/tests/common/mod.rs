//! What the tests of this crate share: places to test in, clocks, and instances that claim.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenure_conformance::drive::block_on;
use tenure_core::chance::Chance;
use tenure_core::clock::{Clock, Instant, ManualClock, Reading, Timestamp};
use tenure_core::identity::{ClaimId, FencingToken, Incarnation, Instance, Name, Nonce};
use tenure_core::record::Metadata;
use tenure_core::store::{Acquired, Claim, Grant, Hold, Release, Released, Renewed, Store};
use tenure_core::{Error, ErrorKind};
use tenure_sqlite::{SqliteConfig, SqliteStore};

/// A directory that is gone after the test.
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn new(name: &str) -> Self {
        Self::under(&std::env::temp_dir(), name)
    }

    pub fn under(directory: &Path, name: &str) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("tenure-{name}-{}-{made}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    pub fn db(&self) -> PathBuf {
        self.path.join("leases.db")
    }

    /// The directory of side files.
    pub fn side(&self) -> PathBuf {
        self.path.join("leases.db-tenure")
    }

    /// The side files of holders.
    pub fn holders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.side()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_string_lossy().contains("holder-")).collect()
    }

    pub fn config(&self) -> SqliteConfig {
        SqliteConfig::new(self.db())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// CLOCK_BOOTTIME, as the runtime passes it.
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Reading {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanos = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        Reading { elapsed: Instant::from_nanos(nanos), wall: Timestamp::default() }
    }
}

pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::starting_at(Instant::from_nanos(7_000_000_000)))
}

/// Chance that differs between processes and calls, as the runtime's does.
pub fn chance() -> Chance {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
    Chance::seeded((u64::from(std::process::id()) << 32) | drawn)
}

pub fn try_open(config: SqliteConfig, clock: Arc<dyn Clock>) -> Result<SqliteStore, Error> {
    block_on(SqliteStore::open(config, clock, chance()))
}

pub fn open(scratch: &Scratch, clock: Arc<dyn Clock>) -> SqliteStore {
    try_open(scratch.config(), clock).unwrap()
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
    let mut answers = block_on(store.acquire(std::slice::from_ref(claim)))?;
    assert_eq!(answers.len(), 1);
    Ok(answers.remove(0))
}

#[track_caller]
pub fn granted(store: &dyn Store, claim: &Claim) -> Grant {
    match acquire(store, claim) {
        Ok(Acquired::Granted(grant)) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

#[track_caller]
pub fn refused(store: &dyn Store, claim: &Claim) {
    let answer = acquire(store, claim);
    assert!(matches!(answer, Ok(Acquired::Refused(_))), "not refused: {answer:?}");
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
    Ok(block_on(store.renew(std::slice::from_ref(hold)))?.remove(0))
}

pub fn release(
    store: &dyn Store,
    claim: &Claim,
    grant: &Grant,
    chance: &mut Chance,
) -> Result<Released, Error> {
    let release = Release {
        name: claim.name.clone(),
        instance: claim.instance.clone(),
        claim: claim.id,
        token: grant.token,
        version: grant.version.clone(),
        nonce: Nonce::draw(chance),
        successor: None,
        why: "done".into(),
        at: Timestamp::default(),
    };
    Ok(block_on(store.release(&[release]))?.remove(0))
}

/// A failure of one line: of this kind, and saying all of this.
#[track_caller]
pub fn says<T>(outcome: Result<T, Error>, kind: ErrorKind, parts: &[&str]) {
    let Err(error) = outcome else { panic!("it succeeded, and should be {kind}: {parts:?}") };
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(!text.contains('\n') && !text.ends_with('.'), "{text:?}");
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    eprintln!("{kind}: {text}");
}

/// The number of a token, by which sets of them are compared.
pub fn number(token: FencingToken) -> u64 {
    token.get()
}
