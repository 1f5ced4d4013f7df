//! A claim over compare-and-swap: read, draw a token, swap at the version read before drawing.

use super::{
    Ask, CONFLICTS_MAX, Reply, Step, counted, counter_bytes, first_keys, in_doubt, out_of_turn,
    record_bytes, seen, too_busy,
};
use crate::decide::{self, Claimed, token_above};
use crate::error::{Error, ErrorKind, Operation};
use crate::identity::{FencingToken, StoreId};
use crate::record::Record;
use crate::record_store::tokens_key;
use crate::store::{Acquired, Claim, Grant, Snapshot};

/// One claim on its way.
#[derive(Debug)]
pub struct Exchange {
    store: StoreId,
    claim: Claim,
    stage: Stage,
    conflicts: u32,
    /// A swap met a conflict, and it wasn't read yet with what.
    swapped: bool,
    written: Option<Record>,
}

#[derive(Debug)]
enum Stage {
    Start,
    Reading,
    Counting { current: Option<Snapshot>, above: Option<FencingToken> },
    Drawing { current: Option<Snapshot>, token: FencingToken },
    Swapping { record: Box<Record> },
}

impl Exchange {
    /// A claim to the store of this id.
    #[must_use]
    pub fn new(store: StoreId, claim: Claim) -> Self {
        Self { store, claim, stage: Stage::Start, conflicts: 0, swapped: false, written: None }
    }

    /// The record that a grant wrote, if this exchange wrote it.
    #[must_use]
    pub fn written(&mut self) -> Option<Record> {
        self.written.take()
    }

    /// What to do next.
    pub fn next(&mut self, reply: Option<Reply>) -> Step<Acquired> {
        let stage = std::mem::replace(&mut self.stage, Stage::Start);
        match (stage, reply) {
            (Stage::Start, _) => self.read(),
            (Stage::Swapping { .. }, Some(Reply::Failed(error))) => self.failed(error),
            // After a swap that met a conflict: see below.
            (Stage::Reading, Some(Reply::Failed(error))) if self.swapped => {
                self.failed(in_doubt(error))
            }
            (_, Some(Reply::Failed(error))) => self.failed(not_done(error)),
            (Stage::Reading, Some(Reply::Read(read))) => match seen(self.store, read) {
                Ok(current) => {
                    self.swapped = false;
                    self.decide(current)
                }
                Err(error) => self.failed(error),
            },
            (Stage::Counting { current, above }, Some(Reply::Read(read))) => {
                self.draw(current, above, read.into_iter().next().flatten())
            }
            (Stage::Drawing { current, token }, Some(Reply::Written(_))) => {
                self.swap(current, token)
            }
            // Somebody else drew, perhaps for this very name: the record says first whether it
            // is still worth it.
            (Stage::Drawing { .. }, Some(Reply::Conflict)) => self.again(Self::read),
            (Stage::Swapping { record }, Some(Reply::Written(version))) => {
                let grant = Grant { token: record.token, version, store: self.store };
                self.written = Some(*record);
                Step::Done(Acquired::Granted(grant))
            }
            // Somebody was faster, or a copy of our own swap was: the record says which.
            (Stage::Swapping { .. }, Some(Reply::Conflict)) => {
                self.swapped = true;
                self.again(Self::read)
            }
            (_, _) => self.failed(out_of_turn(Operation::Acquire)),
        }
    }

    fn read(&mut self) -> Step<Acquired> {
        self.stage = Stage::Reading;
        Step::Ask(Ask::Read(first_keys(&self.claim.name)))
    }

    fn decide(&mut self, current: Option<Snapshot>) -> Step<Acquired> {
        match decide::claim(current.as_ref(), &self.claim) {
            Claimed::Found(token) => {
                let found = current.expect("only a record can be found");
                self.written = Some(found.record);
                let grant = Grant { token, version: found.version, store: self.store };
                Step::Done(Acquired::Granted(grant))
            }
            Claimed::Refused => {
                let by = current.expect("only a record refuses");
                Step::Done(Acquired::Refused(Box::new(by)))
            }
            Claimed::Free { above } => self.count(current, above),
        }
    }

    fn count(&mut self, current: Option<Snapshot>, above: Option<FencingToken>) -> Step<Acquired> {
        self.stage = Stage::Counting { current, above };
        Step::Ask(Ask::Read(vec![tokens_key()]))
    }

