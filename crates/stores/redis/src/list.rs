//! Listing: the names of all buckets merged, and what is kept of each.

use std::collections::BTreeSet;

use redis::Value;
use tenure_core::identity::Name;
use tenure_core::store::{Page, Prefix, Query};
use tenure_core::{Error, ErrorKind, Operation};

use crate::keys::BUCKETS;
use crate::rows::Row;
use crate::script::LIST;
use crate::session::Session;

/// One page on its way.
pub(crate) struct Listing<'a> {
    session: &'a Session,
    query: &'a Query,
    limit: usize,
    after: Option<Name>,
    page: Page,
}

impl<'a> Listing<'a> {
    pub(crate) fn new(session: &'a Session, query: &'a Query, after: Option<&Name>) -> Self {
        let limit = query.limit.clamp(1, Query::LIMIT_MAX);
        Self { session, query, limit, after: after.cloned(), page: Page::default() }
    }

    /// The names to read next: one more than may be left to fill the page with.
    pub(crate) async fn wanted(&self) -> Result<Vec<Name>, Error> {
        self.names(self.limit + 1).await
    }

    /// Takes in what stands at the names. Those whose keys are gone are passed over; the page, if
    /// that fills it or no name is left.
    pub(crate) fn take(&mut self, names: Vec<Name>, rows: Vec<Option<Row>>) -> Option<Page> {
        for row in rows.into_iter().flatten() {
            if self.page.snapshots.len() == self.limit {
                self.page.next = self.page.snapshots.last().map(|last| last.record.name.clone());
                return Some(std::mem::take(&mut self.page));
            }
            self.page.snapshots.push(row.snapshot);
        }
        let exhausted = names.len() <= self.limit;
        self.after = names.into_iter().next_back();
        exhausted.then(|| std::mem::take(&mut self.page))
    }

    /// The next names, in byte order.
    async fn names(&self, count: usize) -> Result<Vec<Name>, Error> {
        let session = self.session;
        let mut calls = session.calls();
        for bucket in 0..BUCKETS {
            let call = session.add(&mut calls, &LIST, bucket, [session.keys.names(bucket)]);
            call.arg(self.least()).arg(end_of(&self.query.prefix)).number(count);
        }
        let mut names = BTreeSet::new();
        for told in session.run(Operation::List, calls).await {
            for name in told?.answers {
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
            Error::new(ErrorKind::Corrupt, Operation::List, message)
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
