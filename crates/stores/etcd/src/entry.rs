//! What lies under a name, read as the core's records and snapshots.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenure_core::clock::Timestamp;
use tenure_core::decide;
use tenure_core::identity::{ClaimId, FencingToken, Instance, Name, Nonce, StoreId};
use tenure_core::record::{Metadata, Record, State};
use tenure_core::store::{Claim, Snapshot, Version};
use tenure_core::{Error, ErrorKind, Operation};

use crate::keys::{Keys, Kind};
use crate::wire::KeyValue;

/// The field of a record that was written when its token wasn't known yet: the token is this and
/// the revision of that write.
const TOKEN_ABOVE: &str = "token_above";
/// How long something is told to stay whose etcd lease has run out, and which will vanish.
const VANISHING: Duration = Duration::from_millis(500);

/// How long etcd's leases have left, rounded up to a second: it tells whole ones.
pub(crate) type Left = HashMap<i64, Duration>;

/// Rounds up what etcd said a lease has left.
pub(crate) fn left_of(ttl: i64) -> Duration {
    u64::try_from(ttl).map_or(VANISHING, |seconds| Duration::from_secs(seconds + 1))
}

/// What stands in a neighbour's key.
#[derive(Clone, Debug)]
pub(crate) struct Theirs {
    pub(crate) holder: String,
    /// 0: none, so it doesn't end by itself.
    pub(crate) lease: i64,
    pub(crate) revision: i64,
}

impl Theirs {
    pub(crate) fn read(key: &KeyValue) -> Self {
        let holder = String::from_utf8_lossy(&key.value).into_owned();
        Self { holder, lease: key.lease, revision: key.mod_revision }
    }
}

/// Everything under one name, as one revision had it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) record: Option<Written>,
    pub(crate) held: Option<Pledge>,
    pub(crate) kept: Option<Pledge>,
    /// The etcd lease of the reservation.
    pub(crate) reserved: Option<i64>,
    /// What stands in a neighbour's key, and the word of its layout where names are shared.
    pub(crate) theirs: Option<Theirs>,
    pub(crate) layout: Option<&'static str>,
}

/// A record, and the revision that wrote it last.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) record: Record,
    pub(crate) revision: i64,
}

/// A key that a grant created, and nothing writes again.
#[derive(Clone, Debug)]
pub(crate) struct Pledge {
    pub(crate) created: i64,
    pub(crate) lease: i64,
    pub(crate) of: Grantee,
}

