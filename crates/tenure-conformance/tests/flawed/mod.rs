//! A small store that has one flaw at a time; D6 to D11 are those of lease libraries in the field.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "a module of two tests")]

pub mod records;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenure_conformance::harness::{Capability, Harness};
use tenure_core::clock::{Clock, Instant, ManualClock};
use tenure_core::decide::{self, Claimed, token_above};
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{FencingToken, Name, Namespace, StoreId};
use tenure_core::record::{Record, State};
use tenure_core::store::{
    Acquired, Answer, Claim, Grant, Hold, OrderRequest, Ordered, Page, Profile, Query, Release,
    Released, Renewed, Snapshot, Store, Version,
};

use crate::common::{clock, lacked_in_memory};

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing: the control.
    None,
    /// D6: a release deletes the record, and the next grant counts from 1.
    TokenRestarts,
    /// D7: the same, and expiry compares the writers' wall clocks.
    WallClock,
    /// D8: every grant after a release has the same token.
    TokenConstant,
    /// D9: acquire and renew write without a version.
    BlindWrites,
    /// D10: who sees an expired record frees it without a version, then claims it.
    BlindForce,
    /// D11: a release doesn't ask who holds.
    UncheckedRelease,
    /// It checks, and then it acts.
    TwoSteps,
    /// It acknowledges renewals and forgets them.
    ForgetsRenewals,
    /// It loses its data and goes on as if nothing had been.
    ForgetsSilently,
    /// A renewal of an expired grant brings it back.
    Resurrects,
    /// An instance is known by its readable name.
    KnowsNamesOnly,
    /// A claim of the holder's own is granted.
    Reentrant,
    /// A renewal asks for the holder, not for the token.
    IgnoresTokens,
    /// A claim that finds itself starts its ttl anew.
    FindingExtends,
    /// A tombstone grants the claim that it ended.
    TombstoneGrants,
    /// Names are compared without case.
    FoldsCase,
    /// Namespace and name are joined without anything between them.
    JoinsNames,
    /// A revoke frees the name at once.
    RevokeFrees,
    /// An order starts the ttl anew.
    OrderProlongs,
    /// A reservation keeps nobody out.
    IgnoresReservations,
    /// The successor inherits the metadata of the holder before it.
    InheritsMetadata,
    /// A release ends min-hold.
    ForgetsMinHold,
    /// One bad item of a batch fails the others.
    BatchIsOne,
    /// A listing leaves out what a page began with.
    SkipsBetweenPages,
}

#[derive(Clone)]
struct Entry {
    record: Record,
    version: u64,
    since: Instant,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<(String, String), Entry>,
    last: Option<FencingToken>,
    writes: u64,
    store: u128,
}

/// One fresh store with a flaw.
#[derive(Clone)]
pub struct Flawed {
    flaw: Flaw,
    clock: Arc<ManualClock>,
    table: Arc<Mutex<Table>>,
}

struct Session {
    of: Flawed,
    namespace: Namespace,
    profile: Profile,
    opened: Mutex<u128>,
}

