//! Beats: a keep-alive of each lease, and beside it the proof that each key is still ours.
//!
//! Either alone says nothing: a lease lives on when one of its keys was deleted, and a key may
//! hang on a lease that ends within the second. Both must be answered under one leader: a leader
//! that was deposed without noticing prolongs leases that its successor doesn't.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenure_core::decide;
use tenure_core::identity::Name;
use tenure_core::neighbour::is_made_up;
use tenure_core::record::Record;
use tenure_core::store::{Hold, Renewed, Snapshot};
use tenure_core::{Error, ErrorKind, Operation};

use crate::all::{Job, all};
use crate::entry::{Entry, Left, Written, version};
use crate::keys::Kind;
use crate::leases::{check, holding};
use crate::ledger::Known;
use crate::link::{Link, NO_TERM, Seen, Unwritten};
use crate::pulse::Pulse;
use crate::rehang::{Stale, other_leader};
use crate::wire::{Compare, KeyValue, PutRequest, RangeRequest, Request, TxnRequest};

/// Up to how many names are asked for one by one; more are asked for as one range of keys.
const SINGLE_MAX: usize = 16;
/// How many keys that range may have for each name: its own two, and those of others between.
const KEYS_A_NAME: usize = 4;
/// How many more it may have.
const KEYS_MORE: usize = 1000;

const RENEW: Operation = Operation::Renew;

/// What the keys of a name prove, without their values.
#[derive(Clone, Copy, Default)]
struct Proof {
    /// The revision that created the grant's key, and the lease that it hangs on.
    held: Option<(i64, i64)>,
    record: Option<i64>,
    /// The lease that the neighbour's entry hangs on.
    entry: Option<i64>,
    /// An operator has given an order: the record says which.
    ordered: bool,
    term: Option<u64>,
}

/// What keys alone can tell of a renewal.
enum Verdict {
    Sure(Renewed),
    /// In force, but its lease was granted under another leader: so it counts once it hangs on
    /// another.
    OfAnotherTime(Renewed),
    /// The record must be read.
    Unclear,
}

impl Link {
    /// Carries out renewals.
    pub(crate) async fn renew(self: &Arc<Self>, holds: &[Hold]) -> Vec<Renewed> {
        let sent = Instant::now();
        let known: Vec<Option<Known>> = holds.iter().map(|hold| self.ledger.trying(hold)).collect();
        let plain = |at: &usize| match &known[*at] {
            Some(known) => {
                let hold = &holds[*at];
                !known.is_over() && known.ttl == hold.ttl && hold.unconfirmed_for < hold.ttl
            }
            None => false,
        };
        let plain: Vec<usize> = (0..holds.len()).filter(plain).collect();
        let names: Vec<Name> = plain.iter().map(|at| holds[*at].name.clone()).collect();
        let lease_of = |at: &usize| known[*at].as_ref().map(|known| known.lease);
        let mut leases: Vec<i64> = plain.iter().filter_map(lease_of).collect();
        leases.sort_unstable();
        leases.dedup();
        let records = self.ledger.records_due();
        let mut beats: Vec<Job<'_, (i64, Pulse)>> = Vec::new();
        for lease in leases.iter().chain(&records).copied() {
            beats.push(Box::pin(async move { (lease, self.keep_alive(lease, RENEW).await) }));
        }
        let (mut proofs, pulses) = tokio::join!(self.proofs(&names), all(beats));
        let mut pulses: HashMap<i64, Pulse> = pulses.into_iter().collect();
        self.sweep(&leases, RENEW);
        let mut answers: Vec<Option<Renewed>> = holds.iter().map(|_| None).collect();
        let mut stale: Vec<(usize, Renewed)> = Vec::new();
        for at in plain {
            let Some(known) = &known[at] else { continue };
            let verdict = match &mut proofs {
                Err(error) => Verdict::Sure(Renewed::Failed(error.clone())),
                Ok(proofs) => {
                    let proof = proofs.remove(&holds[at].name).unwrap_or_default();
                    self.judge(&holds[at], known, proof, pulses.get(&known.lease))
                }
            };
            match verdict {
                Verdict::Sure(answer) => answers[at] = Some(answer),
                Verdict::OfAnotherTime(answer) => stale.push((at, answer)),
                Verdict::Unclear => {}
            }
        }
        self.renew_stale(holds, &known, stale, &mut answers).await;
        for (at, answer) in answers.iter().enumerate() {
            if let Some(Renewed::Renewed(_)) = answer {
                self.ledger.confirmed(&holds[at].name, holds[at].token, sent);
            }
        }
        let rest: Vec<usize> = (0..holds.len()).filter(|at| answers[*at].is_none()).collect();
        if !rest.is_empty() {
            let asked: Vec<(&Hold, Option<&Known>)> =
                rest.iter().map(|at| (&holds[*at], known[*at].as_ref())).collect();
            let found = self.renew_closely(&asked, &mut pulses, sent).await;
            for (at, answer) in rest.into_iter().zip(found) {
                answers[at] = Some(answer);
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Renewed::NotHeld(None))).collect()
    }

