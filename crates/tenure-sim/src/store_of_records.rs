//! The modelled store without a clock: bytes under keys, with compare-and-swap.

use std::collections::BTreeMap;

use tenure_core::exchange::{Ask, Reply, Step, order};
use tenure_core::identity::Name;
use tenure_core::record::{Record, State};
use tenure_core::record_store::{Stored, store_key, tokens_key};
use tenure_core::store::{OrderRequest, Version};

use crate::request::{Answer, Change};
use crate::rules::Rules;

/// An object store, in essence.
#[derive(Debug, Default)]
pub(crate) struct StoreOfRecords {
    entries: BTreeMap<Name, Stored>,
    backup: BTreeMap<Name, Stored>,
    /// Versions never recur, also across a wipe.
    writes: u64,
}

impl StoreOfRecords {
    pub(crate) fn handle(&mut self, ask: Ask, rules: &dyn Rules) -> (Answer, Option<Change>) {
        let (reply, change) = self.reply(ask);
        let released = change.as_ref().filter(|change| {
            let state = change.after.as_ref().map(|record| &record.state);
            matches!(state, Some(State::Released { .. }))
        });
        if let (Some(change), false) = (released, rules.keeps_tombstones()) {
            // Where the token lives in the record, it goes with it.
            self.entries.remove(&change.name);
            self.entries.remove(&tokens_key());
        }
        (Answer::Replied(reply), change)
    }

    fn reply(&mut self, ask: Ask) -> (Reply, Option<Change>) {
        match ask {
            Ask::Read(keys) => {
                (Reply::Read(keys.iter().map(|key| self.entries.get(key).cloned()).collect()), None)
            }
            Ask::Write { key, bytes, expected } => {
                let current = self.entries.get(&key).map(|stored| &stored.version);
                if current != expected.as_ref() {
                    return (Reply::Conflict, None);
                }
                self.writes += 1;
                let version = Version::new(self.writes.to_string());
                let change = (key != store_key() && key != tokens_key())
                    .then(|| Change { name: key.clone(), after: Record::from_json(&bytes).ok() });
                self.entries.insert(key, Stored { bytes, version: version.clone() });
                (Reply::Written(version), change)
            }
        }
    }

    /// Runs the exchange of an order to its end, at one moment.
    pub(crate) fn order(&mut self, name: &Name, request: &OrderRequest) -> Option<Change> {
        let stored = self.entries.get(&store_key())?;
        let id = tenure_core::exchange::store_id(stored).ok()?;
        let mut exchange = order::Exchange::new(id, name.clone(), request.clone());
        let mut reply = None;
        let mut changed = None;
        while let Step::Ask(ask) = exchange.next(reply.take()) {
            let (answer, change) = self.reply(ask);
            changed = change.or(changed);
            reply = Some(answer);
        }
        changed
    }

    pub(crate) fn record(&self, name: &Name) -> Option<Record> {
        Record::from_json(&self.entries.get(name)?.bytes).ok()
    }

    pub(crate) fn forget(&mut self) {
        self.entries.clear();
        self.backup.clear();
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = self.entries.clone();
    }

    pub(crate) fn restore(&mut self) {
        self.entries = self.backup.clone();
    }
}