impl Flawed {
    pub fn new(flaw: Flaw) -> Self {
        let table = Table { store: 1, ..Table::default() };
        Self { flaw, clock: clock(), table: Arc::new(Mutex::new(table)) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Harness for Flawed {
    fn name(&self) -> &str {
        "flawed"
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        Arc::new(Session {
            of: self.clone(),
            namespace: namespace.clone(),
            profile: Profile::new("flawed", "flawed:"),
            opened: Mutex::new(self.table().store),
        })
    }

    fn now(&self) -> Instant {
        self.clock.now().elapsed
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        match capability {
            Capability::StoreClock
            | Capability::Forget
            | Capability::CountsWrites
            | Capability::Namespaces => None,
            other => lacked_in_memory(other).or(Some("it is as small as can be")),
        }
    }

    fn forget(&self) {
        let mut table = self.table();
        let store = table.store + u128::from(self.flaw != Flaw::ForgetsSilently);
        *table = Table { store, ..Table::default() };
    }

    fn writes(&self) -> u64 {
        self.table().writes
    }
}

impl Session {
    fn is(&self, flaw: Flaw) -> bool {
        self.of.flaw == flaw
    }

    fn key(&self, name: &Name) -> (String, String) {
        match self.of.flaw {
            Flaw::FoldsCase => (self.namespace.to_string(), name.as_str().to_lowercase()),
            Flaw::JoinsNames => (String::new(), format!("{}{name}", self.namespace)),
            _ => (self.namespace.to_string(), name.to_string()),
        }
    }

    fn snapshot(&self, table: &Table, name: &Name) -> Option<Snapshot> {
        table.entries.get(&self.key(name)).map(|entry| self.seen(table, entry))
    }

    fn seen(&self, table: &Table, entry: &Entry) -> Snapshot {
        Snapshot {
            record: entry.record.clone(),
            version: Version::new(entry.version.to_string()),
            store: StoreId::from_u128(table.store),
            age: Some(self.of.now().since(entry.since)),
            holder_gone: false,
        }
    }

    fn write(&self, table: &mut Table, record: Record, since: Option<Instant>) -> Version {
        table.writes += 1;
        let version = table.writes;
        let since = since.unwrap_or_else(|| self.of.now());
        table.entries.insert(self.key(&record.name), Entry { record, version, since });
        Version::new(version.to_string())
    }

    /// Between looking and acting, where a flaw leaves time for others.
    fn gap<'a>(&'a self, table: MutexGuard<'a, Table>) -> MutexGuard<'a, Table> {
        drop(table);
        std::thread::sleep(Duration::from_micros(50));
        self.of.table()
    }

    fn acquire_one(&self, claim: &Claim) -> Acquired {
        let mut table = self.of.table();
        let mut current = self.snapshot(&table, &claim.name);
        if let (Flaw::BlindForce, Some(seen)) = (self.of.flaw, current.as_mut())
            && seen.age >= Some(seen.record.ttl)
            && seen.record.claim != claim.id
        {
            table = self.gap(table);
            seen.record.state = State::Released { reserved_for: None };
            self.write(&mut table, seen.record.clone(), None);
            current = self.snapshot(&table, &claim.name);
        }
        if let (Flaw::WallClock, Some(seen)) = (self.of.flaw, current.as_mut()) {
            let millis = claim.at.as_millis() - seen.record.acquired_at.as_millis();
            seen.age = Some(Duration::from_millis(millis.max(0).unsigned_abs()));
        }
        let mut verdict = decide::claim(current.as_ref(), claim);
        if let Some(seen) = &current {
            let own = seen.record.holder == claim.instance && seen.record.state == State::Held;
            let ended = matches!(seen.record.state, State::Released { .. });
            let again = seen.record.claim == claim.id;
            if self.is(Flaw::Reentrant) && own
                || self.is(Flaw::TombstoneGrants) && ended && again
                || self.is(Flaw::KnowsNamesOnly)
                    && seen.record.holder.name() == claim.instance.name()
            {
                verdict = Claimed::Free { above: Some(seen.record.token) };
            }
        }
        let above = match verdict {
            Claimed::Found(token) => {
                let found = current.expect("found in a record");
                let version = if self.is(Flaw::FindingExtends) {
                    self.write(&mut table, found.record, None)
                } else {
                    found.version
                };
                let store = StoreId::from_u128(table.store);
                return Acquired::Granted(Grant { token, version, store });
            }
            Claimed::Refused => return Acquired::Refused(Box::new(current.expect("a record"))),
            Claimed::Free { above } => above,
        };
        if matches!(self.of.flaw, Flaw::BlindWrites | Flaw::TwoSteps) {
            table = self.gap(table);
        }
        let token = match self.of.flaw {
            Flaw::TokenRestarts | Flaw::WallClock => token_above(above, None),
            Flaw::TokenConstant => Ok(FencingToken::FIRST),
            _ => token_above(above, table.last),
        }
        .expect("tokens are small");
        table.last = Some(token);
        let before = current.as_ref().map(|seen| &seen.record);
        let mut record = decide::granted(before, claim, token);
        if let (Flaw::InheritsMetadata, Some(before)) = (self.of.flaw, before) {
            record.metadata = before.metadata.clone();
        }
        let version = self.write(&mut table, record, None);
        Acquired::Granted(Grant { token, version, store: StoreId::from_u128(table.store) })
    }

    fn renew_one(&self, hold: &Hold) -> Renewed {
        let mut table = self.of.table();
        let mut current = self.snapshot(&table, &hold.name);
        let mut hold = hold.clone();
        if let Some(seen) = &mut current {
            match self.of.flaw {
                Flaw::BlindWrites => {
                    table = self.gap(table);
                    seen.record.holder = hold.instance.clone();
                    seen.record.claim = hold.claim;
                    seen.record.token = hold.token;
                }
                Flaw::Resurrects => {
                    seen.age = None;
                    hold.unconfirmed_for = Duration::ZERO;
                }
                Flaw::IgnoresTokens if seen.record.holder == hold.instance => {
                    hold.claim = seen.record.claim;
                    hold.token = seen.record.token;
                }
                _ => {}
            }
        }
        let version = current.as_ref().map(|seen| seen.version.clone());
        let record = match decide::renewed(current, &hold) {
            Ok(record) => record,
            Err(instead) => return Renewed::NotHeld(instead),
        };
        if self.is(Flaw::ForgetsRenewals) {
            return Renewed::Renewed(version.expect("a record was renewed"));
        }
        let asked = decide::asked(&record).cloned();
        let version = self.write(&mut table, record, None);
        match asked {
            Some(order) => Renewed::Asked(version, Box::new(order)),
            None => Renewed::Renewed(version),
        }
    }

    fn release_one(&self, release: &Release) -> Released {
        let mut table = self.of.table();
        let current = self.snapshot(&table, &release.name);
        let mut release = release.clone();
        if let (Flaw::UncheckedRelease, Some(seen)) = (self.of.flaw, &current) {
            release.instance = seen.record.holder.clone();
            release.claim = seen.record.claim;
            release.token = seen.record.token;
        }
        let Some(mut tombstone) = decide::released(current.as_ref(), &release) else {
            return Released::NotHeld(current.map(Box::new));
        };
        if self.is(Flaw::IgnoresReservations) {
            tombstone.state = State::Released { reserved_for: None };
        }
        if self.is(Flaw::ForgetsMinHold) {
            tombstone.not_before = Duration::ZERO;
        }
        let version = self.write(&mut table, tombstone, None);
        let flaw = self.of.flaw;
        if matches!(flaw, Flaw::TokenRestarts | Flaw::WallClock | Flaw::TokenConstant) {
            table.entries.remove(&self.key(&release.name));
        }
        Released::Released(version)
    }

    fn order_one(&self, name: &Name, request: &OrderRequest) -> Ordered {
        let mut table = self.of.table();
        let current = self.snapshot(&table, name);
        let Some(mut record) = decide::ordered(current.as_ref(), request) else {
            return Ordered::NotHeld(current.map(Box::new));
        };
        if self.is(Flaw::RevokeFrees) && record.state == State::Revoked {
            record.state = State::Released { reserved_for: None };
        }
        let since = table.entries[&self.key(name)].since;
        let since = if self.is(Flaw::OrderProlongs) { self.of.now() } else { since };
        self.write(&mut table, record, Some(since));
        Ordered::Ordered(Box::new(self.snapshot(&table, name).expect("it was written")))
    }

    fn list_page(&self, query: &Query, after: Option<&Name>) -> Page {
        let table = self.of.table();
        let mut page = Page::default();
        let space = self.key(&Name::new("x").expect("a name")).0;
        for ((_, _), entry) in table.entries.iter().filter(|((of, _), _)| *of == space) {
            let name = &entry.record.name;
            if !query.prefix.covers(name) || after.is_some_and(|after| name <= after) {
                continue;
            }
            if page.snapshots.len() == query.limit {
                let skip = self.is(Flaw::SkipsBetweenPages);
                let last = page.snapshots.last().map(|last: &Snapshot| &last.record.name);
                page.next = Some(if skip { name } else { last.unwrap_or(name) }.clone());
                break;
            }
            page.snapshots.push(self.seen(&table, entry));
        }
        page
    }

    /// Refuses a store that was reset under this session, once.
    fn answer<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        act: impl FnOnce() -> T,
    ) -> Answer<'a, T> {
        let now = self.of.table().store;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *opened, now) != now {
            let error = Error::new(ErrorKind::StoreReset, operation, "another store id");
            return Box::pin(ready(Err(error)));
        }
        drop(opened);
        Box::pin(ready(Ok(act())))
    }
}

impl Store for Session {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        let each = || claims.iter().map(|claim| self.acquire_one(claim)).collect();
        self.answer(Operation::Acquire, each)
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        self.answer(Operation::Renew, || {
            let mut renewed: Vec<_> = holds.iter().map(|hold| self.renew_one(hold)).collect();
            if self.is(Flaw::BatchIsOne)
                && let Some(bad) = renewed.iter().find(|one| matches!(one, Renewed::NotHeld(_)))
            {
                renewed = vec![bad.clone(); holds.len()];
            }
            renewed
        })
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        let each = || releases.iter().map(|release| self.release_one(release)).collect();
        self.answer(Operation::Release, each)
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        self.answer(Operation::Read, || {
            let table = self.of.table();
            names.iter().map(|name| self.snapshot(&table, name)).collect()
        })
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        self.answer(Operation::List, || self.list_page(query, after))
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        self.answer(Operation::Order, || self.order_one(name, request))
    }
}
