//! An operator's order over compare-and-swap: read, mark, swap.

use super::{
    Ask, CONFLICTS_MAX, Reply, Step, first_keys, in_doubt, out_of_turn, record_bytes, seen,
    too_busy,
};
use crate::decide;
use crate::error::{Error, Operation};
use crate::identity::{Name, StoreId};
use crate::record::Record;
use crate::store::{OrderRequest, Ordered, Snapshot};

/// One order on its way.
#[derive(Debug)]
pub struct Exchange {
    store: StoreId,
    name: Name,
    request: OrderRequest,
    stage: Stage,
    conflicts: u32,
}

#[derive(Debug)]
enum Stage {
    Start,
    Reading,
    Writing(Box<Record>),
}

impl Exchange {
    /// An order in the store of this id.
    #[must_use]
    pub fn new(store: StoreId, name: Name, request: OrderRequest) -> Self {
        Self { store, name, request, stage: Stage::Start, conflicts: 0 }
    }

    /// What to do next.
    pub fn next(&mut self, reply: Option<Reply>) -> Step<Ordered> {
        match (std::mem::replace(&mut self.stage, Stage::Start), reply) {
            (Stage::Start, _) => self.read(),
            (Stage::Reading, Some(Reply::Failed(error))) if self.conflicts > 0 => {
                self.failed(in_doubt(error))
            }
            (_, Some(Reply::Failed(error))) => self.failed(error),
            (Stage::Reading, Some(Reply::Read(read))) => match seen(self.store, read) {
                Ok(current) => self.decide(current),
                Err(error) => self.failed(error),
            },
            (Stage::Writing(record), Some(Reply::Written(version))) => {
                Step::Done(Ordered::Ordered(Box::new(Snapshot {
                    record: *record,
                    version,
                    store: self.store,
                    age: None,
                    holder_gone: false,
                })))
            }
            (Stage::Writing(_), Some(Reply::Conflict)) => {
                self.conflicts += 1;
                if self.conflicts > CONFLICTS_MAX {
                    return self.failed(in_doubt(too_busy(Operation::Order)));
                }
                self.request.nonce = self.request.nonce.next();
                self.read()
            }
            (_, _) => self.failed(out_of_turn(Operation::Order)),
        }
    }

    fn read(&mut self) -> Step<Ordered> {
        self.stage = Stage::Reading;
        Step::Ask(Ask::Read(first_keys(&self.name)))
    }

    fn decide(&mut self, current: Option<Snapshot>) -> Step<Ordered> {
        let Some(record) = decide::ordered(current.as_ref(), &self.request) else {
            return Step::Done(Ordered::NotHeld(current.map(Box::new)));
        };
        let bytes = record_bytes(self.store, &record);
        self.stage = Stage::Writing(Box::new(record));
        let expected = current.map(|snapshot| snapshot.version);
        Step::Ask(Ask::Write { key: self.name.clone(), bytes, expected })
    }

    fn failed(&self, error: Error) -> Step<Ordered> {
        Step::Done(Ordered::Failed(error.during(Operation::Order).with_name(&self.name)))
    }
}
