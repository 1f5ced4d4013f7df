//! `cargo xtask bench`: rates and latencies beside the raw statement on the same file.

mod measure;
mod postgres;
mod raw;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use measure::{Samples, row};
use raw::{Raw, Threaded};
use tenure::core::identity::{ClaimId, Nonce};
use tenure::core::store::{Acquired, Claim, Grant, Hold, Release, Released, Renewed};
use tenure::{Attempt, Metadata, Name, Session, Store};

/// Turns of each paired measurement, unless the first argument says otherwise.
const TURNS: usize = 400;
/// Holds of the large beat.
const MANY: usize = 10_000;
const TTL: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let turns = match std::env::args().nth(1) {
        Some(turns) => turns.parse().context("the first argument is the number of turns")?,
        None => TURNS,
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(bench(turns))
}

async fn bench(turns: usize) -> Result<()> {
    let directory = Directory::new()?;
    let file = directory.0.join("bench.db");
    // Before anything else grows the heap.
    resident(&directory.0.join("resident.db")).await?;
    println!("{:<44} {:>12} {:>11} {:>11} {:>8}", "", "rate", "p50", "p99", "raw/ours");
    let sqlite = Session::open(format!("sqlite:{}", file.display())).await?;
    beside_the_raw_statement(&sqlite, &file, turns).await?;
    many("sqlite", &sqlite, Some(&file)).await?;
    sqlite.close().await?;

    match std::env::var("TENURE_TEST_POSTGRES") {
        Ok(url) => postgres::beside_the_raw_statement(&url, turns).await?,
        Err(_) => println!("postgres: not measured; `export $(cargo xtask stores up postgres)`"),
    }

    let memory = Session::open("memory:").await?;
    alone("memory", &memory, turns * 100).await?;
    many("memory", &memory, None).await?;
    check(&memory).await
}

/// One instance's requests, straight to the store.
struct Caller {
    store: Arc<dyn Store>,
    session: Session,
    drawn: u128,
}

impl Caller {
    fn new(session: &Session) -> Self {
        Self { store: Arc::clone(session.store()), session: session.clone(), drawn: 1 }
    }

    fn draw(&mut self) -> u128 {
        self.drawn += 1;
        self.drawn
    }

    fn claim(&mut self, name: &str) -> Result<Claim> {
        Ok(Claim {
            name: Name::new(name)?,
            instance: self.session.instance().clone(),
            id: ClaimId::from_u128(self.draw()),
            nonce: Nonce::from_u128(self.draw()),
            ttl: TTL,
            min_hold: Duration::ZERO,
            metadata: Metadata::new(),
            bound_to: None,
            at: Default::default(),
            unanswered_for: Duration::ZERO,
            watched: None,
            above: None,
            ends_with_process: false,
        })
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Grant>> {
        let answers = self.store.acquire(claims).await?;
        answers
            .into_iter()
            .map(|answer| match answer {
                Acquired::Granted(grant) => Ok(grant),
                other => bail!("not granted: {other:?}"),
            })
            .collect()
    }

    fn hold(&mut self, claim: &Claim, grant: &Grant) -> Hold {
        Hold {
            name: claim.name.clone(),
            instance: claim.instance.clone(),
            claim: claim.id,
            token: grant.token,
            ttl: TTL,
            not_before: Duration::ZERO,
            version: grant.version.clone(),
            nonce: Nonce::from_u128(self.draw()),
            unconfirmed_for: Duration::ZERO,
        }
    }

    async fn renew(&self, holds: &[Hold]) -> Result<()> {
        for answer in self.store.renew(holds).await? {
            if !matches!(answer, Renewed::Renewed(_)) {
                bail!("not renewed: {answer:?}");
            }
        }
        Ok(())
    }

    async fn release(&mut self, claim: &Claim, grant: &Grant) -> Result<()> {
        let release = Release {
            name: claim.name.clone(),
            instance: claim.instance.clone(),
            claim: claim.id,
            token: grant.token,
            version: grant.version.clone(),
            nonce: Nonce::from_u128(self.draw()),
            successor: None,
            why: "measured".to_owned(),
            at: Default::default(),
        };
        match self.store.release(&[release]).await?.pop() {
            Some(Released::Released(_)) => Ok(()),
            other => bail!("not released: {other:?}"),
        }
    }
}

/// Writes of ours, and the raw statement on the same file, turn by turn.
///
/// Ours are asynchronous: the statement runs on another thread. So the raw one is measured
/// twice, by the caller itself and behind a thread.
async fn beside_the_raw_statement(session: &Session, file: &Path, turns: usize) -> Result<()> {
    let mut caller = Caller::new(session);
    let mut raw = Both::open(file)?;

    let mut acquisitions = Samples::default();
    for _ in 0..turns {
        let claims = [caller.claim("one")?];
        raw.update().await?;
        let grant = acquisitions.time(caller.acquire(&claims)).await?.remove(0);
        caller.release(&claims[0], &grant).await?;
    }
    raw.rows("sqlite: acquire", &acquisitions);

    let mut releases = Samples::default();
    for _ in 0..turns {
        let claims = [caller.claim("one")?];
        let grant = caller.acquire(&claims).await?.remove(0);
        raw.update().await?;
        releases.time(caller.release(&claims[0], &grant)).await?;
    }
    raw.rows("sqlite: release", &releases);

    let claim = caller.claim("one")?;
    let grant = caller.acquire(std::slice::from_ref(&claim)).await?.remove(0);
    let mut renewals = Samples::default();
    for _ in 0..turns {
        let hold = [caller.hold(&claim, &grant)];
        raw.update().await?;
        renewals.time(caller.renew(&hold)).await?;
    }
    raw.rows("sqlite: renewal of one", &renewals);
    caller.release(&claim, &grant).await
}

/// The raw statement by the caller itself, and behind a thread.
struct Both {
    at_once: Raw,
    threaded: Threaded,
    updates: Samples,
    behind: Samples,
}

impl Both {
    fn open(file: &Path) -> Result<Self> {
        let (at_once, threaded) = (Raw::open(file)?, Raw::open(file)?.on_a_thread());
        Ok(Self { at_once, threaded, updates: Samples::default(), behind: Samples::default() })
    }

