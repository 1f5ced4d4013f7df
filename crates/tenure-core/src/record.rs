//! What a store keeps of a name: the record, its state, its orders and its last transitions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Operation};
use crate::identity::{ClaimId, FencingToken, Instance, Name, Nonce, Successor};

/// The record format that this release writes. It reads the one before, too.
pub const FORMAT: u16 = 1;
/// How many transitions a record remembers.
pub const TRANSITIONS_MAX: usize = 8;
/// The longest metadata, keys and values together, in bytes.
pub const METADATA_BYTES_MAX: usize = 4096;
/// The longest reason, in bytes; a longer one is cut.
pub const REASON_BYTES_MAX: usize = 200;

/// All that a store knows of one name.
///
/// Durations count from the write that carries them; times are for people, and no decision
/// compares them with a local clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// The format it was written in.
    pub format: u16,
    /// What is leased.
    pub name: Name,
    /// Whom the last grant went to. After a release it still says who that was.
    pub holder: Instance,
    /// The claim that the last grant answered.
    pub claim: ClaimId,
    /// New in every write.
    pub nonce: Nonce,
    /// The fencing token of the last grant.
    pub token: FencingToken,
    /// How long the grant lasts unless it is renewed.
    #[serde(with = "millis", rename = "ttl_ms")]
    pub ttl: Duration,
    /// When it was granted, by the holder's wall clock.
    pub acquired_at: Timestamp,
    /// What became of the grant.
    pub state: State,
    /// Min-hold: nobody else is granted the name for so long after this write.
    #[serde(
        with = "millis",
        rename = "not_before_ms",
        default,
        skip_serializing_if = "Duration::is_zero"
    )]
    pub not_before: Duration,
    /// What an operator asked of the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The membership that keeps a bound lease alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<Bound>,
    /// The holder's own words: an address, a version.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// The last [`TRANSITIONS_MAX`] things that happened, oldest first.
    #[serde(default)]
    pub transitions: Vec<Transition>,
    /// Fields that a newer release wrote; kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// What became of the last grant. An expired one still says `Held`: expiry is never written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
#[non_exhaustive]
pub enum State {
    /// Granted, and renewed from time to time.
    Held,
    /// An operator ended its renewals; free once released, or a ttl after the last renewal.
    Revoked,
    /// Given back. The record stays, so that tokens never start again.
    Released {
        /// Whom the name is kept for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reserved_for: Option<Reservation>,
    },
}

/// A released name kept for its successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// For whom.
    pub successor: Successor,
    /// For how long after the write that carries it.
    #[serde(with = "millis", rename = "lasts_ms")]
    pub lasts: Duration,
}

/// The membership that a bound lease lasts as long as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The member's record.
    pub member: Name,
    /// The token of that membership.
    pub token: FencingToken,
}

/// What an operator asks of a holder. The holder carries it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub struct Order {
    /// What is asked.
    pub demand: Demand,
    /// Who asks, as text for the history.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, by the operator's wall clock.
    pub at: Timestamp,
}

impl Order {
    /// An order of `by`, given at `at`.
    pub fn new(
        demand: Demand,
        by: impl Into<String>,
        reason: impl Into<String>,
        at: Timestamp,
    ) -> Self {
        Self { demand, by: by.into(), reason: reason.into(), at }
    }
}

/// The three things that can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
#[non_exhaustive]
pub enum Demand {
    /// End the work, then release, in favour of `to` if it is named.
    Resign {
        /// The successor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Successor>,
    },
    /// Renew no more. The name is free when the holder has released or its ttl has run out.
    Revoke,
    /// Free the name at once. Whoever still acts under the old grant is stopped by guards alone.
    RevokeNow,
}

/// One thing that happened to a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// What happened.
    pub what: Happened,
    /// Who did it: an instance, or an operator.
    pub who: String,
    /// When, by the wall clock of whoever did it.
    pub at: Timestamp,
    /// The token that it happened to.
    pub token: FencingToken,
    /// Why, in a few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The kinds of transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Happened {
    /// Granted to a new holder.
    Granted,
    /// Given back by its holder.
    Released,
    /// Given back in favour of a successor.
    Transferred,
    /// Asked to resign by an operator.
    Asked,
    /// Ended by an operator, from the next beat on.
    Revoked,
    /// Freed by an operator at once, while its holder may still have acted.
    RevokedNow,
}

impl Record {
    /// Reads a stored record.
    ///
    /// # Errors
    /// - [`Corrupt`](ErrorKind::Corrupt): it isn't one.
    /// - [`Misconfigured`](ErrorKind::Misconfigured): its format is newer than [`FORMAT`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        match serde_json::from_slice::<Self>(bytes) {
            Ok(record) if record.format <= FORMAT => Ok(record),
            parsed => Err(unreadable(bytes, parsed.err())),
        }
    }

    /// The record as a store keeps it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("every field of a record has a JSON form")
    }

    /// The same record after something happened to it.
    pub(crate) fn push(&mut self, transition: Transition) {
        if self.transitions.len() >= TRANSITIONS_MAX {
            let surplus = self.transitions.len() + 1 - TRANSITIONS_MAX;
            self.transitions.drain(..surplus);
        }
        self.transitions.push(transition);
    }
}

