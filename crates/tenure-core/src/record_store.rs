//! What a store must offer that has compare-and-swap on a key and nothing else.

use std::sync::Arc;

use crate::identity::Name;
use crate::store::{Answer, Hints, Prefix, Profile, Version};

/// The record that holds the store's id.
pub const STORE_KEY: &str = "@store";
/// The record that counts the tokens of all names.
pub const TOKENS_KEY: &str = "@tokens";

/// A store of bytes under names, in one namespace, with compare-and-swap.
///
/// Everything about leases is [`RecordLeases`](crate::record_leases::RecordLeases)'s; this only translates.
pub trait RecordStore: Send + Sync + 'static {
    /// What it promises and costs; `expiry` is [`Expiry::Observed`](crate::store::Expiry::Observed).
    fn profile(&self) -> &Profile;

    /// Reads each key, linearizably.
    ///
    /// # Errors
    /// `Err` means that nothing was learnt.
    fn read<'a>(&'a self, keys: &'a [Name]) -> Answer<'a, Vec<Option<Stored>>>;

    /// Writes `bytes` if the key is as `expected`, atomically.
    ///
    /// # Errors
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) only if it certainly wasn't written; otherwise
    /// [`OutcomeUnknown`](crate::error::ErrorKind::OutcomeUnknown).
    fn write_if<'a>(
        &'a self,
        key: &'a Name,
        bytes: &'a [u8],
        expected: Expected<'a>,
    ) -> Answer<'a, Written>;

    /// Lists keys that begin with `prefix`, in byte order, at most `limit` of them after `after`.
    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Name>,
        limit: usize,
    ) -> Answer<'a, Vec<(Name, Stored)>>;

    /// Listens for changes under a prefix. None: poll it.
    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        let _ = prefix;
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// Bytes as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their version.
    pub version: Version,
}

/// What a conditional write demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// No such key.
    Absent,
    /// Exactly this version.
    Version(&'a Version),
}

/// What a conditional write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// Written, with this version now.
    Written(Version),
    /// The key wasn't as expected; nothing was written.
    Conflict,
}

/// The key of the store's id.
#[must_use]
pub fn store_key() -> Name {
    Name::reserved(STORE_KEY).expect("the key begins with @")
}

/// The key of the token counter.
#[must_use]
pub fn tokens_key() -> Name {
    Name::reserved(TOKENS_KEY).expect("the key begins with @")
}

impl<R: RecordStore> RecordStore for Arc<R> {
    fn profile(&self) -> &Profile {
        (**self).profile()
    }

    fn read<'a>(&'a self, keys: &'a [Name]) -> Answer<'a, Vec<Option<Stored>>> {
        (**self).read(keys)
    }

    fn write_if<'a>(
        &'a self,
        key: &'a Name,
        bytes: &'a [u8],
        expected: Expected<'a>,
    ) -> Answer<'a, Written> {
        (**self).write_if(key, bytes, expected)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Name>,
        limit: usize,
    ) -> Answer<'a, Vec<(Name, Stored)>> {
        (**self).list(prefix, after, limit)
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        (**self).watch(prefix)
    }
}
