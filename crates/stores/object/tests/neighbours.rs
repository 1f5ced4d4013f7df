//! LeaderElection.S3's object beside our record: who is kept out, what is left, what is refused.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    acquire, chance, claim, config_at, granted, hold, name, release, release_of, renew, run, says,
    try_open, url_of,
};
use tenure_core::ErrorKind::{Corrupt, Invalid, Misconfigured};
use tenure_core::store::{Acquired, Level, Released, Renewed, Store};
use tenure_object::object_store::path::Path;
use tenure_object::object_store::{
    Attribute, Attributes, ObjectStore, ObjectStoreExt as _, PutOptions,
};
use tenure_object::{Layout, ObjectConfig, ObjectLeases};

const LONG_AGO: &str = "2020-01-01T00:00:00+00:00";
const FAR_AWAY: &str = "2999-01-01T00:00:00+00:00";

/// A place whose name `job` is shared.
struct Place {
    config: ObjectConfig,
    client: Arc<dyn ObjectStore>,
    object: Path,
}

impl Place {
    fn new() -> Self {
        let mut config = config_at(&url_of("TENURE_TEST_S3"));
        let key = format!("{}-lock.json", config.prefix);
        config.layout = Some(Layout::leader_election(name("job"), key.as_str()));
        let client = ObjectLeases::client(&config).unwrap();
        Self { config, client, object: Path::from(key) }
    }

    fn their_ttl(mut self, ttl: Duration) -> Self {
        self.config.layout.as_mut().unwrap().their_ttl = ttl;
        self
    }

    fn put(&self, text: &str) {
        run(self.client.put(&self.object, text.to_owned().into())).unwrap();
    }

    fn holds(&self, holder: &str, until: &str) {
        self.put(&format!(r#"{{"holderId":"{holder}","leaseUntilUtc":"{until}"}}"#));
    }

    fn text(&self) -> String {
        let bytes = run(async { self.client.get(&self.object).await?.bytes().await }).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

#[test]
fn what_we_hold_stands_in_their_object_and_what_they_hold_keeps_us_out() {
    let place = Place::new();
    let store = try_open(place.config.clone()).unwrap();
    assert_eq!(store.profile().level, Level::BestEffort);
    let mut chance = chance();
    let ours = claim("job", &mut chance);
    let grant = granted(&store, &ours);
    assert!(place.text().contains(&format!("test/{}", ours.instance.incarnation())));
    assert!(matches!(renew(&store, &hold(&ours, &grant, &mut chance)), Ok(Renewed::Renewed(_))));
    let back = release_of(&ours, &grant, &mut chance);
    assert!(matches!(release(&store, &back), Ok(Released::Released(_))));
    assert!(place.text().contains(r#""holderId":"""#));
    place.holds("pod-7", FAR_AWAY);
    let before = place.config.writes.load(std::sync::atomic::Ordering::SeqCst);
    let next = claim("job", &mut chance);
    let Ok(Acquired::Refused(by)) = acquire(&store, &next) else { panic!("pod-7 holds it") };
    assert_eq!(by.record.holder.name().as_str(), "pod-7");
    let after = place.config.writes.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(after, before, "who is kept out writes nothing");
    let seen = run(store.read(&[name("job")])).unwrap().remove(0).unwrap();
    assert_eq!(seen.record.holder.name().as_str(), "pod-7");
    says(
        acquire(&store, &claim("other", &mut chance)).and_then(refused),
        Invalid,
        &["isn't shared"],
    );
    place.holds("", "0001-01-01T00:00:00+00:00");
    assert!(granted(&store, &next).token > grant.token);
}

fn refused(answer: Acquired) -> Result<(), tenure_core::Error> {
    match answer {
        Acquired::Failed(error) => Err(error),
        _ => Ok(()),
    }
}

#[test]
fn a_hold_that_they_took_is_lost_and_a_late_release_leaves_theirs() {
    let place = Place::new();
    let store = try_open(place.config.clone()).unwrap();
    let mut chance = chance();
    let ours = claim("job", &mut chance);
    let grant = granted(&store, &ours);
    place.holds("pod-7", FAR_AWAY);
    let lost = renew(&store, &hold(&ours, &grant, &mut chance)).unwrap();
    let Renewed::NotHeld(Some(by)) = lost else { panic!("{lost:?}") };
    assert_eq!(by.record.holder.name().as_str(), "pod-7");
    release(&store, &release_of(&ours, &grant, &mut chance)).unwrap();
    assert!(place.text().contains("pod-7"), "{}", place.text());
}

#[test]
fn a_clock_that_is_ahead_takes_nothing_that_is_still_renewed() {
    let ttl = Duration::from_secs(1);
    let place = Place::new().their_ttl(ttl);
    let store = try_open(place.config.clone()).unwrap();
    let mut chance = chance();
    // By our wall clock it ended years ago: as if ours, or theirs, were wrong by so much.
    place.holds("pod-7", LONG_AGO);
    let ours = claim("job", &mut chance);
    assert!(matches!(acquire(&store, &ours), Ok(Acquired::Refused(_))), "it was seen but once");
    std::thread::sleep(ttl / 2);
    place.holds("pod-7", "2020-01-01T00:00:10+00:00");
    assert!(matches!(acquire(&store, &ours), Ok(Acquired::Refused(_))), "it was renewed");
    std::thread::sleep(ttl + ttl / 50);
    granted(&store, &ours);
}

#[test]
fn an_unsafe_writer_and_what_is_no_entry_are_refused_and_left() {
    let place = Place::new();
    let key = Attribute::Metadata("if-none-match".into());
    let attributes = Attributes::from_iter([(key, "*")]);
    let text = format!(r#"{{"holderId":"old","leaseUntilUtc":"{LONG_AGO}"}}"#);
    let options = PutOptions { attributes, ..PutOptions::default() };
    run(place.client.put_opts(&place.object, text.clone().into(), options)).unwrap();
    let opened = try_open(place.config.clone()).map(drop);
    says(opened, Misconfigured, &["1.1.1", "x-amz-meta-if-none-match", "2.0.0"]);
    assert_eq!(place.text(), text);
    place.put("[1]");
    says(try_open(place.config.clone()).map(drop), Corrupt, &["layout_key"]);
    assert_eq!(place.text(), "[1]");
}