/// Why a stored record isn't read: a newer format may have any shape, so that is looked at first.
fn unreadable(bytes: &[u8], source: Option<serde_json::Error>) -> Error {
    #[derive(Deserialize)]
    struct Format {
        format: u16,
    }
    match serde_json::from_slice(bytes) {
        Ok(Format { format }) if format > FORMAT => Error::new(
            ErrorKind::Misconfigured,
            Operation::Read,
            format!(
                "the record is in format {format}, and this release reads up to {FORMAT}; \
                 upgrade tenure here"
            ),
        ),
        other => {
            let error = Error::new(
                ErrorKind::Corrupt,
                Operation::Read,
                "the stored record can't be read; look at it before anything overwrites it",
            );
            match source.or(other.err()) {
                Some(source) => error.with_source(source),
                None => error,
            }
        }
    }
}

/// A small string map: at most [`METADATA_BYTES_MAX`] bytes, keys and values together, and no NUL
/// in them, which not every store can keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same map with one entry more, or another value.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): longer than [`METADATA_BYTES_MAX`] altogether, or a NUL.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Result<Self, Error> {
        self.0.insert(key.into(), value.into());
        Self::try_from(self.0)
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Every entry, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for Metadata {
    type Error = Error;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, Error> {
        let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > METADATA_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the metadata is {bytes} bytes long; at most {METADATA_BYTES_MAX} are allowed"
            )));
        }
        if let Some((key, _)) =
            map.iter().find(|(key, value)| key.contains('\0') || value.contains('\0'))
        {
            return Err(Error::invalid(format!("the metadata under {key:?} has a NUL in it")));
        }
        Ok(Self(map))
    }
}

impl From<Metadata> for BTreeMap<String, String> {
    fn from(metadata: Metadata) -> Self {
        metadata.0
    }
}

/// A reason as the history keeps it: without control characters, cut at
/// [`REASON_BYTES_MAX`] bytes.
#[must_use]
pub fn reason(text: &str) -> String {
    let mut kept = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if kept.len() + c.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        kept.push(c);
    }
    kept
}

mod millis {
    //! Durations as whole milliseconds, rounded up: a grant must not look shorter than it is.

    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        to.serialize_u64(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::identity::Incarnation;

    pub(crate) fn sample() -> Record {
        Record {
            format: FORMAT,
            name: Name::new("billing").unwrap(),
            holder: Instance::new(Name::new("api-2").unwrap(), Incarnation::from_u128(7)),
            claim: ClaimId::from_u128(1),
            nonce: Nonce::from_u128(2),
            token: FencingToken::FIRST,
            ttl: Duration::from_secs(30),
            acquired_at: Timestamp::from_millis(1_767_225_600_000),
            state: State::Held,
            not_before: Duration::ZERO,
            order: None,
            bound_to: None,
            metadata: Metadata::new().with("address", "http://10.0.0.7").unwrap(),
            transitions: Vec::new(),
            unknown: BTreeMap::new(),
        }
    }

    #[test]
    fn unknown_fields_survive_our_writes() {
        let mut json: serde_json::Value = serde_json::from_slice(&sample().to_json()).unwrap();
        json["shard"] = serde_json::json!({ "of": 16 });
        let record = Record::from_json(json.to_string().as_bytes()).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&record.to_json()).unwrap();
        assert_eq!(written["shard"]["of"], 16);
    }

    #[test]
    fn a_newer_format_is_refused_and_garbage_is_corrupt() {
        let mut json: serde_json::Value = serde_json::from_slice(&sample().to_json()).unwrap();
        json["format"] = serde_json::json!(FORMAT + 1);
        // A newer format may have any other shape, too.
        json["ttl_ms"] = serde_json::json!("soon");
        let error = Record::from_json(json.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert_eq!(Record::from_json(b"{}").unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(Record::from_json(b"\xff").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_record_survives_its_json() {
        let mut record = sample();
        record.state = State::Released {
            reserved_for: Some(Reservation {
                successor: record.holder.clone().into(),
                lasts: Duration::from_secs(5),
            }),
        };
        assert_eq!(Record::from_json(&record.to_json()).unwrap(), record);
    }

    #[test]
    fn only_the_last_transitions_are_kept() {
        let mut record = sample();
        for n in 0..20 {
            record.push(Transition {
                what: Happened::Granted,
                who: n.to_string(),
                at: Timestamp::default(),
                token: FencingToken::FIRST,
                why: String::new(),
            });
        }
        assert_eq!(record.transitions.len(), TRANSITIONS_MAX);
        assert_eq!(record.transitions[0].who, "12");
    }

    #[test]
    fn metadata_is_bounded_and_reasons_are_cut() {
        assert!(Metadata::new().with("k", "v".repeat(METADATA_BYTES_MAX)).is_err());
        assert!(Metadata::new().with("k", "v".repeat(METADATA_BYTES_MAX - 1)).is_ok());
        assert!(Metadata::new().with("k", "a\0b").is_err());
        assert_eq!(reason("a\nb"), "a b");
        assert_eq!(reason(&"é".repeat(200)).len(), REASON_BYTES_MAX);
    }
}