/// Whom a grant went to: the value of the keys that it created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grantee {
    claim: ClaimId,
    holder: Instance,
    ttl_ms: u64,
    at: Timestamp,
    /// What the token is above, beside the revision that created the key.
    #[serde(default, skip_serializing_if = "is_zero")]
    token_above: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Grantee {
    pub(crate) fn of(claim: &Claim, floor: u64) -> Self {
        Self {
            claim: claim.id,
            holder: claim.instance.clone(),
            ttl_ms: millis(claim.ttl),
            at: claim.at,
            token_above: floor,
        }
    }

    /// Whom a record says that the grant went to.
    pub(crate) fn of_record(record: &Record) -> Self {
        Self {
            claim: record.claim,
            holder: record.holder.clone(),
            ttl_ms: millis(record.ttl),
            at: record.acquired_at,
            token_above: 0,
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Pledge {
    pub(crate) fn holder(&self) -> &Instance {
        &self.of.holder
    }

    fn read(key: &KeyValue) -> Result<Self, Error> {
        let of = serde_json::from_slice(&key.value).map_err(|error| {
            let message = "what a grant created can't be read; look at it";
            Error::new(ErrorKind::Corrupt, Operation::Read, message).with_source(error)
        })?;
        Ok(Self { created: key.create_revision, lease: key.lease, of })
    }

    fn token(&self) -> Option<FencingToken> {
        token(self.of.token_above, self.created)
    }

    /// What is known of a grant whose record is gone.
    fn record(&self, name: &Name, state: State) -> Option<Record> {
        let claim = Claim {
            name: name.clone(),
            instance: self.of.holder.clone(),
            id: self.of.claim,
            nonce: Nonce::from_u128(u128::from(self.created.unsigned_abs())),
            ttl: Duration::from_millis(self.of.ttl_ms),
            min_hold: Duration::ZERO,
            metadata: Metadata::new(),
            bound_to: None,
            at: self.of.at,
            unanswered_for: Duration::ZERO,
            watched: None,
            above: None,
            ends_with_process: false,
        };
        let mut record = decide::granted(None, &claim, self.token()?);
        record.state = state;
        Some(record)
    }
}

impl Entry {
    /// Reads the keys of one name.
    ///
    /// # Errors
    /// `Corrupt`, or `Misconfigured` for a record in a newer format.
    pub(crate) fn read(name: &Name, keys: &Keys, found: &[KeyValue]) -> Result<Self, Error> {
        let mut entry = Self { layout: keys.layout(), ..Self::default() };
        let theirs = keys.entry(name);
        for key in found {
            if theirs.as_ref() == Some(&key.key) {
                entry.theirs = Some(Theirs::read(key));
                continue;
            }
            match keys.parse(&key.key) {
                Some((of, kind)) if of == *name => entry.take(name, kind, key),
                _ => Ok(()),
            }
            .map_err(|error| error.with_name(name))?;
        }
        Ok(entry)
    }

    fn take(&mut self, name: &Name, kind: Kind, key: &KeyValue) -> Result<(), Error> {
        match kind {
            Kind::Held => self.held = Some(Pledge::read(key)?),
            Kind::Kept => self.kept = Some(Pledge::read(key)?),
            Kind::Record => self.record = Some(Written::read(name, key)?),
            Kind::Reserved => self.reserved = Some(key.lease),
            // The record says the same, with all particulars.
            Kind::Asked | Kind::Revoked => {}
        }
        Ok(())
    }

    /// The leases whose time tells how long this keeps others out.
    pub(crate) fn leases(&self) -> impl Iterator<Item = i64> {
        let pledged = self.held.iter().chain(&self.kept).map(|pledge| pledge.lease);
        let theirs = self.theirs.iter().map(|theirs| theirs.lease).filter(|lease| *lease != 0);
        pledged.chain(self.reserved).chain(theirs)
    }

    /// Whether anything is known of the name.
    pub(crate) fn is_known(&self) -> bool {
        let own = self.record.is_some() || self.held.is_some() || self.kept.is_some();
        own || self.foreign(None).is_some()
    }

    /// The revision that created the key of the grant in force; 0: there is none.
    pub(crate) fn held_since(&self) -> i64 {
        self.held.as_ref().map_or(0, |held| held.created)
    }

    /// The revision that wrote the record last; 0: there is none.
    pub(crate) fn revision(&self) -> i64 {
        self.record.as_ref().map_or(0, |written| written.revision)
    }

    /// The same as the core sees it.
    ///
    /// etcd's leases decide what is in force: a grant has expired when its key is gone, and is in
    /// force as long as it is there. The age is made to say so; where something is in force, it
    /// is what `left` says, or, without that, as if just written.
    pub(crate) fn snapshot(&self, name: &Name, store: StoreId, left: &Left) -> Option<Snapshot> {
        let (mut record, revision) = self.known(name)?;
        let remains = |lease: i64, whole: Duration| {
            left.get(&lease).copied().unwrap_or(whole).clamp(Duration::from_millis(1), whole)
        };
        let age = match &record.state {
            State::Released { reserved_for: Some(kept_for) } => match self.reserved {
                Some(lease) => kept_for.lasts.saturating_sub(remains(lease, kept_for.lasts)),
                None => kept_for.lasts,
            },
            State::Released { reserved_for: None } => Duration::ZERO,
            _ => match &self.held {
                Some(held) => record.ttl - remains(held.lease, record.ttl),
                None => record.ttl,
            },
        };
        record.not_before = match &self.kept {
            Some(kept) => age + remains(kept.lease, record.not_before.max(VANISHING)),
            None => Duration::ZERO,
        };
        let version = version(revision);
        Some(Snapshot { record, version, store, age: Some(age), holder_gone: false })
    }

    /// The record, or what the other keys say of it if it is gone.
    fn known(&self, name: &Name) -> Option<(Record, i64)> {
        let of_grant = |written: &&Written| match &self.held {
            Some(held) => written.record.claim == held.of.claim,
            None => true,
        };
        if let Some(written) = self.record.as_ref().filter(of_grant) {
            return Some((written.record.clone(), written.revision));
        }
        let (pledge, state) = match (&self.held, &self.kept) {
            (Some(held), _) => (held, State::Held),
            (None, Some(kept)) => (kept, State::Released { reserved_for: None }),
            (None, None) => return None,
        };
        Some((pledge.record(name, state)?, pledge.created))
    }
}

impl Written {
    fn read(name: &Name, key: &KeyValue) -> Result<Self, Error> {
        let mut record = Record::from_json(&key.value)?;
        if record.name != *name {
            return Err(corrupt(format!(
                "it is the record of `{}`; somebody copied it",
                record.name
            )));
        }
        if let Some(above) = record.unknown.remove(TOKEN_ABOVE) {
            let token = above.as_u64().and_then(|above| token(above, key.mod_revision));
            let token =
                token.ok_or_else(|| corrupt(format!("its `{TOKEN_ABOVE}` is no number")))?;
            record = tokened(record, token);
        }
        Ok(Self { record, revision: key.mod_revision })
    }
}

/// The record of a grant whose token is the revision that its write will have, and `floor`.
pub(crate) fn untokened(mut record: Record, floor: u64) -> Vec<u8> {
    record.unknown.insert(TOKEN_ABOVE.to_owned(), floor.into());
    record.to_json()
}

/// The record of a grant, with the token that it turned out to have.
pub(crate) fn tokened(mut record: Record, token: FencingToken) -> Record {
    record.token = token;
    if let Some(granted) = record.transitions.last_mut() {
        granted.token = token;
    }
    record
}

/// The token of what a revision created above a floor.
pub(crate) fn token(floor: u64, created: i64) -> Option<FencingToken> {
    u64::try_from(created).ok()?.checked_add(floor).and_then(FencingToken::new)
}

/// A record's version is the revision that wrote it last.
pub(crate) fn version(revision: i64) -> Version {
    Version::new(revision.to_string())
}

/// The entries of many names, from keys in the order of names.
pub(crate) fn by_name(keys: &Keys, found: Vec<KeyValue>) -> BTreeMap<Name, Vec<KeyValue>> {
    let mut names: BTreeMap<Name, Vec<KeyValue>> = BTreeMap::new();
    for key in found {
        if let Some((name, _)) = keys.parse(&key.key) {
            names.entry(name).or_default().push(key);
        }
    }
    names
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, Operation::Read, message)
}

/// Rounded up: a grant must not look shorter than it is.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
