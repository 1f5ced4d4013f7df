//! What has nothing to be set beside: the memory store, `check()`, memory for many holds.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use tenure::{Attempt, Session};

use crate::caller::Caller;
use crate::measure::{Report, Samples};

/// Holds of one session.
const MANY: usize = 10_000;
/// How often `check()` is called.
const CHECKS: u32 = 1_000_000;

/// The memory store's requests, and `check()` as a leader calls it before each effect.
pub(crate) async fn memory(turns: usize) -> Result<()> {
    let session = Session::open("memory:").await?;
    let caller = Caller::new(&session);
    let names = ["one".to_owned()];
    let (mut pairs, mut renewals) = (Samples::default(), Samples::default());
    for _ in 0..turns {
        let turn = async { caller.release(&caller.acquire(&names).await?).await };
        pairs.time(turn).await?;
    }
    let held = caller.acquire(&names).await?;
    for _ in 0..turns {
        renewals.time(caller.renew(&held)).await?;
    }
    caller.release(&held).await?;
    let report = Report::default();
    println!("\nmemory{:>40} {:>10}", "p50", "p99");
    report.alone("acquire and release", &pairs);
    report.alone("renewal", &renewals);
    check(&session).await
}

async fn check(session: &Session) -> Result<()> {
    let Attempt::Granted(lease) = session.lease("checked").try_acquire().await? else {
        bail!("nobody else is here")
    };
    let started = Instant::now();
    for _ in 0..CHECKS {
        std::hint::black_box(lease.check()?);
    }
    println!("  {:<40} {:>10.0?}", "check()", started.elapsed() / CHECKS);
    lease.release().await?;
    Ok(())
}

/// What a session of many holds keeps in memory, its store's caches included.
pub(crate) async fn resident(file: &Path) -> Result<()> {
    let session = Session::open(format!("sqlite:{}", file.display())).await?;
    let mut leases = Vec::with_capacity(MANY);
    for n in 0..MANY {
        match session.lease(format!("held-{n}")).try_acquire().await? {
            Attempt::Granted(lease) => leases.push(lease),
            Attempt::Refused(by) => bail!("{by}"),
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("VmRSS: unknown");
    let resident = line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    println!("{MANY} holds of one session on SQLite: {resident} resident");
    session.close().await?;
    Ok(())
}
