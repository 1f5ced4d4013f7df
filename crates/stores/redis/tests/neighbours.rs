//! Names shared with another system: what it holds is respected, what we hold it finds in its own
//! keys, and what it takes away is lost.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::Duration;

use common::{Server, says, try_open, unique, url_of};
use common::{acquire, chance, claim, command, granted, hold, name, refused, release, renew, run};
use redis::Value;
use tenure_core::ErrorKind;
use tenure_core::clock::Timestamp;
use tenure_core::identity::{Nonce, Successor};
use tenure_core::neighbour::{holder_id, is_made_up};
use tenure_core::record::{Demand, Order};
use tenure_core::store::{
    Acquired, Claim, Level, OrderRequest, Ordered, Release, Released, Renewed, Reserved, Store,
    StoreAdmin, Verdict,
};
use tenure_redis::{Layout, RedisConfig, RedisStore, redis};

/// One server's keys, of which some are HAMode's.
struct Shop {
    url: String,
    prefix: String,
}

impl Shop {
    fn new() -> Self {
        Self { url: url_of("TENURE_TEST_REDIS"), prefix: format!("shared-{:x}", unique()) }
    }

    fn config(&self) -> RedisConfig {
        let mut config = RedisConfig::from_url(&self.url).unwrap();
        config.prefix = self.prefix.clone();
        config
    }

    fn sharing(&self) -> RedisStore {
        let layout = Layout::Hamode { prefix: format!("{}:theirs:", self.prefix) };
        let mut config = self.config();
        config.layout = Some(layout);
        try_open(config).unwrap()
    }

    fn alone(&self) -> RedisStore {
        try_open(self.config()).unwrap()
    }

    /// A command on the neighbour's key of a name.
    fn theirs(&self, word: &str, of: &str, more: &[&str]) -> Value {
        let key = format!("{}:theirs:{of}", self.prefix);
        command(&self.url, &[&[word, &key], more].concat())
    }

    fn holder(&self, of: &str) -> Option<String> {
        match self.theirs("GET", of, &[]) {
            Value::BulkString(holder) => Some(String::from_utf8(holder).unwrap()),
            _ => None,
        }
    }

    fn left(&self, of: &str) -> i64 {
        match self.theirs("PTTL", of, &[]) {
            Value::Int(left) => left,
            other => panic!("{other:?}"),
        }
    }
}

fn id_of(claim: &Claim) -> Option<String> {
    Some(holder_id(&claim.instance))
}

#[test]
fn what_we_hold_stands_in_the_neighbours_key_and_goes_with_it() {
    let (shop, mut chance) = (Shop::new(), chance());
    let store = shop.sharing();
    let claim = claim("job", &mut chance);
    let grant = granted(&store, &claim);
    assert_eq!(shop.holder("job"), id_of(&claim));
    assert!((20_000..=30_000).contains(&shop.left("job")), "{}", shop.left("job"));
    // A repeated claim finds itself, and a renewal prolongs theirs, too.
    assert_eq!(granted(&store, &claim).token, grant.token);
    shop.theirs("PEXPIRE", "job", &["9000"]);
    let renewed = renew(&store, &hold(&claim, &grant, &mut chance));
    assert!(matches!(renewed, Ok(Renewed::Renewed(_))), "{renewed:?}");
    assert!(shop.left("job") > 20_000);
    let released = release(&store, &claim, &grant, &mut chance);
    assert!(matches!(released, Ok(Released::Released(_))), "{released:?}");
    assert_eq!(shop.holder("job"), None);
}

#[test]
fn what_a_neighbour_holds_is_refused_and_shown_as_its_own() {
    let (shop, mut chance) = (Shop::new(), chance());
    let store = shop.sharing();
    shop.theirs("PSETEX", "job", &["40000", "pod-7"]);
    let claim = claim("job", &mut chance);
    let Ok(Acquired::Refused(by)) = acquire(&store, &claim) else { panic!("not refused") };
    assert!(is_made_up(&by.record));
    assert_eq!(by.record.holder.name().as_str(), "pod-7");
    assert!(by.record.ttl > Duration::from_secs(30), "{by:?}");
    let seen = run(store.read(&[name("job"), name("free")])).unwrap();
    assert_eq!(seen[0].as_ref().unwrap().record.holder.name().as_str(), "pod-7");
    assert!(seen[1].is_none());
    // It takes no orders.
    let order = Order::new(Demand::RevokeNow, "ann", "because", Timestamp::default());
    let request = OrderRequest { order, token: None, nonce: Nonce::draw(&mut chance) };
    let ordered = run(store.order(&name("job"), &request)).unwrap();
    assert!(matches!(&ordered, Ordered::Failed(error) if error.to_string().contains("pod-7")));
    assert_eq!(shop.holder("job").as_deref(), Some("pod-7"));
    // When it has gone, the name is ours, and the record has no trace of it.
    shop.theirs("DEL", "job", &[]);
    granted(&store, &claim);
    assert_eq!(shop.holder("job"), id_of(&claim));
}

