//! Claims: each is one Txn, which creates the name's key if nothing stands in the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenure_core::decide::{self, Claimed};
use tenure_core::identity::{FencingToken, Name};
use tenure_core::record::{Record, State};
use tenure_core::store::{Acquired, Claim, Grant};
use tenure_core::{Error, ErrorKind, Operation};

use crate::all::{Job, all};
use crate::entry::{Entry, Grantee, Left, Written, token, tokened, untokened, version};
use crate::errors::Failure;
use crate::keys::Kind;
use crate::leases::{TTL_LEAST, check, holding, seconds};
use crate::ledger::{Class, Known};
use crate::link::{Belief, Link, Seen, TXN_OPS, Unwritten, delete, found, put, range};
use crate::pulse::Pulse;
use crate::rehang::Stale;
use crate::wire::{Compare, TxnRequest, TxnResponse};

/// How often a claim is tried on a name that others change meanwhile.
const TRIES: usize = 16;
/// What a min-hold's key lasts longer, since its lease is granted before the claim is sent.
const ON_THE_WAY: Duration = Duration::from_millis(500);

const CLAIM: Operation = Operation::Acquire;

/// One claim while it is dealt with.
struct Asked<'a> {
    claim: &'a Claim,
    /// What the name is believed to look like; none: nothing was read in this call yet.
    entry: Option<Entry>,
    /// The lease of its min-hold, if it has one.
    kept: Option<i64>,
    answer: Option<Answered>,
}

/// What a claim came to, before it was proven that its lease lasts.
enum Answered {
    Done(Acquired),
    /// Refused by what was found; how long that lasts is asked for yet.
    Refused(Entry),
    /// Granted, or found.
    Granted(Granted),
}

struct Granted {
    token: FencingToken,
    created: i64,
    lease: i64,
    written: Option<Written>,
    version: i64,
    term: u64,
    belief: Belief,
}

