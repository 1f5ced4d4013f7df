//! Records as values of a state store, which tells after a write neither what it made of the etag
//! nor, surely, whether it was done: each write is read back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tenure_core::identity::Name;
use tenure_core::record_store::{Expected, RecordStore, Stored, Written};
use tenure_core::store::{Answer, Prefix, Profile, Version};
use tenure_core::{Error, ErrorKind, Operation};

use crate::index::Index;
use crate::keys::Keys;
use crate::sidecar::{Saved, Sidecar, Value};

/// How many keys are read at once.
const READS_AT_ONCE: usize = 16;

/// One namespace's records in a state store.
#[derive(Clone)]
pub(crate) struct Records {
    pub(crate) profile: Profile,
    pub(crate) keys: Keys,
    pub(crate) values: Values,
    pub(crate) index: Arc<Index>,
}

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
        let text = std::str::from_utf8(bytes).expect("a record is JSON, and that is text");
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

impl Records {
    pub(crate) fn new(profile: Profile, keys: Keys, values: Values) -> Self {
        let index = Arc::new(Index::new(keys.clone(), values.clone()));
        Self { profile, keys, values, index }
    }

    pub(crate) fn located(&self, error: Error) -> Error {
        error.with_store(Arc::clone(&self.profile.location))
    }

    async fn read_all(&self, names: Vec<Name>) -> Result<Vec<(Name, Option<Stored>)>, Error> {
        let reads = names.into_iter().map(|name| async move {
            let read = self.values.read(&self.keys.record(&name)).await;
            read.map(|stored| (name.clone(), stored)).map_err(|error| error.with_name(&name))
        });
        stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await
    }
}

impl RecordStore for Records {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn read<'a>(&'a self, keys: &'a [Name]) -> Answer<'a, Vec<Option<Stored>>> {
        Box::pin(async move {
            let read = self.read_all(keys.to_vec()).await.map_err(|error| self.located(error))?;
            Ok(read.into_iter().map(|(_, stored)| stored).collect())
        })
    }

    fn write_if<'a>(
        &'a self,
        key: &'a Name,
        bytes: &'a [u8],
        expected: Expected<'a>,
    ) -> Answer<'a, Written> {
        Box::pin(async move {
            if expected == Expected::Absent {
                // Before the record is there, so that none is ever missing in a list.
                self.index.add(key).await.map_err(|error| self.located(error.with_name(key)))?;
            }
            let written = self.values.write_if(&self.keys.record(key), bytes, expected).await;
            written.map_err(|error| self.located(error.with_name(key)))
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Name>,
        limit: usize,
    ) -> Answer<'a, Vec<(Name, Stored)>> {
        Box::pin(async move {
            let names = self.index.names().await.map_err(|error| self.located(error))?;
            let wanted = |name: &Name| {
                name.as_str().starts_with(prefix.as_str()) && after.is_none_or(|after| name > after)
            };
            let mut names: Vec<Name> = names.into_iter().filter(wanted).collect();
            let mut listed = Vec::new();
            // A name stands in its index a moment before its record does.
            while listed.len() < limit && !names.is_empty() {
                let later = names.split_off((limit - listed.len()).min(names.len()));
                let read = self.read_all(names).await.map_err(|error| self.located(error))?;
                listed.extend(read.into_iter().filter_map(|(name, stored)| Some((name, stored?))));
                names = later;
            }
            Ok(listed)
        })
    }
}
