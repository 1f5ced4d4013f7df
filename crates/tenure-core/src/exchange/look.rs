//! A look over compare-and-swap: one read, and one more of the store's id where a record doesn't
//! tell it.

use super::{Ask, Reply, Step, out_of_turn, record_of, same_store, snapshot};
use crate::error::{Error, Operation};
use crate::identity::{Name, StoreId};
use crate::record_store::{Stored, store_key};
use crate::store::Snapshot;

/// What stands at each name.
pub type Looked = Result<Vec<Option<Snapshot>>, Error>;

/// One look on its way.
#[derive(Debug)]
pub struct Exchange {
    store: StoreId,
    names: Vec<Name>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Start,
    Reading,
    Checking(Vec<Option<Snapshot>>),
}

impl Exchange {
    /// A look at `names` in the store of this id.
    #[must_use]
    pub fn new(store: StoreId, names: Vec<Name>) -> Self {
        Self { store, names, stage: Stage::Start }
    }

    /// What to do next.
    pub fn next(&mut self, reply: Option<Reply>) -> Step<Looked> {
        match (std::mem::replace(&mut self.stage, Stage::Start), reply) {
            (Stage::Start, _) => {
                self.stage = Stage::Reading;
                Step::Ask(Ask::Read(self.names.clone()))
            }
            (_, Some(Reply::Failed(error))) => failed(error),
            (Stage::Reading, Some(Reply::Read(read))) => match self.seen(read) {
                Ok((snapshots, true)) => Step::Done(Ok(snapshots)),
                Ok((snapshots, false)) => {
                    self.stage = Stage::Checking(snapshots);
                    Step::Ask(Ask::Read(vec![store_key()]))
                }
                Err(error) => failed(error),
            },
            (Stage::Checking(snapshots), Some(Reply::Read(read))) => {
                match same_store(self.store, read.into_iter().next().flatten()) {
                    Ok(()) => Step::Done(Ok(snapshots)),
                    Err(error) => failed(error),
                }
            }
            (_, _) => failed(out_of_turn(Operation::Read)),
        }
    }

    /// The records, and whether each tells that it was written in this store. One that is absent
    /// tells nothing; nor does one that tells of another store, which may have been there before.
    fn seen(&self, read: Vec<Option<Stored>>) -> Result<(Vec<Option<Snapshot>>, bool), Error> {
        let mut all_told = true;
        let mut snapshots = Vec::with_capacity(read.len());
        for stored in read {
            let Some(stored) = stored else {
                all_told = false;
                snapshots.push(None);
                continue;
            };
            let (record, mark) = record_of(&stored)?;
            all_told &= mark == Some(self.store);
            snapshots.push(Some(snapshot(self.store, record, stored.version)));
        }
        Ok((snapshots, all_told))
    }
}

fn failed(error: Error) -> Step<Looked> {
    Step::Done(Err(error.during(Operation::Read)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::exchange::{record_bytes, store_bytes};
    use crate::record::tests::sample;
    use crate::store::Version;

    const OURS: StoreId = StoreId::from_u128(9);

    fn stored(bytes: Vec<u8>) -> Option<Stored> {
        Some(Stored { bytes, version: Version::new("1") })
    }

    fn look() -> Exchange {
        let mut look = Exchange::new(OURS, vec![sample().name]);
        assert!(matches!(look.next(None), Step::Ask(Ask::Read(keys)) if keys.len() == 1));
        look
    }

    #[test]
    fn a_record_of_this_store_is_one_read() {
        let step = look().next(Some(Reply::Read(vec![stored(record_bytes(OURS, &sample()))])));
        let Step::Done(Ok(seen)) = step else { panic!("{step:?}") };
        assert_eq!(seen[0].as_ref().unwrap().record, sample());
    }

    #[test]
    fn what_tells_nothing_of_this_store_is_not_believed_before_the_store_is() {
        let elsewhere = StoreId::from_u128(8);
        for read in [None, stored(record_bytes(elsewhere, &sample())), stored(sample().to_json())] {
            for (id, same) in [(OURS, true), (elsewhere, false)] {
                let mut look = look();
                let step = look.next(Some(Reply::Read(vec![read.clone()])));
                assert!(matches!(step, Step::Ask(Ask::Read(_))), "{step:?}");
                match look.next(Some(Reply::Read(vec![stored(store_bytes(id))]))) {
                    Step::Done(Ok(seen)) => assert!(same && seen[0].is_some() == read.is_some()),
                    Step::Done(Err(error)) => {
                        assert!(!same && error.kind() == ErrorKind::StoreReset);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
