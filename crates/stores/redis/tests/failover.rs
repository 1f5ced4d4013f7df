//! A replica becomes master, with all, some or none of what was acknowledged.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::{
    DURABLE, Server, acquire, chance, claim, granted, hold, open, release, renew, says, try_open,
    until,
};
use tenure_core::store::{Hold, Level, Renewed, Store};
use tenure_core::{Error, ErrorKind};
use tenure_redis::{RedisConfig, RedisStore};

use ErrorKind::{StoreReset, Unavailable};

/// Two servers, a sentinel that watches the first, and a session by way of it.
struct Group {
    master: Server,
    replica: Server,
    sentinel: Server,
}

impl Group {
    fn start() -> Self {
        let (master, replica) = (Server::start(&DURABLE), Server::start(&DURABLE));
        let path = std::env::temp_dir().join(format!("tenure-sentinel-{:x}", common::unique()));
        let watched = format!("sentinel monitor main 127.0.0.1 {} 1\n", master.port);
        std::fs::write(&path, watched).unwrap();
        let sentinel = Server::start_with(&path, &["--sentinel"]);
        let _ = std::fs::remove_file(path);
        Self { master, replica, sentinel }
    }

    fn open(&self) -> RedisStore {
        let url = format!("redis+sentinel://127.0.0.1:{}/main", self.sentinel.port);
        let store = try_open(RedisConfig::from_url(&url).unwrap()).unwrap();
        assert_eq!(store.profile().level, Level::BestEffort, "a failover can forget");
        store
    }

    /// The replica copies the master, until it is told otherwise.
    fn copy(&self) {
        self.replica.command(&["REPLICAOF", "127.0.0.1", &self.master.port.to_string()]);
        until(|| {
            let role = format!("{:?}", self.replica.command(&["ROLE"]));
            role.contains("\"connected\"").then_some(())
        });
    }

    /// What the master is told from here on never reaches the replica.
    fn cut_off(&self) {
        self.replica.command(&["REPLICAOF", "NO", "ONE"]);
    }

    fn fail_over(&mut self) {
        let port = self.replica.port.to_string();
        self.sentinel.command(&["SENTINEL", "REMOVE", "main"]);
        self.sentinel.command(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, "1"]);
        self.master.kill();
    }
}

/// The first answer to a renewal that isn't of a failover under way.
fn settled(store: &RedisStore, renewal: &Hold) -> Result<Renewed, Error> {
    let under_way = |error: &Error| error.kind() != StoreReset && error.kind().is_transient();
    until(|| match renew(store, renewal) {
        Ok(Renewed::Failed(error)) | Err(error) => (!under_way(&error)).then_some(Err(error)),
        other => Some(other),
    })
}

#[test]
fn one_to_an_empty_replica_is_noticed() {
    let mut group = Group::start();
    let store = group.open();
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    group.replica.command(&["FLUSHALL"]);
    group.fail_over();
    let renewal = hold(&one, &grant, &mut chance);
    assert_eq!(settled(&store, &renewal).unwrap_err().kind(), StoreReset);
    assert!(matches!(renew(&store, &renewal).unwrap(), Renewed::NotHeld(None)));
    let mut again = claim("job", &mut chance);
    again.above = Some(grant.token);
    assert!(granted(&store, &again).token > grant.token);
}

#[test]
fn one_to_a_replica_that_lags_gives_no_token_twice() {
    let mut group = Group::start();
    let store = group.open();
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let first = granted(&store, &one);
    release(&store, &one, &first, &mut chance).unwrap();
    group.copy();
    group.cut_off();
    // Acknowledged, and forgotten by what becomes master.
    let two = claim("job", &mut chance);
    let forgotten = granted(&store, &two);
    assert!(forgotten.token > first.token);
    group.fail_over();
    let renewal = hold(&two, &forgotten, &mut chance);
    let error = settled(&store, &renewal).unwrap_err();
    assert_eq!(error.kind(), StoreReset, "its tokens went back: {error}");
    let lost = renew(&store, &renewal).unwrap();
    assert!(matches!(lost, Renewed::NotHeld(_)), "what is lost stays lost: {lost:?}");
    // As the session has its contenders claim after a reset: above all that it has seen.
    let mut again = claim("job", &mut chance);
    again.above = Some(forgotten.token);
    assert!(granted(&store, &again).token > forgotten.token);
}

#[test]
fn a_replica_is_refused() {
    let (master, replica) = (Server::start(&DURABLE), Server::start(&DURABLE));
    let store = open(&replica);
    replica.command(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    says(try_open(replica.config()).map(drop), Unavailable, &["is a replica", "name the master"]);
    // One that was master when it was connected to: its writes fail, certainly undone.
    let mut chance = chance();
    let answer = until(|| match acquire(&store, &claim("job", &mut chance)) {
        Err(error) if error.kind() == StoreReset => None,
        other => Some(other),
    });
    says(answer, Unavailable, &["is a replica"]);
}
