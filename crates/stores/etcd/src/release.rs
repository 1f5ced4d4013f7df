//! Releases and orders: read, decide, and swap what was read.

use std::sync::Arc;
use std::time::Duration;

use tenure_core::decide;
use tenure_core::identity::Name;
use tenure_core::neighbour::{is_made_up, takes_no_orders};
use tenure_core::record::{Record, State};
use tenure_core::store::{OrderRequest, Ordered, Release, Released};
use tenure_core::{Error, ErrorKind, Operation};

use crate::all::{Job, all};
use crate::entry::{Entry, Grantee, Left, Pledge, Written, version};
use crate::errors::Failure;
use crate::keys::Kind;
use crate::leases::{TTL_LEAST, seconds};
use crate::link::{Link, TXN_OPS, Unwritten, delete, found, put, range};
use crate::wire::{Compare, PutRequest, Request, RequestOp, TxnRequest};

/// How often something is tried on a name that others change meanwhile.
const TRIES: usize = 16;

const RELEASE: Operation = Operation::Release;
const ORDER: Operation = Operation::Order;

/// One release while it is dealt with.
struct Giving<'a> {
    release: &'a Release,
    entry: Option<Entry>,
    answer: Option<Released>,
}

/// A release that is about to be sent: its place in the batch, its Txn, and its tombstone.
type Sending = (usize, TxnRequest, Record);

impl Link {
    /// Carries out releases.
    pub(crate) async fn release(self: &Arc<Self>, releases: &[Release]) -> Vec<Released> {
        let mut giving: Vec<Giving<'_>> =
            releases.iter().map(|release| self.giving(release)).collect();
        for _ in 0..TRIES {
            let open: Vec<usize> =
                (0..giving.len()).filter(|at| giving[*at].answer.is_none()).collect();
            if open.is_empty() {
                break;
            }
            if let Err(error) = self.give_back(&mut giving, &open).await {
                open.iter().for_each(|at| giving[*at].fail(&error));
            }
        }
        let contested = contested(RELEASE);
        let answers = giving.into_iter();
        answers
            .map(|one| one.answer.unwrap_or_else(|| Released::Failed(contested.clone())))
            .collect()
    }

