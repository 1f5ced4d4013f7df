//! What can go wrong with a file: each fault is one clear line of the right kind.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tenure_conformance::drive::block_on;
use tenure_core::ErrorKind::{Corrupt, Misconfigured, StoreReset, Unavailable};
use tenure_core::store::{
    Acquired, InitOptions, Prefix, Query, Renewed, Store, StoreAdmin, Verdict,
};
use tenure_sqlite::{SqliteConfig, SqliteStore};

use common::{
    Scratch, acquire, chance, claim, clock, granted, hold, name, number, open, refused, renew,
    says, try_open,
};

fn opened_at(path: impl Into<std::path::PathBuf>) -> Result<SqliteStore, tenure_core::Error> {
    try_open(SqliteConfig::new(path), clock())
}

fn delete(scratch: &Scratch) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", scratch.db().display()));
    }
}

#[test]
fn a_missing_directory_is_named_with_its_cure() {
    let scratch = Scratch::new("missing");
    let path = scratch.path.join("not/there.db");
    says(opened_at(path), Misconfigured, &["not` doesn't exist", "mkdir -p"]);
}

#[test]
fn what_is_no_file_is_refused() {
    let scratch = Scratch::new("no-file");
    says(opened_at(&scratch.path), Misconfigured, &["is a directory; name a file in it"]);
    says(opened_at("/dev/null"), Misconfigured, &["/dev/null"]);
    symlink("/nowhere/x.db", scratch.path.join("link")).unwrap();
    says(opened_at(scratch.path.join("link")), Misconfigured, &["symbolic link"]);
    fs::write(scratch.path.join("file"), "").unwrap();
    says(opened_at(scratch.path.join("file/x.db")), Misconfigured, &["is no directory"]);
    fs::hard_link(scratch.path.join("file"), scratch.path.join("other")).unwrap();
    says(opened_at(scratch.path.join("other")), Misconfigured, &["2 hard links"]);
}

#[test]
fn a_link_leads_to_the_same_store() {
    let scratch = Scratch::new("link");
    let direct = open(&scratch, clock());
    let link = scratch.path.join("link.db");
    symlink(scratch.db(), &link).unwrap();
    let linked = opened_at(link).unwrap();
    let mut chance = chance();
    granted(&direct, &claim("job", &mut chance));
    refused(&linked, &claim("job", &mut chance));
    assert!(!scratch.path.join("link.db-tenure").exists());
}

#[test]
fn a_text_file_is_no_database_and_stays_as_it_is() {
    let scratch = Scratch::new("text");
    let text = "no database at all\n".repeat(100);
    fs::write(scratch.db(), &text).unwrap();
    says(opened_at(scratch.db()), Misconfigured, &["is not an SQLite database"]);
    assert_eq!(fs::read_to_string(scratch.db()).unwrap(), text);
}

#[test]
fn a_damaged_file_is_corrupt() {
    let scratch = Scratch::new("damaged");
    let mut chance = chance();
    let store = open(&scratch, clock());
    for n in 0..50 {
        granted(&store, &claim(&format!("job {n}"), &mut chance));
    }
    block_on(store.close()).unwrap();
    Connection::open(scratch.db()).unwrap().execute_batch("PRAGMA wal_checkpoint").unwrap();
    let mut bytes = fs::read(scratch.db()).unwrap();
    bytes[4096..].fill(0x55);
    fs::write(scratch.db(), bytes).unwrap();
    says(opened_at(scratch.db()).map(drop), Corrupt, &["damaged"]);
}

#[test]
fn newer_tables_are_not_touched() {
    let scratch = Scratch::new("newer");
    drop(open(&scratch, clock()));
    let by_hand = Connection::open(scratch.db()).unwrap();
    by_hand.execute("UPDATE tenure_store SET format = 2", []).unwrap();
    says(opened_at(scratch.db()), Misconfigured, &["format 2", "upgrade tenure"]);
}

