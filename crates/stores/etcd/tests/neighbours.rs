//! Names shared with HAMode: what it holds is respected, what we hold it finds in its own keys, and
//! what it takes away is lost.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::harness::Etcd;
use common::wire::{LeaseGrantRequest, LeaseGrantResponse, PutRequest, path};
use common::{Server, block_on, config, open};
use tenure_conformance::harness::Harness;
use tenure_conformance::player::{Held, Player, name, namespace};
use tenure_core::ErrorKind;
use tenure_core::chance::Chance;
use tenure_core::identity::{Namespace, Successor};
use tenure_core::neighbour::{holder_id, is_made_up};
use tenure_core::record::Demand;
use tenure_core::store::{
    Acquired, Level, Ordered, Prefix, Query, Renewed, Reserved, Store, StoreAdmin, Verdict,
};
use tenure_etcd::{EtcdAdmin, EtcdStore, Layout};

struct Shop {
    etcd: Etcd,
}

impl Shop {
    fn new() -> Self {
        Self { etcd: Etcd::shared("neighbours") }
    }

    fn player(&self) -> Player<'_> {
        Player::new(&self.etcd, "pod")
    }

    /// A session that knows of no neighbour.
    fn alone(&self) -> Player<'_> {
        let store: Arc<dyn Store> = Arc::new(open(config(self.etcd.url(), &namespace())));
        Player::on(&self.etcd, "pod", store)
    }

    fn key(&self, of: &str) -> Vec<u8> {
        self.etcd.entry(&namespace(), of).unwrap().into_bytes()
    }

    fn holder(&self, of: &str) -> Option<String> {
        let found = self.etcd.hand().get(self.key(of));
        found.map(|key| String::from_utf8(key.value).unwrap())
    }

    /// As a neighbour does that holds it for so long.
    fn takes(&self, of: &str, holder: &str, seconds: i64) {
        let question = LeaseGrantRequest { ttl: seconds };
        let granted: LeaseGrantResponse =
            block_on(self.etcd.hand().ask(path::LEASE_GRANT, question));
        let (key, value) = (self.key(of), holder.as_bytes().to_vec());
        let put = PutRequest { key, value, lease: granted.id, ..PutRequest::default() };
        self.etcd.hand().put(put);
    }

    fn deletes(&self, of: &str) {
        self.etcd.hand().delete(self.key(of));
    }
}

fn id_of(player: &Player<'_>) -> Option<String> {
    Some(holder_id(&player.instance))
}

fn ends_it_now(player: &Player<'_>, of: &str) -> Ordered {
    player.order(&name(of), Demand::RevokeNow, None)
}

#[test]
fn what_we_hold_stands_in_the_neighbours_key_and_goes_with_it() {
    let shop = Shop::new();
    let player = shop.player();
    let mut held = player.acquire(&name("job"));
    assert_eq!(shop.holder("job"), id_of(&player));
    player.keeps(&mut held);
    // By another ttl both hang on another lease.
    held.ttl *= 2;
    player.keeps(&mut held);
    player.keeps(&mut held);
    let ours = shop.etcd.hand().key(&namespace(), &name("job"), "held");
    let ours = shop.etcd.hand().get(ours).unwrap();
    assert_eq!(shop.etcd.hand().get(shop.key("job")).unwrap().lease, ours.lease);
    player.release(&held);
    assert_eq!(shop.holder("job"), None);
}

#[test]
fn what_a_neighbour_holds_is_refused_and_shown_as_its_own() {
    let shop = Shop::new();
    let player = shop.player();
    shop.takes("job", "pod-7", 40);
    shop.takes("other", "pod-8", 40);
    let held = player.acquire(&name("mine"));
    let by = player.is_refused(&name("job"));
    assert!(is_made_up(&by.record));
    assert_eq!(by.record.holder.name().as_str(), "pod-7");
    assert!(by.record.ttl > Duration::from_secs(30), "{by:?}");
    assert!(is_made_up(&player.sees(&name("job")).record));
    let page = block_on(player.store.list(&Query::new(Prefix::all()), None)).unwrap();
    let listed: Vec<String> = page
        .snapshots
        .iter()
        .map(|seen| format!("{} {}", seen.record.name, seen.record.holder.name()))
        .collect();
    assert_eq!(listed, ["job pod-7", "mine pod", "other pod-8"]);
    let two = Query::new(Prefix::new("")).with_limit(2);
    let first = block_on(player.store.list(&two, None)).unwrap();
    assert_eq!((first.snapshots.len(), first.next.as_ref()), (2, Some(&name("mine"))));
    let second = block_on(player.store.list(&two, first.next.as_ref())).unwrap();
    assert_eq!((second.snapshots.len(), second.next), (1, None));
    // It takes no orders.
    let ordered = ends_it_now(&player, "job");
    assert!(matches!(&ordered, Ordered::Failed(error) if error.to_string().contains("pod-7")));
    assert_eq!(shop.holder("job").as_deref(), Some("pod-7"));
    shop.deletes("job");
    player.acquire(&name("job"));
    assert_eq!(shop.holder("job"), id_of(&player));
    player.release(&held);
}

