//! Contended rounds against the exact statements of HAMode and of LeaderElection.Redis.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::Duration;

use common::harness::{Home, Redis, Word};
use common::url_of;
use redis::{Connection, Value};
use tenure_conformance::contended::{Contenders, Neighbour, race};
use tenure_conformance::player::namespace;
use tenure_redis::redis;

/// MaksIT.HAMode 1.0.6, as its client sends it: no key is declared, all come as arguments.
const HAMODE_ACQUIRE: &str = "
local current = redis.call('GET', ARGV[1])
if (not current) or (current == ARGV[2]) then
  redis.call('PSETEX', ARGV[1], ARGV[3], ARGV[2])
  return 1
end
return 0";
const HAMODE_RELEASE: &str = "
local current = redis.call('GET', ARGV[1])
if current == ARGV[2] then
  redis.call('DEL', ARGV[1])
  return 1
end
return 0";

/// LeaderElection.Redis 2.0.1.
const ELECTION_RENEW: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  return 0
end";
const ELECTION_RELEASE: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
else
  return 0
end";

/// The name that is raced for.
const NAME: &str = "contended";

/// One process of either system.
struct Process<'h> {
    word: Word,
    harness: &'h Redis,
    connection: Connection,
}

impl Process<'_> {
    fn key(&self, name: &str) -> String {
        self.harness.entry(&namespace(), name)
    }

    fn script(&mut self, text: &str, keys: &str, arguments: &[&str]) -> bool {
        let mut command = redis::cmd("EVAL");
        command.arg(text).arg(keys).arg(arguments);
        match command.query(&mut self.connection).unwrap() {
            Value::Int(done) => done == 1,
            other => panic!("{other:?}"),
        }
    }
}

impl Neighbour for Process<'_> {
    fn acquire(&mut self, name: &str, holder: &str, ttl: Duration) -> bool {
        let (key, ttl) = (self.key(name), ttl.as_millis().to_string());
        if let Word::Hamode = self.word {
            return self.script(HAMODE_ACQUIRE, "0", &[&key, holder, &ttl]);
        }
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(holder).arg("NX").arg("PX").arg(&ttl);
        let set = command.query::<Value>(&mut self.connection).unwrap();
        set == Value::Okay || self.script(ELECTION_RENEW, "1", &[&key, holder, &ttl])
    }

    fn release(&mut self, name: &str, holder: &str) {
        let key = self.key(name);
        match self.word {
            Word::Hamode => self.script(HAMODE_RELEASE, "0", &[&key, holder]),
            Word::LeaderElection(_) => self.script(ELECTION_RELEASE, "1", &[&key, holder]),
        };
    }

    fn holder(&mut self, name: &str) -> Option<String> {
        redis::cmd("GET").arg(self.key(name)).query(&mut self.connection).unwrap()
    }
}

fn races(word: Word) {
    let url = url_of("TENURE_TEST_REDIS");
    let harness = Redis::shared("redis (contended)", Home::Shared(url.clone()), word);
    let connect = || {
        let connection = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
        Process { word, harness: &harness, connection }
    };
    println!("{:?}", race(&harness, connect, Contenders::from_env()));
}

#[test]
fn contended_rounds_with_hamode_have_one_holder() {
    races(Word::Hamode);
}

#[test]
fn contended_rounds_with_leader_election_have_one_holder() {
    races(Word::LeaderElection(NAME));
}