    /// Hangs holds on the present leader's leases that hang on those of one before; then they are
    /// renewed. Those that aren't there any more stay without an answer.
    async fn renew_stale(
        &self,
        holds: &[Hold],
        known: &[Option<Known>],
        stale: Vec<(usize, Renewed)>,
        answers: &mut [Option<Renewed>],
    ) {
        let moving: Vec<Stale<'_>> = stale
            .iter()
            .filter_map(|(at, _)| {
                Some(Stale { name: &holds[*at].name, known: known[*at].as_ref()? })
            })
            .collect();
        if moving.is_empty() {
            return;
        }
        match self.rehang(&moving, RENEW).await {
            Ok(moved) => {
                for ((at, answer), lease) in stale.into_iter().zip(moved) {
                    answers[at] = lease.map(|_| answer);
                }
            }
            Err(error) => {
                for (at, _) in stale {
                    answers[at] = Some(Renewed::Failed(error.clone()));
                }
            }
        }
    }

    /// What keys alone can tell.
    fn judge(&self, hold: &Hold, known: &Known, proof: Proof, pulse: Option<&Pulse>) -> Verdict {
        let ours = proof.held == Some((known.created, known.lease));
        // No other session hangs anything on a lease of this one's.
        let shared = self.keys.layout().is_none() || proof.entry == Some(known.lease);
        if !ours || !shared || proof.ordered {
            return Verdict::Unclear;
        }
        match pulse {
            Some(Pulse::Alive(term)) if Some(*term) == proof.term => {
                let version = proof.record.map_or_else(|| hold.version.clone(), version);
                match self.ledger.born(known.lease) == Some(*term) {
                    true => Verdict::Sure(Renewed::Renewed(version)),
                    false => Verdict::OfAnotherTime(Renewed::Renewed(version)),
                }
            }
            Some(Pulse::Alive(_)) => Verdict::Sure(Renewed::Failed(other_leader(RENEW))),
            Some(Pulse::Failed(error)) => Verdict::Sure(Renewed::Failed(error.clone())),
            Some(Pulse::Gone) | None => Verdict::Unclear,
        }
    }

    /// What stands at each name, without values.
    async fn proofs(&self, names: &[Name]) -> Result<HashMap<Name, Proof>, Error> {
        let mut proofs = HashMap::with_capacity(names.len());
        if names.is_empty() {
            return Ok(proofs);
        }
        let mut single: Vec<&Name> = names.iter().collect();
        if names.len() > SINGLE_MAX
            && let (Some(first), Some(last)) = (names.iter().min(), names.iter().max())
        {
            let most = names.len() * KEYS_A_NAME + KEYS_MORE;
            let span = |range: Range<Vec<u8>>| RangeRequest {
                limit: i64::try_from(most).unwrap_or(i64::MAX),
                keys_only: true,
                ..range.into()
            };
            let theirs = self.keys.entries_span(first, last).map(span);
            let ours = span(self.keys.span(first, last));
            let whole = self.look(RENEW, [ours].into_iter().chain(theirs).collect()).await?;
            // What comes after the least name that may be incomplete is asked for again.
            let ends = whole.iter().map(|(answer, _)| {
                let last = answer.kvs.last().filter(|_| answer.more);
                last.map(|key| self.keys.name_of(&key.key))
            });
            let ends: Vec<Option<Name>> = ends.flatten().collect();
            single
                .retain(|name| ends.iter().any(|end| end.as_ref().is_none_or(|end| *name >= end)));
            for (answer, seen) in &whole {
                self.note(&mut proofs, &answer.kvs, *seen);
            }
        }
        let ours = single.iter().map(|name| self.keys.all_of(name).into());
        let theirs = single.iter().filter_map(|name| self.keys.entry(name)).map(RangeRequest::one);
        let ranges = ours.chain(theirs).map(|range| RangeRequest { keys_only: true, ..range });
        let answers = self.look(RENEW, ranges.collect()).await?;
        for name in single {
            proofs.remove(name);
        }
        for (answer, seen) in answers {
            self.note(&mut proofs, &answer.kvs, seen);
        }
        Ok(proofs)
    }

