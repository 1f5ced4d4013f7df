//! Many seeds: what `cargo xtask sim` and CI run.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::config::{Config, StoreKind};
use crate::run::{Report, Violation, run};

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// How many runs were clean.
    pub clean: u64,
    /// How many events they had.
    pub steps: u64,
    /// How many grants.
    pub grants: u64,
    /// Each run that wasn't, on its store.
    pub violations: Vec<(StoreKind, Box<Violation>)>,
}

/// How many violations end a sweep.
const VIOLATIONS_MAX: usize = 3;

/// Runs each of these seeds on a store, on as many threads as there are processors.
#[must_use]
pub fn sweep(seeds: Range<u64>, config: &Config) -> Sweep {
    let next = AtomicU64::new(seeds.start);
    let swept = Mutex::new(Sweep::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed, config);
            let mut swept = swept.lock().unwrap_or_else(PoisonError::into_inner);
            swept.add(outcome, config.store);
            if swept.violations.len() >= VIOLATIONS_MAX {
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut swept = swept.into_inner().unwrap_or_else(PoisonError::into_inner);
    swept.violations.sort_by_key(|(_, violation)| violation.seed);
    swept
}

impl Sweep {
    fn add(&mut self, outcome: Result<Report, Box<Violation>>, store: StoreKind) {
        match outcome {
            Ok(report) => {
                self.clean += 1;
                self.steps += report.steps;
                self.grants += report.grants;
            }
            Err(violation) => self.violations.push((store, violation)),
        }
    }
}

/// Runs each of these seeds on each of these stores (all, if none is named) and says on stderr
/// what came of it.
#[must_use]
pub fn sim(seeds: Range<u64>, stores: &[StoreKind]) -> ExitCode {
    let stores = if stores.is_empty() { &StoreKind::ALL[..] } else { stores };
    let mut broken = false;
    for store in stores {
        let began = Instant::now();
        let sweep = sweep(seeds.clone(), &Config::on(*store));
        let took = began.elapsed().as_secs_f64();
        eprintln!(
            "{store}: {} seeds clean, {} steps, {} grants, {took:.1} s ({:.0} seeds/s)",
            sweep.clean,
            sweep.steps,
            sweep.grants,
            sweep.clean as f64 / took.max(0.001)
        );
        for (_, violation) in &sweep.violations {
            eprintln!("{store}: {violation}");
            eprintln!("to replay it: cargo xtask sim --store {store} --seed {}", violation.seed);
        }
        broken |= !sweep.violations.is_empty();
    }
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// How many seeds are run unless it is said: about a minute's worth on two cores.
const SEEDS_DEFAULT: u64 = 1_500;

/// The command line of `cargo xtask sim`: `[--seeds N] [--from S] [--seed S] [--store KIND]…`.
#[must_use]
pub fn command(args: impl Iterator<Item = String>) -> ExitCode {
    match parsed(args) {
        Ok((seeds, stores)) => sim(seeds, &stores),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(64)
        }
    }
}

fn parsed(mut args: impl Iterator<Item = String>) -> Result<(Range<u64>, Vec<StoreKind>), String> {
    let (mut from, mut count, mut stores) = (0, SEEDS_DEFAULT, Vec::new());
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| format!("`{option}` needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("`{value}` is not a number"));
        match option.as_str() {
            "--seeds" => count = number()?,
            "--from" => from = number()?,
            "--seed" => (from, count) = (number()?, 1),
            "--store" => stores.push(value.parse()?),
            _ => {
                return Err(format!(
                    "`{option}` is unknown; --seeds, --from, --seed and --store are not"
                ));
            }
        }
    }
    Ok((from..from.saturating_add(count), stores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_or_many_on_the_stores_that_are_named() {
        let parse = |line: &str| parsed(line.split_whitespace().map(str::to_owned));
        assert_eq!(parse(""), Ok((0..SEEDS_DEFAULT, vec![])));
        assert_eq!(parse("--seed 7 --store clock"), Ok((7..8, vec![StoreKind::WithClock])));
        assert_eq!(parse("--from 10 --seeds 5"), Ok((10..15, vec![])));
        assert!(parse("--seeds many").is_err());
        assert!(parse("--sed 7").is_err());
    }
}
