//! The reference stores: the contract in executable form, with a clock and over records.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::chance::Chance;
use crate::clock::{Clock, Instant};
use crate::decide::{self, Claimed, token_above};
use crate::error::{Error, ErrorKind, Operation};
use crate::hint::HintBoard;
use crate::identity::{FencingToken, Name, Namespace, StoreId};
use crate::record::Record;
use crate::record_store::{Expected, RecordStore, Stored, Written};
use crate::store::{
    Acquired, Answer, Claim, Expiry, Grant, Hints, Hold, OrderRequest, Ordered, Page, Prefix,
    Profile, Query, Release, Released, Renewed, Snapshot, Store, Version, Wake,
};

/// A store in this process's memory, whose clock decides expiry. Clones share it.
#[derive(Clone)]
pub struct MemoryStore {
    namespace: Namespace,
    profile: Profile,
    shared: Arc<Shared>,
    opened: Arc<Mutex<StoreId>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
    board: HintBoard,
}

/// The store's state, as a value: the simulator keeps one of these, too.
#[derive(Clone, Debug)]
pub struct Table {
    store: StoreId,
    entries: BTreeMap<(Namespace, Name), Entry>,
    last_token: Option<FencingToken>,
    writes: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    record: Record,
    version: u64,
    /// When its holder last wrote it.
    held_since: Instant,
}

impl Table {
    /// An empty store of this id.
    #[must_use]
    pub fn new(store: StoreId) -> Self {
        Self { store, entries: BTreeMap::new(), last_token: None, writes: 0 }
    }

    /// The store's id.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// How many writes it has seen.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Reads one record.
    #[must_use]
    pub fn read(&self, namespace: &Namespace, name: &Name, now: Instant) -> Option<Snapshot> {
        let entry = self.entries.get(&(namespace.clone(), name.clone()))?;
        Some(self.snapshot(entry, now))
    }

    fn snapshot(&self, entry: &Entry, now: Instant) -> Snapshot {
        Snapshot {
            record: entry.record.clone(),
            version: Version::new(entry.version.to_string()),
            store: self.store,
            age: Some(now.since(entry.held_since)),
            holder_gone: false,
        }
    }

    /// Carries out a claim.
    pub fn acquire(&mut self, namespace: &Namespace, claim: &Claim, now: Instant) -> Acquired {
        let current = self.read(namespace, &claim.name, now);
        let token = match decide::claim(current.as_ref(), claim) {
            Claimed::Found(token) => {
                let found = current.expect("only a record can be found");
                return Acquired::Granted(Grant {
                    token,
                    version: found.version,
                    store: self.store,
                });
            }
            Claimed::Refused => {
                return Acquired::Refused(Box::new(current.expect("only a record refuses")));
            }
            Claimed::Free { above } => match token_above(above, self.last_token) {
                Ok(token) => token,
                Err(error) => return Acquired::Failed(error.with_name(&claim.name)),
            },
        };
        self.last_token = Some(token);
        let before = current.as_ref().map(|snapshot| &snapshot.record);
        let record = decide::granted(before, claim, token);
        let version = self.write(namespace, record, now);
        Acquired::Granted(Grant { token, version, store: self.store })
    }

    /// Carries out a renewal.
    pub fn renew(&mut self, namespace: &Namespace, hold: &Hold, now: Instant) -> Renewed {
        let current = self.read(namespace, &hold.name, now);
        let record = match decide::renewed(current, hold) {
            Ok(record) => record,
            Err(instead) => return Renewed::NotHeld(instead),
        };
        let asked = decide::asked(&record).cloned();
        let version = self.write(namespace, record, now);
        match asked {
            Some(order) => Renewed::Asked(version, Box::new(order)),
            None => Renewed::Renewed(version),
        }
    }

    /// Carries out a release.
    pub fn release(&mut self, namespace: &Namespace, release: &Release, now: Instant) -> Released {
        let current = self.read(namespace, &release.name, now);
        match decide::released(current.as_ref(), release) {
            Some(record) => Released::Released(self.write(namespace, record, now)),
            None => Released::NotHeld(current.map(Box::new)),
        }
    }

