//! The table of behaviours and stores, as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::behaviour::{Behaviour, Place};
use crate::harness::Harness;
use crate::list::BEHAVIOURS;

/// How one store stands to one behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A test runs it.
    Run,
    /// The store lacks what it needs, for this reason.
    Waived(&'static str),
    /// It is tested elsewhere, for all stores.
    Elsewhere,
}

/// How many cells of each kind a store's column has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many behaviours are run on it.
    pub run: usize,
    /// How many it waives.
    pub waived: usize,
    /// How many are tested elsewhere.
    pub elsewhere: usize,
}

/// How `harness`'s store stands to `behaviour`.
#[must_use]
pub fn cell(behaviour: &Behaviour, harness: &dyn Harness) -> Cell {
    if !behaviour.is_of_store() {
        return Cell::Elsewhere;
    }
    behaviour.waived(harness).map_or(Cell::Run, Cell::Waived)
}

/// Counts a store's column.
#[must_use]
pub fn counts(harness: &dyn Harness) -> Counts {
    let mut counts = Counts::default();
    for behaviour in BEHAVIOURS {
        match cell(behaviour, harness) {
            Cell::Run => counts.run += 1,
            Cell::Waived(_) => counts.waived += 1,
            Cell::Elsewhere => counts.elsewhere += 1,
        }
    }
    counts
}

/// The table behaviour × store, as Markdown: a row for each behaviour, a column for each store,
/// and below it why what is waived is waived.
#[must_use]
pub fn table(harnesses: &[&dyn Harness]) -> String {
    let mut text = String::from("| no. | behaviour |");
    for harness in harnesses {
        put(&mut text, format_args!(" {} |", harness.name()));
    }
    text.push_str("\n|---|---|");
    harnesses.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut order = Vec::new();
    for behaviour in BEHAVIOURS {
        put(&mut text, format_args!("| {} | `{}` |", behaviour.number, behaviour.name));
        for harness in harnesses {
            match cell(behaviour, *harness) {
                Cell::Run => text.push_str(" run |"),
                Cell::Waived(reason) => {
                    let note = *reasons.entry(reason).or_insert_with(|| {
                        order.push(reason);
                        order.len()
                    });
                    put(&mut text, format_args!(" waived ({note}) |"));
                }
                Cell::Elsewhere => put(&mut text, format_args!(" {} |", whose(behaviour.place))),
            }
        }
        text.push('\n');
    }
    text.push('\n');
    for harness in harnesses {
        let Counts { run, waived, elsewhere } = counts(*harness);
        put(
            &mut text,
            format_args!("{}: {run} run, {waived} waived, {elsewhere} elsewhere\n", harness.name()),
        );
    }
    for (position, reason) in order.iter().enumerate() {
        put(&mut text, format_args!("\n({}) {reason}", position + 1));
    }
    text.push('\n');
    text
}

fn whose(place: Place) -> &'static str {
    match place {
        Place::Store(_) => "run",
        Place::Session => "session",
        Place::Command => "command",
        Place::Simulation => "simulation",
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes everything");
}
