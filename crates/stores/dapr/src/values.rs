//! The values of a state store, which tells after a write neither what it made of the etag nor,
//! surely, whether it was done: each write is read back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tenure_core::record_store::{Expected, Stored, Written};
use tenure_core::store::Version;
use tenure_core::{Error, ErrorKind, Operation};

use crate::sidecar::{Saved, Sidecar, Value};

/// The values of a state store.
#[derive(Clone)]
pub(crate) struct Values {
    pub(crate) sidecar: Sidecar,
    /// The component would make a key that isn't there, though an etag was demanded: one that was
    /// wiped is looked for first.
    pub(crate) looks_first: bool,
    /// How many writes were not refused, for tests, which count them.
    pub(crate) writes: Arc<AtomicU64>,
}

impl Values {
    /// Reads a key.
    pub(crate) async fn read(&self, key: &str) -> Result<Option<Stored>, Error> {
        self.sidecar.get(key).await?.map(|value| stored(key, value)).transpose()
    }

    /// Writes a key if it is as expected, and says what came of it.
    ///
    /// A component may tell of a mismatch where it failed in another way, or after the sidecar has
    /// repeated a write that was done; and of success it tells no etag. So what counts is what is
    /// there: no two writes are equal.
    pub(crate) async fn write_if(
        &self,
        key: &str,
        bytes: &[u8],
        expected: Expected<'_>,
    ) -> Result<Written, Error> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Error::invalid("a record is JSON, so UTF-8; these bytes aren't").with_source(error)
        })?;
        let etag = match expected {
            Expected::Absent => None,
            Expected::Version(version) => Some(version.as_str()),
        };
        if self.looks_first && etag.is_some() && self.read(key).await?.is_none() {
            return Ok(Written::Conflict);
        }
        let saved = self.sidecar.save(key, text, etag).await?;
        let found = self.read(key).await.map_err(|error| unread(error, &saved))?;
        if let Some(found) = &found
            && found.bytes == bytes
        {
            self.writes.fetch_add(1, Ordering::Relaxed);
            return Ok(Written::Written(found.version.clone()));
        }
        let moved_on = match expected {
            Expected::Absent => found.is_some(),
            Expected::Version(version) => found.is_some_and(|found| found.version != *version),
        };
        match saved {
            Saved::Mismatch => Ok(Written::Conflict),
            // An etag never comes back, so what was refused is refused for good.
            Saved::Failed(_) if moved_on => Ok(Written::Conflict),
            Saved::Failed(why) => {
                let message = format!(
                    "the state store failed ({why}), and the write may be done later or not"
                );
                Err(Error::new(ErrorKind::OutcomeUnknown, Operation::Acquire, message))
            }
            Saved::Done => {
                self.writes.fetch_add(1, Ordering::Relaxed);
                let message = "what was written was overwritten before it could be read back";
                Err(Error::new(ErrorKind::OutcomeUnknown, Operation::Acquire, message))
            }
        }
    }
}

fn stored(key: &str, value: Value) -> Result<Stored, Error> {
    let text: String = serde_json::from_slice(&value.json).map_err(|error| {
        let message = format!(
            "the value of `{key}` is no text of tenure's; look at it before anything overwrites it"
        );
        Error::new(ErrorKind::Corrupt, Operation::Read, message).with_source(error)
    })?;
    Ok(Stored { bytes: text.into_bytes(), version: Version::new(value.etag) })
}

/// A write that could not be read back.
fn unread(error: Error, saved: &Saved) -> Error {
    let what = match saved {
        Saved::Done => "the write was done, but what it made could not be read",
        Saved::Mismatch | Saved::Failed(_) => {
            "the write was refused, and why could not be read; it may be done or not"
        }
    };
    let message = format!("{what}; repeat it");
    Error::new(ErrorKind::OutcomeUnknown, Operation::Acquire, message).with_source(error)
}