#[test]
fn a_record_that_cannot_be_read_is_told_and_kept() {
    let scratch = Scratch::new("record");
    let store = open(&scratch, clock());
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    granted(&store, &claim("other", &mut chance));
    let by_hand = Connection::open(scratch.db()).unwrap();
    by_hand
        .execute("UPDATE tenure_leases SET record = x'7b7d' WHERE name = CAST('job' AS BLOB)", [])
        .unwrap();
    let renewed = renew(&store, &hold(&one, &grant, &mut chance)).unwrap();
    assert!(matches!(renewed, Renewed::Failed(error) if error.kind() == Corrupt));
    let claimed = acquire(&store, &claim("job", &mut chance)).unwrap();
    assert!(matches!(claimed, Acquired::Failed(error) if error.kind() == Corrupt));
    says(block_on(store.read(&[name("job")])), Corrupt, &["lease `job`"]);
    assert!(block_on(store.read(&[name("other")])).is_ok());
    let kept: Vec<u8> = by_hand
        .query_row("SELECT record FROM tenure_leases WHERE name = CAST('job' AS BLOB)", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(kept, b"{}");
}

#[test]
fn another_clusters_mark_is_refused() {
    let scratch = Scratch::new("cluster");
    let marked = |cluster: &str| {
        let mut config = scratch.config();
        config.cluster = Some(cluster.into());
        try_open(config, clock())
    };
    let store = open(&scratch, clock());
    says(marked("prod"), Misconfigured, &["bears no mark", "tenure init --cluster prod"]);
    let mut options = InitOptions::default();
    options.cluster = Some("prod".into());
    let id = block_on(store.init(&options)).unwrap();
    assert_eq!(block_on(store.init(&options)).unwrap(), id);
    marked("prod").unwrap();
    says(marked("test"), Misconfigured, &["bears the mark `prod`, not `test`"]);
    options.cluster = Some("test".into());
    says(block_on(store.init(&options)), Misconfigured, &["another mark"]);
}

#[test]
fn a_replaced_file_is_a_reset_once_and_life_goes_on() {
    let scratch = Scratch::new("replaced");
    let store = open(&scratch, clock());
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    delete(&scratch);
    let other = opened_at(scratch.db()).unwrap();
    granted(&other, &claim("job", &mut chance));
    let renewal = hold(&one, &grant, &mut chance);
    says(renew(&store, &renewal), StoreReset, &["another file", "what was held is lost"]);
    assert!(matches!(renew(&store, &renewal).unwrap(), Renewed::NotHeld(Some(_))));
    assert!(block_on(store.read(&[name("job")])).is_ok(), "the reading side believes in it, too");
    refused(&store, &claim("job", &mut chance));
}

#[test]
fn a_deleted_file_is_a_reset_and_a_vanished_directory_is_unavailable() {
    let scratch = Scratch::new("deleted");
    let store = open(&scratch, clock());
    let mut chance = chance();
    granted(&store, &claim("job", &mut chance));
    let aside = scratch.path.with_extension("aside");
    fs::rename(&scratch.path, &aside).unwrap();
    says(block_on(store.read(&[name("job")])), Unavailable, &["doesn't exist"]);
    fs::rename(&aside, &scratch.path).unwrap();
    // It came back as it was: nothing was lost.
    refused(&store, &claim("job", &mut chance));
    delete(&scratch);
    says(acquire(&store, &claim("job", &mut chance)), StoreReset, &["was deleted"]);
    granted(&store, &claim("job", &mut chance));
}

#[test]
fn a_vanished_side_file_costs_the_proof_and_nothing_else() {
    let scratch = Scratch::new("side");
    let store = open(&scratch, clock());
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let mut grant = granted(&store, &one);
    fs::remove_dir_all(scratch.side()).unwrap();
    refused(&open(&scratch, clock()), &claim("job", &mut chance));
    for _ in 0..2 {
        match renew(&store, &hold(&one, &grant, &mut chance)).unwrap() {
            Renewed::Renewed(version) => grant.version = version,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(scratch.holders().len(), 1, "a new one speaks for the session");
    refused(&open(&scratch, clock()), &claim("job", &mut chance));
}

#[test]
fn a_full_table_says_so_and_claims_nothing() {
    // Of a disk of its own, if this user may mount one.
    let scratch = Scratch::new("full");
    let disk = scratch.path.join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=512k", "tenure-test"])
        .arg(&disk)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("SKIPPED: no disk can be mounted to be filled; run as root");
        return;
    }
    let outcome = std::panic::catch_unwind(|| fill(&Scratch { path: disk.clone() }));
    assert!(Command::new("umount").arg("-l").arg(&disk).status().unwrap().success());
    outcome.unwrap();
}

fn fill(scratch: &Scratch) {
    let store = open(scratch, clock());
    let mut chance = chance();
    let first = claim("first", &mut chance);
    let grant = granted(&store, &first);
    let mut tokens = vec![number(grant.token)];
    let error = loop {
        match acquire(&store, &claim(&format!("job {}", tokens.len()), &mut chance)) {
            Ok(Acquired::Granted(grant)) => tokens.push(number(grant.token)),
            other => break other,
        }
        assert!(tokens.len() < 10_000, "the disk never fills");
    };
    says(error, Unavailable, &["the disk is full", "free some space"]);
    let refused = block_on(store.read(&[name(&format!("job {}", tokens.len()))])).unwrap();
    assert_eq!(refused, [None], "what failed isn't there");
    // What was granted is all there, and the file is whole.
    let check: String = Connection::open(scratch.db())
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let listed = block_on(store.list(&Query::new(Prefix::all()), None)).unwrap();
    assert_eq!(listed.snapshots.len(), tokens.len().min(Query::LIMIT_MAX));
}

/// In a child, which file a plain user opens.
const PLAIN: &str = "TENURE_SQLITE_TEST_PLAIN";

/// Not a test of its own: what a user without rights sees.
#[test]
fn opens_as_a_plain_user_in_a_child() {
    let Some(path) = std::env::var_os(PLAIN) else { return };
    match opened_at(path) {
        Ok(_) => println!("opened"),
        Err(error) => println!("said {} {error}", error.kind()),
    }
}

#[test]
fn what_may_not_be_written_is_denied() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let scratch = Scratch::new("denied");
    fs::set_permissions(&scratch.path, fs::Permissions::from_mode(0o777)).unwrap();
    // The binary may lie where others can't reach it.
    let binary = scratch.path.join("test");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let as_nobody = |path: &std::path::Path| {
        let output = Command::new(&binary)
            .args(["opens_as_a_plain_user_in_a_child", "--exact", "--nocapture"])
            .env(PLAIN, path)
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find(|line| line.starts_with("said ") || *line == "opened").unwrap().to_owned()
    };
    let directory = scratch.path.join("closed");
    fs::create_dir(&directory).unwrap();
    let said = as_nobody(&directory.join("x.db"));
    assert!(said.starts_with("said denied") && said.contains("closed`"), "{said}");
    // A file of root's in a directory that all may write to.
    drop(open(&scratch, clock()));
    let said = as_nobody(&scratch.db());
    assert!(said.starts_with("said denied") && said.contains("leases.db`"), "{said}");
    // Who owns the file owns the side files, although root was here first.
    let owned = scratch.path.join("owned");
    fs::create_dir(&owned).unwrap();
    std::os::unix::fs::chown(&owned, Some(65534), Some(65534)).unwrap();
    fs::write(owned.join("x.db"), "").unwrap();
    std::os::unix::fs::chown(owned.join("x.db"), Some(65534), Some(65534)).unwrap();
    drop(opened_at(owned.join("x.db")).unwrap());
    assert_eq!(as_nobody(&owned.join("x.db")), "opened");
}

#[test]
fn whoever_keeps_the_file_makes_others_wait_for_a_bounded_time() {
    let scratch = Scratch::new("busy");
    let mut config = scratch.config();
    config.busy = Duration::from_millis(200);
    let store = try_open(config, clock()).unwrap();
    let mut chance = chance();
    let keeper = Connection::open(scratch.db()).unwrap();
    keeper.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = std::time::Instant::now();
    let claimed = acquire(&store, &claim("job", &mut chance));
    says(claimed, Unavailable, &["kept the file locked for 200ms", "busy_ms"]);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(block_on(store.read(&[name("job")])).is_ok(), "reading needs no turn");
    keeper.execute_batch("ROLLBACK").unwrap();
    granted(&store, &claim("job", &mut chance));
}

#[test]
fn whoever_is_stopped_in_the_queue_stops_nobody_else() {
    let scratch = Scratch::new("stuck");
    let store = open(&scratch, clock());
    let gate = fs::File::open(scratch.side().join("gate")).unwrap();
    gate.lock().unwrap();
    let mut chance = chance();
    for n in 0..3 {
        let begun = std::time::Instant::now();
        granted(&store, &claim(&format!("job {n}"), &mut chance));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    // A queue that can't be left doesn't keep a store from closing.
    block_on(store.close()).unwrap();
}

#[test]
fn a_refused_claim_writes_nothing() {
    let scratch = Scratch::new("refused");
    let (store, other) = (open(&scratch, clock()), open(&scratch, clock()));
    let mut chance = chance();
    let one = claim("job", &mut chance);
    let grant = granted(&store, &one);
    let log = scratch.path.join("leases.db-wal");
    let before = (fs::read(&log).unwrap(), fs::metadata(&log).unwrap().modified().unwrap());
    for _ in 0..100 {
        refused(&other, &claim("job", &mut chance));
        // A repeated claim finds itself, and a foreign renewal finds nothing to renew.
        assert_eq!(granted(&store, &one).token, grant.token);
        let foreign = hold(&claim("job", &mut chance), &grant, &mut chance);
        assert!(matches!(renew(&other, &foreign).unwrap(), Renewed::NotHeld(_)));
    }
    let after = (fs::read(&log).unwrap(), fs::metadata(&log).unwrap().modified().unwrap());
    assert!(before == after, "the log was written to");
}

#[test]
fn a_closed_or_dropped_store_leaves_no_side_file_and_frees_nothing() {
    let scratch = Scratch::new("closed");
    let observer = open(&scratch, clock());
    let mut chance = chance();
    for close in [true, false] {
        let store = open(&scratch, clock());
        granted(&store, &claim(&format!("closed: {close}"), &mut chance));
        assert_eq!(scratch.holders().len(), 1);
        if close {
            block_on(store.close()).unwrap();
            says(block_on(store.read(&[])), Unavailable, &["closed"]);
        }
        drop(store);
        for _ in 0..1000 {
            if scratch.holders().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(scratch.holders().is_empty());
        refused(&observer, &claim(&format!("closed: {close}"), &mut chance));
    }
}

#[test]
fn doctor_finds_nothing_bad_in_a_fresh_store() {
    let scratch = Scratch::new("doctor");
    let store = open(&scratch, Arc::new(common::BootClock));
    granted(&store, &claim("job", &mut chance()));
    for finding in block_on(store.diagnose()).unwrap() {
        assert_ne!(finding.verdict, Verdict::Bad, "{finding:?}");
        println!("{}: {:?}: {}", finding.check, finding.verdict, finding.detail);
    }
    let by_hand = Connection::open(scratch.db()).unwrap();
    by_hand.execute("UPDATE tenure_store SET last_token = 0", []).unwrap();
    let found = block_on(store.diagnose()).unwrap();
    assert!(found.iter().any(|one| one.check == "tokens" && one.verdict == Verdict::Bad));
    assert!(store.setup().contains("CREATE TABLE IF NOT EXISTS tenure_leases"));
}
