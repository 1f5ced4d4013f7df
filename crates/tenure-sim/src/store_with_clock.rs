//! The modelled store whose clock decides expiry: the reference store's own tables.

use std::collections::BTreeMap;
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::Instant;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{Name, Namespace, StoreId};
use tenure_core::memory::Table;
use tenure_core::record::Record;
use tenure_core::store::{OrderRequest, Released, Version};

use crate::clock::MachineClock;
use crate::request::{Answer, Call, Change};
use crate::rules::Rules;

/// A table a name, so that a deleted record takes its token along, as it does wherever the
/// token lives in the record.
#[derive(Debug)]
pub(crate) struct StoreWithClock {
    id: StoreId,
    pub(crate) clock: MachineClock,
    namespace: Namespace,
    shelves: BTreeMap<Name, Shelf>,
    backup: BTreeMap<Name, Shelf>,
}

#[derive(Clone, Debug)]
struct Shelf {
    table: Table,
    /// How much younger than the truth a test made this record.
    rejuvenated: Duration,
}

impl StoreWithClock {
    pub(crate) fn new(clock: MachineClock, chance: &mut Chance) -> Self {
        Self {
            id: StoreId::draw(chance),
            clock,
            namespace: Namespace::default(),
            shelves: BTreeMap::new(),
            backup: BTreeMap::new(),
        }
    }

    pub(crate) fn handle(
        &mut self,
        call: Call,
        opened: Option<StoreId>,
        now: Duration,
        rules: &dyn Rules,
    ) -> (Answer, Option<Change>) {
        let name = match &call {
            Call::Open => return (Answer::Opened(self.id), None),
            Call::Acquire(claim) => claim.name.clone(),
            Call::Renew(hold) => hold.name.clone(),
            Call::Release(release) => release.name.clone(),
            Call::Read(name) => name.clone(),
            Call::Ask(_) => unreachable!("this store has more than records"),
        };
        if opened != Some(self.id) {
            let message = "the store's id changed: what was held is lost";
            let error = Error::new(ErrorKind::StoreReset, Operation::Read, message);
            return (Answer::Failed(error), None);
        }
        let before = self.version(&name);
        let shown = self.clock.elapsed(now);
        let namespace = self.namespace.clone();
        let shelf = self
            .shelves
            .entry(name.clone())
            .or_insert_with(|| Shelf { table: Table::new(self.id), rejuvenated: Duration::ZERO });
        let answer = match call {
            Call::Acquire(claim) => {
                let acquired = shelf.table.acquire(&namespace, &claim, shelf.sees(shown));
                Answer::Acquired(rules.claimed(&claim, acquired))
            }
            Call::Renew(hold) => {
                shelf.rejuvenate(&namespace, &name, shown, rules);
                Answer::Renewed(shelf.table.renew(&namespace, &hold, shelf.sees(shown)))
            }
            Call::Release(release) => {
                let released = shelf.table.release(&namespace, &release, shelf.sees(shown));
                if matches!(released, Released::Released(_)) && !rules.keeps_tombstones() {
                    self.shelves.remove(&name);
                }
                Answer::Released(released)
            }
            Call::Read(name) => {
                Answer::Read(shelf.table.read(&namespace, &name, shelf.sees(shown)).map(Box::new))
            }
            Call::Open | Call::Ask(_) => unreachable!("handled above"),
        };
        let changed = self.version(&name) != before;
        let change = changed.then(|| Change { after: self.record(&name), name });
        (answer, change)
    }

    pub(crate) fn order(
        &mut self,
        name: &Name,
        request: &OrderRequest,
        now: Duration,
    ) -> Option<Change> {
        let before = self.version(name);
        let shown = self.clock.elapsed(now);
        let shelf = self.shelves.get_mut(name)?;
        let sees = shelf.sees(shown);
        shelf.table.order(&self.namespace, name, request, sees);
        let changed = self.version(name) != before;
        changed.then(|| Change { after: self.record(name), name: name.clone() })
    }

    pub(crate) fn record(&self, name: &Name) -> Option<Record> {
        let read = self.shelves.get(name)?.table.read(&self.namespace, name, Instant::default());
        read.map(|snapshot| snapshot.record)
    }

    fn version(&self, name: &Name) -> Option<Version> {
        let read = self.shelves.get(name)?.table.read(&self.namespace, name, Instant::default());
        read.map(|snapshot| snapshot.version)
    }

    pub(crate) fn forget(&mut self, chance: &mut Chance) {
        self.id = StoreId::draw(chance);
        self.shelves.clear();
        self.backup.clear();
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = self.shelves.clone();
    }

    pub(crate) fn restore(&mut self) {
        self.shelves = self.backup.clone();
    }
}

impl Shelf {
    fn sees(&self, shown: Instant) -> Instant {
        shown - self.rejuvenated
    }

    /// What a test says of the record's age, the table is made to believe.
    fn rejuvenate(
        &mut self,
        namespace: &Namespace,
        name: &Name,
        shown: Instant,
        rules: &dyn Rules,
    ) {
        let read = self.table.read(namespace, name, self.sees(shown));
        if let Some(age) = read.and_then(|snapshot| snapshot.age) {
            self.rejuvenated += age.saturating_sub(rules.age_at_renewal(age));
        }
    }
}
