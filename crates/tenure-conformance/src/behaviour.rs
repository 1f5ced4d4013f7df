//! A behaviour: what must hold, where it is tested, and what it needs of a store.

use std::fmt;

use crate::harness::{Capability, Harness};

/// One behaviour that must hold. Its number and name are those of the project's list.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Behaviour {
    /// Its number in the list; several behaviours may share one.
    pub number: &'static str,
    /// Its name, which is the name of its test.
    pub name: &'static str,
    /// What it is about.
    pub section: Section,
    /// Where it is tested.
    pub place: Place,
    /// What a store must have for it. A store that lacks it waives the behaviour.
    pub needs: Option<Capability>,
}

/// What a behaviour is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Section {
    /// Acquiring, reading, releasing, names.
    Basics,
    /// Who holds, and that nobody else's request changes it.
    Ownership,
    /// Fencing tokens and guards.
    Tokens,
    /// How long a grant lasts.
    Time,
    /// Waiting and events.
    Waiting,
    /// Many leases at once.
    Many,
    /// Leader election.
    Election,
    /// The command.
    Command,
    /// What doctor measures.
    Doctor,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a behaviour is tested.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Place {
    /// Here, on every store: it panics where the store fails.
    Store(fn(&dyn Harness)),
    /// In `tenure`, whose sessions, leases and elections show it; a test of this name.
    Session,
    /// In `tenure-cli`, with real processes; a test of this name.
    Command,
    /// In `tenure-sim`, over many seeded schedules; a test of this name.
    Simulation,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store(_) => "Store",
            Self::Session => "Session",
            Self::Command => "Command",
            Self::Simulation => "Simulation",
        })
    }
}

impl Behaviour {
    #[doc(hidden)]
    #[must_use]
    pub const fn of_store(
        number: &'static str,
        section: Section,
        name: &'static str,
        run: fn(&dyn Harness),
        needs: Option<Capability>,
    ) -> Self {
        Self { number, name, section, place: Place::Store(run), needs }
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn elsewhere(
        number: &'static str,
        section: Section,
        name: &'static str,
        place: Place,
    ) -> Self {
        Self { number, name, section, place, needs: None }
    }

    /// Whether it is tested on each store, by this crate.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        matches!(self.place, Place::Store(_))
    }

    /// Why this store waives it. None: it must hold.
    #[must_use]
    pub fn waived(&self, harness: &dyn Harness) -> Option<&'static str> {
        self.needs.and_then(|capability| harness.lacks(capability))
    }
}