#[test]
fn what_a_neighbour_took_or_deleted_is_lost_and_never_made_anew() {
    let (shop, mut chance) = (Shop::new(), chance());
    let store = shop.sharing();
    for (of, thief) in [("taken", Some("pod-7")), ("deleted", None)] {
        let claim = claim(of, &mut chance);
        let grant = granted(&store, &claim);
        match thief {
            Some(thief) => shop.theirs("PSETEX", of, &["40000", thief]),
            None => shop.theirs("DEL", of, &[]),
        };
        let renewed = renew(&store, &hold(&claim, &grant, &mut chance)).unwrap();
        let Renewed::NotHeld(Some(by)) = renewed else { panic!("{renewed:?}") };
        assert_eq!(is_made_up(&by.record), thief.is_some(), "{by:?}");
        assert_eq!(shop.holder(of).as_deref(), thief);
        // The claim doesn't find itself any more, either.
        refused(&store, &claim);
        let released = release(&store, &claim, &grant, &mut chance);
        assert!(matches!(released, Ok(Released::Released(_))), "{released:?}");
        assert_eq!(shop.holder(of).as_deref(), thief, "what isn't ours isn't given back");
    }
}

#[test]
fn replicas_with_and_without_the_layout_exclude_each_other() {
    let (shop, mut chance) = (Shop::new(), chance());
    let (sharing, alone) = (shop.sharing(), shop.alone());
    let mut newest = None;
    for (holder, other) in [(&sharing, &alone), (&alone, &sharing), (&sharing, &alone)] {
        let (first, second) = (claim("job", &mut chance), claim("job", &mut chance));
        let grant = granted(holder, &first);
        assert!(newest < Some(grant.token));
        newest = Some(grant.token);
        refused(other, &second);
        release(holder, &first, &grant, &mut chance).unwrap();
    }
    // Released by force through a session without the layout: its key is only tenure's own rest.
    let (first, second) = (claim("job", &mut chance), claim("job", &mut chance));
    granted(&sharing, &first);
    let order = Order::new(Demand::RevokeNow, "ann", "because", Timestamp::default());
    let request = OrderRequest { order, token: None, nonce: Nonce::draw(&mut chance) };
    run(alone.order(&name("job"), &request)).unwrap();
    assert_eq!(shop.holder("job"), id_of(&first));
    granted(&sharing, &second);
    assert_eq!(shop.holder("job"), id_of(&second));
}

#[test]
fn an_order_that_frees_the_name_at_once_frees_the_neighbours_key() {
    let (shop, mut chance) = (Shop::new(), chance());
    let store = shop.sharing();
    let claim = claim("job", &mut chance);
    granted(&store, &claim);
    for (demand, frees) in [(Demand::Revoke, false), (Demand::RevokeNow, true)] {
        let order = Order::new(demand, "ann", "because", Timestamp::default());
        let request = OrderRequest { order, token: None, nonce: Nonce::draw(&mut chance) };
        let ordered = run(store.order(&name("job"), &request)).unwrap();
        assert!(matches!(ordered, Ordered::Ordered(_)), "{ordered:?}");
        assert_eq!(shop.holder("job").is_none(), frees);
    }
}

#[test]
fn a_transfer_leaves_no_gap_for_a_neighbour() {
    let (shop, mut chance) = (Shop::new(), chance());
    let store = shop.sharing();
    for any_incarnation in [false, true] {
        let (first, second) = (claim("job", &mut chance), claim("job", &mut chance));
        let grant = granted(&store, &first);
        let mut successor = Successor::from(second.instance.clone());
        if any_incarnation {
            successor.incarnation = None;
        }
        let given = Release {
            name: first.name.clone(),
            instance: first.instance.clone(),
            claim: first.id,
            token: grant.token,
            version: grant.version.clone(),
            nonce: Nonce::draw(&mut chance),
            successor: Some(Reserved { successor, lasts: Duration::from_secs(5) }),
            why: "over to you".to_owned(),
            at: Timestamp::default(),
        };
        run(store.release(&[given])).unwrap();
        assert!(shop.holder("job").is_some() && shop.left("job") <= 5000);
        assert_eq!(shop.theirs("SET", "job", &["pod-7", "NX"]), Value::Nil);
        let grant = granted(&store, &second);
        assert_eq!(shop.holder("job"), id_of(&second));
        assert!(shop.left("job") > 20_000);
        release(&store, &second, &grant, &mut chance).unwrap();
    }
}

