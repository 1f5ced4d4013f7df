//! A process that holds many names and does nothing but keep them, and says what it takes.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tenure::{Measured, Meter, Session};
use tokio::runtime::Handle;

/// How an idler is started: variables of its environment.
pub(crate) const URL: &str = "TENURE_IDLER_URL";
pub(crate) const HOLDS: &str = "TENURE_IDLER_HOLDS";
pub(crate) const BEATS: &str = "TENURE_IDLER_BEATS";
pub(crate) const TTL_MS: &str = "TENURE_IDLER_TTL_MS";

/// What its lines begin with.
pub(crate) const LINE: &str = "idler";
/// How many samples are taken.
const SAMPLES: u64 = 40;
/// How often a sample looks: the least counts, so that no beat that is under way does.
const LOOKS: u32 = 10;
/// More reads at once than any pool has connections.
const AT_ONCE: usize = 64;
/// How many ttls a beat may be late.
const LATE_MAX: u32 = 20;

/// Counts renewals that came through, and losses.
#[derive(Default)]
struct Counted {
    renewals: AtomicU64,
    lost: AtomicU64,
}

impl Meter for Counted {
    fn record(&self, measured: Measured) {
        match measured {
            Measured::Slack(_) => self.renewals.fetch_add(1, Ordering::Relaxed),
            Measured::Lost(_) => self.lost.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// Holds, beats so often, and prints a line for each sample:
/// `idler BEATS KIB TASKS THREADS FILES SOCKETS LOST`.
pub(crate) fn idle() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let number = |name: &str| variable(name).parse::<u64>().unwrap();
    let (holds, beats) = (number(HOLDS), number(BEATS));
    let ttl = Duration::from_millis(number(TTL_MS));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let counted = Arc::new(Counted::default());
        let builder = Session::builder().url(variable(URL)).meter(counted.clone());
        let session = builder.open().await.unwrap();
        fill_pool(&session).await;
        let mut leases = Vec::new();
        for name in 0..holds {
            // One after the other: how many connections many at once take is another question.
            leases.push(session.lease(format!("name-{name}")).ttl(ttl).acquire().await.unwrap());
        }
        let before = counted.renewals.load(Ordering::Relaxed);
        for sample in 1..=SAMPLES.min(beats) {
            let due = beats * sample / SAMPLES.min(beats);
            let begun = Instant::now();
            let done = || (counted.renewals.load(Ordering::Relaxed) - before) / holds;
            while done() < due {
                let left = ttl * (LATE_MAX + (beats / SAMPLES) as u32);
                assert!(begun.elapsed() < left, "beat {due} is late; {} were there", done());
                tokio::time::sleep(ttl / 30).await;
            }
            let seen = look(ttl).await;
            let lost = counted.lost.load(Ordering::Relaxed);
            println!("{LINE} {due} {seen} {lost}");
        }
        // Closing gives all back in one batch. What a slow machine couldn't ends by itself.
        let _ = session.close().await;
        drop(leases);
    });
}

/// Has the store open as many connections as it ever will, since a pool grows as it is asked by
/// several at once, whatever is held.
async fn fill_pool(session: &Session) {
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let store = Arc::clone(session.store());
        reads.spawn(async move { store.read(&["nobody's".parse().unwrap()]).await.map(drop) });
    }
    while let Some(read) = reads.join_next().await {
        read.unwrap().unwrap();
    }
}

/// `KIB TASKS THREADS FILES SOCKETS`, over the time between two beats.
async fn look(ttl: Duration) -> String {
    let mut least = [u64::MAX; 5];
    for _ in 0..LOOKS {
        let tasks = Handle::current().metrics().num_alive_tasks() as u64;
        let threads = fs::read_dir("/proc/self/task").unwrap().count() as u64;
        let files: Vec<_> = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|file| fs::read_link(file.unwrap().path()).ok())
            .collect();
        let is_socket = |file: &&std::path::PathBuf| file.to_string_lossy().starts_with("socket:");
        let sockets = files.iter().filter(is_socket).count() as u64;
        let seen = [resident_kib(), tasks, threads, files.len() as u64, sockets];
        for (least, seen) in least.iter_mut().zip(seen) {
            *least = seen.min(*least);
        }
        tokio::time::sleep(ttl / 3 / LOOKS).await;
    }
    least.map(|number| number.to_string()).join(" ")
}

fn resident_kib() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64 / 1024
}
