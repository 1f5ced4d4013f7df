//! The entry of a neighbour's that a shared name has beside its own keys, and how it moves with them.
//!
//! It hangs on the etcd lease that the grant's key hangs on, so both end together; on any other,
//! it is a neighbour's. Its value is its holder's id, which is all that a neighbour compares.

use std::time::Duration;

use tenure_core::clock::Timestamp;
use tenure_core::identity::{Instance, Name, StoreId, Successor};
use tenure_core::neighbour::{Neighbour, holder_id};
use tenure_core::record::{Record, State};
use tenure_core::store::Snapshot;
use tenure_core::timing::TTL_MAX;

use crate::entry::{Entry, Left, Theirs, version};
use crate::keys::Keys;
use crate::link::{delete, put};
use crate::wire::{Compare, PutRequest, Request, RequestOp, TxnRequest};

/// How long an entry is said to last that hangs on no lease.
const ENDLESS: Duration = TTL_MAX;

impl Theirs {
    fn is_of(&self, instance: &Instance) -> bool {
        self.holder == holder_id(instance) || self.holder == anyone(instance.name())
    }

    /// The same as a record of its name.
    pub(crate) fn snapshot(
        &self,
        name: &Name,
        layout: &'static str,
        ours: Option<&Record>,
        store: StoreId,
        left: &Left,
    ) -> Snapshot {
        let neighbour = Neighbour {
            layout,
            holder: &self.holder,
            left: left.get(&self.lease).copied().unwrap_or(ENDLESS),
            since: Timestamp::default(),
            version: version(self.revision),
        };
        neighbour.snapshot(name, ours, store)
    }
}

/// Whom an entry is kept for that waits for a successor of any incarnation.
fn anyone(name: &Name) -> String {
    format!("{name}/*")
}

/// Whom an entry is kept for.
fn successor_id(successor: &Successor) -> String {
    match successor.incarnation {
        Some(incarnation) => holder_id(&Instance::new(successor.name.clone(), incarnation)),
        None => anyone(&successor.name),
    }
}

impl Entry {
    /// What a neighbour keeps. None: nothing, or what `claimant` may take, or what an ended grant
    /// of tenure's own has left.
    pub(crate) fn foreign(&self, claimant: Option<&Instance>) -> Option<&Theirs> {
        let theirs = self.theirs.as_ref()?;
        let record = self.record.as_ref().map(|written| &written.record);
        let holder = record.is_some_and(|record| theirs.holder == holder_id(&record.holder));
        let successor = match record.map(|record| &record.state) {
            Some(State::Released { reserved_for: Some(kept_for) }) => {
                theirs.holder == successor_id(&kept_for.successor)
            }
            _ => false,
        };
        let own = holder || successor || claimant.is_some_and(|claimant| theirs.is_of(claimant));
        (!own).then_some(theirs)
    }

    /// Whether the grant in force has its entry, too, where there must be one.
    pub(crate) fn has_entry_of(&self, holder: &Instance) -> bool {
        let Some(held) = self.held.as_ref().filter(|_| self.layout.is_some()) else { return true };
        let entry = self.theirs.as_ref();
        entry.is_some_and(|entry| entry.lease == held.lease && entry.holder == holder_id(holder))
    }

    /// The same as the core sees it, or what a neighbour keeps where nothing of ours is in force.
    pub(crate) fn shown(&self, name: &Name, store: StoreId, left: &Left) -> Option<Snapshot> {
        let ours = self.snapshot(name, store, left);
        let kept = self.held.is_some() || self.kept.is_some() || self.reserved.is_some();
        match (self.foreign(None), self.layout) {
            (Some(theirs), Some(layout)) if !kept => {
                let record = ours.as_ref().map(|ours| &ours.record);
                Some(theirs.snapshot(name, layout, record, store, left))
            }
            _ => ours,
        }
    }
}

impl Keys {
    /// What a claim adds to its Txn: their entry is as it was seen last, and becomes ours.
    pub(crate) fn take_entry(
        &self,
        txn: &mut TxnRequest,
        of: &Name,
        by: &Instance,
        seen: i64,
        lease: i64,
    ) {
        let Some(entry) = self.entry(of) else { return };
        txn.compare.push(Compare::written(entry.clone(), seen));
        txn.success.push(put(entry.clone(), holder_id(by).into_bytes(), lease));
        txn.failure.push(crate::link::range(crate::wire::RangeRequest::one(entry)));
    }

    /// What hanging a grant on another lease adds to its Txn: their entry moves with it, if it is
    /// still this holder's.
    pub(crate) fn move_entry(
        &self,
        txn: &mut TxnRequest,
        of: &Name,
        holder: &Instance,
        lease: i64,
    ) {
        let Some(entry) = self.entry(of) else { return };
        txn.compare.push(Compare::says(entry.clone(), holder_id(holder).into_bytes()));
        let moved = PutRequest { key: entry, lease, ignore_value: true, ..PutRequest::default() };
        txn.success.push(Request::Put(moved).into());
    }

    /// What the end of a grant adds to its Txn: their entry goes, if it is still this holder's.
    pub(crate) fn give_entry(&self, of: &Name, holder: &Instance) -> Option<RequestOp> {
        self.swap_entry(of, holder, delete)
    }

    /// What a transfer adds to its Txn: their entry is kept for the successor, on this lease.
    pub(crate) fn keep_entry(
        &self,
        of: &Name,
        holder: &Instance,
        successor: &Successor,
        lease: i64,
    ) -> Option<RequestOp> {
        self.swap_entry(of, holder, |entry| put(entry, successor_id(successor).into_bytes(), lease))
    }

    fn swap_entry(
        &self,
        of: &Name,
        holder: &Instance,
        write: impl FnOnce(Vec<u8>) -> RequestOp,
    ) -> Option<RequestOp> {
        let entry = self.entry(of)?;
        let txn = TxnRequest {
            compare: vec![Compare::says(entry.clone(), holder_id(holder).into_bytes())],
            success: vec![write(entry)],
            failure: Vec::new(),
        };
        Some(Request::Txn(txn).into())
    }
}
