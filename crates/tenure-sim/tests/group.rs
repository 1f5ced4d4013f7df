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

#[test]
fn seeds_that_once_failed_stay_clean() {
    let once = [
        // An answer handled before any timer revived a hold that had expired in a pause.
        (StoreKind::WithClock, 1055),
        (StoreKind::OfRecords, 642),
        // A jump that had been noticed was undone by setting the wall clock back.
        (StoreKind::OfRecords, 3902),
        // A claim whose doubled swap met itself was told not done.
        (StoreKind::ForgetfulOfRecords, 40_874),
        // An unknown claim was repeated to a store that had forgotten it.
        (StoreKind::ForgetfulWithClock, 313),
    ];
    for (store, seed) in once {
        if let Err(violation) = run(seed, &Config::on(store)) {
            panic!("{store}: {violation}");
        }
    }
}