    /// What the session itself knows of what is given back.
    fn giving<'a>(&self, release: &'a Release) -> Giving<'a> {
        let known =
            self.ledger.hold(&release.name, &release.instance, release.claim, release.token);
        let entry = known.and_then(|known| {
            let written = known.written?;
            let of = Grantee::of_record(&written.record);
            let held = Pledge { created: known.created, lease: known.lease, of };
            // Only the revision is compared, and min-hold is left where it is.
            let kept = (!written.record.not_before.is_zero()).then(|| held.clone());
            let record = Some(written);
            Some(Entry { record, held: Some(held), kept, ..Entry::default() })
        });
        Giving { release, entry, answer: None }
    }

    async fn give_back(
        self: &Arc<Self>,
        giving: &mut [Giving<'_>],
        open: &[usize],
    ) -> Result<(), Error> {
        let unseen: Vec<usize> =
            open.iter().copied().filter(|at| giving[*at].entry.is_none()).collect();
        let names: Vec<Name> = unseen.iter().map(|at| giving[*at].release.name.clone()).collect();
        if !names.is_empty() {
            for (at, (entry, _)) in unseen.into_iter().zip(self.entries(RELEASE, &names).await?) {
                match entry {
                    Ok(entry) => giving[at].entry = Some(entry),
                    Err(error) => giving[at].fail(&error.during(RELEASE)),
                }
            }
        }
        let belief = self.belief();
        let (mut sending, mut lost): (Vec<Sending>, Vec<usize>) = Default::default();
        for at in open {
            let one = &giving[*at];
            let (Some(entry), None) = (&one.entry, &one.answer) else { continue };
            let (release, name) = (one.release, &one.release.name);
            let snapshot = entry.snapshot(name, belief.store, &Left::new());
            match decide::released(snapshot.as_ref(), release) {
                Some(tombstone) => {
                    let txn = self.tombstone_txn(release, entry, &tombstone).await?;
                    sending.push((*at, txn, tombstone));
                }
                None => lost.push(*at),
            }
        }
        let instead = lost.iter().filter_map(|at| giving[*at].entry.as_ref());
        let leases = instead.flat_map(Entry::leases).collect();
        let left = self.left(leases, RELEASE).await.unwrap_or_default();
        for at in lost {
            let one = &mut giving[at];
            let name = &one.release.name;
            let instead = one.entry.as_ref().and_then(|e| e.shown(name, belief.store, &left));
            self.ledger.over(name, one.release.token);
            one.answer = Some(Released::NotHeld(instead.map(Box::new)));
        }
        let mut chunks: Vec<Job<'_, _>> = Vec::new();
        for chunk in sending.chunks(TXN_OPS) {
            let txns = chunk.iter().map(|(_, txn, _)| txn.clone()).collect();
            chunks.push(Box::pin(self.write(RELEASE, txns, belief, false)));
        }
        let written = all(chunks).await;
        for (chunk, outcome) in sending.chunks(TXN_OPS).zip(written) {
            match outcome {
                Ok((answers, seen)) => {
                    for ((at, _, tombstone), answer) in chunk.iter().zip(answers) {
                        let one = &mut giving[*at];
                        let name = &one.release.name;
                        if answer.succeeded {
                            let revision = seen.revision;
                            let written = Written { record: tombstone.clone(), revision };
                            self.ledger.over(name, one.release.token);
                            self.ledger.saw(name, Some(&written));
                            one.answer = Some(Released::Released(version(revision)));
                            continue;
                        }
                        match Entry::read(name, &self.keys, &found(answer)) {
                            Ok(entry) => one.entry = Some(entry),
                            Err(error) => one.fail(&error.during(RELEASE)),
                        }
                    }
                }
                Err(Unwritten::FloorMoved) => {}
                Err(Unwritten::Failed(Failure::LeaseGone(_))) => self.ledger.forget_resting(),
                Err(Unwritten::Failed(failure)) => {
                    let error = Error::from(failure);
                    chunk.iter().for_each(|(at, _, _)| giving[*at].fail(&error));
                }
            }
        }
        Ok(())
    }

    /// The Txn that puts a tombstone in a grant's place, if all is as it was seen.
    async fn tombstone_txn(
        &self,
        release: &Release,
        entry: &Entry,
        tombstone: &Record,
    ) -> Result<TxnRequest, Error> {
        let key = |kind| self.keys.of(&release.name, kind);
        let resting = self.leases(&[self.resting(tombstone.ttl)], RELEASE).await?;
        let resting = resting.first().copied().unwrap_or_default();
        let compare = unchanged(entry, key(Kind::Held), key(Kind::Record));
        let mut success = vec![put(key(Kind::Record), tombstone.to_json(), resting)];
        success.extend([Kind::Held, Kind::Asked, Kind::Revoked].map(|kind| delete(key(kind))));
        let (name, holder) = (&release.name, &release.instance);
        let mut entry = self.keys.give_entry(name, holder);
        if let Some(reserved) = &release.successor {
            success.push(delete(key(Kind::Kept)));
            let lasts = seconds(reserved.lasts).max(seconds(TTL_LEAST));
            if reserved.lasts > Duration::ZERO {
                let (lease, _) = self.grant(lasts, RELEASE).await?;
                let successor = reserved.successor.to_string().into_bytes();
                success.push(put(key(Kind::Reserved), successor, lease));
                entry = self.keys.keep_entry(name, holder, &reserved.successor, lease);
            }
        }
        success.extend(entry);
        let failure = vec![range(self.keys.all_of(&release.name))];
        Ok(TxnRequest { compare, success, failure })
    }

    /// Puts an order on a grant.
    pub(crate) async fn order(
        &self,
        name: &Name,
        request: &OrderRequest,
    ) -> Result<Ordered, Error> {
        for _ in 0..TRIES {
            let belief = self.belief();
            let found = self.entries(ORDER, std::slice::from_ref(name)).await?.pop();
            let entry = match found {
                Some((entry, _)) => entry.map_err(|error| error.during(ORDER))?,
                None => Entry::default(),
            };
            let left = self.left(entry.leases().collect(), ORDER).await.unwrap_or_default();
            let current = entry.snapshot(name, belief.store, &left);
            let Some(marked) = decide::ordered(current.as_ref(), request) else {
                let shown = entry.shown(name, belief.store, &left);
                return Ok(match shown.as_ref().filter(|shown| is_made_up(&shown.record)) {
                    Some(theirs) => Ordered::Failed(takes_no_orders(&theirs.record)),
                    None => Ordered::NotHeld(shown.map(Box::new)),
                });
            };
            let txn = self.order_txn(name, &entry, &marked);
            match self.write(ORDER, vec![txn], belief, false).await {
                Ok((answers, seen)) if answers.iter().all(|answer| answer.succeeded) => {
                    let freed = matches!(marked.state, State::Released { .. });
                    let written = Written { record: marked, revision: seen.revision };
                    let before = if freed { Entry::default() } else { entry };
                    let now = Entry { record: Some(written), ..before };
                    let marked = now.snapshot(name, belief.store, &left);
                    return Ok(match marked {
                        Some(marked) => Ordered::Ordered(Box::new(marked)),
                        None => Ordered::NotHeld(None),
                    });
                }
                Ok(_) | Err(Unwritten::FloorMoved | Unwritten::Failed(Failure::LeaseGone(_))) => {}
                Err(Unwritten::Failed(failure)) => return Err(failure.into()),
            }
        }
        Err(contested(ORDER))
    }

    fn order_txn(&self, name: &Name, entry: &Entry, marked: &Record) -> TxnRequest {
        let key = |kind| self.keys.of(name, kind);
        let compare = unchanged(entry, key(Kind::Held), key(Kind::Record));
        let mut record =
            PutRequest { key: key(Kind::Record), value: marked.to_json(), ..PutRequest::default() };
        // It stays on whichever lease it hangs on; one that was lost comes back on the grant's.
        let lease = entry.leases().next().unwrap_or_default();
        match entry.record {
            Some(_) => record.ignore_lease = true,
            None => record.lease = lease,
        }
        let mut success: Vec<RequestOp> = vec![Request::Put(record).into()];
        match marked.state {
            State::Held => success.push(put(key(Kind::Asked), b"".into(), lease)),
            State::Revoked => {
                success.push(put(key(Kind::Revoked), b"".into(), lease));
                success.push(delete(key(Kind::Asked)));
            }
            _ => {
                success.extend(
                    [Kind::Held, Kind::Kept, Kind::Asked, Kind::Revoked, Kind::Reserved]
                        .map(|kind| delete(key(kind))),
                );
                success.extend(self.keys.give_entry(name, &marked.holder));
            }
        }
        TxnRequest { compare, success, failure: Vec::new() }
    }
}

impl Giving<'_> {
    fn fail(&mut self, error: &Error) {
        if self.answer.is_none() {
            self.answer = Some(Released::Failed(error.clone()));
        }
    }
}

/// Grant and record are as they were seen.
fn unchanged(entry: &Entry, held: Vec<u8>, record: Vec<u8>) -> Vec<Compare> {
    vec![Compare::created(held, entry.held_since()), Compare::written(record, entry.revision())]
}

fn contested(operation: Operation) -> Error {
    let message = "the record changed each time just before it was written; try again";
    Error::new(ErrorKind::Unavailable, operation, message)
}
