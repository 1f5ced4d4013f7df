//! Records as objects: reads that ask only for what changed, writes on a condition, listings.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload,
};
use tenure_core::identity::Name;
use tenure_core::record_store::{Expected, RecordStore, Stored, Written};
use tenure_core::store::{Answer, Prefix, Profile};
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::{self, Client};
use crate::keys::Keys;
use crate::pace::Pace;
use crate::seen::Seen;
use crate::tag::Tag;
use crate::wire::ANSWER_MAX;

/// How often a read is sent at most while the store fails in passing.
const READS_MAX: usize = 3;
/// How long a read waits before it is sent again, times how often it failed.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How many objects are read at once: a poll has a few, a listing a page of them.
const READS_AT_ONCE: usize = 16;

/// One namespace's records in an object store.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) profile: Profile,
    pub(crate) keys: Keys,
    pub(crate) bucket: Bucket,
}

/// An object store, and what is known of it.
#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) client: Client,
    /// Whether generations are compared, and not etags.
    pub(crate) generations: bool,
    /// Whether listings come in the order of keys. Where nobody says so, all of one is read.
    pub(crate) ordered: bool,
    pub(crate) pace: Arc<Pace>,
    pub(crate) seen: Arc<Mutex<Seen>>,
    /// How many writes were not refused.
    pub(crate) writes: Arc<AtomicU64>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("client", &self.client).finish_non_exhaustive()
    }
}

/// An object as it was read.
pub(crate) struct Fetched {
    pub(crate) tag: Tag,
    pub(crate) bytes: Vec<u8>,
}

impl Bucket {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an object; what was read before is asked for only if it has changed.
    pub(crate) async fn fetch(&self, object: &Path) -> Result<Option<Fetched>, Error> {
        let known = self.seen().get(object);
        let mut failures = 0;
        loop {
            let options = GetOptions {
                if_none_match: known.as_ref().map(|(tag, _)| tag.e_tag.clone()),
                ..GetOptions::default()
            };
            let read = async {
                let got = self.store.get_opts(object, options).await?;
                let meta = got.meta.clone();
                Ok((meta, got.bytes().await?))
            };
            match (self.in_time(Operation::Read, read).await?, &known) {
                (Ok((meta, bytes)), _) => {
                    let fetched = self.fetched(&meta, &bytes)?;
                    self.seen().put(object, &fetched.tag, &fetched.bytes);
                    return Ok(Some(fetched));
                }
                (Err(object_store::Error::NotModified { .. }), Some((tag, bytes))) => {
                    return Ok(Some(Fetched { tag: tag.clone(), bytes: bytes.clone() }));
                }
                (Err(object_store::Error::NotFound { .. }), _) => {
                    self.seen().forget(object);
                    return Ok(None);
                }
                (Err(error), _) => {
                    failures += 1;
                    if failures == READS_MAX || !errors::is_passing(&error) {
                        return Err(errors::of_read(error, Operation::Read, self.client));
                    }
                    tokio::time::sleep(AGAIN_AFTER * failures as u32).await;
                }
            }
        }
    }

    /// Reads an object with what stands beside its bytes, without a condition.
    pub(crate) async fn fetch_whole(&self, object: &Path) -> Result<Option<GetResult>, Error> {
        match self.in_time(Operation::Read, self.store.get(object)).await? {
            Ok(got) => Ok(Some(got)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(errors::of_read(error, Operation::Read, self.client)),
        }
    }

    /// The bytes of an object that is being read.
    pub(crate) async fn bytes_of(&self, got: GetResult) -> Result<Bytes, Error> {
        let read = self.in_time(Operation::Read, got.bytes()).await?;
        read.map_err(|error| errors::of_read(error, Operation::Read, self.client))
    }

    fn fetched(&self, meta: &ObjectMeta, bytes: &Bytes) -> Result<Fetched, Error> {
        let tag = Tag::of_read(meta, self.generations).ok_or_else(|| untagged(Operation::Read))?;
        Ok(Fetched { tag, bytes: bytes.to_vec() })
    }

    /// Writes an object on a condition, once: the answer is done, not done, or unknown.
    pub(crate) async fn write(
        &self,
        object: &Path,
        bytes: &[u8],
        expected: Expected<'_>,
        options: PutOptions,
    ) -> Result<Written, Error> {
        self.pace.turn(object).await;
        let mode = match expected {
            Expected::Absent => PutMode::Create,
            Expected::Version(version) => PutMode::Update(Tag::demanded(version)),
        };
        let payload = PutPayload::from(bytes.to_vec());
        let put = self.store.put_opts(object, payload, PutOptions { mode, ..options });
        let Ok(put) = tokio::time::timeout(ANSWER_MAX, put).await else {
            return Err(errors::silent(Operation::Acquire, true));
        };
        let refused = matches!(
            &put,
            Err(object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. })
        );
        self.writes.fetch_add(u64::from(!refused), Ordering::Relaxed);
        match put {
            Ok(written) => match Tag::of_write(&written, self.generations) {
                Some(tag) => {
                    self.seen().put(object, &tag, bytes);
                    Ok(Written::Written(tag.version()))
                }
                // It is done, but nothing can be built on it.
                None => Err(untagged(Operation::Acquire)),
            },
            Err(error) => errors::of_write(error, self.client),
        }
    }

