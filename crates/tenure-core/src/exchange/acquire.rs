//! A claim over compare-and-swap: read, draw a token, swap at the version read before drawing.

use super::{
    Ask, CONFLICTS_MAX, Reply, Step, counted, counter_bytes, first_keys, out_of_turn, seen,
    too_busy,
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
    written: Option<Record>,
}

#[derive(Debug)]
enum Stage {
    Start,
    Reading,
    Counting { current: Option<Snapshot>, above: Option<FencingToken> },
    Drawing { current: Option<Snapshot>, above: Option<FencingToken>, token: FencingToken },
    Swapping { record: Box<Record> },
}

impl Exchange {
    /// A claim to the store of this id.
    #[must_use]
    pub fn new(store: StoreId, claim: Claim) -> Self {
        Self { store, claim, stage: Stage::Start, conflicts: 0, written: None }
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
            (_, Some(Reply::Failed(error))) => self.failed(not_done(error)),
            (Stage::Reading, Some(Reply::Read(read))) => match seen(self.store, read) {
                Ok(current) => self.decide(current),
                Err(error) => self.failed(error),
            },
            (Stage::Counting { current, above }, Some(Reply::Read(read))) => {
                self.draw(current, above, read.into_iter().next().flatten())
            }
            (Stage::Drawing { current, token, .. }, Some(Reply::Written(_))) => {
                self.swap(current, token)
            }
            (Stage::Drawing { current, above, .. }, Some(Reply::Conflict)) => {
                self.again(|exchange| exchange.count(current, above))
            }
            (Stage::Swapping { record }, Some(Reply::Written(version))) => {
                let grant = Grant { token: record.token, version, store: self.store };
                self.written = Some(*record);
                Step::Done(Acquired::Granted(grant))
            }
            // Somebody was faster, or a copy of our own swap was: the record says which.
            (Stage::Swapping { .. }, Some(Reply::Conflict)) => self.again(Self::read),
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
        self.stage = Stage::Drawing { current, above, token };
        let expected = stored.map(|stored| stored.version);
        Step::Ask(Ask::Write { key: tokens_key(), bytes, expected })
    }

    fn swap(&mut self, current: Option<Snapshot>, token: FencingToken) -> Step<Acquired> {
        let before = current.as_ref().map(|snapshot| &snapshot.record);
        let record = decide::granted(before, &self.claim, token);
        let bytes = record.to_json();
        self.stage = Stage::Swapping { record: Box::new(record) };
        let expected = current.map(|snapshot| snapshot.version);
        Step::Ask(Ask::Write { key: self.claim.name.clone(), bytes, expected })
    }

    fn again(&mut self, next: impl FnOnce(&mut Self) -> Step<Acquired>) -> Step<Acquired> {
        self.conflicts += 1;
        if self.conflicts > CONFLICTS_MAX {
            return self.failed(too_busy(Operation::Acquire));
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

/// Before the swap nothing can have been granted: a token that was drawn in vain is skipped.
fn not_done(error: Error) -> Error {
    if error.kind() != ErrorKind::OutcomeUnknown {
        return error;
    }
    let message = "the store did not answer before anything was claimed; try again";
    Error::new(ErrorKind::Unavailable, Operation::Acquire, message).with_source(error)
}
