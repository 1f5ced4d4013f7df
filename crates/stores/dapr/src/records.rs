//! Records as values of a state store: the translation, and nothing else.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tenure_core::Error;
use tenure_core::identity::Name;
use tenure_core::record_store::{Expected, RecordStore, Stored, Written};
use tenure_core::store::{Answer, Prefix, Profile};

use crate::index::Index;
use crate::keys::Keys;
use crate::values::Values;

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

impl Records {
    pub(crate) fn new(profile: Profile, keys: Keys, values: Values) -> Self {
        let index = Arc::new(Index::new(keys.clone(), values.clone()));
        Self { profile, keys, values, index }
    }

    /// What lies beside the namespaces.
    pub(crate) fn beside(&self) -> Self {
        Self::new(self.profile.clone(), self.keys.beside(), self.values.clone())
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