impl Link {
    /// Carries out claims.
    pub(crate) async fn acquire(self: &Arc<Self>, claims: &[Claim]) -> Vec<Acquired> {
        let began = Instant::now();
        let mut asked: Vec<Asked<'_>> = claims.iter().map(Asked::new).collect();
        for one in &asked {
            if one.answer.is_none() {
                self.ledger.claiming(one.claim);
            }
        }
        let prolonged: Vec<i64> = self.prolongable(&asked, began);
        let mut beats: Vec<Job<'_, _>> = Vec::new();
        for lease in &prolonged {
            beats.push(Box::pin(self.beat_of(*lease)));
        }
        let ((), pulses) = tokio::join!(self.try_all(&mut asked), all(beats));
        self.sweep(&prolonged, CLAIM);
        self.ask_how_long(&mut asked).await;
        let mut acquired = Vec::with_capacity(claims.len());
        for one in asked {
            let claim = one.claim;
            let answer = match one.answer {
                Some(Answered::Granted(granted)) => {
                    self.prove(claim, granted, &pulses, began).await
                }
                Some(Answered::Done(done)) => done,
                Some(Answered::Refused(_)) | None => Acquired::Failed(contested()),
            };
            match &answer {
                Acquired::Failed(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
                _ => self.ledger.claimed(claim),
            }
            acquired.push(answer);
        }
        acquired
    }

    async fn beat_of(&self, lease: i64) -> (i64, Pulse) {
        (lease, self.keep_alive(lease, CLAIM).await)
    }

    /// The leases that the session has already, and that these claims need longer. A repeated
    /// claim that finds itself prolongs nothing.
    fn prolongable(&self, asked: &[Asked<'_>], began: Instant) -> Vec<i64> {
        let due = |one: &&Asked<'_>| one.answer.is_none() && one.claim.unanswered_for.is_zero();
        let leases = asked.iter().filter(due).filter_map(|one| {
            let lease = self.ledger.lease(holding(one.claim.ttl))?;
            (lease.confirmed < began).then_some(lease.id)
        });
        let mut leases: Vec<i64> = leases.collect();
        leases.sort_unstable();
        leases.dedup();
        leases.extend(self.ledger.records_due());
        leases
    }

    async fn try_all(&self, asked: &mut [Asked<'_>]) {
        if let Err(error) = self.prepare(asked).await {
            for one in asked.iter_mut().filter(|one| one.answer.is_none()) {
                one.fail(error.clone());
            }
        }
        for _ in 0..TRIES {
            let belief = self.belief();
            if let Err(error) = self.raise_above(asked, belief).await {
                asked.iter_mut().for_each(|one| one.fail(error.clone()));
            }
            let belief = self.belief();
            let mut open: Vec<&mut Asked<'_>> =
                asked.iter_mut().filter(|one| one.answer.is_none()).collect();
            if open.is_empty() {
                return;
            }
            let mut tried: Vec<Job<'_, ()>> = Vec::new();
            for some in open.chunks_mut(TXN_OPS) {
                tried.push(Box::pin(self.try_some(some, belief)));
            }
            all(tried).await;
        }
    }

    /// Looks at the names before claiming them, where that is needed; and grants the leases that
    /// are missing, but only once a name was seen to be free: whoever is refused writes nothing.
    async fn prepare(&self, asked: &mut [Asked<'_>]) -> Result<(), Error> {
        let open = |asked: &mut [Asked<'_>]| -> Vec<usize> {
            (0..asked.len()).filter(|at| asked[*at].answer.is_none()).collect()
        };
        let lacking: Vec<usize> = open(asked)
            .into_iter()
            .filter(|at| {
                let claim = asked[*at].claim;
                let ours = self.ledger.last_seen(&claim.name);
                // A copy of a claim that came to an end already is not granted again.
                let again = ours.is_some_and(|written| written.record.claim == claim.id);
                again || !claim.min_hold.is_zero() || !self.has(&self.classes(claim))
            })
            .collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = lacking.iter().map(|at| asked[*at].claim.name.clone()).collect();
        let belief = self.belief();
        for (at, (entry, seen)) in lacking.iter().zip(self.entries(CLAIM, &names).await?) {
            asked[*at].decide(entry, belief, seen);
        }
        let mut classes: Vec<Class> = Vec::new();
        for at in open(asked) {
            classes.extend(self.classes(asked[at].claim));
        }
        classes.sort_unstable_by_key(|(purpose, seconds)| (*purpose as u8, *seconds));
        classes.dedup();
        self.leases(&classes, CLAIM).await?;
        let keeping = open(asked).into_iter().filter(|at| !asked[*at].claim.min_hold.is_zero());
        let keeping: Vec<usize> = keeping.collect();
        let mut jobs: Vec<Job<'_, _>> = Vec::new();
        for at in &keeping {
            let lasts = asked[*at].claim.min_hold.saturating_add(ON_THE_WAY).max(TTL_LEAST);
            jobs.push(Box::pin(self.grant(seconds(lasts), CLAIM)));
        }
        for (at, lease) in keeping.iter().zip(all(jobs).await) {
            asked[*at].kept = Some(lease?.0);
        }
        Ok(())
    }

    fn classes(&self, claim: &Claim) -> [Class; 2] {
        [holding(claim.ttl), self.recording(claim.ttl)]
    }

    /// Raises the floor, where a claimant has seen tokens that the next revision isn't above.
    async fn raise_above(&self, asked: &[Asked<'_>], belief: Belief) -> Result<(), Error> {
        let open = asked.iter().filter(|one| one.answer.is_none());
        let above = open.filter_map(|one| {
            let recorded = one.entry.as_ref().and_then(|entry| entry.record.as_ref());
            one.claim.above.max(recorded.map(|written| written.record.token))
        });
        let Some(above) = above.max() else { return Ok(()) };
        let next = belief.floor.saturating_add(self.highest().unsigned_abs());
        if above.get() <= next {
            return Ok(());
        }
        self.raise_floor(above.get(), belief, CLAIM).await
    }

    /// Sends some claims in one request.
    async fn try_some(&self, some: &mut [&mut Asked<'_>], belief: Belief) {
        let mut txns = Vec::with_capacity(some.len());
        let mut records = Vec::with_capacity(some.len());
        for one in some.iter_mut() {
            let leases = self.classes(one.claim).map(|class| self.ledger.lease(class));
            let [Some(holding), Some(recording)] = leases else {
                one.fail(contested());
                continue;
            };
            let (txn, record) = self.grant_txn(one, holding.id, recording.id, belief);
            txns.push(txn);
            records.push((record, holding.id));
        }
        let mut some: Vec<_> = some.iter_mut().filter(|one| one.answer.is_none()).collect();
        if txns.is_empty() {
            return;
        }
        match self.write(CLAIM, txns, belief, true).await {
            Ok((answers, seen)) => {
                for ((one, (record, lease)), answer) in some.iter_mut().zip(records).zip(answers) {
                    self.take(one, record, lease, answer, belief, seen);
                }
            }
            Err(Unwritten::FloorMoved) => {}
            Err(Unwritten::Failed(Failure::LeaseGone(error))) => {
                for (one, (_, lease)) in some.iter_mut().zip(records) {
                    self.ledger.gone(lease);
                    if let Some(recording) = self.ledger.lease(self.recording(one.claim.ttl)) {
                        self.ledger.gone(recording.id);
                    }
                }
                let classes: Vec<Class> =
                    some.iter().flat_map(|one| self.classes(one.claim)).collect();
                if self.leases(&classes, CLAIM).await.is_err() {
                    some.iter_mut().for_each(|one| one.fail(error.clone()));
                }
            }
            Err(Unwritten::Failed(failure)) => {
                let error = Error::from(failure).with_store(Arc::clone(&self.location));
                some.iter_mut().for_each(|one| one.fail(error.clone()));
            }
        }
    }

    /// The Txn that grants a claim, if the name looks as it was seen last, and the record that it
    /// writes.
    fn grant_txn(
        &self,
        one: &Asked<'_>,
        holding: i64,
        recording: i64,
        belief: Belief,
    ) -> (TxnRequest, Record) {
        let (claim, name) = (one.claim, &one.claim.name);
        let key = |kind| self.keys.of(name, kind);
        let before = match &one.entry {
            Some(entry) => entry.record.clone(),
            None => self.ledger.last_seen(name),
        };
        let mut compare = vec![
            Compare::created(key(Kind::Held), 0),
            Compare::created(key(Kind::Kept), 0),
            Compare::written(key(Kind::Record), before.as_ref().map_or(0, |w| w.revision)),
        ];
        let ours = before.as_ref().is_some_and(|written| match &written.record.state {
            State::Released { reserved_for: Some(kept_for) } => {
                kept_for.successor.is(&claim.instance)
            }
            _ => false,
        });
        if before.is_some() && !ours {
            compare.push(Compare::created(key(Kind::Reserved), 0));
        }
        let theirs = match &one.entry {
            Some(entry) => entry.theirs.as_ref().map_or(0, |theirs| theirs.revision),
            // A transfer has written it together with the record.
            None => before.as_ref().filter(|_| ours).map_or(0, |written| written.revision),
        };
        let before = before.as_ref().map(|written| &written.record);
        let record = decide::granted(before, claim, FencingToken::FIRST);
        let grantee = Grantee::of(claim, belief.floor).to_json();
        let mut success = vec![
            put(key(Kind::Held), grantee.clone(), holding),
            put(key(Kind::Record), untokened(record.clone(), belief.floor), recording),
        ];
        success.extend([Kind::Asked, Kind::Reserved, Kind::Revoked].map(|kind| delete(key(kind))));
        if let Some(kept) = one.kept {
            success.push(put(key(Kind::Kept), grantee, kept));
        }
        let failure = vec![range(self.keys.all_of(name))];
        let mut txn = TxnRequest { compare, success, failure };
        self.keys.take_entry(&mut txn, name, &claim.instance, theirs, holding);
        (txn, record)
    }

    /// Takes in what the Txn of a claim answered.
    fn take(
        &self,
        one: &mut Asked<'_>,
        record: Record,
        lease: i64,
        answer: TxnResponse,
        belief: Belief,
        seen: Seen,
    ) {
        if !answer.succeeded {
            let entry = Entry::read(&one.claim.name, &self.keys, &found(answer));
            return one.decide(entry, belief, seen);
        }
        let Some(token) = token(belief.floor, seen.revision) else {
            return one.fail(Error::new(ErrorKind::Corrupt, CLAIM, "there is no token left"));
        };
        let written = Written { record: tokened(record, token), revision: seen.revision };
        one.answer = Some(Answered::Granted(Granted {
            token,
            created: seen.revision,
            lease,
            written: Some(written),
            version: seen.revision,
            term: seen.term,
            belief,
        }));
    }

    /// A grant counts when its lease was prolonged after the claim was first sent, by the same
    /// leader who has carried the claim out.
    async fn prove(
        self: &Arc<Self>,
        claim: &Claim,
        granted: Granted,
        pulses: &[(i64, Pulse)],
        began: Instant,
    ) -> Acquired {
        let known = self.ledger.hold(&claim.name, &claim.instance, claim.id, granted.token);
        let acquired = Acquired::Granted(Grant {
            token: granted.token,
            version: version(granted.version),
            store: granted.belief.store,
        });
        if known.is_some() {
            // This session has proven it already.
            return acquired;
        }
        // Granted or prolonged within this very call, for whomever: it lasts from then on.
        let fresh = self.ledger.lease(holding(claim.ttl)).is_some_and(|lease| {
            let led = lease.term.is_none_or(|term| term == granted.term);
            lease.id == granted.lease && lease.confirmed >= began && led
        });
        let pulse = match pulses.iter().find(|(lease, _)| *lease == granted.lease) {
            Some((_, pulse)) => pulse.clone(),
            None if fresh => Pulse::Alive(granted.term),
            None => self.keep_alive(granted.lease, CLAIM).await,
        };
        match pulse {
            Pulse::Alive(term) if term == granted.term => {
                let Granted { token, created, lease, written, .. } = granted;
                let known = Known::new(claim, token, created, lease, written, began);
                self.hold_proven(&claim.name, known, term).await.map_or_else(
                    |error| {
                        Acquired::Failed(unproven_error("it can't be made sure").with_source(error))
                    },
                    |ours| if ours { acquired } else { unproven("it is gone already") },
                )
            }
            Pulse::Alive(_) => unproven("another leader was elected meanwhile"),
            Pulse::Gone => unproven("the etcd lease that it hangs on is gone"),
            Pulse::Failed(error) => Acquired::Failed(
                unproven_error("its etcd lease was not prolonged").with_source(error),
            ),
        }
    }

    /// Takes a grant for held whose lease was just prolonged under the leader of `term`; hung on
    /// another lease first, if that one is of another leader's time. False if it is gone.
    async fn hold_proven(&self, name: &Name, mut known: Known, term: u64) -> Result<bool, Error> {
        let lease = match self.ledger.born(known.lease) == Some(term) {
            true => Some(known.lease),
            false => {
                let stale = [Stale { name, known: &known }];
                self.rehang(&stale, CLAIM).await?.into_iter().next().flatten()
            }
        };
        let Some(lease) = lease else { return Ok(false) };
        known.lease = lease;
        self.ledger.holds(name, known);
        Ok(true)
    }

    /// Asks how long what refused lasts, for all that were refused at once.
    async fn ask_how_long(&self, asked: &mut [Asked<'_>]) {
        let refused = asked.iter().filter_map(|one| match &one.answer {
            Some(Answered::Refused(entry)) => Some(entry.leases().collect::<Vec<_>>()),
            _ => None,
        });
        let leases = refused.flatten().collect();
        let left = self.left(leases, CLAIM).await.unwrap_or_else(|_| Left::new());
        let store = self.belief().store;
        for one in asked {
            if let Some(Answered::Refused(entry)) = &one.answer {
                self.ledger.saw(&one.claim.name, entry.record.as_ref());
                let by = entry.shown(&one.claim.name, store, &left);
                one.answer = Some(Answered::Done(match by {
                    Some(by) => Acquired::Refused(Box::new(by)),
                    None => Acquired::Failed(contested()),
                }));
            }
        }
    }
}

impl<'a> Asked<'a> {
    fn new(claim: &'a Claim) -> Self {
        let answer = check(claim.ttl, CLAIM).err();
        let answer = answer.map(|error| Answered::Done(Acquired::Failed(error)));
        Self { claim, entry: None, kept: None, answer }
    }

    fn fail(&mut self, error: Error) {
        if self.answer.is_none() {
            self.answer = Some(Answered::Done(Acquired::Failed(error)));
        }
    }

    /// Decides by what was found.
    fn decide(&mut self, entry: Result<Entry, Error>, belief: Belief, seen: Seen) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return self.fail(error.during(CLAIM)),
        };
        let snapshot = entry.snapshot(&self.claim.name, belief.store, &Left::new());
        // Where the store's clock and the claimant's own both speak, the earlier end counts.
        let late = self.claim.unanswered_for >= self.claim.ttl;
        match decide::claim(snapshot.as_ref(), self.claim) {
            Claimed::Found(token) if !late && entry.has_entry_of(&self.claim.instance) => {
                let Some(held) = &entry.held else { return self.entry = Some(entry) };
                let version = snapshot.map(|found| found.version);
                let version = version.and_then(|version| version.as_str().parse().ok());
                self.answer = Some(Answered::Granted(Granted {
                    token,
                    created: held.created,
                    lease: held.lease,
                    written: entry.record.clone(),
                    version: version.unwrap_or(held.created),
                    term: seen.term,
                    belief,
                }));
            }
            Claimed::Found(_) | Claimed::Refused => self.answer = Some(Answered::Refused(entry)),
            Claimed::Free { .. } if entry.foreign(Some(&self.claim.instance)).is_some() => {
                self.answer = Some(Answered::Refused(entry));
            }
            Claimed::Free { .. } => self.entry = Some(entry),
        }
    }
}

fn contested() -> Error {
    let message = "the name changed each time just before the claim was carried out; try again";
    Error::new(ErrorKind::Unavailable, CLAIM, message)
}

fn unproven(why: &str) -> Acquired {
    Acquired::Failed(unproven_error(why))
}

fn unproven_error(why: &str) -> Error {
    let message = format!("the name was granted, and how long it lasts isn't known: {why}");
    Error::new(ErrorKind::OutcomeUnknown, CLAIM, message)
}
