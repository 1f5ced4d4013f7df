//! What one session knows of itself: its etcd leases, its holds, and the claims it has sent.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenure_core::identity::{ClaimId, FencingToken, Instance, Name};
use tenure_core::store::{Claim, Hold};

use crate::entry::Written;

/// How many records of names that aren't held are remembered; then all are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// What an etcd lease is for. One of each purpose and time serves the whole session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Grants of one ttl hang on it; each beat prolongs it.
    Holding,
    /// The records of these grants, which outlive them by the history; prolonged now and then.
    Recording,
    /// Tombstones; never prolonged, but replaced when half its time is over.
    Resting,
}

/// Which lease: its purpose and its time in seconds.
pub(crate) type Class = (Purpose, i64);

/// One of etcd's leases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) id: i64,
    /// When the last confirmed grant or keep-alive of it was sent.
    pub(crate) confirmed: Instant,
    /// Who led the cluster when it was prolonged last; none: it was granted since, by all.
    pub(crate) term: Option<u64>,
    /// Under whom it was granted, if that is certain: leaders of before don't know of it.
    born: Option<u64>,
    swept: Instant,
}

/// A hold as its session knows it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) instance: Instance,
    pub(crate) claim: ClaimId,
    pub(crate) token: FencingToken,
    /// The revision that created its key.
    pub(crate) created: i64,
    pub(crate) lease: i64,
    pub(crate) ttl: Duration,
    /// The record as it was last seen, if it was.
    pub(crate) written: Option<Written>,
    /// When the last confirmed claim or renewal was sent.
    pub(crate) confirmed: Instant,
    /// When a claim or renewal of it was tried last.
    tried: Instant,
    /// It is being deleted, since nobody has renewed it for a ttl.
    doomed: bool,
}

/// A claim that was sent and isn't known to be refused.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: ClaimId,
    ttl: Duration,
    at: Instant,
}

#[derive(Default)]
struct Book {
    leases: HashMap<Class, Lease>,
    holds: HashMap<Name, Known>,
    claims: HashMap<Name, Sent>,
    seen: HashMap<Name, Written>,
    /// Who led the cluster when it answered last.
    term: Option<u64>,
}

