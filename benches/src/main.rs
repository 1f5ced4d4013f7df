//! `cargo xtask bench`: each store's requests beside the bare calls of its own client, in one run.

mod beside;
mod caller;
mod idle;
mod measure;
mod picture;
mod small;
mod stores;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use measure::Report;

/// Turns of each paired measurement, unless told otherwise.
const TURNS: usize = 200;

const HELP: &str = "\
bench [--turns N] [--svg FILE] [STORE…]

sqlite and memory are always there; postgres, redis and etcd where TENURE_TEST_POSTGRES,
TENURE_TEST_REDIS and TENURE_TEST_ETCD say (`cargo xtask bench` starts them).";

struct Asked {
    turns: usize,
    svg: Option<PathBuf>,
    stores: Vec<String>,
}

impl Asked {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut asked = Self { turns: TURNS, svg: None, stores: Vec::new() };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--turns" => {
                    let turns = args.next().context("--turns wants a number")?;
                    asked.turns = turns.parse().context("--turns wants a number")?;
                }
                "--svg" => asked.svg = Some(args.next().context("--svg wants a file")?.into()),
                "sqlite" | "memory" | "postgres" | "redis" | "etcd" => asked.stores.push(arg),
                _ => bail!("`{arg}` is not understood\n{HELP}"),
            }
        }
        Ok(asked)
    }

    fn wants(&self, store: &str) -> bool {
        self.stores.is_empty() || self.stores.iter().any(|asked| asked == store)
    }

    /// Where a store's server is; none if the store isn't asked for.
    fn server(&self, store: &str, variable: &str) -> Option<String> {
        if !self.wants(store) {
            return None;
        }
        let url = std::env::var(variable).ok();
        if url.is_none() {
            println!("\n{store}: NOT MEASURED; {variable} isn't set (`cargo xtask bench` sets it)");
        }
        url
    }
}

fn main() -> Result<()> {
    let asked = Asked::read(std::env::args().skip(1))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(bench(&asked))
}

async fn bench(asked: &Asked) -> Result<()> {
    let directory = Directory::new()?;
    let mut report = Report::default();
    if asked.wants("sqlite") {
        // Before anything else grows the heap.
        small::resident(&directory.0.join("resident.db")).await?;
        stores::sqlite::bench(&mut report, &directory.0.join("bench.db"), asked.turns).await?;
    }
    if let Some(url) = asked.server("postgres", "TENURE_TEST_POSTGRES") {
        stores::postgres::bench(&mut report, &url, asked.turns).await?;
    }
    if let Some(url) = asked.server("redis", "TENURE_TEST_REDIS") {
        stores::redis::bench(&mut report, &url, asked.turns).await?;
    }
    if let Some(url) = asked.server("etcd", "TENURE_TEST_ETCD") {
        stores::etcd::bench(&mut report, &url, asked.turns).await?;
    }
    if asked.wants("memory") {
        small::memory(asked.turns * 100).await?;
    }
    if let Some(file) = &asked.svg {
        std::fs::write(file, picture::svg(report.rows()))?;
    }
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
