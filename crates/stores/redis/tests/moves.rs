//! A cluster of a test's own, whose buckets move and whose nodes go away.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::{Duration, Instant};

use common::{Server, chance, claim, granted, hold, name, refused, release, renew, run, try_open};
use tenure_core::ErrorKind;
use tenure_core::store::{Acquired, Released, Renewed, Store};
use tenure_redis::redis::Value;
use tenure_redis::{RedisConfig, RedisStore};

/// How long the nodes may take to hear of each other.
const PATIENCE: Duration = Duration::from_secs(30);

const NODE: [&str; 6] = [
    "--cluster-enabled",
    "yes",
    "--cluster-require-full-coverage",
    "no",
    "--cluster-config-file",
    "nodes.conf",
];

fn text(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text,
        other => panic!("{other:?}"),
    }
}

/// Two nodes, each with half of the slots.
fn cluster() -> [Server; 2] {
    let nodes = [Server::start(&NODE), Server::start(&NODE)];
    nodes[0].command(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    nodes[1].command(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    nodes[1].command(&["CLUSTER", "SET-CONFIG-EPOCH", "7"]);
    nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[1].port.to_string()]);
    let begun = Instant::now();
    let knows = |node: &Server| {
        let info = text(node.command(&["CLUSTER", "INFO"]));
        info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384")
    };
    while !nodes.iter().all(knows) {
        assert!(begun.elapsed() < PATIENCE, "the nodes never met");
        std::thread::sleep(Duration::from_millis(20));
    }
    nodes
}

fn open(nodes: &[Server; 2]) -> RedisStore {
    let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}/", nodes[0].port, nodes[1].port);
    try_open(RedisConfig::from_url(&url).unwrap()).unwrap()
}

/// Moves all slots that have keys from one node to the other.
fn move_all(from: &Server, to: &Server) {
    let id = |node: &Server| text(node.command(&["CLUSTER", "MYID"]));
    let (source, target) = (id(from), id(to));
    for bucket in 0..16 {
        let slot = match from.command(&["CLUSTER", "KEYSLOT", &format!("{{{bucket:02}}}")]) {
            Value::Int(slot) => slot.to_string(),
            other => panic!("{other:?}"),
        };
        let Value::Array(keys) = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]) else {
            panic!("no keys");
        };
        if keys.is_empty() {
            continue;
        }
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]);
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]);
        let port = to.port.to_string();
        let keys: Vec<String> = keys.into_iter().map(text).collect();
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        from.command(&words);
        to.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]);
        from.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]);
    }
}

#[test]
fn a_bucket_that_moved_is_followed_and_nothing_is_lost() {
    let nodes = cluster();
    let (store, other) = (open(&nodes), open(&nodes));
    let mut chance = chance();
    let claims: Vec<_> = (0..100).map(|n| claim(&format!("job {n}"), &mut chance)).collect();
    let grants: Vec<_> = claims.iter().map(|claim| granted(&store, claim)).collect();
    move_all(&nodes[0], &nodes[1]);
    let holds: Vec<_> =
        claims.iter().zip(&grants).map(|(claim, grant)| hold(claim, grant, &mut chance)).collect();
    let renewed = run(store.renew(&holds)).unwrap();
    assert!(renewed.iter().all(|one| matches!(one, Renewed::Renewed(_))), "{renewed:?}");
    refused(&other, &claim("job 1", &mut chance));
    for (one, grant) in claims.iter().zip(&grants) {
        let released = release(&store, one, grant, &mut chance);
        assert!(matches!(released, Ok(Released::Released(_))), "{released:?}");
        assert!(granted(&other, &claim(one.name.as_str(), &mut chance)).token > grant.token);
    }
}

#[test]
fn what_lies_on_a_node_that_is_away_is_told_item_by_item() {
    let mut nodes = cluster();
    let store = open(&nodes);
    let mut chance = chance();
    let claims: Vec<_> = (0..100).map(|n| claim(&format!("job {n}"), &mut chance)).collect();
    assert!(
        run(store.acquire(&claims)).unwrap().iter().all(|one| matches!(one, Acquired::Granted(_)))
    );
    nodes[1].kill();
    std::thread::sleep(Duration::from_millis(200));
    // Each finds itself, where it can be asked.
    let again = run(store.acquire(&claims)).unwrap();
    let granted = again.iter().filter(|one| matches!(one, Acquired::Granted(_))).count();
    assert!((1..100).contains(&granted), "{granted} of 100 were granted again");
    for answer in &again {
        match answer {
            Acquired::Granted(_) => {}
            Acquired::Failed(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    // A read of all can't be answered in part.
    let names: Vec<_> = (0..100).map(|n| name(&format!("job {n}"))).collect();
    assert_eq!(run(store.read(&names)).unwrap_err().kind(), ErrorKind::Unavailable);
    // The single ones are told as they are: alone on a node that is away, nothing was done.
    let lost = again.iter().position(|one| matches!(one, Acquired::Failed(_))).unwrap();
    let alone = common::acquire(&store, &claims[lost]).unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::Unavailable, "{alone:?}");
    let there = again.iter().position(|one| matches!(one, Acquired::Granted(_))).unwrap();
    if let Acquired::Granted(grant) = &again[there] {
        let renewal = hold(&claims[there], grant, &mut chance);
        assert!(matches!(renew(&store, &renewal), Ok(Renewed::Renewed(_))));
    }
}
