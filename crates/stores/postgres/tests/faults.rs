//! What a real server goes through: restarts, ended backends, a full disk, missing tables.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tenure_core::store::{Acquired, InitOptions, Renewed, Store, StoreAdmin};
use tenure_core::{Error, ErrorKind};
use tenure_postgres::{PostgresAdmin, PostgresConfig};

use common::instance::{Player, acquire, open, renew};
use common::{Scratch, chance, client, env, url, wait};

/// Repeats what fails for a while, as a session would.
fn patiently<T>(mut act: impl FnMut() -> Result<T, Error>) -> T {
    for _ in 0..600 {
        match act() {
            Ok(done) => return done,
            Err(error) if error.kind().is_transient() => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it never came through");
}

#[test]
fn ended_backends_are_unknown_or_unavailable_and_the_next_request_comes_through() {
    let scratch = Scratch::new();
    let store = open(scratch.config(&url())).unwrap();
    let mut player = Player::new();
    let claim = player.claim("job");
    let grant = acquire(&store, &claim).unwrap();
    for _ in 0..20 {
        // Those of this schema: the store's own.
        scratch.run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE query LIKE '%\"{}\"%' AND pid <> pg_backend_pid()",
            scratch.schema
        ));
        let hold = player.hold(&claim, &grant);
        match renew(&store, &hold) {
            Ok(Renewed::Renewed(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                let kind = error.kind();
                assert!(
                    matches!(kind, ErrorKind::OutcomeUnknown | ErrorKind::Unavailable),
                    "{error}"
                );
            }
        }
        assert!(matches!(patiently(|| renew(&store, &hold)), Renewed::Renewed(_)));
    }
}

#[test]
fn what_is_missing_or_not_allowed_is_named_with_the_way_out() {
    let nothing = Scratch::unused();
    let error = open(nothing.config(&url())).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    let said = error.to_string();
    assert!(said.contains(&format!("{}.leases", nothing.schema)), "{said}");
    assert!(said.contains("tenure init"), "{said}");

    let scratch = Scratch::new();
    let store = open(scratch.config(&url())).unwrap();
    let schema = &scratch.schema;
    scratch.run(&format!("DROP TABLE {schema}.leases CASCADE"));
    let error = acquire(&store, &Player::new().claim("job")).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    assert!(error.to_string().contains("tenure init"), "{error}");

    let scratch = Scratch::new();
    let role = format!("r_{}", scratch.schema);
    scratch.run(&format!("CREATE ROLE {role} LOGIN"));
    let refused = open(scratch.config(&url().replace("postgres@", &format!("{role}@"))));
    let error = refused.map(drop).unwrap_err();
    scratch.run(&format!("DROP ROLE {role}"));
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("grant this role USAGE"), "{error}");
}

#[test]
fn the_mark_and_the_clock_are_the_stores_own_for_ever() {
    let scratch = Scratch::new();
    let admin = PostgresAdmin::new(scratch.config(&url()), chance()).unwrap();
    let mut options = InitOptions::default();
    options.cluster = Some("prod".to_owned());
    let id = wait(admin.init(&options)).unwrap();
    assert_eq!(wait(admin.init(&options)).unwrap(), id, "again: nothing happens");
    options.cluster = Some("test".to_owned());
    assert_eq!(wait(admin.init(&options)).unwrap_err().kind(), ErrorKind::Misconfigured);
    options.cluster = None;
    options.observed = true;
    assert_eq!(wait(admin.init(&options)).unwrap_err().kind(), ErrorKind::Misconfigured);
    let mut config = scratch.config(&url());
    config.cluster = Some("test".to_owned());
    assert_eq!(open(config).map(drop).unwrap_err().kind(), ErrorKind::Misconfigured);
}

