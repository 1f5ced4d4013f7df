//! Records whose preconditions are worth less than they say, under the lease over records.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tenure_conformance::drive::block_on;
use tenure_conformance::harness::{Capability, Harness};
use tenure_core::chance::Chance;
use tenure_core::clock::Instant;
use tenure_core::identity::{Name, Namespace};
use tenure_core::memory::MemoryRecords;
use tenure_core::record_leases::RecordLeases;
use tenure_core::record_store::{Expected, RecordStore, Stored, Written};
use tenure_core::store::{Answer, Prefix, Profile, Store, Version};

use crate::common::Records;

/// What is wrong with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// `If-Match` is ignored: any version is the right one.
    IgnoresIfMatch,
    /// `If-None-Match: *` is ignored: a key that is there is overwritten.
    IgnoresIfAbsent,
    /// A write on a version of a key that isn't there makes one.
    MakesMissingKeys,
    /// The version is a hash of the whole content. No flaw: our writes are never byte-equal.
    ContentTag,
    /// The version is a hash of the content without what is new in every write.
    ContentTagWithoutNonce,
    /// The precondition is checked, and then the write is done.
    TwoSteps,
    /// Every eighth write is acknowledged and lost.
    LosesWrites,
}

/// Records in memory with such a flaw.
pub struct Tampered {
    records: MemoryRecords,
    writes: Arc<AtomicU64>,
    tampering: Tampering,
}

impl Tampered {
    fn tag(&self, stored: &Stored) -> Version {
        let mut bytes = stored.bytes.clone();
        match self.tampering {
            Tampering::ContentTag => {}
            Tampering::ContentTagWithoutNonce => {
                if let Ok(mut json) = serde_json::from_slice::<serde_json::Value>(&bytes) {
                    if let Some(fields) = json.as_object_mut() {
                        fields.remove("nonce");
                    }
                    bytes = json.to_string().into_bytes();
                }
            }
            _ => return stored.version.clone(),
        }
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Version::new(format!("{:x}", hasher.finish()))
    }

    fn tagged(&self, stored: Stored) -> Stored {
        Stored { version: self.tag(&stored), bytes: stored.bytes }
    }

    fn current(&self, key: &Name) -> Option<Stored> {
        block_on(self.records.read(std::slice::from_ref(key))).unwrap().pop().flatten()
    }

    fn write(&self, key: &Name, bytes: &[u8], expected: Expected<'_>) -> Written {
        // Bounded: each round is lost to a write that succeeded.
        for _ in 0..10_000 {
            let current = self.current(key);
            let there = current.as_ref().map(|stored| self.tag(stored));
            let met = match (expected, &there) {
                (Expected::Absent, None) => true,
                (Expected::Absent, Some(_)) => self.tampering == Tampering::IgnoresIfAbsent,
                (Expected::Version(_), None) => self.tampering == Tampering::MakesMissingKeys,
                (Expected::Version(wanted), Some(there)) => {
                    wanted == there || self.tampering == Tampering::IgnoresIfMatch
                }
            };
            if !met {
                return Written::Conflict;
            }
            if self.tampering == Tampering::LosesWrites
                && self.writes.fetch_add(1, Relaxed) % 8 == 7
            {
                return Written::Written(Version::new("lost"));
            }
            let mut current = current;
            if self.tampering == Tampering::TwoSteps {
                std::thread::sleep(Duration::from_micros(50));
                current = self.current(key);
            }
            let at =
                current.as_ref().map_or(Expected::Absent, |old| Expected::Version(&old.version));
            let written = block_on(self.records.write_if(key, bytes, at)).unwrap();
            if let Written::Written(version) = written {
                let stored = Stored { bytes: bytes.to_vec(), version };
                return Written::Written(self.tag(&stored));
            }
        }
        Written::Conflict
    }
}

impl RecordStore for Tampered {
    fn profile(&self) -> &Profile {
        self.records.profile()
    }

    fn read<'a>(&'a self, keys: &'a [Name]) -> Answer<'a, Vec<Option<Stored>>> {
        Box::pin(async move {
            let read = self.records.read(keys).await?;
            // As over a network: whoever asks meanwhile reads the same, however fast the machine.
            std::thread::sleep(Duration::from_micros(200));
            Ok(read.into_iter().map(|one| one.map(|stored| self.tagged(stored))).collect())
        })
    }

    fn write_if<'a>(
        &'a self,
        key: &'a Name,
        bytes: &'a [u8],
        expected: Expected<'a>,
    ) -> Answer<'a, Written> {
        Box::pin(std::future::ready(Ok(self.write(key, bytes, expected))))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Name>,
        limit: usize,
    ) -> Answer<'a, Vec<(Name, Stored)>> {
        Box::pin(async move {
            let listed = self.records.list(prefix, after, limit).await?;
            Ok(listed.into_iter().map(|(name, stored)| (name, self.tagged(stored))).collect())
        })
    }
}

/// A fresh store over such records.
pub struct TamperedRecords {
    inner: Records,
    writes: Arc<AtomicU64>,
    tampering: Tampering,
}

impl TamperedRecords {
    pub fn new(tampering: Tampering) -> Self {
        Self { inner: Records::new(), writes: Arc::default(), tampering }
    }

    fn records(&self, namespace: &Namespace) -> Tampered {
        let records = self.inner.records.in_namespace(namespace.clone());
        Tampered { records, writes: Arc::clone(&self.writes), tampering: self.tampering }
    }
}

impl Harness for TamperedRecords {
    fn name(&self) -> &str {
        "tampered records"
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        let records = self.records(namespace);
        Arc::new(block_on(RecordLeases::open(records, Chance::seeded(3))).unwrap())
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn advance(&self, by: Duration) {
        self.inner.advance(by);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        match capability {
            Capability::Restore | Capability::RawRecords | Capability::ConnectionFaults => {
                Some("not through the tampering")
            }
            other => self.inner.lacks(other),
        }
    }

    fn forget(&self) {
        self.inner.forget();
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        self.inner.delete_by_hand(namespace, name);
    }

    fn writes(&self) -> u64 {
        self.inner.writes()
    }

    fn open_records(&self, namespace: &Namespace) -> Arc<dyn RecordStore> {
        Arc::new(self.records(namespace))
    }
}
