//! Runs the suite many behaviours at a time, for stores whose behaviours sleep more than they work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::behaviour::Behaviour;
use crate::harness::Harness;
use crate::list::store_behaviours;
use crate::stamp::{carry_out, check_table};

/// Runs the suite as the `main` of a test with `harness = false`: `at_once` behaviours at a time,
/// then those in `alone` one by one, since they work more than they sleep; each on a fresh store,
/// and first of all what [`conformance!`](crate::conformance) calls `table_is_complete`.
///
/// Arguments without dashes choose behaviours whose names contain one of them, as with
/// `cargo test`; `--list` lists them. Each behaviour runs on a thread of its name. `make` is told
/// that name.
pub fn run_together<H: Harness>(
    make: impl Fn(&'static str) -> H + Sync,
    at_once: usize,
    alone: &[&str],
) -> ExitCode {
    run_side_by_side(&[Suite::new("", make, at_once, alone)])
}

/// Runs several suites as [`run_together`] runs one, all at the same time: for a store that comes
/// in several shapes, each with servers of its own. A behaviour is called by its suite's title and
/// its name.
pub fn run_side_by_side(suites: &[Suite<'_>]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    if arguments.iter().any(|word| word == "--list") {
        for suite in suites {
            for behaviour in suite.chosen(&wanted) {
                println!("{}: test", suite.called(behaviour.name));
            }
        }
        return ExitCode::SUCCESS;
    }
    let failed = std::thread::scope(|scope| {
        let running: Vec<_> = suites
            .iter()
            .map(|suite| scope.spawn(|| (suite.run)(suite, &suite.chosen(&wanted))))
            .collect();
        let failed = running.into_iter().map(|suite| suite.join().expect("it catches panics"));
        failed.flatten().collect::<Vec<_>>()
    });
    let count: usize = suites.iter().map(|suite| suite.chosen(&wanted).len()).sum();
    if failed.is_empty() {
        println!("\n{count} behaviours: ok");
        return ExitCode::SUCCESS;
    }
    println!("\n{} of {count} behaviours failed: {}", failed.len(), failed.join(", "));
    ExitCode::FAILURE
}

/// The suite on one kind of store.
pub struct Suite<'m> {
    title: &'m str,
    run: Box<Run<'m>>,
}

/// Runs behaviours; answers which failed.
type Run<'m> = dyn Fn(&Suite<'m>, &[&'static Behaviour]) -> Vec<String> + Sync + 'm;

impl<'m> Suite<'m> {
    /// The suite on what `make` makes; the rest is as for [`run_together`].
    pub fn new<H: Harness>(
        title: &'m str,
        make: impl Fn(&'static str) -> H + Sync + 'm,
        at_once: usize,
        alone: &'m [&'m str],
    ) -> Self {
        let run = move |suite: &Self, chosen: &[&'static Behaviour]| {
            suite.run_all(&make, at_once, alone, chosen)
        };
        Self { title, run: Box::new(run) }
    }

    fn called(&self, behaviour: &str) -> String {
        if self.title.is_empty() {
            return behaviour.to_owned();
        }
        format!("{}: {behaviour}", self.title)
    }

    fn chosen(&self, wanted: &[&str]) -> Vec<&'static Behaviour> {
        let is_wanted = |behaviour: &&Behaviour| {
            let called = self.called(behaviour.name);
            wanted.is_empty() || wanted.iter().any(|word| called.contains(word))
        };
        store_behaviours().filter(is_wanted).collect()
    }

    fn run_all<H: Harness>(
        &self,
        make: &(impl Fn(&'static str) -> H + Sync),
        at_once: usize,
        alone: &[&str],
        chosen: &[&'static Behaviour],
    ) -> Vec<String> {
        let is_alone = |one: &&Behaviour| alone.contains(&one.name);
        let (single, together): (Vec<&'static Behaviour>, Vec<&'static Behaviour>) =
            chosen.iter().copied().partition(is_alone);
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let fail = |name: &str| {
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(self.called(name));
        };
        let table = catch_unwind(AssertUnwindSafe(|| check_table(&make("table_is_complete"))));
        if table.is_err() {
            fail("table_is_complete");
        }
        std::thread::scope(|scope| {
            for _ in 0..at_once.max(1) {
                scope.spawn(|| {
                    while let Some(behaviour) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if !self.passes(behaviour, make) {
                            fail(behaviour.name);
                        }
                    }
                });
            }
        });
        for behaviour in single {
            if !self.passes(behaviour, make) {
                fail(behaviour.name);
            }
        }
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one behaviour, or says why it is waived.
    fn passes<H: Harness>(
        &self,
        behaviour: &'static Behaviour,
        make: &(impl Fn(&'static str) -> H + Sync),
    ) -> bool {
        let begun = Instant::now();
        let run = || {
            let harness = make(behaviour.name);
            let waived = behaviour.waived(&harness);
            if waived.is_none() {
                carry_out(behaviour, &harness);
            }
            waived
        };
        // A thread of its own, so that a panic's message has the behaviour's name.
        let outcome = std::thread::scope(|scope| {
            let named = std::thread::Builder::new().name(self.called(behaviour.name));
            named.spawn_scoped(scope, run).expect("there is a thread more").join()
        });
        let (called, took) = (self.called(behaviour.name), begun.elapsed());
        match &outcome {
            Ok(None) => println!("{called} ... ok ({took:.1?})"),
            Ok(Some(reason)) => println!("{called} ... waived: {reason}"),
            Err(_) => println!("{called} ... FAILED ({took:.1?})"),
        }
        outcome.is_ok()
    }
}
