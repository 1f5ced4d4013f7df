//! The harnesses of the two memory stores, for the tests of the suite.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a harness panics where it fails")]

pub mod faulty_records;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenure_conformance::drive::block_on;
use tenure_conformance::harness::{Capability, ConnectionFault, Harness};
use tenure_core::chance::Chance;
use tenure_core::clock::{Clock, Instant, ManualClock};
use tenure_core::identity::{Name, Namespace};
use tenure_core::memory::{MemoryRecords, MemoryStore};
use tenure_core::record_leases::RecordLeases;
use tenure_core::record_store::{Expected, RecordStore, Stored};
use tenure_core::store::{Prefix, Store};

use faulty_records::FaultyRecords;

/// A clock that doesn't begin at its zero.
pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::starting_at(Instant::from_nanos(7_000_000_000)))
}

/// What neither of the memory stores has.
pub fn lacked_in_memory(capability: Capability) -> Option<&'static str> {
    match capability {
        Capability::FencedTx => Some("it keeps nothing but leases: there is nothing to guard"),
        Capability::ProvesDeath => Some("its instances share one process, which lives"),
        Capability::Purge => Some("it never deletes a tombstone"),
        Capability::Endpoints => Some("there is one memory, without a server before it"),
        Capability::Doctor => Some("it has no settings that could be wrong"),
        Capability::Restart => Some("it ends with its process"),
        Capability::ConnectionFaults => Some("no connection lies between it and its sessions"),
        Capability::Credentials => Some("it asks for none"),
        Capability::WatchFaults => Some("no connection carries its hints"),
        _ => None,
    }
}

/// The store with a clock.
pub struct Memory {
    pub clock: Arc<ManualClock>,
    pub store: MemoryStore,
    pub chance: Mutex<Chance>,
}

impl Memory {
    pub fn new() -> Self {
        let (clock, mut chance) = (clock(), Chance::seeded(1));
        let store = MemoryStore::new(clock.clone(), &mut chance);
        Self { clock, store, chance: Mutex::new(chance) }
    }
}

impl Harness for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        Arc::new(self.store.opened(namespace.clone()))
    }

    fn now(&self) -> Instant {
        self.clock.now().elapsed
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        match capability {
            Capability::ObservedExpiry => Some("its clock decides"),
            Capability::Records => Some("it decides under one lock, without preconditions"),
            Capability::RawRecords => Some("it keeps records as values, not as JSON"),
            Capability::Restore => Some("nobody backs a memory up"),
            other => lacked_in_memory(other),
        }
    }

    fn forget(&self) {
        self.store.forget(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        self.store.opened(namespace.clone()).delete_by_hand(name);
    }

    fn writes(&self) -> u64 {
        self.store.writes()
    }
}

/// The store without a clock, over records.
pub struct Records {
    pub clock: Arc<ManualClock>,
    pub records: MemoryRecords,
    backup: Mutex<Vec<(Name, Stored)>>,
}

impl Records {
    pub fn new() -> Self {
        Self { clock: clock(), records: MemoryRecords::new(), backup: Mutex::default() }
    }

    fn write(&self, records: &MemoryRecords, name: &Name, bytes: &[u8]) {
        let old = block_on(records.read(std::slice::from_ref(name))).unwrap().pop().flatten();
        let expected = old.as_ref().map_or(Expected::Absent, |old| Expected::Version(&old.version));
        block_on(records.write_if(name, bytes, expected)).unwrap();
    }
}

impl Harness for Records {
    fn name(&self) -> &str {
        "memory-records"
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        static OPENED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let seed = OPENED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let records = self.records.in_namespace(namespace.clone());
        Arc::new(block_on(RecordLeases::open(records, Chance::seeded(seed))).unwrap())
    }

    fn now(&self) -> Instant {
        self.clock.now().elapsed
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        match capability {
            Capability::StoreClock => Some("records have no clock: contenders observe expiry"),
            Capability::Push => Some("records are polled"),
            Capability::ConnectionFaults => None,
            other => lacked_in_memory(other),
        }
    }

    fn forget(&self) {
        self.records.forget();
    }

    fn back_up(&self) {
        let records = self.records.in_namespace(tenure_conformance::player::namespace());
        *self.backup.lock().unwrap() =
            block_on(records.list(&Prefix::all(), None, usize::MAX)).unwrap();
    }

    fn restore_backup(&self) {
        let records = self.records.in_namespace(tenure_conformance::player::namespace());
        self.records.forget();
        for (name, stored) in &*self.backup.lock().unwrap() {
            self.write(&records, name, &stored.bytes);
        }
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        self.records.in_namespace(namespace.clone()).delete_by_hand(name);
    }

    fn writes(&self) -> u64 {
        self.records.writes()
    }

    fn raw_read(&self, namespace: &Namespace, name: &Name) -> Option<Vec<u8>> {
        let records = self.records.in_namespace(namespace.clone());
        let read = block_on(records.read(std::slice::from_ref(name))).unwrap().pop().flatten();
        read.map(|stored| stored.bytes)
    }

    fn raw_write(&self, namespace: &Namespace, name: &Name, json: &[u8]) {
        self.write(&self.records.in_namespace(namespace.clone()), name, json);
    }

    fn open_faulty(&self, fault: ConnectionFault, namespace: &Namespace) -> Arc<dyn Store> {
        let records = FaultyRecords {
            records: self.records.in_namespace(namespace.clone()),
            fault: Mutex::default(),
        };
        let leases = block_on(RecordLeases::open(records, Chance::seeded(11))).unwrap();
        *leases.records().fault.lock().unwrap() = Some(fault);
        Arc::new(leases)
    }

    fn open_records(&self, namespace: &Namespace) -> Arc<dyn RecordStore> {
        Arc::new(self.records.in_namespace(namespace.clone()))
    }
}