/// What one session knows of itself.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: the store is another.
    pub(crate) fn clear(&self) {
        *self.book() = Book::default();
    }

    /// The lease of a class, if it should still be there; one that grants hang on must be of the
    /// present leader's own time.
    pub(crate) fn lease(&self, class: Class) -> Option<Lease> {
        let book = self.book();
        let lease = book.leases.get(&class).copied()?;
        let whole = Duration::from_secs(class.1.unsigned_abs());
        let lasts = if class.0 == Purpose::Resting { whole / 2 } else { whole };
        let counts =
            class.0 != Purpose::Holding || (lease.born.is_some() && lease.born == book.term);
        (counts && lease.confirmed.elapsed() < lasts).then_some(lease)
    }

    /// A lease was granted, asked for at `sent`, under the leader of `born` if that is certain.
    pub(crate) fn granted(&self, class: Class, id: i64, sent: Instant, born: Option<u64>) {
        let lease = Lease { id, confirmed: sent, term: None, born, swept: sent };
        self.book().leases.insert(class, lease);
    }

    /// Under whom a lease of ours was granted, if that is certain.
    pub(crate) fn born(&self, id: i64) -> Option<u64> {
        let book = self.book();
        book.leases.values().find(|lease| lease.id == id).and_then(|lease| lease.born)
    }

    /// Who led the cluster when it answered last.
    pub(crate) fn term(&self) -> Option<u64> {
        self.book().term
    }

    /// The cluster answered under the leader of `term`.
    pub(crate) fn led(&self, term: u64) {
        self.book().term = Some(term);
    }

    /// A lease was prolonged, by a keep-alive sent at `sent`, under the leader of `term`.
    pub(crate) fn prolonged(&self, id: i64, sent: Instant, term: u64) {
        let mut book = self.book();
        if let Some(lease) = book.leases.values_mut().find(|lease| lease.id == id)
            && lease.confirmed < sent
        {
            (lease.confirmed, lease.term) = (sent, Some(term));
        }
    }

    /// A lease is gone.
    pub(crate) fn gone(&self, id: i64) {
        self.book().leases.retain(|_, lease| lease.id != id);
    }

    /// Leases of tombstones are gone.
    pub(crate) fn forget_resting(&self) {
        self.book().leases.retain(|(purpose, _), _| *purpose != Purpose::Resting);
    }

    /// The leases of records that a beat should prolong.
    pub(crate) fn records_due(&self) -> Vec<i64> {
        let due = |class: &Class, lease: &Lease| {
            let quarter = Duration::from_secs(class.1.unsigned_abs()) / 4;
            class.0 == Purpose::Recording && lease.confirmed.elapsed() >= quarter
        };
        let book = self.book();
        book.leases.iter().filter(|(class, lease)| due(class, lease)).map(|(_, l)| l.id).collect()
    }

    /// A claim is about to be sent.
    pub(crate) fn claiming(&self, claim: &Claim) {
        let sent = Sent { id: claim.id, ttl: claim.ttl, at: Instant::now() };
        self.book().claims.insert(claim.name.clone(), sent);
    }

    /// A claim came to nothing, or to a hold.
    pub(crate) fn claimed(&self, claim: &Claim) {
        let mut book = self.book();
        if book.claims.get(&claim.name).is_some_and(|sent| sent.id == claim.id) {
            book.claims.remove(&claim.name);
        }
    }

    /// Something is held.
    pub(crate) fn holds(&self, name: &Name, known: Known) {
        let mut book = self.book();
        book.seen.remove(name);
        book.holds.insert(name.clone(), known);
    }

    /// What the session knows of a hold by these particulars.
    pub(crate) fn hold(
        &self,
        name: &Name,
        instance: &Instance,
        claim: ClaimId,
        token: FencingToken,
    ) -> Option<Known> {
        let same = |known: &&Known| {
            known.instance == *instance && known.claim == claim && known.token == token
        };
        self.book().holds.get(name).filter(same).cloned()
    }

    /// What the session knows of a hold by its token.
    pub(crate) fn held_by_token(&self, name: &Name, token: FencingToken) -> Option<Known> {
        self.book().holds.get(name).filter(|known| known.token == token).cloned()
    }

    /// A renewal is about to be tried: what is known of the hold.
    pub(crate) fn trying(&self, hold: &Hold) -> Option<Known> {
        let mut book = self.book();
        let known = book.holds.get_mut(&hold.name)?;
        let same = known.instance == hold.instance
            && known.claim == hold.claim
            && known.token == hold.token;
        same.then(|| {
            if !known.is_over() {
                known.tried = Instant::now();
            }
            known.clone()
        })
    }

    /// A renewal that was sent at `sent` is confirmed.
    pub(crate) fn confirmed(&self, name: &Name, token: FencingToken, sent: Instant) {
        if let Some(known) = self.book().holds.get_mut(name).filter(|known| known.token == token) {
            known.confirmed = known.confirmed.max(sent);
        }
    }

    /// A hold hangs on another lease now.
    pub(crate) fn moved(&self, name: &Name, token: FencingToken, lease: i64) {
        if let Some(known) = self.book().holds.get_mut(name).filter(|known| known.token == token) {
            known.lease = lease;
        }
    }

    /// A hold is over.
    pub(crate) fn over(&self, name: &Name, token: FencingToken) {
        let mut book = self.book();
        if book.holds.get(name).is_some_and(|known| known.token == token) {
            book.holds.remove(name);
        }
    }

    /// A record was seen of a name that isn't held by this session.
    pub(crate) fn saw(&self, name: &Name, written: Option<&Written>) {
        let mut book = self.book();
        if book.seen.len() >= REMEMBERED_MAX {
            book.seen.clear();
        }
        match written {
            Some(written) => book.seen.insert(name.clone(), written.clone()),
            None => book.seen.remove(name),
        };
    }

    /// The record of a name as it was last seen.
    pub(crate) fn last_seen(&self, name: &Name) -> Option<Written> {
        self.book().seen.get(name).cloned()
    }

    /// The leases of holds that should be looked through for what nobody renews: once a ttl, and
    /// when something is known to have been left. They count as looked through from now on.
    pub(crate) fn sweeps_due(&self, prolonged: &[i64]) -> Vec<i64> {
        let mut book = self.book();
        let Book { leases, holds, claims, .. } = &mut *book;
        let lives = |known: &Known| leases.values().any(|lease| lease.id == known.lease);
        holds.retain(|_, known| !known.is_left() || lives(known));
        claims.retain(|_, sent| sent.at.elapsed() < sent.ttl);
        let left: Vec<i64> =
            holds.values().filter(|known| known.is_left()).map(|known| known.lease).collect();
        let mut due = Vec::new();
        for ((purpose, seconds), lease) in leases.iter_mut() {
            let whole = Duration::from_secs(seconds.unsigned_abs());
            let is_due = lease.swept.elapsed() >= whole || left.contains(&lease.id);
            if *purpose == Purpose::Holding && is_due && prolonged.contains(&lease.id) {
                lease.swept = Instant::now();
                due.push(lease.id);
            }
        }
        due
    }

    /// Whether a name that hangs on a lease has been neither held nor claimed for a ttl. If so,
    /// its hold is doomed: no renewal of it succeeds any more.
    pub(crate) fn abandon(&self, name: &Name, lease: i64) -> bool {
        let mut book = self.book();
        if book.claims.get(name).is_some_and(|sent| sent.at.elapsed() < sent.ttl) {
            return false;
        }
        book.claims.remove(name);
        match book.holds.get_mut(name) {
            // Perhaps it has just been hung on this lease.
            Some(known) if !known.is_left() => false,
            Some(known) if known.lease == lease => {
                known.doomed = true;
                true
            }
            _ => true,
        }
    }

    /// What was abandoned is deleted.
    pub(crate) fn abandoned(&self, name: &Name) {
        let mut book = self.book();
        if book.holds.get(name).is_some_and(|known| known.doomed) {
            book.holds.remove(name);
        }
    }
}

