//! The oracle: what truly happened, in true time, against the guarantees.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tenure_core::clock::Instant;
use tenure_core::error::{ErrorKind, Operation as Doing};
use tenure_core::identity::{ClaimId, FencingToken, Name};
use tenure_core::record::{Demand, Record, State};
use tenure_core::store::{Acquired, Released, Renewed};

use crate::ledger::{Current, Granted, Ledger};
use crate::operation::{Outcome, Purpose};
use crate::request::Change;

/// The five guarantees of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// 1: never two live grants of a name in the store, and none that lives again.
    ExclusionInStore,
    /// 2: whoever acts has stopped before the store grants the name again.
    ExclusionOfAction,
    /// 3: tokens increase, and guards let no older one through.
    Fencing,
    /// 4: no name is blocked for longer than it may be.
    Liveness,
    /// 5: done, not done and unknown are told apart, and nothing leads past its deadline.
    HonestAnswers,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExclusionInStore => "mutual exclusion in the store",
            Self::ExclusionOfAction => "mutual exclusion of action",
            Self::Fencing => "fencing",
            Self::Liveness => "liveness",
            Self::HonestAnswers => "honest answers",
        })
    }
}

/// A guarantee that was broken, and how.
#[derive(Clone, Debug)]
pub(crate) struct Breach {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
}

/// One operation of one instance: the instance's index, its life, the operation's number.
pub(crate) type Key = (usize, u32, u64);

/// What truly happened.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    ledgers: BTreeMap<Name, Ledger>,
    /// When the last request that the store carried out for a grant was sent, by its holder.
    confirmed: BTreeMap<ClaimId, Instant>,
    wrote: BTreeSet<(Key, &'static str)>,
    told_not_done: BTreeSet<Key>,
    /// Grants that an operator ended at once: only guards protect from those.
    forced: BTreeSet<ClaimId>,
    /// How often the store forgot.
    resets: u32,
    breaches: Vec<Breach>,
}

/// When something happens: in true time, and by the store's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Duration,
    pub(crate) shown: Option<Instant>,
}

impl Oracle {
    pub(crate) fn breach(&mut self, invariant: Invariant, what: String) {
        self.breaches.push(Breach { invariant, what });
    }

    /// What was found since it was asked last.
    pub(crate) fn breaches(&mut self) -> Vec<Breach> {
        std::mem::take(&mut self.breaches)
    }

    pub(crate) fn last_grant(&self, name: &Name) -> Option<&Granted> {
        self.ledgers.get(name)?.grants.last()
    }

    /// How long the record in the store keeps everybody out, from its last write.
    pub(crate) fn blocks_for(&self, name: &Name) -> Duration {
        let current = self.ledgers.get(name).and_then(|ledger| ledger.current.as_ref());
        current.map_or(Duration::ZERO, |current| current.record.ttl.max(current.record.not_before))
    }

    /// A request changed a record. Says whether that was a grant.
    pub(crate) fn changed(
        &mut self,
        change: Change,
        by: &Purpose,
        key: Key,
        cautious: bool,
        moment: Moment,
    ) -> bool {
        let Some(record) = change.after else {
            // Deleted, which only a test's store does: the truth stays as it was.
            return self.released(&change.name, key, moment);
        };
        let ledger = self.ledgers.entry(change.name.clone()).or_default();
        let before = ledger.current.clone();
        let current =
            Current { record: record.clone(), written_at: moment.now, shown_at: moment.shown };
        ledger.current = Some(current);
        self.confirm(record.claim, by.sent);
        match by.doing {
            Doing::Acquire => {
                self.wrote.insert((key, "grant"));
                self.granted(&record, before.as_ref(), by, key, cautious, moment);
                return true;
            }
            Doing::Renew => {
                self.wrote.insert((key, "renewal"));
                self.renewed(&record, before.as_ref(), moment);
            }
            Doing::Release => {
                self.wrote.insert((key, "release"));
            }
            _ => {}
        }
        false
    }

    fn released(&mut self, name: &Name, key: Key, moment: Moment) -> bool {
        self.wrote.insert((key, "release"));
        let current = self.ledgers.get_mut(name).and_then(|ledger| ledger.current.as_mut());
        if let Some(current) = current {
            current.record.state = State::Released { reserved_for: None };
            current.record.not_before = Duration::ZERO;
            current.written_at = moment.now;
            current.shown_at = moment.shown;
        }
        false
    }

