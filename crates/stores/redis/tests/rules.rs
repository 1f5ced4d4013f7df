//! The scripts say what the core's rules say: the same requests to Redis and to the memory store,
//! which calls the rules themselves, come to the same.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::{chance, claim, command, name, run, try_open, unique, url_of};
use tenure_core::chance::Chance;
use tenure_core::clock::{Instant, ManualClock, Timestamp};
use tenure_core::identity::{FencingToken, Incarnation, Instance, Name, Nonce, Successor};
use tenure_core::memory::MemoryStore;
use tenure_core::record::{Demand, Order};
use tenure_core::store::{
    Acquired, Claim, Hold, OrderRequest, Ordered, Release, Released, Renewed, Reserved, Snapshot,
    Store, Version,
};
use tenure_redis::redis::Value;
use tenure_redis::{Layout, RedisConfig, RedisStore};

/// How many runs there are, each from a seed of its own, and how long each is: a run's requests
/// must not take so long that the server's clock gets far ahead of the other.
const SEEDS: u64 = 75;
const STEPS: usize = 100;
/// How far apart two ages may be: the time that a run's requests take.
const APART: Duration = Duration::from_millis(900);

/// Both stores, and one clock for both.
struct Pair {
    redis: RedisStore,
    memory: MemoryStore,
    clock: Arc<ManualClock>,
    offset: Arc<AtomicI64>,
    names: Vec<Name>,
    instances: Vec<Instance>,
    claims: Vec<Claim>,
    chance: Chance,
}

/// An outcome without what may differ.
#[derive(Debug, PartialEq)]
enum Outcome {
    Granted(FencingToken),
    Renewed,
    Asked(Order),
    Released,
    Ordered(Box<Snapshot>),
    Not(Option<Box<Snapshot>>),
    Failed(String),
}

#[test]
fn scripts_decide_as_the_core_does() {
    plays(|_| None);
}

#[test]
fn scripts_decide_as_the_core_does_where_names_are_shared() {
    plays(|prefix| Some(Layout::Hamode { prefix: format!("{prefix}:hamode:") }));
}

fn plays(layout: fn(&str) -> Option<Layout>) {
    let first = unique();
    for seed in first..first + SEEDS {
        println!("seed {seed}");
        let mut pair = Pair::new(seed, layout);
        for step in 0..STEPS {
            pair.step(step);
        }
    }
}

/// Names of one bucket: their tokens are counted together, as those of the memory store are.
fn of_one_bucket(url: &str) -> Vec<Name> {
    let mut config = RedisConfig::from_url(url).unwrap();
    config.prefix = format!("rules-{:x}", unique());
    let prefix = config.prefix.clone();
    let store = try_open(config).unwrap();
    let names: Vec<Name> = (0..120).map(|n| name(&format!("job {n}"))).collect();
    let mut chance = chance();
    let claims: Vec<Claim> = names.iter().map(|name| claim(name.as_str(), &mut chance)).collect();
    run(store.acquire(&claims)).unwrap();
    let is_first = |name: &Name| {
        let key = format!("{prefix}:{{00}}:lease:default:{name}");
        command(url, &["EXISTS", &key]) == Value::Int(1)
    };
    names.into_iter().filter(is_first).take(3).collect()
}

impl Pair {
    fn new(seed: u64, layout: fn(&str) -> Option<Layout>) -> Self {
        let url = url_of("TENURE_TEST_REDIS");
        let names = of_one_bucket(&url);
        assert_eq!(names.len(), 3);
        let mut chance = Chance::seeded(seed);
        let clock = Arc::new(ManualClock::starting_at(Instant::from_nanos(7_000_000_000)));
        let mut config = RedisConfig::from_url(&url).unwrap();
        config.prefix = format!("rules-{:x}", unique());
        config.layout = layout(&config.prefix);
        let offset = Arc::clone(&config.clock_offset);
        let instance =
            |text: &str, chance: &mut Chance| Instance::new(name(text), Incarnation::draw(chance));
        Self {
            redis: try_open(config).unwrap(),
            memory: MemoryStore::new(clock.clone(), &mut chance),
            clock,
            offset,
            names,
            instances: vec![
                instance("a b", &mut chance),
                instance("a b", &mut chance),
                instance("\u{e4} \"c\\", &mut chance),
            ],
            claims: Vec::new(),
            chance,
        }
    }

