//! One operation of an instance on its way: over one request, or an exchange of several.

use tenure_core::chance::Chance;
use tenure_core::clock::{Instant, Reading};
use tenure_core::error::{Error, ErrorKind, Operation as Doing};
use tenure_core::exchange::{
    Ask, Known, Reply, Step, acquire, look, release, renew, store_bytes, store_id,
};
use tenure_core::identity::{ClaimId, FencingToken, Instance, Name, StoreId};
use tenure_core::record::Record;
use tenure_core::record_store::store_key;
use tenure_core::store::{Acquired, Claim, Hold, Release, Released, Renewed, Snapshot};

use crate::request::{Answer, Call};

/// What a lane wants of the store.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    Open,
    Claim(Box<Claim>),
    Look,
    Renew(Box<Hold>, Option<Known>),
    Release(Box<Release>, Option<Known>),
    /// Nobody is told what it comes to.
    GiveBack(Box<Release>),
}

/// Why a request is made, for the oracle: it travels along.
#[derive(Clone, Debug)]
pub(crate) struct Purpose {
    pub(crate) instance: Instance,
    pub(crate) name: Name,
    pub(crate) doing: Doing,
    pub(crate) sent: Instant,
    pub(crate) above: Option<FencingToken>,
    /// A renewal of what had expired by its holder's own clock: it is refused in any case.
    pub(crate) overdue: bool,
}

/// What an operation came to.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Opened(Result<StoreId, Error>),
    Claimed(ClaimId, Acquired, Option<Known>),
    Looked(Result<Option<Snapshot>, Error>),
    Renewed(FencingToken, Renewed, Option<Record>),
    Released(FencingToken, Released),
    GaveBack,
}

impl Outcome {
    /// Why it failed, if it did.
    pub(crate) fn error(&self) -> Option<&Error> {
        match self {
            Self::Opened(Err(error))
            | Self::Claimed(_, Acquired::Failed(error), _)
            | Self::Looked(Err(error))
            | Self::Renewed(_, Renewed::Failed(error), _)
            | Self::Released(_, Released::Failed(error)) => Some(error),
            _ => None,
        }
    }
}

/// What comes next.
pub(crate) enum Next {
    Call(Call),
    Done(Outcome),
}

/// An operation on its way.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) lane: usize,
    pub(crate) sent: Reading,
    pub(crate) timeout_at: Instant,
    pub(crate) timed_out: bool,
    /// Which request of the exchange is on its way; replies to others are dropped.
    pub(crate) step: u32,
    pub(crate) opened: Option<StoreId>,
    pub(crate) purpose: Purpose,
    want: Want,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    One,
    Open { fresh: StoreId, wrote: bool },
    Look(Box<look::Exchange>),
    Acquire(Box<acquire::Exchange>),
    Renew(Box<renew::Exchange>),
    Release(Box<release::Exchange>),
}