#[test]
fn what_is_no_string_keeps_its_name_alone() {
    let (shop, mut chance) = (Shop::new(), chance());
    let store = shop.sharing();
    shop.theirs("LPUSH", "odd", &["x"]);
    let claims: Vec<Claim> = ["odd", "even"].map(|of| claim(of, &mut chance)).into();
    let answers = run(store.acquire(&claims)).unwrap();
    assert!(
        matches!(&answers[0], Acquired::Refused(by)
        if by.record.holder.name().as_str().contains("WRONGTYPE")),
        "{answers:?}"
    );
    assert!(matches!(answers[1], Acquired::Granted(_)), "{answers:?}");
    assert_eq!(shop.theirs("TYPE", "odd", &[]), Value::SimpleString("list".to_owned()));
}

#[test]
fn one_name_stands_for_the_key_of_leader_election() {
    let (shop, mut chance) = (Shop::new(), chance());
    let key = format!("{}-leader-election-lock", shop.prefix);
    let mut config = shop.config();
    config.layout = Some(Layout::LeaderElection { name: name("leader"), key: key.clone() });
    let store = try_open(config).unwrap();
    let other = claim("other", &mut chance);
    says(acquire(&store, &other), ErrorKind::Invalid, &["`other` isn't shared", "`leader`"]);
    command(&shop.url, &["SET", &key, "guid", "NX", "PX", "30000"]);
    let claim = claim("leader", &mut chance);
    refused(&store, &claim);
    let seen = run(store.read(&[name("other"), name("leader")])).unwrap();
    assert!(seen[0].is_none() && is_made_up(&seen[1].as_ref().unwrap().record));
    command(&shop.url, &["DEL", &key]);
    let grant = granted(&store, &claim);
    assert_eq!(command(&shop.url, &["SET", &key, "guid", "NX", "PX", "30000"]), Value::Nil);
    release(&store, &claim, &grant, &mut chance).unwrap();
    assert_eq!(command(&shop.url, &["EXISTS", &key]), Value::Int(0));
}

#[test]
fn the_level_is_lease_at_most_and_doctor_says_why() {
    let server = Server::start(&common::DURABLE);
    let mut config = server.config();
    assert_eq!(try_open(config.clone()).unwrap().profile().level, Level::Fenced);
    config.layout = Some(Layout::hamode());
    let store = try_open(config).unwrap();
    assert_eq!(store.profile().level, Level::Lease);
    assert!(store.profile().limited_by.unwrap().contains("no token"));
    let findings = run(store.diagnose()).unwrap();
    let found = findings.iter().find(|finding| finding.check == "layout").unwrap();
    assert_eq!(found.verdict, Verdict::Limited);
    assert!(found.detail.contains("app_runtime_leases:*"), "{found:?}");
    assert!(store.setup().contains("~app_runtime_leases:* "), "{}", store.setup());
}

#[test]
fn a_permission_that_sharing_needs_is_missed_when_the_store_is_opened() {
    let server = Server::start(&[]);
    let setup = {
        let mut config = server.config();
        config.layout = Some(Layout::hamode());
        try_open(config).unwrap().setup()
    };
    let rule = setup.lines().find_map(|line| line.strip_prefix("ACL SETUSER tenure on ")).unwrap();
    let rule = rule.replace(">PASSWORD", ">secret").replace("+cluster|slots", "");
    for (missing, denied) in [
        ("", false),
        (" ~app_runtime_leases:*", true),
        (" +get", true),
        (" +set", true),
        (" +pttl", true),
    ] {
        let rule = rule.replacen(missing, " ", 1);
        let words: Vec<&str> = ["ACL", "SETUSER", "tenure", "reset", "on"]
            .into_iter()
            .chain(rule.split_whitespace())
            .collect();
        server.command(&words);
        let url = format!("redis://tenure:secret@127.0.0.1:{}/?layout=hamode", server.port);
        let opened = try_open(RedisConfig::from_url(&url).unwrap());
        match denied {
            true => says(opened.map(|_| ()), ErrorKind::Denied, &["lacks a permission"]),
            false => assert!(opened.is_ok(), "{:?}", opened.err()),
        }
    }
}

#[test]
fn a_cluster_is_refused_with_the_reason() {
    let url = "redis+cluster://127.0.0.1:1,127.0.0.1:2/?layout=hamode";
    says(
        RedisConfig::from_url(url).map(drop),
        ErrorKind::Misconfigured,
        &["hash slots", "cluster"],
    );
}
