//! Listing: the names of all buckets merged, and what is kept of each.

use std::collections::BTreeSet;

use redis::Value;
use tenure_core::identity::Name;
use tenure_core::store::{Page, Prefix, Query};
use tenure_core::{Error, ErrorKind, Operation};

use crate::keys::BUCKETS;
use crate::script::LIST;
use crate::store::RedisStore;

/// One page on its way.
pub(crate) struct Listing<'a> {
    store: &'a RedisStore,
    query: &'a Query,
    after: Option<Name>,
}

impl<'a> Listing<'a> {
    pub(crate) fn new(store: &'a RedisStore, query: &'a Query, after: Option<&Name>) -> Self {
        Self { store, query, after: after.cloned() }
    }

    /// Fills a page. Names whose keys are gone are passed over.
    pub(crate) async fn page(mut self) -> Result<Page, Error> {
        let limit = self.query.limit.clamp(1, Query::LIMIT_MAX);
        let mut page = Page::default();
        loop {
            let names = self.names(limit + 1).await?;
            let Some(last) = names.last().cloned() else { return Ok(page) };
            let exhausted = names.len() <= limit;
            for row in self.store.rows(Operation::List, &names).await?.into_iter().flatten() {
                if page.snapshots.len() == limit {
                    page.next = page.snapshots.last().map(|last| last.record.name.clone());
                    return Ok(page);
                }
                page.snapshots.push(row.snapshot);
            }
            if exhausted {
                return Ok(page);
            }
            self.after = Some(last);
        }
    }

    /// The next names, in byte order.
    async fn names(&self, count: usize) -> Result<Vec<Name>, Error> {
        let session = &self.store.session;
        let mut calls = session.calls();
        for bucket in 0..BUCKETS {
            let call = session.add(&mut calls, &LIST, bucket, [session.keys.names(bucket)]);
            call.arg(self.least()).arg(end_of(&self.query.prefix)).number(count);
        }
        let mut names = BTreeSet::new();
        for told in session.run(Operation::List, calls).await {
            let told = told.map_err(|error| self.store.located(error))?;
            for name in told.answers {
                names.insert(self.named(name)?);
            }
        }
        Ok(names.into_iter().take(count).collect())
    }

    /// The least name that is wanted, as ZRANGEBYLEX writes it.
    fn least(&self) -> Vec<u8> {
        let prefix = self.query.prefix.as_str();
        match &self.after {
            Some(after) if after.as_str() >= prefix => [b"(", after.as_str().as_bytes()].concat(),
            _ => [b"[", prefix.as_bytes()].concat(),
        }
    }

    fn named(&self, value: Value) -> Result<Name, Error> {
        let text = match value {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            _ => None,
        };
        text.and_then(|text| Name::try_from(text).ok()).ok_or_else(|| {
            let message = "an index of names holds what is no name; look at it (ZRANGE)";
            self.store.located(Error::new(ErrorKind::Corrupt, Operation::List, message))
        })
    }
}

/// The least that is greater than all names under a prefix, as ZRANGEBYLEX writes it.
fn end_of(prefix: &Prefix) -> Vec<u8> {
    let mut end = [b"(", prefix.as_str().as_bytes()].concat();
    match end.last_mut() {
        // No byte of UTF-8 is 0xff, so there is always a next one.
        Some(last) if !prefix.as_str().is_empty() => *last += 1,
        _ => end = b"+".to_vec(),
    }
    end
}