    fn note(&self, proofs: &mut HashMap<Name, Proof>, found: &[KeyValue], seen: Seen) {
        for key in found {
            let Some(name) = self.keys.name_of(&key.key) else { continue };
            let proof = proofs.entry(name).or_default();
            proof.term = match proof.term {
                None => Some(seen.term),
                // What two leaders have said proves nothing.
                Some(term) => Some(if term == seen.term { term } else { NO_TERM }),
            };
            let Some((_, kind)) = self.keys.parse(&key.key) else {
                proof.entry = Some(key.lease);
                continue;
            };
            match kind {
                Kind::Held => proof.held = Some((key.create_revision, key.lease)),
                Kind::Record => proof.record = Some(key.mod_revision),
                Kind::Asked | Kind::Revoked => proof.ordered = true,
                Kind::Kept | Kind::Reserved => {}
            }
        }
    }

    /// Renewals that take more than a look at the keys: under an order, by another ttl, of a
    /// hold that this session didn't acquire; and those that are lost.
    async fn renew_closely(
        &self,
        holds: &[(&Hold, Option<&Known>)],
        pulses: &mut HashMap<i64, Pulse>,
        sent: Instant,
    ) -> Vec<Renewed> {
        let names: Vec<Name> = holds.iter().map(|(hold, _)| hold.name.clone()).collect();
        let entries = match self.entries(RENEW, &names).await {
            Ok(entries) => entries,
            Err(error) => return holds.iter().map(|_| Renewed::Failed(error.clone())).collect(),
        };
        let instead = entries
            .iter()
            .filter_map(|(entry, _)| entry.as_ref().ok())
            .flat_map(Entry::leases)
            .collect();
        let left = self.left(instead, RENEW).await.unwrap_or_else(|_| Left::new());
        let mut renewed = Vec::with_capacity(holds.len());
        for ((hold, known), (entry, seen)) in holds.iter().zip(entries) {
            renewed.push(match entry {
                Ok(entry) => self.renew_one(hold, *known, entry, seen, &left, pulses, sent).await,
                Err(error) => Renewed::Failed(error.during(RENEW)),
            });
        }
        renewed
    }

