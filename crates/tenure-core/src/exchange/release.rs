//! A release over compare-and-swap: one write of a tombstone on the version that we wrote last.

use super::{
    Ask, CONFLICTS_MAX, Known, Reply, Step, first_keys, in_doubt, out_of_turn, record_bytes, seen,
    too_busy,
};
use crate::decide;
use crate::error::{Error, Operation};
use crate::identity::StoreId;
use crate::store::{Release, Released, Snapshot};

/// One release on its way.
#[derive(Debug)]
pub struct Exchange {
    store: StoreId,
    release: Release,
    stage: Stage,
    conflicts: u32,
}

#[derive(Debug)]
enum Stage {
    Start(Option<Known>),
    Reading,
    Writing,
}

impl Exchange {
    /// A release in the store of this id; `known` is what we wrote last, if it is still known.
    #[must_use]
    pub fn new(store: StoreId, release: Release, known: Option<Known>) -> Self {
        Self { store, release, stage: Stage::Start(known), conflicts: 0 }
    }

    /// What to do next.
    pub fn next(&mut self, reply: Option<Reply>) -> Step<Released> {
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
            (Stage::Writing, Some(Reply::Written(version))) => {
                Step::Done(Released::Released(version))
            }
            // An order, a late copy of a renewal, or a successor: look.
            (Stage::Writing, Some(Reply::Conflict)) => {
                self.conflicts += 1;
                if self.conflicts > CONFLICTS_MAX {
                    return self.failed(in_doubt(too_busy(Operation::Release)));
                }
                self.release.nonce = self.release.nonce.next();
                self.read()
            }
            (_, _) => self.failed(out_of_turn(Operation::Release)),
        }
    }

    fn read(&mut self) -> Step<Released> {
        self.stage = Stage::Reading;
        Step::Ask(Ask::Read(first_keys(&self.release.name)))
    }

    fn decide(&mut self, current: Option<Snapshot>) -> Step<Released> {
        let Some(record) = decide::released(current.as_ref(), &self.release) else {
            return Step::Done(Released::NotHeld(current.map(Box::new)));
        };
        self.stage = Stage::Writing;
        let expected = current.map(|snapshot| snapshot.version);
        let bytes = record_bytes(self.store, &record);
        Step::Ask(Ask::Write { key: self.release.name.clone(), bytes, expected })
    }

    fn failed(&self, error: Error) -> Step<Released> {
        Step::Done(Released::Failed(error.during(Operation::Release).with_name(&self.release.name)))
    }
}
