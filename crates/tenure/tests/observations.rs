//! A process that is started anew goes on from what the one before has observed.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tenure::core::chance::Chance;
use tenure::core::memory::MemoryRecords;
use tenure::core::record_leases::RecordLeases;
use tenure::{Attempt, ErrorKind, Session};

const TTL: Duration = Duration::from_secs(1);

/// A file that nobody else has, removed in the end.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let file = format!("tenure-observations-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(file))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn session(records: &MemoryRecords, file: Option<&Path>) -> Session {
    let records = records.in_namespace(Default::default());
    let leases = RecordLeases::open(records, Chance::seeded(file.map_or(1, |_| 2))).await.unwrap();
    let builder = Session::builder().store(Arc::new(leases));
    match file {
        Some(file) => builder.observations(file).open().await.unwrap(),
        None => builder.open().await.unwrap(),
    }
}

/// What one start of a cron job comes to: it tries once, and gives back what it got.
async fn tries(records: &MemoryRecords, file: Option<&Path>) -> bool {
    let session = session(records, file).await;
    let attempt = session.lease("nightly").ttl(TTL).try_acquire().await.unwrap();
    let acquired = match attempt {
        Attempt::Granted(lease) => {
            lease.leave_to_ttl();
            true
        }
        _ => false,
    };
    session.close().await.unwrap();
    acquired
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_looked_before_takes_over_without_watching_for_a_ttl() {
    let (records, file) = (MemoryRecords::new(), File::new("took-over"));
    assert!(tries(&records, Some(&file.0)).await, "nobody held it");
    // That job is dead; its grant runs on.
    assert!(!tries(&records, Some(&file.0)).await, "it was just granted");
    tokio::time::sleep(TTL * 2).await;
    assert!(!tries(&records, None).await, "one that never looked before has to watch");
    assert!(tries(&records, Some(&file.0)).await, "it was seen unchanged for a ttl");
    assert!(!tries(&records, Some(&file.0)).await, "what was seen is not what is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn observations_by_another_clock_count_for_nothing() {
    let (records, file) = (MemoryRecords::new(), File::new("other-clock"));
    assert!(tries(&records, None).await);
    assert!(!tries(&records, Some(&file.0)).await);
    tokio::time::sleep(TTL * 2).await;
    let clock = tenure::core::clock::identity().unwrap();
    let text = std::fs::read_to_string(&file.0).unwrap();
    std::fs::write(&file.0, text.replace(&clock, "another boot")).unwrap();
    assert!(!tries(&records, Some(&file.0)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_something_else_or_cannot_be_is_refused_by_name_and_left_alone() {
    let (records, file) = (MemoryRecords::new(), File::new("something-else"));
    std::fs::write(&file.0, "my notes").unwrap();
    for refused in [file.0.clone(), file.0.join("in-a-file")] {
        let leases =
            RecordLeases::open(records.in_namespace(Default::default()), Chance::seeded(3));
        let builder = Session::builder().store(Arc::new(leases.await.unwrap()));
        let error = builder.observations(&refused).open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains(refused.to_str().unwrap()), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&file.0).unwrap(), "my notes");
}