    /// Carries out an order. It leaves the grant's age as it is.
    pub fn order(
        &mut self,
        namespace: &Namespace,
        name: &Name,
        request: &OrderRequest,
        now: Instant,
    ) -> Ordered {
        let current = self.read(namespace, name, now);
        let Some(record) = decide::ordered(current.as_ref(), request) else {
            return Ordered::NotHeld(current.map(Box::new));
        };
        let key = (namespace.clone(), name.clone());
        let held_since = self.entries.get(&key).map_or(now, |entry| entry.held_since);
        self.write(namespace, record, held_since);
        let marked = self.read(namespace, name, now).expect("it was written just now");
        Ordered::Ordered(Box::new(marked))
    }

    fn write(&mut self, namespace: &Namespace, record: Record, held_since: Instant) -> Version {
        self.writes += 1;
        let version = self.writes;
        let key = (namespace.clone(), record.name.clone());
        self.entries.insert(key, Entry { record, version, held_since });
        Version::new(version.to_string())
    }

    fn list(
        &self,
        namespace: &Namespace,
        query: &Query,
        after: Option<&Name>,
        now: Instant,
    ) -> Page {
        let mut snapshots = Vec::new();
        let mut next = None;
        for (name, entry) in under(&self.entries, namespace, &query.prefix, after) {
            if snapshots.len() == query.limit {
                next = snapshots.last().map(|last: &Snapshot| last.record.name.clone());
                break;
            }
            debug_assert_eq!(name, &entry.record.name);
            snapshots.push(self.snapshot(entry, now));
        }
        Page { snapshots, next }
    }
}

/// The entries of a namespace under a prefix, in order, after a name.
fn under<'a, T>(
    entries: &'a BTreeMap<(Namespace, Name), T>,
    namespace: &'a Namespace,
    prefix: &'a Prefix,
    after: Option<&'a Name>,
) -> impl Iterator<Item = (&'a Name, &'a T)> {
    let start = match (after, Name::try_from(prefix.as_str().to_owned())) {
        (Some(after), Ok(first)) if *after < first => Bound::Included((namespace.clone(), first)),
        (Some(after), _) => Bound::Excluded((namespace.clone(), after.clone())),
        (None, Ok(first)) => Bound::Included((namespace.clone(), first)),
        // The empty prefix is no name; a space is the least that a name can be.
        (None, Err(_)) => {
            Bound::Included((namespace.clone(), Name::new(" ").expect("a space is a name")))
        }
    };
    entries
        .range((start, Bound::Unbounded))
        .take_while(move |((space, name), _)| {
            space == namespace && (prefix.covers(name) || name.as_str() < prefix.as_str())
        })
        .filter(move |((_, name), _)| prefix.covers(name))
        .map(|((_, name), entry)| (name, entry))
}

impl MemoryStore {
    /// An empty store in the default namespace.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, chance: &mut Chance) -> Self {
        let store = StoreId::draw(chance);
        let mut profile = Profile::new("memory", "memory:");
        profile.wake = Wake::Push(Duration::from_secs(1));
        Self {
            namespace: Namespace::default(),
            profile,
            shared: Arc::new(Shared {
                clock,
                table: Mutex::new(Table::new(store)),
                board: HintBoard::default(),
            }),
            opened: Arc::new(Mutex::new(store)),
        }
    }

    /// The same store as another session sees it, in a namespace.
    #[must_use]
    pub fn opened(&self, namespace: Namespace) -> Self {
        let opened = Arc::new(Mutex::new(self.table().store));
        Self { namespace, opened, profile: self.profile.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Forgets everything, as a store does that lost its data: its id is another afterwards.
    pub fn forget(&self, chance: &mut Chance) {
        *self.table() = Table::new(StoreId::draw(chance));
        self.shared.board.changed();
    }

    /// Deletes one record, as an operator might by hand.
    pub fn delete_by_hand(&self, name: &Name) {
        self.table().entries.remove(&(self.namespace.clone(), name.clone()));
    }

    /// How many writes the store has seen.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.table().writes
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One transaction: refuses a store that was reset under this session, and believes in the
    /// new one from then on.
    fn with<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut Table, &Namespace, Instant) -> T,
    ) -> Result<T, Error> {
        let now = self.shared.clock.now().elapsed;
        let mut table = self.table();
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if table.store != *opened {
            let message = format!(
                "the store's id changed from {opened} to {}: what was held is lost",
                table.store
            );
            *opened = table.store;
            return Err(Error::new(ErrorKind::StoreReset, operation, message)
                .with_store(self.profile.location.clone()));
        }
        let before = table.writes;
        let outcome = act(&mut table, &self.namespace, now);
        let changed = table.writes != before;
        drop(table);
        if changed && operation != Operation::Renew {
            self.shared.board.changed();
        }
        Ok(outcome)
    }
}

