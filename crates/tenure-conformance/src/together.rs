//! Runs the suite many behaviours at a time, for stores whose behaviours sleep more than they work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
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
/// `cargo test`; `--skip WORD` leaves those out that contain it, `--list` lists them. Each
/// behaviour runs on a thread of its name. `make` is told that name.
pub fn run_together<H: Harness>(
    make: impl Fn(&'static str) -> H + Sync,
    at_once: usize,
    alone: &[&str],
) -> ExitCode {
    run_some_together(make, at_once, alone, |_| true)
}

/// The same with those behaviours alone that `some` picks.
pub fn run_some_together<H: Harness>(
    make: impl Fn(&'static str) -> H + Sync,
    at_once: usize,
    alone: &[&str],
    some: impl Fn(&Behaviour) -> bool,
) -> ExitCode {
    let choice = match Choice::read(std::env::args().skip(1)) {
        Ok(choice) => choice,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let chosen: Vec<&Behaviour> =
        store_behaviours().filter(|one| choice.takes(one.name) && some(one)).collect();
    if choice.lists {
        chosen.iter().for_each(|behaviour| println!("{}: test", behaviour.name));
        return ExitCode::SUCCESS;
    }
    let is_alone = |one: &&Behaviour| alone.contains(&one.name);
    let (single, together): (Vec<&Behaviour>, Vec<&Behaviour>) =
        chosen.iter().partition(|behaviour| is_alone(behaviour));
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let fail = |name: &'static str| {
        failed.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    };
    let table = catch_unwind(AssertUnwindSafe(|| check_table(&make("table_is_complete"))));
    if table.is_err() {
        fail("table_is_complete");
    }
    std::thread::scope(|scope| {
        for _ in 0..at_once.max(1) {
            scope.spawn(|| {
                while let Some(behaviour) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !passes(behaviour, &make) {
                        fail(behaviour.name);
                    }
                }
            });
        }
    });
    for behaviour in single {
        if !passes(behaviour, &make) {
            fail(behaviour.name);
        }
    }
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() {
        println!("\n{} behaviours: ok", chosen.len());
        return ExitCode::SUCCESS;
    }
    println!("\n{} of {} behaviours failed: {}", failed.len(), chosen.len(), failed.join(", "));
    ExitCode::FAILURE
}

/// Whether the arguments of this test name behaviours: then nothing else decides which run.
#[must_use]
pub fn behaviours_are_named() -> bool {
    Choice::read(std::env::args().skip(1)).is_ok_and(|choice| !choice.wanted.is_empty())
}

/// What the arguments of a test choose.
#[derive(Debug, Default, PartialEq, Eq)]
struct Choice {
    wanted: Vec<String>,
    skipped: Vec<String>,
    lists: bool,
}

impl Choice {
    /// Reads what `cargo test` passes on. An option with a value that isn't known here would turn
    /// that value into a choice, and might choose nothing.
    fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut choice = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (option, value) = match argument.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (argument.clone(), None),
            };
            match option.as_str() {
                "--list" => choice.lists = true,
                "--skip" => choice.skipped.extend(value.or_else(|| arguments.next())),
                "--nocapture" | "--no-capture" | "--show-output" | "--exact" | "--quiet" | "-q"
                | "--ignored" | "--include-ignored" => {}
                "--test-threads" | "--format" | "--color" => {
                    let _ = value.or_else(|| arguments.next());
                }
                option if option.starts_with('-') => {
                    return Err(format!("this test has no option `{option}`"));
                }
                _ => choice.wanted.push(argument),
            }
        }
        Ok(choice)
    }

    fn takes(&self, name: &str) -> bool {
        let named = |words: &[String]| words.iter().any(|word| name.contains(word));
        (self.wanted.is_empty() || named(&self.wanted)) && !named(&self.skipped)
    }
}

/// Runs one behaviour, or says why it is waived.
fn passes<H: Harness>(
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
        let named = std::thread::Builder::new().name(behaviour.name.to_owned());
        named.spawn_scoped(scope, run).expect("there is a thread more").join()
    });
    let took = begun.elapsed();
    match &outcome {
        Ok(None) => println!("{} ... ok ({took:.1?})", behaviour.name),
        Ok(Some(reason)) => println!("{} ... waived: {reason}", behaviour.name),
        Err(_) => println!("{} ... FAILED ({took:.1?})", behaviour.name),
    }
    outcome.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(arguments: &[&str], name: &str) -> bool {
        let read = Choice::read(arguments.iter().map(|word| (*word).to_owned()));
        read.unwrap().takes(name)
    }

    #[test]
    fn an_option_with_a_value_chooses_nothing() {
        assert!(chosen(&["--skip", "redis"], "release_twice"));
        assert!(chosen(&["--skip=redis", "--test-threads", "2"], "release_twice"));
        assert!(!chosen(&["--skip", "release"], "release_twice"));
        assert!(chosen(&["release"], "release_twice") && !chosen(&["renewal"], "release_twice"));
        assert!(Choice::read(["--surprise".to_owned()]).is_err());
    }
}
