//! A renewal over compare-and-swap: one write on the version that we wrote last.

use super::{
    Ask, CONFLICTS_MAX, Known, Reply, Step, first_keys, in_doubt, out_of_turn, record_bytes, seen,
    too_busy,
};
use crate::decide;
use crate::error::{Error, Operation};
use crate::identity::StoreId;
use crate::record::Record;
use crate::store::{Hold, Renewed, Snapshot, Version};

/// One renewal on its way.
#[derive(Debug)]
pub struct Exchange {
    store: StoreId,
    hold: Hold,
    stage: Stage,
    conflicts: u32,
    written: Option<Record>,
}

#[derive(Debug)]
enum Stage {
    Start(Option<Known>),
    Reading,
    Writing(Box<Record>),
}

impl Exchange {
    /// A renewal in the store of this id; `known` is what we wrote last, if it is still known.
    #[must_use]
    pub fn new(store: StoreId, hold: Hold, known: Option<Known>) -> Self {
        Self { store, hold, stage: Stage::Start(known), conflicts: 0, written: None }
    }

    /// The record that a renewal wrote.
    #[must_use]
    pub fn written(&mut self) -> Option<Record> {
        self.written.take()
    }

    /// What to do next.
    pub fn next(&mut self, reply: Option<Reply>) -> Step<Renewed> {
        match (std::mem::replace(&mut self.stage, Stage::Start(None)), reply) {
            (Stage::Start(None), _) => self.read(),
            (Stage::Start(Some(known)), _) => {
                let Known { version, record } = known;
                self.decide(Some(Snapshot {
                    record,
                    version,
                    store: self.store,
                    age: None,
                    holder_gone: false,
                }))
            }
            (Stage::Reading, Some(Reply::Failed(error))) if self.conflicts > 0 => {
                self.failed(in_doubt(error))
            }
            (_, Some(Reply::Failed(error))) => self.failed(error),
            (Stage::Reading, Some(Reply::Read(read))) => match seen(self.store, read) {
                Ok(current) => self.decide(current),
                Err(error) => self.failed(error),
            },
            (Stage::Writing(record), Some(Reply::Written(version))) => {
                Step::Done(self.renewed(*record, version))
            }
            // An order, a mark, a copy of our own renewal, or another holder: look.
            (Stage::Writing(_), Some(Reply::Conflict)) => {
                self.conflicts += 1;
                if self.conflicts > CONFLICTS_MAX {
                    return self.failed(in_doubt(too_busy(Operation::Renew)));
                }
                self.hold.nonce = self.hold.nonce.next();
                self.read()
            }
            (_, _) => self.failed(out_of_turn(Operation::Renew)),
        }
    }

    fn read(&mut self) -> Step<Renewed> {
        self.stage = Stage::Reading;
        Step::Ask(Ask::Read(first_keys(&self.hold.name)))
    }

    fn decide(&mut self, current: Option<Snapshot>) -> Step<Renewed> {
        let expected = current.as_ref().map(|snapshot| snapshot.version.clone());
        let record = match decide::renewed(current, &self.hold) {
            Ok(record) => record,
            Err(instead) => return Step::Done(Renewed::NotHeld(instead)),
        };
        let bytes = record_bytes(self.store, &record);
        self.stage = Stage::Writing(Box::new(record));
        Step::Ask(Ask::Write { key: self.hold.name.clone(), bytes, expected })
    }

    fn renewed(&mut self, record: Record, version: Version) -> Renewed {
        let asked = decide::asked(&record).cloned();
        self.written = Some(record);
        match asked {
            Some(order) => Renewed::Asked(version, Box::new(order)),
            None => Renewed::Renewed(version),
        }
    }

    fn failed(&self, error: Error) -> Step<Renewed> {
        Step::Done(Renewed::Failed(error.during(Operation::Renew).with_name(&self.hold.name)))
    }
}