impl Operation {
    /// Starts an operation, and says what to ask first.
    #[expect(clippy::too_many_arguments, reason = "all of it is what an operation is made of")]
    pub(crate) fn start(
        lane: usize,
        name: &Name,
        instance: &Instance,
        want: Want,
        opened: Option<StoreId>,
        over_records: bool,
        sent: Reading,
        timeout_at: Instant,
        chance: &mut Chance,
    ) -> (Self, Next) {
        let id = opened.unwrap_or(StoreId::from_u128(0));
        let (doing, above) = match &want {
            Want::Open => (Doing::Open, None),
            Want::Claim(claim) => (Doing::Acquire, claim.above),
            Want::Look => (Doing::Read, None),
            Want::Renew(..) => (Doing::Renew, None),
            Want::Release(..) | Want::GiveBack(_) => (Doing::Release, None),
        };
        let mut progress = match &want {
            _ if !over_records => Progress::One,
            Want::Open => Progress::Open { fresh: StoreId::draw(chance), wrote: false },
            Want::Look => Progress::Look(Box::new(look::Exchange::new(id, vec![name.clone()]))),
            Want::Claim(claim) => {
                Progress::Acquire(Box::new(acquire::Exchange::new(id, (**claim).clone())))
            }
            Want::Renew(hold, known) => {
                Progress::Renew(Box::new(renew::Exchange::new(id, (**hold).clone(), known.clone())))
            }
            Want::Release(release, known) => Progress::Release(Box::new(release::Exchange::new(
                id,
                (**release).clone(),
                known.clone(),
            ))),
            Want::GiveBack(release) => {
                Progress::Release(Box::new(release::Exchange::new(id, (**release).clone(), None)))
            }
        };
        let first = match (&mut progress, &want) {
            (Progress::Open { .. }, _) => Next::Call(Call::Ask(Ask::Read(vec![store_key()]))),
            (Progress::Acquire(exchange), _) => match exchange.next(None) {
                Step::Ask(ask) => Next::Call(Call::Ask(ask)),
                Step::Done(_) => unreachable!("a claim reads first"),
            },
            // What is known already may say that it is over: then no request leaves.
            (Progress::Renew(exchange), Want::Renew(hold, _)) => match exchange.next(None) {
                Step::Ask(ask) => Next::Call(Call::Ask(ask)),
                Step::Done(renewed) => Next::Done(Outcome::Renewed(hold.token, renewed, None)),
            },
            (Progress::Release(exchange), want) => match (exchange.next(None), want) {
                (Step::Ask(ask), _) => Next::Call(Call::Ask(ask)),
                (Step::Done(released), Want::Release(release, _)) => {
                    Next::Done(Outcome::Released(release.token, released))
                }
                (Step::Done(_), _) => Next::Done(Outcome::GaveBack),
            },
            (Progress::Renew(_), _) => unreachable!("only a renewal renews"),
            (Progress::Look(exchange), _) => match exchange.next(None) {
                Step::Ask(ask) => Next::Call(Call::Ask(ask)),
                Step::Done(_) => unreachable!("a look reads"),
            },
            (Progress::One, want) => Next::Call(match want.clone() {
                Want::Open => Call::Open,
                Want::Claim(claim) => Call::Acquire(claim),
                Want::Look => Call::Read(name.clone()),
                Want::Renew(hold, _) => Call::Renew(hold),
                Want::Release(release, _) | Want::GiveBack(release) => Call::Release(release),
            }),
        };
        let overdue = matches!(&want, Want::Renew(hold, _) if hold.unconfirmed_for >= hold.ttl);
        let purpose = Purpose {
            instance: instance.clone(),
            name: name.clone(),
            doing,
            sent: sent.elapsed,
            above,
            overdue,
        };
        let operation = Self {
            lane,
            sent,
            timeout_at,
            timed_out: false,
            step: 0,
            opened,
            purpose,
            want,
            progress,
        };
        (operation, first)
    }

    /// What it is to the lane if it fails like this.
    pub(crate) fn failed(&self, kind: ErrorKind, message: &str) -> Outcome {
        let error = Error::new(kind, self.purpose.doing, message);
        self.failure(error)
    }

    fn failure(&self, error: Error) -> Outcome {
        match &self.want {
            Want::Open => Outcome::Opened(Err(error)),
            Want::Claim(claim) => Outcome::Claimed(claim.id, Acquired::Failed(error), None),
            Want::Look => Outcome::Looked(Err(error)),
            Want::Renew(hold, _) => Outcome::Renewed(hold.token, Renewed::Failed(error), None),
            Want::Release(release, _) => Outcome::Released(release.token, Released::Failed(error)),
            Want::GiveBack(_) => Outcome::GaveBack,
        }
    }

    /// The claim that it carries.
    pub(crate) fn claim(&self) -> Option<&Claim> {
        match &self.want {
            Want::Claim(claim) => Some(claim),
            _ => None,
        }
    }

