//! Stamps out the suite for one store: a test for each behaviour, and one for their table.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tenure_core::store::{Expiry, Level, Wake};

use crate::behaviour::{Behaviour, Place};
use crate::harness::{Capability, Harness};
use crate::list::{store_behaviour, store_behaviours};
use crate::player::namespace;

/// Stamps out the whole suite for one store: a `#[test]` for each behaviour, so that none can be
/// forgotten, and `table_is_complete`.
///
/// `$make` is called once a test and returns a fresh [`Harness`](crate::harness::Harness).
///
/// # Example
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use tenure_conformance::harness::{Capability, Harness};
/// # use tenure_core::{clock::Instant, identity::Namespace, store::Store};
/// struct Mine { /* a fresh store */ }
///
/// impl Harness for Mine {
///     fn name(&self) -> &str { "mine" }
///     fn open(&self, namespace: &Namespace) -> Arc<dyn Store> { todo!() }
///     fn now(&self) -> Instant { todo!() }
///     fn advance(&self, by: Duration) { todo!() }
///     fn lacks(&self, capability: Capability) -> Option<&'static str> { None }
/// }
///
/// tenure_conformance::conformance!(|| Mine {});
/// # assert_eq!(Mine {}.name(), "mine");
/// ```
#[macro_export]
macro_rules! conformance {
    ($make:expr) => {
        $crate::with_behaviours! { stamp_behaviours $make }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! stamp_behaviours {
    ([$make:expr] $($entry:tt)*) => {
        $($crate::stamp_behaviour! { $make, $entry })*

        /// Every behaviour is run, or waived with a reason.
        #[test]
        fn table_is_complete() {
            $crate::stamp::check_table(&($make)());
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! stamp_behaviour {
    ($make:expr, ($number:literal $section:ident $name:ident in $($rest:tt)*)) => {
        #[test]
        #[allow(non_snake_case, reason = "the name is that of the list of behaviours")]
        fn $name() {
            $crate::stamp::run(stringify!($name), &($make)());
        }
    };
    ($make:expr, ($number:literal $section:ident $name:ident at $place:ident)) => {};
}

/// Runs one behaviour on a fresh store, or prints why the store waives it.
///
/// # Panics
/// The store fails, or `name` isn't a behaviour of stores.
pub fn run(name: &str, harness: &dyn Harness) {
    let behaviour = store_behaviour(name).expect("the behaviour is in the list");
    match behaviour.waived(harness) {
        Some(reason) => println!("{name} is waived for {}: {reason}", harness.name()),
        None => carry_out(behaviour, harness),
    }
}

pub(crate) fn carry_out(behaviour: &Behaviour, harness: &dyn Harness) {
    if let Place::Store(run) = behaviour.place {
        run(harness);
    }
}

/// Runs the behaviours of these names, or all, each on a fresh store, and returns those that
/// failed with what they said. For tests of the suite itself, and for `xtask`.
pub fn failures<H: Harness>(make: impl Fn() -> H, only: Option<&[&str]>) -> Vec<Failure> {
    store_behaviours()
        .filter(|behaviour| only.is_none_or(|names| names.contains(&behaviour.name)))
        .filter_map(|behaviour| {
            let harness = make();
            if behaviour.waived(&harness).is_some() {
                return None;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| carry_out(behaviour, &harness)));
            let panic = outcome.err()?;
            let said = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            Some(Failure { behaviour: behaviour.name, said })
        })
        .collect()
}

/// A behaviour that failed, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub behaviour: &'static str,
    /// The message of its panic.
    pub said: String,
}

/// Checks that a store's column has no gap: each behaviour is run, or waived with a reason, and
/// the harness claims and lacks what the profile says.
///
/// # Panics
/// Where it doesn't; the message lists all that is amiss.
pub fn check_table(harness: &dyn Harness) {
    let amiss = gaps(harness);
    assert!(amiss.is_empty(), "{}: {}", harness.name(), amiss.join("; "));
}

/// What is amiss with a store's column; nothing, if it is complete.
#[must_use]
pub fn gaps(harness: &dyn Harness) -> Vec<String> {
    let mut amiss = Vec::new();
    let store = harness.open(&namespace());
    let profile = store.profile();
    for (capability, declared) in [
        (Capability::StoreClock, profile.expiry == Expiry::StoreClock),
        (Capability::ObservedExpiry, profile.expiry == Expiry::Observed),
        (Capability::Push, matches!(profile.wake, Wake::Push(_))),
        (Capability::FencedTx, profile.level == Level::FencedTx),
    ] {
        match (declared, harness.lacks(capability)) {
            (true, Some(reason)) => {
                amiss.push(format!("the profile declares {capability:?}, waived as: {reason}"));
            }
            (false, None) => {
                amiss.push(format!("the profile doesn't declare {capability:?}; say why not"));
            }
            (true, None) | (false, Some(_)) => {}
        }
    }
    for capability in Capability::ALL {
        if harness.lacks(*capability).is_some_and(|reason| reason.trim().len() < 10) {
            amiss.push(format!("{capability:?} is waived without a reason"));
        }
    }
    let mut names = BTreeSet::new();
    for behaviour in store_behaviours() {
        if !names.insert(behaviour.name) {
            amiss.push(format!("{} is in the list twice", behaviour.name));
        }
    }
    amiss
}