#[test]
fn a_guard_that_lasts_delays_no_other_hold_and_the_next_grant_waits_for_it() {
    let scratch = Scratch::new();
    let store = open(scratch.config(&url())).unwrap();
    let mut player = Player::new();
    let (guarded, other) = (player.claim("guarded"), player.claim("other"));
    let (grant, others) = (acquire(&store, &guarded).unwrap(), acquire(&store, &other).unwrap());
    wait(async {
        let mut connection = client(&url()).await;
        let transaction = connection.transaction().await.unwrap();
        store.guard().check(&transaction, &guarded.name, grant.token).await.unwrap();
        // Both are renewed while it runs, as often as one likes.
        for _ in 0..5 {
            let holds = [player.hold(&guarded, &grant), player.hold(&other, &others)];
            let renewed = store.renew(&holds).await.unwrap();
            assert!(renewed.iter().all(|one| matches!(one, Renewed::Renewed(_))), "{renewed:?}");
        }
        // Given back, it is free; and still nobody is granted it before the transaction ends.
        let release = player.release(&guarded, &grant);
        store.release(&[release]).await.unwrap();
        let next = player.claim("guarded");
        let early = store.acquire(std::slice::from_ref(&next)).await.unwrap().remove(0);
        assert!(
            matches!(&early, Acquired::Failed(error) if error.kind() == ErrorKind::Unavailable),
            "{early:?}"
        );
        transaction.commit().await.unwrap();
        let granted = store.acquire(&[next]).await.unwrap().remove(0);
        assert!(matches!(&granted, Acquired::Granted(next) if next.token > grant.token));
        // What was guarded by the old token is over.
        let transaction = connection.transaction().await.unwrap();
        let late = store.guard().check(&transaction, &guarded.name, grant.token).await;
        assert!(late.unwrap_err().is_refusal());
    });
}

#[test]
fn high_water_lets_no_older_token_through() {
    let scratch = Scratch::new();
    let schema = tenure_postgres::Schema::new(&scratch.schema).unwrap();
    let marks = tenure_postgres::HighWater::new(schema);
    let token = |number| tenure_core::identity::FencingToken::new(number).unwrap();
    wait(async {
        let mut connection = client(&url()).await;
        for (number, passes) in [(4, true), (4, true), (7, true), (6, false), (8, true)] {
            let transaction = connection.transaction().await.unwrap();
            let admitted = marks.admit(&transaction, "ledger", token(number)).await;
            assert_eq!(admitted.is_ok(), passes, "{number}: {admitted:?}");
            if let Err(error) = admitted {
                assert!(error.to_string().contains("token 7 has been here"), "{error}");
            } else {
                transaction.commit().await.unwrap();
            }
        }
    });
}

/// A server of the test's own, that can be killed.
struct Server {
    folder: PathBuf,
    port: u16,
    running: Option<Child>,
}

impl Server {
    fn start() -> Self {
        let stores = PathBuf::from(env("TENURE_TEST_STORES", "postgres"));
        let folder = stores.join(format!("own-{:016x}", chance().next_u64()));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { folder, port, running: None };
        let (folder, binaries) = (server.folder.display(), binaries());
        shell(&format!(
            "mkdir -p {folder} && if [ $(id -u) = 0 ]; then chown postgres {folder}; fi"
        ));
        as_postgres(&format!("{binaries}/initdb -D {folder}/data -A trust -U postgres --no-sync"));
        server.run();
        server
    }

