//! What a run is drawn within.

use std::fmt;
use std::str::FromStr;

use crate::oracle::Invariant;

/// The modelled stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// Its clock decides expiry, and may jump within assumption B.
    WithClock,
    /// Compare-and-swap on records; contenders observe.
    OfRecords,
    /// The first, outside assumption C: wiped or restored now and then.
    ForgetfulWithClock,
    /// The second, outside assumption C.
    ForgetfulOfRecords,
}

impl StoreKind {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::WithClock, Self::OfRecords, Self::ForgetfulWithClock, Self::ForgetfulOfRecords];

    /// As one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WithClock => "clock",
            Self::OfRecords => "records",
            Self::ForgetfulWithClock => "forgetful-clock",
            Self::ForgetfulOfRecords => "forgetful-records",
        }
    }

    pub(crate) fn has_clock(self) -> bool {
        matches!(self, Self::WithClock | Self::ForgetfulWithClock)
    }

    pub(crate) fn forgets(self) -> bool {
        matches!(self, Self::ForgetfulWithClock | Self::ForgetfulOfRecords)
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("`{text}` is not a modelled store; {all} are")
        })
    }
}

/// What a run is drawn within; the seed draws the rest.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which store.
    pub store: StoreKind,
    /// The most instances; at least two take part.
    pub instances_max: usize,
    /// The most names.
    pub names_max: usize,
    /// How long the chaos lasts, in ttls.
    pub chaos_ttls: u32,
    /// The most faults.
    pub faults_max: usize,
    /// Whether a failing schedule is shrunk.
    pub shrinks: bool,
    /// Which invariants end a run; all, if empty.
    pub only: Vec<Invariant>,
}

impl Config {
    /// The usual bounds on this store.
    #[must_use]
    pub fn on(store: StoreKind) -> Self {
        Self {
            store,
            instances_max: 5,
            names_max: 2,
            chaos_ttls: 14,
            faults_max: 24,
            shrinks: true,
            only: Vec::new(),
        }
    }

    pub(crate) fn watches(&self, invariant: Invariant) -> bool {
        self.only.is_empty() || self.only.contains(&invariant)
    }
}