    /// Takes in the reply to the request that is on its way.
    pub(crate) fn take(&mut self, answer: Answer) -> Next {
        self.step += 1;
        if let Answer::Replied(reply) = answer {
            return self.replied(reply);
        }
        if let (Answer::Failed(error), false) = (&answer, matches!(self.progress, Progress::One)) {
            return self.replied(Reply::Failed(error.clone()));
        }
        Next::Done(match (answer, &self.want) {
            (Answer::Failed(error), _) => self.failure(error),
            (Answer::Opened(id), _) => Outcome::Opened(Ok(id)),
            (Answer::Acquired(acquired), Want::Claim(claim)) => {
                Outcome::Claimed(claim.id, acquired, None)
            }
            (Answer::Read(read), _) => Outcome::Looked(Ok(read.map(|snapshot| *snapshot))),
            (Answer::Renewed(renewed), Want::Renew(hold, _)) => {
                Outcome::Renewed(hold.token, renewed, None)
            }
            (Answer::Released(released), Want::Release(release, _)) => {
                Outcome::Released(release.token, released)
            }
            (_, _) => Outcome::GaveBack,
        })
    }

    fn replied(&mut self, reply: Reply) -> Next {
        match (&mut self.progress, &self.want) {
            (Progress::Acquire(exchange), Want::Claim(claim)) => match exchange.next(Some(reply)) {
                Step::Ask(ask) => Next::Call(Call::Ask(ask)),
                Step::Done(acquired) => {
                    let known = match (&acquired, exchange.written()) {
                        (Acquired::Granted(grant), Some(record)) => {
                            Some(Known { version: grant.version.clone(), record })
                        }
                        _ => None,
                    };
                    Next::Done(Outcome::Claimed(claim.id, acquired, known))
                }
            },
            (Progress::Renew(exchange), Want::Renew(hold, _)) => match exchange.next(Some(reply)) {
                Step::Ask(ask) => Next::Call(Call::Ask(ask)),
                Step::Done(renewed) => {
                    Next::Done(Outcome::Renewed(hold.token, renewed, exchange.written()))
                }
            },
            (Progress::Release(exchange), want) => match (exchange.next(Some(reply)), want) {
                (Step::Ask(ask), _) => Next::Call(Call::Ask(ask)),
                (Step::Done(released), Want::Release(release, _)) => {
                    Next::Done(Outcome::Released(release.token, released))
                }
                (Step::Done(_), _) => Next::Done(Outcome::GaveBack),
            },
            (Progress::Look(exchange), _) => match exchange.next(Some(reply)) {
                Step::Ask(ask) => Next::Call(Call::Ask(ask)),
                Step::Done(looked) => {
                    Next::Done(Outcome::Looked(looked.map(|mut seen| seen.pop().flatten())))
                }
            },
            (Progress::Open { .. }, _) => self.open(reply),
            (_, _) => unreachable!("what isn't an exchange has no replies"),
        }
    }

    /// As the record stores establish an id: read it, write one if there is none, read again.
    fn open(&mut self, reply: Reply) -> Next {
        let Progress::Open { fresh, wrote } = &mut self.progress else {
            unreachable!("only an opening opens")
        };
        let read_again = Next::Call(Call::Ask(Ask::Read(vec![store_key()])));
        match reply {
            Reply::Read(read) => match read.into_iter().next().flatten() {
                Some(stored) => Next::Done(Outcome::Opened(store_id(&stored))),
                None if !*wrote => {
                    *wrote = true;
                    let bytes = store_bytes(*fresh);
                    Next::Call(Call::Ask(Ask::Write { key: store_key(), bytes, expected: None }))
                }
                None => Next::Done(self.failed(ErrorKind::Unavailable, "no id could be written")),
            },
            Reply::Written(_) | Reply::Conflict => read_again,
            Reply::Failed(error) => Next::Done(self.failure(error)),
        }
    }
}