    fn any<T: Clone>(chance: &mut Chance, of: &[T]) -> T {
        of[chance.below(of.len() as u64) as usize].clone()
    }

    fn step(&mut self, step: usize) {
        let said = match self.chance.below(10) {
            0 | 1 => {
                let by = Self::any(&mut self.chance, &[1, 5, 13, 31, 61]);
                self.clock.advance(Duration::from_secs(by));
                self.offset.fetch_add(by as i64 * 1_000_000, Ordering::SeqCst);
                return;
            }
            2..=4 => self.claim(),
            5 | 6 => self.renew(),
            7 | 8 => self.release(),
            _ => self.order(),
        };
        let (what, redis, memory) = said;
        assert!(redis == memory, "step {step}, {what}\nredis: {redis:?}\ncore:  {memory:?}");
        for name in &self.names {
            let names = std::slice::from_ref(name);
            let redis = run(self.redis.read(names)).unwrap().remove(0);
            let memory = run(self.memory.read(names)).unwrap().remove(0);
            let (redis, memory) = (Outcome::not(redis), Outcome::not(memory));
            assert!(redis == memory, "step {step}, after {what}\n{redis:?}\n{memory:?}");
        }
    }

    fn claim(&mut self) -> (String, Outcome, Outcome) {
        let chance = &mut self.chance;
        let repeated = chance.one_in(3) && !self.claims.is_empty();
        let claim = if repeated {
            Self::any(chance, &self.claims)
        } else {
            let mut claim = claim(Self::any(chance, &self.names).as_str(), chance);
            claim.instance = Self::any(chance, &self.instances);
            claim.ttl = Duration::from_secs(Self::any(chance, &[20, 30, 60]));
            claim.min_hold = Duration::from_secs(Self::any(chance, &[0, 0, 47]));
            claim.above = FencingToken::new(Self::any(chance, &[0, 1, 500, 1 << 60]));
            claim.metadata = claim.metadata.with("k", "\"},{[\\\u{1f600}").unwrap();
            self.claims.push(claim.clone());
            claim
        };
        let asked = std::slice::from_ref(&claim);
        let redis = run(self.redis.acquire(asked)).unwrap().remove(0);
        let memory = run(self.memory.acquire(asked)).unwrap().remove(0);
        (format!("{claim:?}"), Outcome::acquired(redis), Outcome::acquired(memory))
    }

    /// A hold as it might be remembered: mostly that of the record, sometimes another's.
    fn hold(&mut self) -> Hold {
        let name = Self::any(&mut self.chance, &self.names);
        let there = run(self.memory.read(std::slice::from_ref(&name))).unwrap().remove(0);
        let made_up = claim(name.as_str(), &mut self.chance);
        let (mut instance, mut id, mut token) = (made_up.instance, made_up.id, FencingToken::FIRST);
        if let Some(there) = there {
            (instance, id, token) = (there.record.holder, there.record.claim, there.record.token);
        }
        match self.chance.below(12) {
            0 => instance = Self::any(&mut self.chance, &self.instances),
            1 => id = made_up.id,
            2 => token = token.next().unwrap(),
            _ => {}
        }
        Hold {
            name,
            instance,
            claim: id,
            token,
            ttl: Duration::from_secs(Self::any(&mut self.chance, &[20, 30, 60])),
            not_before: Duration::from_secs(Self::any(&mut self.chance, &[0, 0, 33])),
            version: Version::new("unused"),
            nonce: Nonce::draw(&mut self.chance),
            unconfirmed_for: Duration::from_secs(Self::any(&mut self.chance, &[0, 0, 3, 25, 60])),
        }
    }

    fn renew(&mut self) -> (String, Outcome, Outcome) {
        let hold = self.hold();
        let asked = std::slice::from_ref(&hold);
        let redis = run(self.redis.renew(asked)).unwrap().remove(0);
        let memory = run(self.memory.renew(asked)).unwrap().remove(0);
        (format!("{hold:?}"), Outcome::renewed(redis), Outcome::renewed(memory))
    }

