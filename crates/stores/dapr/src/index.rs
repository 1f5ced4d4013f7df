//! The names that there are: a state store can't be asked for them, so they stand in indexes.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tenure_core::identity::Name;
use tenure_core::record_store::{Expected, Stored, Written};
use tenure_core::store::Version;
use tenure_core::{Error, ErrorKind, Operation};

use crate::keys::{INDEXES, Keys};
use crate::values::Values;

/// How often an index is tried that others change meanwhile.
const TRIES_MAX: usize = 64;

/// The indexes of one namespace. A name that was added once stays: so does its record.
pub(crate) struct Index {
    keys: Keys,
    values: Values,
}

/// One index as it is kept.
#[derive(Serialize, Deserialize, Default)]
struct Page {
    format: u32,
    names: BTreeSet<Name>,
}

impl Index {
    pub(crate) fn new(keys: Keys, values: Values) -> Self {
        Self { keys, values }
    }

    /// Adds a name, unless it is there. Records of tenure's own aren't listed.
    pub(crate) async fn add(&self, name: &Name) -> Result<(), Error> {
        if name.as_str().starts_with('@') {
            return Ok(());
        }
        let key = self.keys.index(Keys::index_of(name));
        for _ in 0..TRIES_MAX {
            let (mut page, version) = self.page(&key).await?;
            if !page.names.insert(name.clone()) {
                return Ok(());
            }
            let bytes = serde_json::to_vec(&page).expect("names have a JSON form");
            let expected = version.as_ref().map_or(Expected::Absent, Expected::Version);
            match self.values.write_if(&key, &bytes, expected).await {
                Ok(Written::Written(_)) => return Ok(()),
                // Others added theirs; or it was done and overwritten, which the next look shows.
                Ok(Written::Conflict) => {}
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
                Err(error) => return Err(error),
            }
        }
        let message = format!(
            "others changed the index of names {TRIES_MAX} times in a row, and nothing was \
             claimed; try again"
        );
        Err(Error::new(ErrorKind::Unavailable, Operation::Acquire, message))
    }

    /// All names, in byte order.
    pub(crate) async fn names(&self) -> Result<BTreeSet<Name>, Error> {
        let pages = (0..INDEXES).map(|number| async move {
            self.page(&self.keys.index(number)).await.map(|(page, _)| page.names)
        });
        Ok(try_join_all(pages).await?.into_iter().flatten().collect())
    }

    async fn page(&self, key: &str) -> Result<(Page, Option<Version>), Error> {
        let Some(Stored { bytes, version }) = self.values.read(key).await? else {
            return Ok((Page { format: 1, ..Page::default() }, None));
        };
        let page = serde_json::from_slice::<Page>(&bytes).ok().filter(|page| page.format == 1);
        let page = page.ok_or_else(|| {
            let message = format!("the index of names `{key}` can't be read; look at it");
            Error::new(ErrorKind::Corrupt, Operation::List, message)
        })?;
        Ok((page, Some(version)))
    }
}
