//! What goes wrong with endpoints and connections, on the real server behind a proxy, and how many
//! requests things take there.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::{
    acquire, address_of, chance, claim, config_at, granted, hold, name, release, release_of, renew,
    run, says, through, try_open, unheeding, url_of,
};
use tenure_conformance::proxy::{Fault, FaultProxy, Then};
use tenure_core::ErrorKind::{Invalid, Misconfigured, OutcomeUnknown, Unavailable};
use tenure_core::store::{
    Acquired, Finding, InitOptions, Prefix, Query, Released, Renewed, Store, StoreAdmin, Verdict,
};
use tenure_object::{ObjectAdmin, ObjectLeases};

/// A session behind a proxy, and one beside it.
fn behind() -> (ObjectLeases, FaultProxy, ObjectLeases) {
    let url = url_of("TENURE_TEST_S3");
    let config = config_at(&url);
    let proxy = FaultProxy::start(address_of(&url)).unwrap();
    let store = try_open(through(&config, &url, proxy.address())).unwrap();
    (store, proxy, try_open(config).unwrap())
}

fn failed(renewed: Renewed) -> Result<(), tenure_core::Error> {
    match renewed {
        Renewed::Failed(error) => Err(error),
        _ => Ok(()),
    }
}

#[test]
fn a_write_whose_answer_is_lost_is_unknown_and_its_repetition_finds_itself() {
    for then in [Then::Reset, Then::Close, Then::Silence] {
        let (store, proxy, other) = behind();
        let mut chance = chance();
        let ours = claim("job", &mut chance);
        let mut grant = granted(&store, &ours);
        let renewal = hold(&ours, &grant, &mut chance);
        proxy.set(Fault::DropAnswers { pass: 0, then });
        let outcome = renew(&store, &renewal).and_then(failed);
        says(outcome, OutcomeUnknown, &["may be done or not"]);
        let seen = run(other.read(&[name("job")])).unwrap().remove(0).unwrap();
        assert_ne!(seen.version, grant.version, "it was done");
        proxy.heal();
        let Ok(Renewed::Renewed(version)) = renew(&store, &renewal) else { panic!("it is held") };
        grant.version = version;
        let back = release_of(&ours, &grant, &mut chance);
        proxy.set(Fault::DropAnswers { pass: 0, then });
        let Ok(Released::Failed(error)) = release(&store, &back) else { panic!("it was lost") };
        assert_eq!(error.kind(), OutcomeUnknown, "{error}");
        proxy.heal();
        release(&store, &back).unwrap();
        granted(&other, &claim("job", &mut chance));
    }
}

#[test]
fn an_endpoint_that_nobody_listens_at_is_certainly_not_done() {
    let (store, proxy, _) = behind();
    let mut chance = chance();
    let ours = claim("job", &mut chance);
    let grant = granted(&store, &ours);
    proxy.set(Fault::Reset);
    std::thread::sleep(std::time::Duration::from_millis(100));
    proxy.set(Fault::Refuse);
    let outcome = renew(&store, &hold(&ours, &grant, &mut chance)).and_then(failed);
    says(outcome, Unavailable, &["can't be reached", "http://"]);
    proxy.heal();
    assert!(matches!(renew(&store, &hold(&ours, &grant, &mut chance)), Ok(Renewed::Renewed(_))));
}

#[test]
fn an_opening_is_five_requests_and_the_first_of_a_store_eleven() {
    let url = url_of("TENURE_TEST_S3");
    let config = config_at(&url);
    let proxy = FaultProxy::start(address_of(&url)).unwrap();
    let requests = || proxy.count().requests.runs;
    for most in [11, 5, 5] {
        let before = requests();
        try_open(through(&config, &url, proxy.address())).unwrap();
        let sent = requests() - before;
        assert!((1..=most).contains(&sent), "an opening took {sent} requests, not {most}");
    }
}

/// Counted by the runs of bytes that arrive, so each side of a request's answer is one.
#[test]
fn idle_holders_write_once_and_contenders_read_once_and_little() {
    let (store, proxy, other) = behind();
    let mut chance = chance();
    let theirs = claim("theirs", &mut chance);
    granted(&other, &theirs);
    let ours = claim("ours", &mut chance);
    let mut grant = granted(&store, &ours);
    let requests = || proxy.count().requests.runs;
    let before = requests();
    for _ in 0..10 {
        let renewed = renew(&store, &hold(&ours, &grant, &mut chance)).unwrap();
        let Renewed::Renewed(version) = renewed else { panic!("{renewed:?}") };
        grant.version = version;
    }
    assert_eq!(requests() - before, 10, "a renewal is one request");
    let look = || run(store.read(&[name("theirs")])).unwrap().remove(0).unwrap();
    look();
    let (before, bytes) = (requests(), proxy.count().answers.bytes);
    for _ in 0..10 {
        look();
    }
    assert_eq!(requests() - before, 10, "a look is one request");
    let each = (proxy.count().answers.bytes - bytes) / 10;
    assert!(each < 700, "a look at what didn't change brings {each} bytes: it was no 304");
    let before = requests();
    let refused = acquire(&store, &claim("theirs", &mut chance));
    assert!(matches!(refused, Ok(Acquired::Refused(_))));
    assert!(requests() - before <= 2, "a refused claim only reads");
    let before = requests();
    let back = release_of(&ours, &grant, &mut chance);
    assert!(matches!(release(&store, &back), Ok(Released::Released(_))));
    assert_eq!(requests() - before, 1, "a release is one request");
    let before = requests();
    granted(&store, &claim("free", &mut chance));
    println!("a claim of a new name: {} requests", requests() - before);
    assert!(requests() - before <= 5, "a grant takes {} requests", requests() - before);
}