    async fn in_time<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<object_store::Result<T>, Error> {
        let done = tokio::time::timeout(ANSWER_MAX, work).await;
        done.map_err(|_| errors::silent(operation, false))
    }
}

fn untagged(operation: Operation) -> Error {
    Error::new(
        ErrorKind::Misconfigured,
        operation,
        "the object store tells no etag, so nothing can be written on a condition; use another",
    )
}

impl Objects {
    /// What lies beside the namespaces.
    pub(crate) fn beside(&self) -> Self {
        Self { keys: self.keys.beside(), ..self.clone() }
    }

    pub(crate) fn located(&self, error: Error) -> Error {
        error.with_store(Arc::clone(&self.profile.location))
    }

    async fn read_one(&self, key: &Name) -> Result<Option<Stored>, Error> {
        let fetched = self.bucket.fetch(&self.keys.record(key)).await?;
        Ok(fetched.map(|it| Stored { version: it.tag.version(), bytes: it.bytes }))
    }

    /// The objects of names under a prefix after a name, in the order of names, `limit` at most.
    async fn found(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<(Name, ObjectMeta)>, Error> {
        let folder = self.keys.folder();
        let start =
            match (after.map(|name| self.keys.record(name)), self.keys.before(prefix.as_str())) {
                (after, Some(before)) => after.max(Some(before)),
                (after, None) => after,
            };
        let mut listing = match start.filter(|_| self.bucket.ordered) {
            Some(start) => self.bucket.store.list_with_offset(Some(&folder), &start),
            None => self.bucket.store.list(Some(&folder)),
        };
        let mut found = BTreeMap::new();
        let mut last: Option<Path> = None;
        let mut ordered = self.bucket.ordered;
        loop {
            let next = self.bucket.in_time(Operation::List, listing.try_next()).await?;
            let told = |error| errors::of_read(error, Operation::List, self.bucket.client);
            let Some(meta) = next.map_err(told)? else { break };
            ordered &= last.as_ref().is_none_or(|last| *last < meta.location);
            last = Some(meta.location.clone());
            let Some(name) = self.keys.name(&meta.location) else { continue };
            let covered = prefix.covers(&name);
            let past = !covered && name.as_str() > prefix.as_str();
            if covered && after.is_none_or(|after| *after < name) {
                found.insert(name, meta);
            }
            if ordered && (past || found.len() >= limit) {
                break;
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }

    /// A listed object's bytes: those that were read before, if its etag is still the same.
    async fn read_listed(
        &self,
        name: Name,
        meta: ObjectMeta,
    ) -> Result<Option<(Name, Stored)>, Error> {
        let known = self.bucket.seen().get(&meta.location);
        if let Some((tag, bytes)) = known.filter(|(tag, _)| tag.is_listed_as(meta.e_tag.as_deref()))
        {
            return Ok(Some((name, Stored { version: tag.version(), bytes })));
        }
        let fetched = self.bucket.fetch(&meta.location).await?;
        Ok(fetched.map(|it| (name, Stored { version: it.tag.version(), bytes: it.bytes })))
    }
}

impl RecordStore for Objects {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn read<'a>(&'a self, keys: &'a [Name]) -> Answer<'a, Vec<Option<Stored>>> {
        Box::pin(async move {
            // Boxed: a borrowing closure's future is too much for the compiler here.
            let reads: Vec<_> = keys.iter().map(|key| self.read_one(key).boxed()).collect();
            let read = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await;
            read.map_err(|error| self.located(error))
        })
    }

    fn write_if<'a>(
        &'a self,
        key: &'a Name,
        bytes: &'a [u8],
        expected: Expected<'a>,
    ) -> Answer<'a, Written> {
        Box::pin(async move {
            let object = self.keys.record(key);
            let written = self.bucket.write(&object, bytes, expected, PutOptions::default()).await;
            written.map_err(|error| self.located(error))
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Name>,
        limit: usize,
    ) -> Answer<'a, Vec<(Name, Stored)>> {
        Box::pin(async move {
            let list = async {
                let found = self.found(prefix, after, limit).await?;
                let reads = found.into_iter().map(|(name, meta)| self.read_listed(name, meta));
                let read: Vec<_> =
                    stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
                Ok(read.into_iter().flatten().collect())
            };
            list.await.map_err(|error: Error| self.located(error))
        })
    }
}
