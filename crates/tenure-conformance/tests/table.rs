//! The table itself: complete, without gaps, and unable to hide one.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tenure_conformance::behaviour::Place;
use tenure_conformance::harness::{Capability, Harness};
use tenure_conformance::stamp::gaps;
use tenure_conformance::table::{counts, table};
use tenure_conformance::{BEHAVIOURS, session_behaviours};
use tenure_core::clock::Instant;
use tenure_core::identity::Namespace;
use tenure_core::store::Store;

/// `cargo test -p tenure-conformance -- --nocapture table` prints it.
#[test]
fn table_of_the_memory_stores() {
    let (memory, records) = (common::Memory::new(), common::Records::new());
    let text = table(&[&memory, &records]);
    println!("{text}");
    for harness in [&memory as &dyn Harness, &records] {
        let counts = counts(harness);
        assert_eq!(counts.run + counts.waived + counts.elsewhere, BEHAVIOURS.len());
        assert!(counts.run > 2 * counts.waived, "{counts:?}");
    }
    let rows = text.lines().filter(|line| line.contains("| `")).count();
    assert_eq!(rows, BEHAVIOURS.len());
}

#[test]
fn every_number_of_the_list_is_there() {
    let numbers: BTreeSet<_> = BEHAVIOURS.iter().map(|behaviour| behaviour.number).collect();
    for number in (1..=107).map(|number| number.to_string()) {
        assert!(numbers.contains(number.as_str()), "{number} is missing");
    }
    let digits = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().unwrap()
    };
    assert!(BEHAVIOURS.is_sorted_by_key(|behaviour| digits(behaviour.number)));
}

#[test]
fn no_behaviour_stands_twice_in_one_place() {
    let mut seen = BTreeSet::new();
    for behaviour in BEHAVIOURS {
        let place = format!("{:?}", behaviour.place);
        assert!(seen.insert((behaviour.name, place)), "{} stands twice", behaviour.name);
    }
    assert!(session_behaviours().all(|one| matches!(one.place, Place::Session)));
}

/// A harness that claims and lacks other things than its profile says.
struct Liar {
    memory: common::Memory,
    lacks: fn(Capability) -> Option<&'static str>,
}

impl Harness for Liar {
    fn name(&self) -> &str {
        "liar"
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        self.memory.open(namespace)
    }

    fn now(&self) -> Instant {
        self.memory.now()
    }

    fn advance(&self, by: Duration) {
        self.memory.advance(by);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        (self.lacks)(capability)
    }
}

#[test]
fn a_declared_capability_cannot_be_waived() {
    let lacks = |capability| match capability {
        Capability::Push => Some("we have not come to it yet"),
        Capability::ObservedExpiry | Capability::FencedTx => Some("the profile says so, too"),
        _ => None,
    };
    let found = gaps(&Liar { memory: common::Memory::new(), lacks });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("declares Push"), "{found:?}");
}

#[test]
fn an_undeclared_capability_needs_a_reason() {
    let found = gaps(&Liar { memory: common::Memory::new(), lacks: |_| None });
    assert!(found.iter().any(|one| one.contains("doesn't declare FencedTx")), "{found:?}");
    let found = gaps(&Liar { memory: common::Memory::new(), lacks: |_| Some("") });
    let silent = found.iter().filter(|one| one.contains("without a reason")).count();
    assert_eq!(silent, Capability::ALL.len(), "{found:?}");
}