#[test]
fn a_bucket_that_is_not_there_is_named_as_such() {
    let url = url_of("TENURE_TEST_S3").replace("tenure-tests", "tenure-no-such");
    says(try_open(config_at(&url)).map(drop), Misconfigured, &["doesn't exist; create it"]);
    let url = url_of("TENURE_TEST_AZURE").replace("tenure-tests", "tenure-no-such");
    says(try_open(config_at(&url)).map(drop), Misconfigured, &["doesn't exist; create it"]);
}

#[test]
fn the_servers_are_atomic_and_doctor_says_so() {
    for variable in ["TENURE_TEST_S3", "TENURE_TEST_AZURE"] {
        let admin = ObjectAdmin::new(config_at(&url_of(variable)), chance()).unwrap();
        for finding in run(admin.diagnose()).unwrap() {
            let tried = ["preconditions", "versions", "atomicity", "permissions"];
            if tried.contains(&finding.check.as_str()) {
                assert_eq!(finding.verdict, Verdict::Good, "{variable}: {finding:?}");
            }
        }
    }
}

#[test]
fn an_endpoint_that_does_not_heed_a_condition_is_refused_each_time_and_doctor_says_why() {
    let url = url_of("TENURE_TEST_S3");
    let config = config_at(&url);
    for (header, word) in
        [("if-none-match:", "ignores `If-None-Match: *`"), ("if-match:", "ignores `If-Match`")]
    {
        let config = through(&config, &url, unheeding::endpoint(address_of(&url), header));
        for _ in 0..2 {
            says(try_open(config.clone()).map(drop), Misconfigured, &[word, "use a store"]);
        }
        let admin = ObjectAdmin::new(config, chance()).unwrap();
        let found = run(admin.diagnose()).unwrap();
        let bad = |one: &&Finding| one.verdict == Verdict::Bad && one.detail.contains(word);
        assert!(
            found.iter().find(bad).is_some_and(|one| one.check == "preconditions"),
            "{found:?}"
        );
    }
}

#[test]
fn a_mark_is_given_once_and_compared() {
    let mut config = config_at(&url_of("TENURE_TEST_S3"));
    let admin = ObjectAdmin::new(config.clone(), chance()).unwrap();
    let mut options = InitOptions::default();
    options.cluster = Some("prod".to_owned());
    run(admin.init(&options)).unwrap();
    run(admin.init(&options)).unwrap();
    config.cluster = Some("test".to_owned());
    says(try_open(config.clone()).map(drop), Misconfigured, &["the mark `prod`"]);
    config.cluster = Some("prod".to_owned());
    assert!(try_open(config).is_ok());
    options.cluster = Some("test".to_owned());
    says(run(admin.init(&options)), Misconfigured, &["another mark"]);
    let mut new = config_at(&url_of("TENURE_TEST_S3"));
    new.cluster = Some("blue".to_owned());
    try_open(new.clone()).unwrap();
    new.cluster = Some("green".to_owned());
    says(try_open(new).map(drop), Misconfigured, &["the mark `blue`"]);
}

#[test]
fn a_short_ttl_is_refused_and_the_others_of_its_batch_are_not() {
    let store = try_open(config_at(&url_of("TENURE_TEST_S3"))).unwrap();
    let mut chance = chance();
    let mut claims = [claim("a", &mut chance), claim("b", &mut chance), claim("c", &mut chance)];
    claims[1].ttl = std::time::Duration::from_secs(1);
    let answers = run(store.acquire(&claims)).unwrap();
    assert!(matches!(&answers[1], Acquired::Failed(error) if error.kind() == Invalid));
    for at in [0, 2] {
        assert!(matches!(&answers[at], Acquired::Granted(_)), "{:?}", answers[at]);
    }
}

#[test]
fn objects_of_another_hand_are_no_names() {
    let config = config_at(&url_of("TENURE_TEST_S3"));
    let store = try_open(config.clone()).unwrap();
    granted(&store, &claim("a/b", &mut chance()));
    let client = ObjectLeases::client(&config).unwrap();
    let stranger = format!("{}/default/not/ours.txt", config.prefix);
    use tenure_object::object_store::ObjectStoreExt as _;
    run(client.put(&stranger.as_str().into(), "x".into())).unwrap();
    let page = run(store.list(&Query::new(Prefix::all()), None)).unwrap();
    assert_eq!(page.snapshots.len(), 1, "{page:?}");
}
