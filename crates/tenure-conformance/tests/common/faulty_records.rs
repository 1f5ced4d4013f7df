//! Records behind a connection that fails once.

use std::sync::Mutex;

use tenure_conformance::harness::ConnectionFault;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::Name;
use tenure_core::memory::MemoryRecords;
use tenure_core::record_store::{Expected, RecordStore, Stored, Written};
use tenure_core::store::{Answer, Prefix, Profile};

/// Records whose next request (or, where the fault is in the answer, next write of a lease)
/// meets a fault.
pub struct FaultyRecords {
    pub records: MemoryRecords,
    pub fault: Mutex<Option<ConnectionFault>>,
}

impl FaultyRecords {
    fn meets(&self, fault: impl Fn(ConnectionFault) -> bool) -> Option<ConnectionFault> {
        self.fault.lock().unwrap().take_if(|planned| fault(*planned))
    }
}

fn told(kind: ErrorKind) -> Error {
    Error::new(kind, Operation::Acquire, "the connection failed, as planned")
}

impl RecordStore for FaultyRecords {
    fn profile(&self) -> &Profile {
        self.records.profile()
    }

    fn read<'a>(&'a self, keys: &'a [Name]) -> Answer<'a, Vec<Option<Stored>>> {
        Box::pin(async move {
            match self.meets(|fault| fault == ConnectionFault::Refused) {
                Some(_) => Err(told(ErrorKind::Unavailable)),
                None => self.records.read(keys).await,
            }
        })
    }

    fn write_if<'a>(
        &'a self,
        key: &'a Name,
        bytes: &'a [u8],
        expected: Expected<'a>,
    ) -> Answer<'a, Written> {
        Box::pin(async move {
            match self.meets(|_| !key.as_str().starts_with('@')) {
                None => self.records.write_if(key, bytes, expected).await,
                Some(ConnectionFault::Refused) => Err(told(ErrorKind::Unavailable)),
                Some(ConnectionFault::ResetBefore) => Err(told(ErrorKind::OutcomeUnknown)),
                Some(ConnectionFault::ResetAfter | ConnectionFault::NoAnswer) => {
                    self.records.write_if(key, bytes, expected).await?;
                    Err(told(ErrorKind::OutcomeUnknown))
                }
            }
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Name>,
        limit: usize,
    ) -> Answer<'a, Vec<(Name, Stored)>> {
        self.records.list(prefix, after, limit)
    }
}