impl Known {
    pub(crate) fn new(
        claim: &Claim,
        token: FencingToken,
        created: i64,
        lease: i64,
        written: Option<Written>,
        confirmed: Instant,
    ) -> Self {
        Self {
            instance: claim.instance.clone(),
            claim: claim.id,
            token,
            created,
            lease,
            ttl: claim.ttl,
            written,
            confirmed,
            tried: Instant::now(),
            doomed: false,
        }
    }

    /// The same for a hold that another session acquired, confirmed at `confirmed`.
    pub(crate) fn adopted(
        hold: &Hold,
        created: i64,
        lease: i64,
        written: Option<Written>,
        confirmed: Instant,
    ) -> Self {
        Self {
            instance: hold.instance.clone(),
            claim: hold.claim,
            token: hold.token,
            created,
            lease,
            ttl: hold.ttl,
            written,
            confirmed,
            tried: Instant::now(),
            doomed: false,
        }
    }

    /// Whether a ttl has passed since it was last confirmed: nothing may renew it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.doomed || self.confirmed.elapsed() >= self.ttl
    }

    /// Whether nobody has tried to renew it for a ttl.
    fn is_left(&self) -> bool {
        self.doomed || self.tried.elapsed() >= self.ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_hang_only_on_leases_of_the_present_leaders_own_time() {
        let ledger = Ledger::default();
        let [holding, recording] = [Purpose::Holding, Purpose::Recording].map(|of| (of, 60));
        ledger.led(3);
        ledger.granted(holding, 7, Instant::now(), Some(3));
        ledger.granted(recording, 8, Instant::now(), Some(3));
        assert_eq!(ledger.lease(holding).map(|lease| lease.id), Some(7));
        ledger.led(4);
        assert!(ledger.lease(holding).is_none(), "the leader of before knows it");
        assert_eq!(ledger.lease(recording).map(|lease| lease.id), Some(8));
        ledger.granted(holding, 9, Instant::now(), None);
        assert!(ledger.lease(holding).is_none(), "who granted it isn't certain");
        ledger.granted(holding, 10, Instant::now(), Some(4));
        assert_eq!(ledger.lease(holding).map(|lease| lease.id), Some(10));
        assert_eq!((ledger.born(10), ledger.born(7)), (Some(4), None));
    }
}