    fn draw(
        &mut self,
        current: Option<Snapshot>,
        above: Option<FencingToken>,
        stored: Option<crate::record_store::Stored>,
    ) -> Step<Acquired> {
        let token = match counted(stored.as_ref()).and_then(|last| token_above(above, last)) {
            Ok(token) => token,
            Err(error) => return self.failed(error),
        };
        let bytes = counter_bytes(token, self.claim.nonce);
        self.stage = Stage::Drawing { current, token };
        let expected = stored.map(|stored| stored.version);
        Step::Ask(Ask::Write { key: tokens_key(), bytes, expected })
    }

    fn swap(&mut self, current: Option<Snapshot>, token: FencingToken) -> Step<Acquired> {
        let before = current.as_ref().map(|snapshot| &snapshot.record);
        let record = decide::granted(before, &self.claim, token);
        let bytes = record_bytes(self.store, &record);
        self.stage = Stage::Swapping { record: Box::new(record) };
        let expected = current.map(|snapshot| snapshot.version);
        Step::Ask(Ask::Write { key: self.claim.name.clone(), bytes, expected })
    }

    fn again(&mut self, next: impl FnOnce(&mut Self) -> Step<Acquired>) -> Step<Acquired> {
        self.conflicts += 1;
        if self.conflicts > CONFLICTS_MAX {
            let error = too_busy(Operation::Acquire);
            return self.failed(if self.swapped { in_doubt(error) } else { error });
        }
        // The swap of the next round must not be byte-equal to the one before.
        self.claim.nonce = self.claim.nonce.next();
        next(self)
    }

    fn failed(&self, error: Error) -> Step<Acquired> {
        let error = error.during(Operation::Acquire).with_name(&self.claim.name);
        Step::Done(Acquired::Failed(error))
    }
}

/// Before a swap nothing can have been granted: a token that was drawn in vain is skipped.
fn not_done(error: Error) -> Error {
    if error.kind() != ErrorKind::OutcomeUnknown {
        return error;
    }
    let message = "the store did not answer before anything was claimed; try again";
    Error::new(ErrorKind::Unavailable, Operation::Acquire, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::exchange::store_bytes;
    use crate::identity::{ClaimId, Incarnation, Instance, Name, Nonce};
    use crate::record_store::Stored;
    use crate::store::Version;

    fn exchange() -> Exchange {
        let name = Name::new("billing").unwrap();
        let claim = Claim {
            instance: Instance::new(Name::new("api-1").unwrap(), Incarnation::from_u128(1)),
            name,
            id: ClaimId::from_u128(2),
            nonce: Nonce::from_u128(3),
            ttl: Duration::from_secs(30),
            min_hold: Duration::ZERO,
            metadata: Default::default(),
            bound_to: None,
            at: Timestamp::default(),
            unanswered_for: Duration::ZERO,
            watched: None,
            above: None,
            ends_with_process: false,
        };
        Exchange::new(StoreId::from_u128(9), claim)
    }

    fn nothing_but_the_id() -> Reply {
        let bytes = store_bytes(StoreId::from_u128(9));
        Reply::Read(vec![Some(Stored { bytes, version: Version::new("1") }), None])
    }

    fn unavailable() -> Reply {
        let message = "connection refused";
        Reply::Failed(Error::new(ErrorKind::Unavailable, Operation::Read, message))
    }

    #[track_caller]
    fn assert_fails_as(step: &Step<Acquired>, kind: ErrorKind) {
        match step {
            Step::Done(Acquired::Failed(error)) => assert_eq!(error.kind(), kind),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_done_before_the_swap() {
        let mut exchange = exchange();
        exchange.next(None);
        exchange.next(Some(nothing_but_the_id()));
        let unknown = Error::new(ErrorKind::OutcomeUnknown, Operation::Read, "timed out");
        let step = exchange.next(Some(Reply::Failed(unknown)));
        assert_fails_as(&step, ErrorKind::Unavailable);
    }

    #[test]
    fn a_conflict_that_may_be_with_a_copy_of_our_own_swap_stays_unknown_until_it_is_read() {
        for kind in [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown] {
            let mut exchange = exchange();
            exchange.next(None);
            exchange.next(Some(nothing_but_the_id()));
            exchange.next(Some(Reply::Read(vec![None])));
            exchange.next(Some(Reply::Written(Version::new("2"))));
            // The network doubled the swap; the second copy's answer comes first.
            let step = exchange.next(Some(Reply::Conflict));
            assert!(matches!(step, Step::Ask(Ask::Read(_))), "{step:?}");
            let failed = Error::new(kind, Operation::Read, "no answer");
            let step = exchange.next(Some(Reply::Failed(failed)));
            assert_fails_as(&step, ErrorKind::OutcomeUnknown);
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_unavailable() {
        let mut exchange = exchange();
        exchange.next(None);
        assert_fails_as(&exchange.next(Some(unavailable())), ErrorKind::Unavailable);
    }
}
