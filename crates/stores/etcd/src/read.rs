//! Reads: single names, and pages of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenure_core::identity::Name;
use tenure_core::store::{Page, Query, Snapshot};
use tenure_core::{Error, Operation};

use crate::entry::{Entry, Theirs, by_name};
use crate::link::Link;
use crate::wire::RangeRequest;

/// How many keys a name may have that is listed, on an average; a page that has more is read on.
const KEYS_A_NAME: usize = 3;

impl Link {
    /// Reads everything of some names, and how long what stands there lasts.
    pub(crate) async fn read(&self, names: &[Name]) -> Result<Vec<Option<Snapshot>>, Error> {
        let mut read = Vec::with_capacity(names.len());
        for (name, (entry, _)) in names.iter().zip(self.entries(Operation::Read, names).await?) {
            let entry = entry.map_err(|error| error.with_store(Arc::clone(&self.location)))?;
            self.ledger.saw(name, entry.record.as_ref());
            read.push((name.clone(), entry));
        }
        self.snapshots(read, Operation::Read).await
    }

    async fn snapshots(
        &self,
        entries: Vec<(Name, Entry)>,
        operation: Operation,
    ) -> Result<Vec<Option<Snapshot>>, Error> {
        let store = self.belief().store;
        let leases = entries.iter().flat_map(|(_, entry)| entry.leases()).collect();
        let left = self.left(leases, operation).await?;
        Ok(entries.iter().map(|(name, entry)| entry.shown(name, store, &left)).collect())
    }

    /// Reads a page of names.
    pub(crate) async fn list(&self, query: &Query, after: Option<&Name>) -> Result<Page, Error> {
        let limit = query.limit.clamp(1, Query::LIMIT_MAX);
        let (mut entries, revision) = self.own(query, after, limit).await?;
        self.join_theirs(&mut entries, query, after, limit, revision).await?;
        let full = entries.len() > limit;
        let entries: Vec<(Name, Entry)> = entries.into_iter().take(limit).collect();
        let next = entries.last().filter(|_| full).map(|(name, _)| name.clone());
        let snapshots = self.snapshots(entries, Operation::List).await?;
        Ok(Page { snapshots: snapshots.into_iter().flatten().collect(), next })
    }

    /// The names that tenure knows, at least one more than `limit` if there are, and the revision
    /// that they were read at.
    async fn own(
        &self,
        query: &Query,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<(BTreeMap<Name, Entry>, i64), Error> {
        let mut range = self.keys.under(&query.prefix);
        if let Some(after) = after {
            range.start = range.start.max(self.keys.after(after));
        }
        let mut entries: BTreeMap<Name, Entry> = BTreeMap::new();
        let (mut more, mut revision) = (range.start < range.end, i64::MAX);
        while more && entries.len() <= limit {
            let wanted = (limit + 1 - entries.len()) * KEYS_A_NAME + KEYS_A_NAME * 2;
            let some = RangeRequest {
                limit: i64::try_from(wanted).unwrap_or(i64::MAX),
                ..range.clone().into()
            };
            let Some((answer, seen)) = self.look(Operation::List, vec![some]).await?.pop() else {
                break;
            };
            revision = revision.min(seen.revision);
            more = answer.more;
            let last = answer.kvs.last().map(|key| key.key.clone());
            let mut names = by_name(&self.keys, answer.kvs);
            if more && names.len() > 1 {
                // The last of them may be incomplete.
                names.pop_last();
            } else if let (true, Some(mut last)) = (more, last) {
                // Keys that aren't ours fill the page: go on behind them.
                last.push(0);
                range.start = last;
            }
            for (name, keys) in names {
                range.start = range.start.max(self.keys.after(&name));
                let entry = Entry::read(&name, &self.keys, &keys)
                    .map_err(|error| error.with_store(Arc::clone(&self.location)))?;
                // What stands there without a record and a grant is no name that was leased.
                if entry.is_known() {
                    entries.insert(name, entry);
                }
            }
        }
        Ok((entries, revision))
    }

    /// Puts a neighbour's entries beside what tenure knows of their names. As many as of our own
    /// are read, so that the first `limit` names of both together are complete. What came after
    /// `revision` may be of a grant that came then, too.
    async fn join_theirs(
        &self,
        entries: &mut BTreeMap<Name, Entry>,
        query: &Query,
        after: Option<&Name>,
        limit: usize,
        revision: i64,
    ) -> Result<(), Error> {
        let Some(mut range) = self.keys.entries_under(&query.prefix) else { return Ok(()) };
        if let Some(mut behind) = after.and_then(|after| self.keys.entry(after)) {
            behind.push(0);
            range.start = range.start.max(behind);
        }
        let (mut more, mut found) = (range.start < range.end, 0);
        while more && found <= limit {
            let wanted = i64::try_from(limit + 1 - found).unwrap_or(i64::MAX);
            let some = RangeRequest { limit: wanted, ..range.clone().into() };
            let Some((answer, _)) = self.look(Operation::List, vec![some]).await?.pop() else {
                break;
            };
            more = answer.more;
            for key in answer.kvs {
                range.start.clone_from(&key.key);
                range.start.push(0);
                let Some(name) = self.keys.name_of_entry(&key.key) else { continue };
                found += 1;
                if key.mod_revision > revision {
                    continue;
                }
                let layout = self.keys.layout();
                let entry = entries.entry(name).or_insert(Entry { layout, ..Entry::default() });
                entry.theirs = Some(Theirs::read(&key));
            }
        }
        Ok(())
    }
}
