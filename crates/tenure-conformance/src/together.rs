//! Runs the suite many behaviours at a time, for stores whose behaviours sleep more than they work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
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
    run_side_by_side(&[Suite::new("", make).at_once(at_once).alone(alone)])
}

/// Runs several suites as [`run_together`] runs one: for a store that comes in several shapes,
/// each with servers of its own. First what sleeps, of all suites at the same time; then what is
/// busy, one behaviour of each suite at a time; then what must be alone, one by one. A behaviour
/// is called by its suite's title and its name.
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
    let turns = Turns { phase: Barrier::new(suites.len()), alone: Mutex::default() };
    let failed = std::thread::scope(|scope| {
        let running: Vec<_> = suites
            .iter()
            .map(|suite| scope.spawn(|| (suite.run)(suite, &suite.chosen(&wanted), &turns)))
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
    at_once: usize,
    busy: &'m [&'m str],
    alone: &'m [&'m str],
}

/// Runs behaviours; answers which failed.
type Run<'m> = dyn Fn(&Suite<'m>, &[&'static Behaviour], &Turns) -> Vec<String> + Sync + 'm;

/// What keeps suites from disturbing each other.
struct Turns {
    phase: Barrier,
    alone: Mutex<()>,
}

impl<'m> Suite<'m> {
    /// The suite on what `make` makes, which is told the behaviour's name; one at a time.
    pub fn new<H: Harness>(title: &'m str, make: impl Fn(&'static str) -> H + Sync + 'm) -> Self {
        let run = move |suite: &Self, chosen: &[&'static Behaviour], turns: &Turns| {
            suite.run_all(&make, chosen, turns)
        };
        Self { title, run: Box::new(run), at_once: 1, busy: &[], alone: &[] }
    }

    /// How many of its behaviours run at once.
    #[must_use]
    pub fn at_once(self, at_once: usize) -> Self {
        Self { at_once: at_once.max(1), ..self }
    }

    /// Those that work more than they sleep: one of each suite at a time, after the others.
    #[must_use]
    pub fn busy(self, busy: &'m [&'m str]) -> Self {
        Self { busy, ..self }
    }

    /// Those that nothing else may run beside: last of all.
    #[must_use]
    pub fn alone(self, alone: &'m [&'m str]) -> Self {
        Self { alone, ..self }
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
        chosen: &[&'static Behaviour],
        turns: &Turns,
    ) -> Vec<String> {
        let of = |names: &[&str]| -> Vec<&'static Behaviour> {
            chosen.iter().copied().filter(|one| names.contains(&one.name)).collect()
        };
        let (busy, alone) = (of(self.busy), of(self.alone));
        let later =
            |one: &&Behaviour| self.busy.contains(&one.name) || self.alone.contains(&one.name);
        let sleeping: Vec<_> = chosen.iter().copied().filter(|one| !later(one)).collect();
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let fail = |name: &str| {
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(self.called(name));
        };
        let run = |behaviour: &'static Behaviour| {
            if !self.passes(behaviour, make) {
                fail(behaviour.name);
            }
        };
        let table = catch_unwind(AssertUnwindSafe(|| check_table(&make("table_is_complete"))));
        if table.is_err() {
            fail("table_is_complete");
        }
        std::thread::scope(|scope| {
            for _ in 0..self.at_once {
                scope.spawn(|| {
                    while let Some(behaviour) = sleeping.get(next.fetch_add(1, Ordering::Relaxed)) {
                        run(behaviour);
                    }
                });
            }
        });
        turns.phase.wait();
        busy.into_iter().for_each(run);
        turns.phase.wait();
        for behaviour in alone {
            let _turn = turns.alone.lock().unwrap_or_else(PoisonError::into_inner);
            run(behaviour);
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