    fn confirm(&mut self, claim: ClaimId, sent: Instant) {
        let confirmed = self.confirmed.entry(claim).or_insert(sent);
        *confirmed = sent.max(*confirmed);
    }

    fn granted(
        &mut self,
        record: &Record,
        before: Option<&Current>,
        by: &Purpose,
        key: Key,
        cautious: bool,
        moment: Moment,
    ) {
        let (name, token) = (&record.name, record.token);
        if let Some(before) = before {
            let left = before.left(&record.holder, moment.now, moment.shown);
            if !left.is_zero() {
                let old = before.record.token;
                self.breach(
                    Invariant::ExclusionInStore,
                    format!("token {token} of {name} is granted while {old} has {left:?} left"),
                );
            }
        }
        let ledger = self.ledgers.entry(name.clone()).or_default();
        let newest = ledger.newest;
        ledger.newest = newest.max(Some(token));
        ledger.grants.push(Granted {
            at: moment.now,
            token,
            claim: record.claim,
            holder: record.holder.clone(),
            resets: self.resets,
            cautious,
            used: false,
        });
        if Some(token) <= newest || Some(token) <= by.above {
            let seen = newest.max(by.above);
            self.breach(
                Invariant::Fencing,
                format!("token {token} of {name} is granted after {seen:?}"),
            );
        }
        if self.told_not_done.contains(&key) {
            self.breach(
                Invariant::HonestAnswers,
                format!("token {token} of {name} is granted to a claim that was told not done"),
            );
        }
    }

    fn renewed(&mut self, record: &Record, before: Option<&Current>, moment: Moment) {
        let Some(before) = before else { return };
        let age = before.age(moment.now, moment.shown);
        if moment.shown.is_some() && age >= before.record.ttl {
            self.breach(
                Invariant::ExclusionInStore,
                format!(
                    "token {} of {} lives again {:?} after it had ended",
                    record.token,
                    record.name,
                    age - before.record.ttl
                ),
            );
        }
    }

    /// An operator's order changed a record, with what the operator had demanded.
    pub(crate) fn ordered(&mut self, change: Change, demanded: &Demand) {
        let Some(record) = change.after else { return };
        let Some(ledger) = self.ledgers.get_mut(&change.name) else { return };
        let Some(current) = ledger.current.as_mut() else { return };
        match demanded {
            Demand::Revoke => current.record.state = State::Revoked,
            Demand::RevokeNow => {
                current.record.state = State::Released { reserved_for: None };
                current.record.not_before = Duration::ZERO;
                self.forced.insert(record.claim);
            }
            _ => {}
        }
        // Over records the order is a write like any other, and starts the watch anew.
    }

    /// The store forgot: what was granted before promises nothing any more.
    pub(crate) fn forgot(&mut self, left: impl Fn(&Name) -> Option<FencingToken>) {
        self.resets += 1;
        for (name, ledger) in &mut self.ledgers {
            ledger.current = None;
            ledger.newest = left(name);
        }
    }

    pub(crate) fn grants(&self) -> u64 {
        self.ledgers.values().map(|ledger| ledger.grants.len() as u64).sum()
    }

    /// Somebody acts, or would act, under `claim`.
    pub(crate) fn acts(&mut self, who: &str, name: &Name, claim: ClaimId, token: FencingToken) {
        if self.forced.contains(&claim) {
            return;
        }
        let last = self.ledgers.get_mut(name).and_then(|ledger| ledger.grants.last_mut());
        let last = last.map(|last| {
            last.used |= last.claim == claim;
            last.clone()
        });
        let Some(last) = last else {
            let what = format!("{who} acts under token {token} of {name}, which nobody granted");
            return self.breach(Invariant::ExclusionOfAction, what);
        };
        if last.claim == claim {
            let current = self.ledgers.get(name).and_then(|ledger| ledger.current.as_ref());
            let released = current.is_some_and(|current| {
                current.record.claim == claim
                    && matches!(current.record.state, State::Released { .. })
            });
            if released {
                let what = format!("{who} acts under token {token} of {name}, which is released");
                self.breach(Invariant::ExclusionOfAction, what);
            }
            return;
        }
        let ours = self
            .ledgers
            .get(name)
            .and_then(|ledger| ledger.grants.iter().rev().find(|granted| granted.claim == claim));
        // The store itself has forgotten that grant: it promises nothing.
        let forgotten = last.resets < self.resets;
        let across = ours.is_some_and(|ours| ours.resets < last.resets);
        if forgotten || across && !(last.cautious && last.used) {
            return;
        }
        let what = format!(
            "{who} acts under token {token} of {name} although token {} was granted to {} at \
             {:.3} s",
            last.token,
            last.holder.name(),
            last.at.as_secs_f64()
        );
        self.breach(Invariant::ExclusionOfAction, what);
    }