    fn release(&mut self) -> (String, Outcome, Outcome) {
        let hold = self.hold();
        let instance = Self::any(&mut self.chance, &self.instances);
        let successor = match self.chance.below(4) {
            0 => Some(Successor::from(instance)),
            1 => Some(Successor { name: instance.name().clone(), incarnation: None }),
            _ => None,
        };
        let release = Release {
            name: hold.name,
            instance: hold.instance,
            claim: hold.claim,
            token: hold.token,
            version: hold.version,
            nonce: hold.nonce,
            successor: successor
                .map(|successor| Reserved { successor, lasts: Duration::from_secs(10) }),
            why: "\"it\" is\ndone \\".to_owned(),
            at: Timestamp::from_millis(1_767_225_600_000),
        };
        let asked = std::slice::from_ref(&release);
        let redis = run(self.redis.release(asked)).unwrap().remove(0);
        let memory = run(self.memory.release(asked)).unwrap().remove(0);
        (format!("{release:?}"), Outcome::released(redis), Outcome::released(memory))
    }

    fn order(&mut self) -> (String, Outcome, Outcome) {
        let name = Self::any(&mut self.chance, &self.names);
        let to = Some(Successor::from(Self::any(&mut self.chance, &self.instances)));
        let demands =
            [Demand::Resign { to }, Demand::Resign { to: None }, Demand::Revoke, Demand::RevokeNow];
        let demand = Self::any(&mut self.chance, &demands);
        let order = Order::new(demand, "ann", "because", Timestamp::from_millis(1));
        let token = FencingToken::new(Self::any(&mut self.chance, &[0, 0, 0, 7]));
        let request = OrderRequest { order, token, nonce: Nonce::draw(&mut self.chance) };
        let redis = run(self.redis.order(&name, &request)).unwrap();
        let memory = run(self.memory.order(&name, &request)).unwrap();
        (format!("{request:?}"), Outcome::ordered(redis), Outcome::ordered(memory))
    }
}

impl Outcome {
    fn acquired(answer: Acquired) -> Self {
        match answer {
            Acquired::Granted(grant) => Self::Granted(grant.token),
            Acquired::Refused(by) => Self::not(Some(*by)),
            other => Self::Failed(format!("{other:?}")),
        }
    }

    fn renewed(answer: Renewed) -> Self {
        match answer {
            Renewed::Renewed(_) => Self::Renewed,
            Renewed::Asked(_, order) => Self::Asked(*order),
            Renewed::NotHeld(by) => Self::not(by.map(|by| *by)),
            other => Self::Failed(format!("{other:?}")),
        }
    }

    fn released(answer: Released) -> Self {
        match answer {
            Released::Released(_) => Self::Released,
            Released::NotHeld(by) => Self::not(by.map(|by| *by)),
            other => Self::Failed(format!("{other:?}")),
        }
    }

    fn ordered(answer: Ordered) -> Self {
        match answer {
            Ordered::Ordered(marked) => Self::Ordered(Box::new(comparable(*marked))),
            Ordered::NotHeld(by) => Self::not(by.map(|by| *by)),
            other => Self::Failed(format!("{other:?}")),
        }
    }

    fn not(by: Option<Snapshot>) -> Self {
        Self::Not(by.map(|by| Box::new(comparable(by))))
    }
}

/// The store's id and version are its own; the two clocks are some milliseconds apart. What is
/// compared are whole seconds, and all times of these runs are whole seconds apart.
fn comparable(snapshot: Snapshot) -> Snapshot {
    let seconds = |time: Duration, up: Duration| Duration::from_secs((time + up).as_secs());
    let mut record = snapshot.record;
    record.not_before = seconds(record.not_before, APART);
    Snapshot {
        record,
        version: Version::new("-"),
        store: tenure_core::identity::StoreId::from_u128(0),
        age: snapshot.age.map(|age| seconds(age, Duration::ZERO)),
        holder_gone: false,
    }
}
