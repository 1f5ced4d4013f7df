//! Holders of another system that share a store's names, as they look from here.
//!
//! Where a store is shared with what ran before (`?layout=`), a name has two entries: tenure's
//! own record, which is the whole truth among its instances, and the neighbour's. Both move in
//! one atomic operation. A name that only the neighbour's entry keeps is shown as a record made
//! up for it, which is never written.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Operation};
use crate::identity::{
    ClaimId, FencingToken, Incarnation, Instance, NAME_BYTES_MAX, Name, Nonce, StoreId,
};
use crate::record::{FORMAT, Metadata, Record, State};
use crate::store::{Snapshot, Version};

/// The metadata key of a record that was made up: which system's entry it shows.
pub const LAYOUT: &str = "layout";

/// Why a store's level is no more than `lease` where its names are shared.
pub const LIMIT: &str = "names are shared by `layout`, and a neighbour's work carries no token";

/// What stands for a neighbour whose own id has nothing in it that can be shown.
const NAMELESS: &str = "nameless";

/// By what name a neighbour knows this holder: `NAME/INCARNATION`.
///
/// Neighbours compare such ids as text, and some are reentrant by it: this one is another at
/// each start of a process, and never one of theirs.
#[must_use]
pub fn holder_id(instance: &Instance) -> String {
    format!("{}/{}", instance.name(), instance.incarnation())
}

/// A live entry of a neighbour's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour<'a> {
    /// Whose format it is in: the word of `?layout=`.
    pub layout: &'a str,
    /// Its holder's id, as it stands there.
    pub holder: &'a str,
    /// How long it lasts unless it is renewed. A contender claims again then, so a store that
    /// can't tell gives the time after which another look is worth its price.
    pub left: Duration,
    /// Since when, where the entry says so.
    pub since: Timestamp,
    /// What is another after each write of the entry.
    pub version: Version,
}

impl Neighbour<'_> {
    /// The entry as a record of `name`.
    ///
    /// `ours` is tenure's own record of the name, if there is one: its token and its history are
    /// kept. A neighbour's grant has no token, so nothing may be concluded from the one shown.
    #[must_use]
    pub fn snapshot(&self, name: &Name, ours: Option<&Record>, store: StoreId) -> Snapshot {
        let record = Record {
            format: FORMAT,
            name: name.clone(),
            holder: Instance::new(shown(self.holder), Incarnation::from_u128(0)),
            claim: NOBODYS,
            nonce: Nonce::from_u128(0),
            token: ours.map_or(FencingToken::FIRST, |record| record.token),
            ttl: self.left,
            acquired_at: self.since,
            state: State::Held,
            not_before: Duration::ZERO,
            order: None,
            bound_to: None,
            metadata: Metadata::new().with(LAYOUT, self.layout).unwrap_or_default(),
            transitions: ours.map(|record| record.transitions.clone()).unwrap_or_default(),
            unknown: ours.map(|record| record.unknown.clone()).unwrap_or_default(),
        };
        let age = Some(Duration::ZERO);
        Snapshot { record, version: self.version.clone(), store, age, holder_gone: false }
    }
}

/// The claim of a record that nobody's claim made. Drawn ones have 128 random bits.
const NOBODYS: ClaimId = ClaimId::from_u128(0);

/// Whether a record was made up for a neighbour: its token is none of the neighbour's.
#[must_use]
pub fn is_made_up(record: &Record) -> bool {
    record.claim == NOBODYS
}

/// The refusal of an order for a neighbour: it would neither read nor carry one out.
#[must_use]
pub fn takes_no_orders(record: &Record) -> Error {
    let layout = record.metadata.get(LAYOUT).unwrap_or("another system");
    let message = format!(
        "held by `{}` of {layout}, which takes no orders; end it on that side",
        record.holder.name()
    );
    Error::new(ErrorKind::Misconfigured, Operation::Order, message).with_name(&record.name)
}

/// A neighbour's id as a name: whatever can't stand in one is left out or cut off.
fn shown(holder: &str) -> Name {
    let mut kept = String::new();
    for c in holder.trim_start_matches('@').chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        kept.push(c);
    }
    Name::new(&kept).unwrap_or_else(|_| Name::new(NAMELESS).expect("it is a name: plain letters"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Occupancy, occupancy};
    use crate::record::tests::sample;

    fn entry(holder: &str) -> Neighbour<'_> {
        Neighbour {
            layout: "hamode",
            holder,
            left: Duration::from_secs(7),
            since: Timestamp::default(),
            version: Version::new("3"),
        }
    }

    #[test]
    fn a_neighbours_entry_keeps_everybody_out_for_what_it_has_left() {
        let ours = sample();
        let seen = entry("api-7").snapshot(&ours.name, Some(&ours), StoreId::from_u128(1));
        assert!(is_made_up(&seen.record) && !is_made_up(&ours));
        assert_eq!(seen.record.holder.name().as_str(), "api-7");
        assert_eq!(seen.record.token, ours.token, "tokens don't go back");
        assert_eq!(seen.record.metadata.get(LAYOUT), Some("hamode"));
        assert_eq!(occupancy(&seen, &ours.holder), Occupancy::Left(Duration::from_secs(7)));
        let error = takes_no_orders(&seen.record).to_string();
        assert!(error.contains("`api-7` of hamode"), "{error}");
    }

    #[test]
    fn any_id_of_theirs_can_be_shown() {
        let long = "é".repeat(300);
        for (id, name) in [
            ("pod-1", "pod-1"),
            ("@pod", "pod"),
            ("a\u{7}b\0", "ab"),
            ("", NAMELESS),
            ("@@", NAMELESS),
            (long.as_str(), &long[..254]),
        ] {
            assert_eq!(shown(id).as_str(), name, "{id:?}");
        }
    }

    #[test]
    fn two_starts_of_a_process_have_two_ids() {
        let name = Name::new("pod-1").unwrap();
        let id = |bits| holder_id(&Instance::new(name.clone(), Incarnation::from_u128(bits)));
        assert_eq!(id(7), "pod-1/00000000000000000000000000000007");
        assert_ne!(id(7), id(8));
    }
}