    #[allow(clippy::too_many_arguments, reason = "all are of the one batch that it belongs to")]
    async fn renew_one(
        &self,
        hold: &Hold,
        known: Option<&Known>,
        entry: Entry,
        seen: Seen,
        left: &Left,
        pulses: &mut HashMap<i64, Pulse>,
        sent: Instant,
    ) -> Renewed {
        // Where the session's clock and the holder's both speak, the earlier end counts.
        let over = match known {
            Some(known) if known.is_over() => Duration::MAX,
            _ => hold.unconfirmed_for,
        };
        let hold = Hold { unconfirmed_for: over, ..hold.clone() };
        let current = entry.snapshot(&hold.name, self.belief().store, left);
        let record = match decide::renewed(current, &hold) {
            Ok(record) => record,
            Err(instead) => {
                let shown = entry.shown(&hold.name, self.belief().store, left);
                let theirs = shown.filter(|shown| is_made_up(&shown.record)).map(Box::new);
                return self.not_held(&hold, theirs.or(instead));
            }
        };
        if !entry.has_entry_of(&hold.instance) {
            // What the neighbour took or deleted is lost, and no renewal brings it back.
            let name = &hold.name;
            let by = entry.foreign(Some(&hold.instance)).zip(self.keys.layout());
            let by = by.map(|(theirs, layout)| {
                theirs.snapshot(name, layout, Some(&record), self.belief().store, left)
            });
            let by = by.or_else(|| entry.snapshot(name, self.belief().store, left));
            return self.not_held(&hold, by.map(Box::new));
        }
        let Some(held) = entry.held.clone() else { return Renewed::NotHeld(None) };
        let other_ttl = known.is_some_and(|known| known.ttl != hold.ttl);
        let stale = self.ledger.born(held.lease) != Some(seen.term);
        let rebound = (other_ttl || stale).then(|| holding(hold.ttl));
        let lease = match rebound {
            None => held.lease,
            Some(class) => match self.leases(&[class], RENEW).await {
                Ok(leases) => leases.first().copied().unwrap_or(held.lease),
                Err(error) => return Renewed::Failed(error),
            },
        };
        let pulse = match pulses.get(&lease) {
            Some(pulse) => pulse.clone(),
            None => self.keep_alive(lease, RENEW).await,
        };
        pulses.insert(lease, pulse.clone());
        match pulse {
            Pulse::Alive(term) if term == seen.term => {}
            Pulse::Alive(_) => return Renewed::Failed(other_leader(RENEW)),
            Pulse::Failed(error) => return Renewed::Failed(error),
            Pulse::Gone => {
                let mut expired = entry;
                expired.held = None;
                let current = expired.snapshot(&hold.name, self.belief().store, left);
                return self.not_held(&hold, current.map(Box::new));
            }
        }
        let revision = entry.revision();
        let revision = match rebound {
            None => revision,
            Some(_) => match self.rebind(&hold, &record, held.created, revision, lease).await {
                Ok(revision) => revision,
                Err(error) => return Renewed::Failed(error),
            },
        };
        let written = Written { record: record.clone(), revision };
        let known = Known::adopted(&hold, held.created, lease, Some(written), sent);
        self.ledger.holds(&hold.name, known);
        let version = if revision == 0 { hold.version.clone() } else { version(revision) };
        match decide::asked(&record) {
            Some(order) => Renewed::Asked(version, Box::new(order.clone())),
            None => Renewed::Renewed(version),
        }
    }

    fn not_held(&self, hold: &Hold, instead: Option<Box<Snapshot>>) -> Renewed {
        // What an operator has revoked is still there: its release is to come.
        let ours = instead.as_ref().is_some_and(|by| by.record.token == hold.token);
        if !ours {
            self.ledger.over(&hold.name, hold.token);
        }
        Renewed::NotHeld(instead)
    }

    /// Hangs a grant on the lease of another ttl. Holder, claim and token stay as they are, and
    /// so does the key's value.
    async fn rebind(
        &self,
        hold: &Hold,
        record: &Record,
        created: i64,
        revision: i64,
        lease: i64,
    ) -> Result<i64, Error> {
        check(hold.ttl, RENEW)?;
        let recording = self.leases(&[self.recording(hold.ttl)], RENEW).await?;
        let key = |kind| self.keys.of(&hold.name, kind);
        let moved =
            PutRequest { key: key(Kind::Held), lease, ignore_value: true, ..PutRequest::default() };
        let recorded = PutRequest {
            key: key(Kind::Record),
            value: record.to_json(),
            lease: recording.first().copied().unwrap_or_default(),
            ..PutRequest::default()
        };
        let mut txn = TxnRequest {
            compare: vec![
                Compare::created(key(Kind::Held), created),
                Compare::written(key(Kind::Record), revision),
            ],
            success: [moved, recorded].map(|put| Request::Put(put).into()).into(),
            failure: Vec::new(),
        };
        self.keys.move_entry(&mut txn, &hold.name, &hold.instance, lease);
        match self.write(RENEW, vec![txn], self.belief(), false).await {
            Ok((answers, seen)) if answers.iter().all(|answer| answer.succeeded) => {
                match self.ledger.born(lease) == Some(seen.term) {
                    true => Ok(seen.revision),
                    false => Err(other_leader(RENEW)),
                }
            }
            Ok(_) | Err(Unwritten::FloorMoved) => Err(Error::new(
                ErrorKind::Unavailable,
                RENEW,
                "the record changed while its ttl was being changed; try again",
            )),
            Err(Unwritten::Failed(failure)) => Err(failure.into()),
        }
    }
}
