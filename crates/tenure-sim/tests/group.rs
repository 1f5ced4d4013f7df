//! Whole groups through many seeds: no guarantee is broken on any modelled store.

use tenure_sim::{Config, StoreKind, run, sweep};

/// How many seeds each store is run through; `cargo xtask sim` runs any number.
const SEEDS: u64 = 400;

fn clean(store: StoreKind) {
    let sweep = sweep(0..SEEDS, &Config::on(store));
    eprintln!("{store}: {} seeds, {} steps, {} grants", sweep.clean, sweep.steps, sweep.grants);
    if let Some((store, violation)) = sweep.violations.first() {
        panic!("{store}: {violation}");
    }
    assert_eq!(sweep.clean, SEEDS);
    assert!(sweep.grants > SEEDS, "the groups have something to do");
}

#[test]
fn one_seed_reproduces_one_run_exactly() {
    for store in StoreKind::ALL {
        for seed in 0..10 {
            let again = || run(seed, &Config::on(store)).map_err(|violation| violation.to_string());
            assert_eq!(again(), again(), "{store}, seed {seed}");
        }
    }
}

#[test]
fn a_store_with_a_clock_keeps_the_guarantees() {
    clean(StoreKind::WithClock);
}

#[test]
fn a_store_of_records_keeps_the_guarantees() {
    clean(StoreKind::OfRecords);
}

#[test]
fn a_store_with_a_clock_that_forgets_keeps_what_it_can() {
    clean(StoreKind::ForgetfulWithClock);
}

#[test]
fn a_store_of_records_that_forgets_keeps_what_it_can() {
    clean(StoreKind::ForgetfulOfRecords);
}