fn ready<'a, T: Send + 'a>(outcome: Result<T, Error>) -> Answer<'a, T> {
    Box::pin(std::future::ready(outcome))
}

impl Store for MemoryStore {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        ready(self.with(Operation::Acquire, |table, namespace, now| {
            claims.iter().map(|claim| table.acquire(namespace, claim, now)).collect()
        }))
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        ready(self.with(Operation::Renew, |table, namespace, now| {
            holds.iter().map(|hold| table.renew(namespace, hold, now)).collect()
        }))
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        ready(self.with(Operation::Release, |table, namespace, now| {
            releases.iter().map(|release| table.release(namespace, release, now)).collect()
        }))
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        ready(self.with(Operation::Read, |table, namespace, now| {
            names.iter().map(|name| table.read(namespace, name, now)).collect()
        }))
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        ready(self.with(Operation::List, |table, namespace, now| {
            table.list(namespace, query, after, now)
        }))
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        ready(self.with(Operation::Order, |table, namespace, now| {
            table.order(namespace, name, request, now)
        }))
    }

    fn watch<'a>(&'a self, _prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        ready(Ok(Some(Hints::new(self.shared.board.listen()))))
    }
}

/// Records in this process's memory, without a clock: what an object store looks like.
/// Clones share them.
#[derive(Clone)]
pub struct MemoryRecords {
    namespace: Namespace,
    profile: Profile,
    shared: Arc<Mutex<Records>>,
}

#[derive(Default)]
struct Records {
    entries: BTreeMap<(Namespace, Name), (Vec<u8>, u64)>,
    writes: u64,
}

impl Default for MemoryRecords {
    fn default() -> Self {
        let mut profile = Profile::new("memory-records", "memory-records:");
        profile.expiry = Expiry::Observed;
        profile.wake = Wake::Poll(Duration::from_millis(500));
        Self { namespace: Namespace::default(), profile, shared: Arc::default() }
    }
}

impl MemoryRecords {
    /// Empty records in the default namespace.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same records in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: Namespace) -> Self {
        Self { namespace, profile: self.profile.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Forgets everything.
    pub fn forget(&self) {
        self.records().entries.clear();
    }

    /// Deletes one record, as an operator might by hand.
    pub fn delete_by_hand(&self, name: &Name) {
        self.records().entries.remove(&(self.namespace.clone(), name.clone()));
    }

    /// How many writes there were.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.records().writes
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordStore for MemoryRecords {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn read<'a>(&'a self, keys: &'a [Name]) -> Answer<'a, Vec<Option<Stored>>> {
        let records = self.records();
        let read = |key: &Name| {
            let (bytes, version) = records.entries.get(&(self.namespace.clone(), key.clone()))?;
            Some(Stored { bytes: bytes.clone(), version: Version::new(version.to_string()) })
        };
        ready(Ok(keys.iter().map(read).collect()))
    }

    fn write_if<'a>(
        &'a self,
        key: &'a Name,
        bytes: &'a [u8],
        expected: Expected<'a>,
    ) -> Answer<'a, Written> {
        let mut records = self.records();
        let key = (self.namespace.clone(), key.clone());
        let current = records.entries.get(&key).map(|(_, version)| version.to_string());
        let met = match expected {
            Expected::Absent => current.is_none(),
            Expected::Version(version) => current.as_deref() == Some(version.as_str()),
        };
        if !met {
            return ready(Ok(Written::Conflict));
        }
        // Versions never recur, also across a wipe: they count all writes there ever were.
        records.writes += 1;
        let version = records.writes;
        records.entries.insert(key, (bytes.to_vec(), version));
        ready(Ok(Written::Written(Version::new(version.to_string()))))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Name>,
        limit: usize,
    ) -> Answer<'a, Vec<(Name, Stored)>> {
        let records = self.records();
        let listed = under(&records.entries, &self.namespace, prefix, after)
            .take(limit)
            .map(|(name, (bytes, version))| {
                let version = Version::new(version.to_string());
                (name.clone(), Stored { bytes: bytes.clone(), version })
            })
            .collect();
        ready(Ok(listed))
    }
}