    /// An effect of the rightful holder that the guard turned away.
    pub(crate) fn turned_away(&mut self, who: &str, name: &Name, token: FencingToken) {
        if self.resets == 0 {
            let what = format!("the guard of {name} turns away token {token} of its holder {who}");
            self.breach(Invariant::Fencing, what);
        }
    }

    /// Somebody says that it leads.
    pub(crate) fn leads(
        &mut self,
        who: &str,
        claim: ClaimId,
        now: Instant,
        until_deadline: Duration,
    ) {
        let Some(confirmed) = self.confirmed.get(&claim) else { return };
        let deadline = *confirmed + until_deadline;
        if now >= deadline {
            let what =
                format!("{who} reports leadership {:?} past its deadline", now.since(deadline));
            self.breach(Invariant::HonestAnswers, what);
        }
    }

    /// Somebody took back that its hold had expired.
    pub(crate) fn revived(&mut self, who: &str) {
        let what = format!("{who} had said that its hold was lost, and leads again");
        self.breach(Invariant::HonestAnswers, what);
    }

    /// What an operation was told it came to.
    pub(crate) fn told(&mut self, key: Key, by: &Purpose, outcome: &Outcome, now: Duration) {
        let name = &by.name;
        match outcome {
            Outcome::Claimed(id, Acquired::Granted(grant), _) => {
                let ledger = self.ledgers.get(name);
                let logged = ledger.is_some_and(|ledger| {
                    ledger.grants.iter().any(|granted| {
                        granted.claim == *id
                            && granted.token == grant.token
                            && granted.holder == by.instance
                    })
                });
                if !logged {
                    let what = format!("token {} of {name} was never granted", grant.token);
                    self.breach(Invariant::HonestAnswers, what);
                }
            }
            Outcome::Claimed(_, Acquired::Failed(error), _)
                if !matches!(
                    error.kind(),
                    // A copy of it may meet the store once the session believes in that.
                    ErrorKind::OutcomeUnknown | ErrorKind::StoreReset
                ) =>
            {
                self.told_not_done.insert(key);
                self.not_done(key, "grant", name);
            }
            Outcome::Renewed(_, Renewed::Renewed(_) | Renewed::Asked(..), _) => {
                self.done(key, "renewal", name);
            }
            Outcome::Renewed(token, Renewed::NotHeld(_), _) => {
                self.still_held(name, *token, by, now);
            }
            Outcome::Released(_, Released::Released(_)) => self.done(key, "release", name),
            _ => {}
        }
    }

    fn done(&mut self, key: Key, what: &'static str, name: &Name) {
        if !self.wrote.contains(&(key, what)) {
            let what = format!("a {what} of {name} was told done, and was not");
            self.breach(Invariant::HonestAnswers, what);
        }
    }

    fn not_done(&mut self, key: Key, what: &'static str, name: &Name) {
        if self.wrote.contains(&(key, what)) {
            let what = format!("a {what} of {name} was told not done, and was");
            self.breach(Invariant::HonestAnswers, what);
        }
    }

    fn still_held(&mut self, name: &Name, token: FencingToken, by: &Purpose, now: Duration) {
        let Some(current) = self.ledgers.get(name).and_then(|ledger| ledger.current.as_ref())
        else {
            return;
        };
        let record = &current.record;
        let held = self.resets == 0
            && !by.overdue
            && record.token == token
            && record.holder == by.instance
            && record.state == State::Held
            && now - current.written_at < record.ttl / 2;
        if held {
            let what = format!("token {token} of {name} was told not held, and is");
            self.breach(Invariant::HonestAnswers, what);
        }
    }
}
