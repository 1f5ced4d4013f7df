//! What goes wrong with servers, connections and permissions, on servers of each test's own.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::sync::Arc;

use common::harness::Redis;
use common::{
    DURABLE, PATIENCE, Server, acquire, chance, claim, granted, hold, name, number, open, refused,
    release, renew, run, says, try_open, until,
};
use tenure_conformance::proxy::{Direction, Fault, FaultProxy};
use tenure_core::identity::FencingToken;
use tenure_core::store::{
    Acquired, InitOptions, Level, Prefix, Query, Released, Renewed, Store, StoreAdmin, Verdict,
};
use tenure_core::{Error, ErrorKind};
use tenure_redis::{RedisConfig, RedisStore, redis};

use ErrorKind::{Denied, Misconfigured, StoreReset, Unavailable};

/// A number that INFO tells, or how often a command was carried out.
fn info(server: &Server, field: &str) -> u64 {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let info: redis::InfoDict = redis::cmd("INFO").arg("ALL").query(&mut connection).unwrap();
    let told: String = info.get(field).unwrap_or_default();
    let told = told.strip_prefix("calls=").unwrap_or(&told);
    told.split(',').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
fn tokens_increase_after_a_restart() {
    let harness = Redis::own("redis (its own)");
    tenure_conformance::stamp::run("increases_after_server_restart", &harness);
}

#[test]
fn a_flushed_server_is_noticed_once_and_tokens_go_on_increasing() {
    let server = Server::start(&DURABLE);
    let (store, other) = (open(&server), open(&server));
    let mut chance = chance();
    let held: Vec<_> = (0..40)
        .map(|n| {
            let claim = claim(&format!("job {n}"), &mut chance);
            let grant = granted(&store, &claim);
            (claim, grant)
        })
        .collect();
    assert!(run(other.read(&[name("job 1")])).unwrap()[0].is_some());
    server.command(&["FLUSHALL"]);
    let (first, grant) = &held[0];
    let renewal = hold(first, grant, &mut chance);
    says(renew(&store, &renewal), StoreReset, &["forgot", "claim it anew"]);
    assert!(matches!(renew(&store, &renewal).unwrap(), Renewed::NotHeld(None)));
    // Of all buckets it was told with the first.
    for (claim, before) in &held {
        let mut again = common::claim(claim.name.as_str(), &mut chance);
        again.above = Some(before.token);
        assert!(granted(&store, &again).token > before.token);
    }
    says(run(other.read(&[name("job 1")])), StoreReset, &["forgot"]);
    assert!(run(other.read(&[name("job 1")])).unwrap()[0].is_some());
}

#[test]
fn tokens_that_went_back_are_a_reset_for_everybody() {
    let server = Server::start(&DURABLE);
    let (store, other) = (open(&server), open(&server));
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    assert!(run(other.read(&[name("job")])).unwrap()[0].is_some());
    // As a replica that was a little behind: the id is there, the last tokens aren't.
    for bucket in 0..16 {
        server.command(&["HSET", &format!("tenure:{{{bucket:02}}}:store"), "token", "0"]);
    }
    says(renew(&store, &hold(&one, &grant, &mut chance)), StoreReset, &["forgot"]);
    // Whoever noticed has given the bucket another id, and its count back.
    says(run(other.read(&[name("job")])), StoreReset, &["forgot"]);
    let next = claim("another job", &mut chance);
    granted(&store, &next);
    let third = open(&server);
    let mut again = claim("job", &mut chance);
    again.instance = one.instance.clone();
    release(&store, &one, &grant, &mut chance).unwrap();
    assert!(granted(&third, &again).token > grant.token, "also to one who saw nothing");
}

#[test]
fn a_count_that_was_set_back_gives_no_token_twice() {
    let server = Server::start(&DURABLE);
    let mut chance = chance();
    let mut one = claim("job", &mut chance);
    one.above = FencingToken::new(1000);
    let before = open(&server);
    let grant = granted(&before, &one);
    release(&before, &one, &grant, &mut chance).unwrap();
    for bucket in 0..16 {
        server.command(&["HSET", &format!("tenure:{{{bucket:02}}}:store"), "token", "0"]);
    }
    // By one that has seen nothing: what the record says counts, too.
    let store = open(&server);
    assert!(granted(&store, &claim("job", &mut chance)).token > grant.token);
}

#[test]
fn tls_is_by_the_authority_that_is_named() {
    let directory = std::env::temp_dir().join(format!("tenure-tls-{:x}", common::unique()));
    std::fs::create_dir_all(&directory).unwrap();
    let at = |file: &str| directory.join(file).to_str().unwrap().to_owned();
    let openssl = |words: &str| {
        let made = std::process::Command::new("openssl")
            .args(words.split(' '))
            .current_dir(&directory)
            .stderr(std::process::Stdio::null())
            .status()
            .expect("openssl is installed");
        assert!(made.success(), "{words}");
    };
    let key = "-newkey rsa:2048 -nodes -days 2";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority"));
    openssl("req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=localhost");
    std::fs::write(at("names"), "subjectAltName=DNS:localhost").unwrap();
    openssl(
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names \
         -out certificate.pem",
    );
    let server = Server::start(&DURABLE);
    for (setting, file) in [
        ("tls-cert-file", "certificate.pem"),
        ("tls-key-file", "key.pem"),
        ("tls-ca-cert-file", "ca.pem"),
    ] {
        server.command(&["CONFIG", "SET", setting, &at(file)]);
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    server.command(&["CONFIG", "SET", "tls-auth-clients", "no"]);
    server.command(&["CONFIG", "SET", "tls-port", &port.to_string()]);
    let open = |host: &str, option: &str| {
        let url = format!("rediss://{host}:{port}/0?{option}");
        try_open(RedisConfig::from_url(&url).unwrap())
    };
    let store = open("localhost", &format!("ca={}", at("ca.pem"))).unwrap();
    granted(&store, &claim("job", &mut chance()));
    assert_eq!(&*store.profile().location, format!("rediss://localhost:{port}/0"));
    says(open("localhost", "").map(drop), Misconfigured, &["isn't trusted", "?ca=FILE"]);
    says(open("127.0.0.1", &format!("ca={}", at("ca.pem"))).map(drop), Misconfigured, &["trusted"]);
    says(open("localhost", "ca=/nowhere").map(drop), Misconfigured, &["/nowhere"]);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_server_that_forgot_its_scripts_is_given_them_again() {
    let server = Server::start(&DURABLE);
    let store = open(&server);
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    server.command(&["SCRIPT", "FLUSH"]);
    assert!(matches!(
        renew(&store, &hold(&one, &grant, &mut chance)).unwrap(),
        Renewed::Renewed(_)
    ));
    server.command(&["SCRIPT", "FLUSH"]);
    let many: Vec<_> = (0..500).map(|n| claim(&format!("{n}"), &mut chance)).collect();
    let answers = run(store.acquire(&many)).unwrap();
    assert!(answers.iter().all(|answer| matches!(answer, Acquired::Granted(_))));
}

#[test]
fn wrong_credentials_are_denied_and_never_told() {
    let server = Server::start(&["--requirepass", "right-secret"]);
    let at = |who: &str| {
        let url = format!("redis://{who}127.0.0.1:{}", server.port);
        try_open(RedisConfig::from_url(&url).unwrap())
    };
    for who in ["", ":wrong-secret@", "nobody:wrong-secret@"] {
        let error = at(who).map(drop).unwrap_err();
        assert_eq!(error.kind(), Denied, "{error:?}");
        let said = format!("{error} {error:?}");
        assert!(!said.contains("secret"), "{said}");
    }
    let store = at(":right-secret@").unwrap();
    granted(&store, &claim("job", &mut chance()));
    assert!(!store.profile().location.contains("secret"), "{}", store.profile().location);
}

#[test]
fn the_permissions_that_setup_names_are_enough_and_a_lack_is_told_when_opened() {
    let server = Server::start(&DURABLE);
    let admin = open(&server);
    let setup = admin.setup();
    let line = setup.lines().find(|line| line.starts_with("ACL SETUSER")).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    server.command(&words);
    let url = format!("redis://tenure:PASSWORD@127.0.0.1:{}", server.port);
    let store = try_open(RedisConfig::from_url(&url).unwrap()).unwrap();
    assert_eq!(store.profile().level, Level::Fenced, "it may ask how durable the server is");
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    let mut hints = run(store.watch(&Prefix::all())).unwrap().unwrap();
    assert!(matches!(
        renew(&store, &hold(&one, &grant, &mut chance)).unwrap(),
        Renewed::Renewed(_)
    ));
    run(store.list(&Query::new(Prefix::all()), None)).unwrap();
    assert!(matches!(release(&store, &one, &grant, &mut chance), Ok(Released::Released(_))));
    run(async { tokio::time::timeout(PATIENCE, hints.next()).await }).unwrap().unwrap();
    for finding in run(store.diagnose()).unwrap() {
        assert_eq!(finding.verdict, Verdict::Good, "{finding:?}");
    }
    server.command(&["ACL", "SETUSER", "tenure", "-subscribe"]);
    let deaf = try_open(RedisConfig::from_url(&url).unwrap()).unwrap();
    says(run(deaf.watch(&Prefix::all())), Denied, &["lacks a permission"]);
    for lacking in ["-pexpire", "-hset", "-evalsha", "-zrem"] {
        server.command(&["ACL", "SETUSER", "tenure", lacking]);
        let fresh = format!("{url}/0?prefix=p{:x}", common::unique());
        server.command(&["ACL", "SETUSER", "tenure", "~p*", "&p*"]);
        let opened = try_open(RedisConfig::from_url(&fresh).unwrap());
        says(opened.map(drop), Denied, &["lacks a permission", "docs/stores/redis.md"]);
        server.command(&["ACL", "SETUSER", "tenure", &lacking.replace('-', "+")]);
    }
}

#[test]
fn a_full_server_says_so_and_claims_nothing() {
    let server = Server::start(&DURABLE);
    let store = open(&server);
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let token = server.command(&["INFO", "keyspace"]);
    says(acquire(&store, &claim("other", &mut chance)), Unavailable, &["memory is full"]);
    says(renew(&store, &hold(&one, &grant, &mut chance)), Unavailable, &["memory is full"]);
    refused(&store, &claim("job", &mut chance));
    assert_eq!(server.command(&["INFO", "keyspace"]), token, "something was written");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(run(store.read(&[name("other")])).unwrap(), [None]);
    granted(&store, &claim("other", &mut chance));
}

#[test]
fn an_old_server_and_one_of_another_kind_are_named() {
    let server = Server::start(&["--cluster-enabled", "yes"]);
    says(
        try_open(server.config()).map(drop),
        Misconfigured,
        &["node of a cluster", "redis+cluster"],
    );
    let server = Server::start(&DURABLE);
    let url = format!("redis+cluster://127.0.0.1:{}/", server.port);
    let opened = try_open(RedisConfig::from_url(&url).unwrap());
    let error = opened.map(drop).unwrap_err();
    assert!(error.to_string().contains("cluster"), "{error}");
}

#[test]
fn a_server_that_is_away_is_unavailable_and_found_again() {
    let mut server = Server::start(&DURABLE);
    let store = open(&server);
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    server.kill();
    let renewal = hold(&one, &grant, &mut chance);
    // The connection's end may be seen a moment after.
    until(|| match renew(&store, &renewal) {
        Err(error) if error.kind() == Unavailable => Some(()),
        _ => None,
    });
    says(try_open(server.config()).map(drop), Unavailable, &["can't be reached"]);
    server.restart();
    until(|| matches!(renew(&store, &renewal), Ok(Renewed::Renewed(_))).then_some(()));
}

/// Asserts that a request sends all its script calls before it has an answer to any, and none
/// after that: one round trip.
fn in_one_round_trip<T: Send>(
    (proxy, server): (&FaultProxy, &Server),
    calls: u64,
    request: impl FnOnce() -> T + Send,
) -> T {
    let count = || info(server, "cmdstat_evalsha");
    let before = count();
    proxy.set(Fault::Hold(Direction::Answers));
    std::thread::scope(|scope| {
        let running = scope.spawn(request);
        until(|| (count() == before + calls).then_some(()));
        proxy.heal();
        let answer = running.join().unwrap();
        assert_eq!(count(), before + calls, "it asked again");
        answer
    })
}

#[test]
fn requests_take_one_round_trip_and_a_refused_claim_writes_nothing() {
    for options in ["", "/?layout=hamode"] {
        takes_one_round_trip(options);
    }
}

fn takes_one_round_trip(options: &str) {
    let server = Server::start(&DURABLE);
    let proxy = FaultProxy::start(("127.0.0.1", server.port)).unwrap();
    let url = format!("redis://{}{options}", proxy.address());
    let store = try_open(RedisConfig::from_url(&url).unwrap()).unwrap();
    let mut chance = chance();
    let warm = claim("warm", &mut chance);
    let grant = granted(&store, &warm);
    renew(&store, &hold(&warm, &grant, &mut chance)).unwrap();
    release(&store, &warm, &grant, &mut chance).unwrap();

    let wire = (&proxy, &server);
    let one = claim("job", &mut chance);
    let grant = in_one_round_trip(wire, 1, || granted(&store, &one));
    let renewal = hold(&one, &grant, &mut chance);
    in_one_round_trip(wire, 1, || renew(&store, &renewal).unwrap());
    let changes = || info(&server, "rdb_changes_since_last_save");
    let before = changes();
    let other = claim("job", &mut chance);
    in_one_round_trip(wire, 1, || refused(&store, &other));
    assert_eq!(changes(), before, "a refusal wrote");
    in_one_round_trip(wire, 1, || release(&store, &one, &grant, &mut chance).unwrap());

    // A call for each bucket, all of them at once.
    let many: Vec<_> = (0..2000).map(|n| claim(&format!("{n}"), &mut chance)).collect();
    let grants = in_one_round_trip(wire, 16, || run(store.acquire(&many)).unwrap());
    let holds: Vec<_> = many
        .iter()
        .zip(&grants)
        .map(|(claim, grant)| match grant {
            Acquired::Granted(grant) => hold(claim, grant, &mut chance),
            other => panic!("{other:?}"),
        })
        .collect();
    in_one_round_trip(wire, 16, || run(store.renew(&holds)).unwrap());
}

#[test]
fn what_the_server_keeps_decides_the_level() {
    for (arguments, level) in [
        (&DURABLE[..], Level::Fenced),
        (&["--appendonly", "yes", "--appendfsync", "everysec"], Level::BestEffort),
        (&["--appendonly", "no", "--save", ""], Level::BestEffort),
        (
            &[
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--maxmemory",
                "100mb",
                "--maxmemory-policy",
                "allkeys-lru",
            ],
            Level::BestEffort,
        ),
    ] {
        let server = Server::start(arguments);
        let store = open(&server);
        assert_eq!(store.profile().level, level, "{arguments:?}");
        let found = run(store.diagnose()).unwrap();
        let good = found.iter().all(|finding| finding.verdict == Verdict::Good);
        assert_eq!(good, level == Level::Fenced, "{found:?}");
        for finding in found {
            println!("{}: {:?}: {}", finding.check, finding.verdict, finding.detail);
        }
    }
}

#[test]
fn names_whose_leases_are_gone_leave_the_index() {
    let server = Server::start(&DURABLE);
    let store = open(&server);
    let mut chance = chance();
    let indexed = || -> i64 {
        (0..16)
            .map(|bucket| {
                let key = format!("tenure:{{{bucket:02}}}:names:default");
                match server.command(&["ZCARD", &key]) {
                    redis::Value::Int(count) => count,
                    other => panic!("{other:?}"),
                }
            })
            .sum()
    };
    let once: Vec<_> = (0..300).map(|n| claim(&format!("once {n:03}"), &mut chance)).collect();
    run(store.acquire(&once)).unwrap();
    assert_eq!(indexed(), 300);
    for claim in &once {
        for bucket in 0..16 {
            let key = format!("tenure:{{{bucket:02}}}:lease:default:{}", claim.name);
            server.command(&["DEL", &key]);
        }
    }
    assert!(run(store.list(&Query::new(Prefix::all()), None)).unwrap().snapshots.is_empty());
    let living: Vec<_> = (0..1200).map(|n| claim(&format!("x {n}"), &mut chance)).collect();
    for claim in &living {
        granted(&store, claim);
    }
    let gone = indexed() - 1200;
    println!("{gone} of 300 gone names are left after 1200 new ones");
    assert!(gone < 150);
    let listed = run(store.list(&Query::new(Prefix::new("x ")), None)).unwrap();
    assert_eq!(listed.snapshots.len(), 1000);
}

#[test]
fn another_clusters_mark_is_refused() {
    let server = Server::start(&DURABLE);
    let marked = |mark: &str| -> Result<RedisStore, Error> {
        let mut config = server.config();
        config.cluster = Some(mark.to_owned());
        try_open(config)
    };
    let store = open(&server);
    says(marked("prod").map(drop), Misconfigured, &["no mark", "tenure init --cluster prod"]);
    let mut options = InitOptions::default();
    options.cluster = Some("prod".to_owned());
    let id = run(store.init(&options)).unwrap();
    assert_eq!(run(store.init(&options)).unwrap(), id);
    marked("prod").unwrap();
    says(marked("test").map(drop), Misconfigured, &["`prod`, not `test`"]);
    options.cluster = Some("test".to_owned());
    says(run(store.init(&options)), Misconfigured, &["another mark"]);
    // A new store is given the mark.
    server.command(&["FLUSHALL"]);
    let new = marked("test").unwrap();
    says(marked("prod").map(drop), Misconfigured, &["`test`, not `prod`"]);
    granted(&new, &claim("job", &mut chance()));
}

#[test]
fn tokens_beyond_what_lua_can_count_are_exact() {
    let server = Server::start(&DURABLE);
    let store = open(&server);
    let mut chance = chance();
    let mut far = claim("job", &mut chance);
    far.above = FencingToken::new((1 << 62) + 1);
    let grant = granted(&store, &far);
    assert_eq!(number(grant.token), (1 << 62) + 2);
    release(&store, &far, &grant, &mut chance).unwrap();
    assert_eq!(number(granted(&store, &claim("job", &mut chance)).token), (1 << 62) + 3);
    let mut last = claim("last", &mut chance);
    last.above = FencingToken::new(i64::MAX as u64);
    match acquire(&store, &last).unwrap() {
        Acquired::Failed(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_brings_its_own_client() {
    let server = Server::start(&DURABLE);
    let config = RedisConfig::of_client(redis::Client::open(server.url()).unwrap());
    let store = Arc::new(try_open(config).unwrap());
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let mut hints = run(store.watch(&Prefix::all())).unwrap().unwrap();
    let grant = granted(&*store, &one);
    run(async { tokio::time::timeout(PATIENCE, hints.next()).await }).unwrap().unwrap();
    release(&*store, &one, &grant, &mut chance).unwrap();
    run(store.close()).unwrap();
    says(run(store.read(&[])).and(acquire(&*store, &one)), Unavailable, &["closed"]);
}