#[test]
fn what_a_neighbour_took_or_deleted_is_lost_and_never_made_anew() {
    let shop = Shop::new();
    let player = shop.player();
    for (of, thief) in [("taken", Some("pod-7")), ("deleted", None)] {
        let claim = player.claim(&name(of));
        let sent = shop.etcd.now();
        let Acquired::Granted(grant) = player.ask(&claim) else { panic!("not granted") };
        let mut held: Held = player.held(&claim, grant, sent);
        match thief {
            Some(thief) => shop.takes(of, thief, 40),
            None => shop.deletes(of),
        }
        let renewed = player.renew(&mut held);
        let Renewed::NotHeld(Some(by)) = renewed else { panic!("{renewed:?}") };
        assert_eq!(is_made_up(&by.record), thief.is_some(), "{by:?}");
        assert_eq!(shop.holder(of).as_deref(), thief);
        // The claim doesn't find itself any more, either.
        let again = player.ask(&claim);
        assert!(matches!(again, Acquired::Refused(_)), "{again:?}");
        player.release(&held);
        assert_eq!(shop.holder(of).as_deref(), thief, "what isn't ours isn't given back");
    }
}

#[test]
fn replicas_with_and_without_the_layout_exclude_each_other() {
    let shop = Shop::new();
    let (sharing, alone) = (shop.player(), shop.alone());
    let mut newest = None;
    for (holder, other) in [(&sharing, &alone), (&alone, &sharing), (&sharing, &alone)] {
        let held = holder.acquire(&name("job"));
        assert!(newest < Some(held.token));
        newest = Some(held.token);
        other.is_refused(&name("job"));
        holder.release(&held);
    }
    // Ended by force through a session without the layout: its key is only tenure's own rest.
    sharing.acquire(&name("job"));
    let ordered = ends_it_now(&alone, "job");
    assert!(matches!(ordered, Ordered::Ordered(_)), "{ordered:?}");
    assert_eq!(shop.holder("job"), id_of(&sharing));
    let another = shop.player();
    let held = another.acquire(&name("job"));
    assert_eq!(shop.holder("job"), id_of(&another));
    another.release(&held);
    assert_eq!(shop.holder("job"), None);
}

#[test]
fn an_entry_that_is_left_on_a_prolonged_lease_is_swept() {
    let shop = Shop::new();
    let (sharing, alone) = (shop.player(), shop.alone());
    let mut kept = sharing.acquire(&name("kept"));
    sharing.acquire(&name("left"));
    ends_it_now(&alone, "left");
    // The session goes on prolonging the lease that both entries hang on.
    let until = std::time::Instant::now() + shop.etcd.ttl() * 4;
    while shop.holder("left").is_some() {
        assert!(std::time::Instant::now() < until, "nobody sweeps it");
        std::thread::sleep(shop.etcd.ttl() / 8);
        sharing.keeps(&mut kept);
    }
    assert_eq!(shop.holder("kept"), id_of(&sharing));
    sharing.release(&kept);
}

#[test]
fn a_transfer_leaves_no_gap_for_a_neighbour() {
    let shop = Shop::new();
    let (first, second) = (shop.player(), shop.player());
    for any_incarnation in [false, true] {
        let held = first.acquire(&name("job"));
        let mut successor = Successor::from(second.instance.clone());
        if any_incarnation {
            successor.incarnation = None;
        }
        first.transfer(&held, Reserved { successor, lasts: Duration::from_secs(5) });
        assert!(shop.holder("job").unwrap().starts_with("pod/"));
        let held = second.acquire(&name("job"));
        assert_eq!(shop.holder("job"), id_of(&second));
        second.release(&held);
    }
}

#[test]
fn a_waiter_is_woken_by_what_a_neighbour_gives_back() {
    let shop = Shop::new();
    let player = shop.player();
    shop.takes("job", "pod-7", 60);
    let mut hints = block_on(player.store.watch(&Prefix::from(&name("job")))).unwrap().unwrap();
    shop.deletes("job");
    block_on(hints.next()).unwrap();
}

#[test]
fn the_level_is_lease_and_doctor_says_why() {
    let server = Server::start();
    let mut config = config(&server.url(), &Namespace::default());
    config.layout = Some(Layout::hamode());
    let profile = open(config.clone()).profile().clone();
    assert_eq!(profile.level, Level::Lease);
    assert!(profile.limited_by.unwrap().contains("no token"));
    let admin = {
        let _in = common::runtime().enter();
        EtcdAdmin::new(config, Chance::seeded(7)).unwrap()
    };
    let findings = block_on(admin.diagnose()).unwrap();
    let found = findings.iter().find(|finding| finding.check == "layout").unwrap();
    assert_eq!(found.verdict, Verdict::Limited);
    assert!(found.detail.contains("`app_runtime_leases/`"), "{found:?}");
    assert!(admin.setup().contains("--prefix=true app_runtime_leases/\n"), "{}", admin.setup());
}

#[test]
fn a_permission_that_sharing_needs_is_missed_when_the_store_is_opened() {
    let server = Server::start();
    let url = server.url().replace("etcd://", "etcd://app:secret@");
    let mut config = config(&url, &Namespace::default());
    config.layout = Some(Layout::hamode());
    for words in [
        &["user", "add", "root", "--new-user-password=first"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "tenure"],
        &["role", "grant-permission", "tenure", "readwrite", "--prefix=true", "tenure/"],
        &["user", "add", "app", "--new-user-password=secret"],
        &["user", "grant-role", "app", "tenure"],
        &["auth", "enable"],
    ] {
        server.must(words);
    }
    let opened = block_on(EtcdStore::open(config.clone(), Chance::seeded(7)));
    assert_eq!(opened.map(drop).unwrap_err().kind(), ErrorKind::Denied);
    let grant =
        ["role", "grant-permission", "tenure", "readwrite", "--prefix=true", "app_runtime_leases/"];
    server.must(&[&["--user=root:first"], &grant[..]].concat());
    open(config);
}