    fn run(&mut self) {
        let (folder, port, binaries) = (self.folder.display(), self.port, binaries());
        let command = format!(
            "exec {binaries}/postgres -D {folder}/data -p {port} -c listen_addresses=127.0.0.1 \
             -c unix_socket_directories={folder} >>{folder}/log 2>&1"
        );
        self.running = Some(unprivileged(&command).spawn().unwrap());
        let answers = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            wait(async {
                tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.is_ok()
            })
        });
        assert!(answers, "the test's own server doesn't come up; see {folder}/log");
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn stop(&mut self, mode: &str) {
        let (folder, binaries) = (self.folder.display(), binaries());
        as_postgres(&format!("{binaries}/pg_ctl -D {folder}/data -m {mode} -w stop"));
        let _ = self.running.take().unwrap().wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.stop("immediate");
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn binaries() -> String {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().next();
    found.map_or_else(String::new, |version| version.path().join("bin").display().to_string())
}

/// PostgreSQL refuses to run as root.
fn unprivileged(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.stdin(Stdio::null()).stdout(Stdio::null()).arg("-c");
    if rustix::process::geteuid().is_root() {
        shell.arg(format!(
            "exec setpriv --reuid=postgres --regid=postgres --init-groups sh -c '{command}'"
        ));
    } else {
        shell.arg(command);
    }
    shell
}

fn as_postgres(command: &str) {
    assert!(unprivileged(command).status().unwrap().success(), "{command}");
}

fn shell(command: &str) {
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
}

#[test]
fn a_restart_loses_nothing_and_tokens_go_on() {
    let mut server = Server::start();
    let config = PostgresConfig::from_url(&server.url()).unwrap();
    let admin = PostgresAdmin::new(config.clone(), chance()).unwrap();
    wait(admin.init(&InitOptions::default())).unwrap();
    let store = open(config).unwrap();
    let mut player = Player::new();
    let claim = player.claim("job");
    let mut newest = acquire(&store, &claim).unwrap();
    let mut claim = claim;
    for mode in ["fast", "immediate", "immediate"] {
        server.stop(mode);
        let hold = player.hold(&claim, &newest);
        let error = renew(&store, &hold).unwrap_err();
        assert!(error.kind().is_transient(), "{error}");
        server.run();
        let renewed = patiently(|| renew(&store, &hold));
        assert!(matches!(renewed, Renewed::Renewed(_)), "after {mode}: {renewed:?}");
        let release = player.release(&claim, &newest);
        wait(store.release(&[release])).unwrap();
        claim = player.claim("job");
        let next = patiently(|| acquire(&store, &claim));
        assert!(next.token > newest.token);
        newest = next;
    }
}

/// A disk that is soon full, for tables of a server's.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None: mounting is not permitted here.
    fn mount(server: &Server) -> Option<Self> {
        let disk = Self(server.folder.join("disk"));
        let at = disk.0.display();
        shell(&format!("mkdir {at}"));
        let mount = format!("mount -t tmpfs -o size=2m tenure-test {at} 2>/dev/null");
        if !Command::new("sh").args(["-c", &mount]).status().unwrap().success() {
            return None;
        }
        shell(&format!("mkdir {at}/tables && chown --reference {at}/../data {at}/tables"));
        Some(disk)
    }

    fn fill(&self) {
        // It ends with an error: that there is no space left.
        let filler = self.0.join("filler").display().to_string();
        let fill = format!("dd if=/dev/zero of={filler} bs=4k 2>/dev/null");
        assert!(!Command::new("sh").args(["-c", &fill]).status().unwrap().success());
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_nothing_is_lost_and_all_goes_on_when_there_is_room() {
    const NAMES_MAX: usize = 500;
    let server = Server::start();
    let Some(disk) = SmallDisk::mount(&server) else {
        let line = "NOT TRIED: a full disk: mounting is not permitted here\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let config = PostgresConfig::from_url(&server.url()).unwrap();
    let admin = PostgresAdmin::new(config.clone(), chance()).unwrap();
    wait(admin.init(&InitOptions::default())).unwrap();
    wait(async {
        let client = client(&server.url()).await;
        let place = disk.0.join("tables").display().to_string();
        let space = format!("CREATE TABLESPACE small LOCATION '{place}'");
        client.batch_execute(&space).await.unwrap();
        let moved = "ALTER TABLE tenure.leases SET TABLESPACE small; \
                     ALTER INDEX tenure.leases_pkey SET TABLESPACE small";
        client.batch_execute(moved).await.unwrap();
    });
    let store = open(config).unwrap();
    let mut player = Player::new();
    let first = player.claim("first");
    let held = acquire(&store, &first).unwrap();
    disk.fill();
    let mut granted = Vec::new();
    let refused = (0..NAMES_MAX).find_map(|n| {
        let claim = player.claim(&format!("n{n}"));
        match acquire(&store, &claim) {
            Ok(grant) => granted.push((claim, grant)),
            Err(error) => return Some((claim, error)),
        }
        None
    });
    let (late, error) = refused.expect("so many records need more than is left");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("disk is full"), "{error}");
    // A renewal writes, too: done, or certainly not done. Nothing that is held counts as lost.
    match renew(&store, &player.hold(&first, &held)) {
        Ok(renewed) => assert!(matches!(renewed, Renewed::Renewed(_)), "{renewed:?}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
    }
    disk.free();
    for (claim, grant) in [(first, held)].into_iter().chain(granted) {
        let renewed = renew(&store, &player.hold(&claim, &grant)).unwrap();
        assert!(matches!(renewed, Renewed::Renewed(_)), "{}: {renewed:?}", claim.name);
    }
    acquire(&store, &late).unwrap();
    wait(store.close()).unwrap();
}