    async fn update(&mut self) -> Result<()> {
        self.updates.time(async { self.at_once.update() }).await?;
        self.behind.time(self.threaded.update()).await
    }

    /// Reports both, and `ours` beside each; then begins anew.
    fn rows(&mut self, what: &str, ours: &Samples) {
        let (updates, behind) =
            (std::mem::take(&mut self.updates), std::mem::take(&mut self.behind));
        row("sqlite: one raw update, committed", &updates, None);
        row(what, ours, Some(&updates));
        row("sqlite: that raw update behind a thread", &behind, None);
        row(what, ours, Some(&behind));
    }
}

async fn alone(kind: &str, session: &Session, turns: usize) -> Result<()> {
    let mut caller = Caller::new(session);
    let (mut pairs, mut renewals) = (Samples::default(), Samples::default());
    for _ in 0..turns {
        let claims = [caller.claim("one")?];
        pairs
            .time(async {
                let grant = caller.acquire(&claims).await?.remove(0);
                caller.release(&claims[0], &grant).await
            })
            .await?;
    }
    let claim = caller.claim("one")?;
    let grant = caller.acquire(std::slice::from_ref(&claim)).await?.remove(0);
    for _ in 0..turns {
        let hold = [caller.hold(&claim, &grant)];
        renewals.time(caller.renew(&hold)).await?;
    }
    caller.release(&claim, &grant).await?;
    row(&format!("{kind}: acquire + release"), &pairs, None);
    row(&format!("{kind}: renewal of one"), &renewals, None);
    Ok(())
}

/// The renewal of many holds in one beat.
async fn many(kind: &str, session: &Session, file: Option<&Path>) -> Result<()> {
    let mut caller = Caller::new(session);
    let claims: Vec<Claim> =
        (0..MANY).map(|n| caller.claim(&format!("many-{n}"))).collect::<Result<_>>()?;
    let grants = caller.acquire(&claims).await?;
    let raw = file.map(Raw::open).transpose()?;
    let (mut beats, mut raws) = (Samples::default(), Samples::default());
    for _ in 0..10 {
        if let Some(raw) = &raw {
            raws.time(async { raw.update_many(MANY) }).await?;
        }
        let holds: Vec<Hold> =
            claims.iter().zip(&grants).map(|(claim, grant)| caller.hold(claim, grant)).collect();
        beats.time(caller.renew(&holds)).await?;
    }
    if raw.is_some() {
        row(&format!("{kind}: {MANY} raw updates in one transaction"), &raws, None);
    }
    row(&format!("{kind}: {MANY} renewals in one beat"), &beats, raw.is_some().then_some(&raws));
    Ok(())
}

/// What a session of many holds keeps in memory, its store's caches included.
async fn resident(file: &Path) -> Result<()> {
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
    println!(
        "{MANY} holds of one session on SQLite: {}",
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    );
    session.close().await?;
    Ok(())
}

/// `check()`, as a leader calls it before each effect.
async fn check(session: &Session) -> Result<()> {
    const CHECKS: u32 = 1_000_000;
    let Attempt::Granted(lease) = session.lease("checked").try_acquire().await? else {
        bail!("nobody else is here")
    };
    let started = Instant::now();
    for _ in 0..CHECKS {
        std::hint::black_box(lease.check()?);
    }
    let each = started.elapsed() / CHECKS;
    println!("{:<44} {:>14} {each:>10.0?}", "check()", "");
    lease.release().await?;
    Ok(())
}

/// A directory that goes away with the run.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tenure-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
