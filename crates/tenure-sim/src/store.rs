//! The modelled store, of either kind.

use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::Instant;
use tenure_core::identity::{Name, StoreId};
use tenure_core::record::Record;
use tenure_core::store::OrderRequest;

use crate::clock::MachineClock;
use crate::request::{Answer, Call, Change};
use crate::rules::Rules;
use crate::store_of_records::StoreOfRecords;
use crate::store_with_clock::StoreWithClock;

/// A lease store in true time.
#[derive(Debug)]
pub(crate) enum Store {
    WithClock(StoreWithClock),
    OfRecords(StoreOfRecords),
}

impl Store {
    pub(crate) fn new(has_clock: bool, clock: MachineClock, chance: &mut Chance) -> Self {
        if has_clock {
            Self::WithClock(StoreWithClock::new(clock, chance))
        } else {
            Self::OfRecords(StoreOfRecords::default())
        }
    }

    /// Carries out one request, atomically. `opened` is the id that the asker believes in.
    pub(crate) fn handle(
        &mut self,
        call: Call,
        opened: Option<StoreId>,
        now: Duration,
        rules: &dyn Rules,
    ) -> (Answer, Option<Change>) {
        match (self, call) {
            (Self::OfRecords(store), Call::Ask(ask)) => store.handle(ask, rules),
            (Self::OfRecords(_), _) => unreachable!("records are only read and swapped"),
            (Self::WithClock(store), call) => store.handle(call, opened, now, rules),
        }
    }

    /// An operator's order, carried out beside the store.
    pub(crate) fn order(
        &mut self,
        name: &Name,
        request: &OrderRequest,
        now: Duration,
    ) -> Option<Change> {
        match self {
            Self::WithClock(store) => store.order(name, request, now),
            Self::OfRecords(store) => store.order(name, request),
        }
    }

    /// What it holds of a name.
    pub(crate) fn record(&self, name: &Name) -> Option<Record> {
        match self {
            Self::WithClock(store) => store.record(name),
            Self::OfRecords(store) => store.record(name),
        }
    }

    /// What its own clock shows, if it has one.
    pub(crate) fn shows(&self, now: Duration) -> Option<Instant> {
        match self {
            Self::WithClock(store) => Some(store.clock.elapsed(now)),
            Self::OfRecords(_) => None,
        }
    }

    pub(crate) fn jump(&mut self, by_millis: i64) {
        if let Self::WithClock(store) = self {
            store.clock.jump(by_millis);
        }
    }

    /// It loses everything, its id too.
    pub(crate) fn forget(&mut self, chance: &mut Chance) {
        match self {
            Self::WithClock(store) => store.forget(chance),
            Self::OfRecords(store) => store.forget(),
        }
    }

    pub(crate) fn back_up(&mut self) {
        match self {
            Self::WithClock(store) => store.back_up(),
            Self::OfRecords(store) => store.back_up(),
        }
    }

    /// It goes back to its last backup, or to nothing.
    pub(crate) fn restore(&mut self) {
        match self {
            Self::WithClock(store) => store.restore(),
            Self::OfRecords(store) => store.restore(),
        }
    }
}
