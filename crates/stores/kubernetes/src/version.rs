//! The version of an object: which state of it a write means, and what the next spec follows from.

use jiff::Timestamp;
use tenure_core::record::Record;
use tenure_core::store::Version;

use crate::lease::{Lease, OurSpec};

/// What a write must know of the object that it overwrites.
///
/// It all travels in the record's version, so that a renewal is one request: nothing is read again,
/// and nothing kept beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// Another for each object of a name: one that was deleted and made anew is another.
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    /// The count that client-go keeps of changes of holders.
    pub(crate) transitions: i32,
    pub(crate) renewed: Option<Timestamp>,
    /// The token in our record.
    pub(crate) token: Option<u64>,
    /// Whether the spec is the one that we wrote.
    pub(crate) ours: bool,
    /// Whether the control plane chooses the holder.
    pub(crate) coordinated: bool,
}

impl At {
    /// What an object that was read or written says.
    pub(crate) fn of(lease: &Lease) -> Self {
        let annotations = &lease.metadata.annotations;
        let kept = annotations.spec.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let ours = match (&annotations.record, kept) {
            (None, _) => false,
            (Some(_), Some(kept)) => OurSpec::is(&kept, &lease.spec),
            (Some(_), None) => lease.spec.holder().is_none(),
        };
        let record = annotations.record.as_deref().map(|text| Record::from_json(text.as_bytes()));
        Self {
            uid: lease.metadata.uid.clone(),
            resource_version: lease.metadata.resource_version.clone(),
            transitions: lease.spec.lease_transitions.unwrap_or(0).max(0),
            renewed: lease.spec.renew_time,
            token: record.and_then(Result::ok).map(|record| record.token.get()),
            ours,
            coordinated: lease.spec.chosen_by().is_some(),
        }
    }

    /// As text that only this reads.
    pub(crate) fn version(&self) -> Version {
        let Self { uid, resource_version, transitions, renewed, token, ours, coordinated } = self;
        let renewed = renewed.map_or_else(String::new, |at| at.as_microsecond().to_string());
        let token = token.map_or_else(String::new, |token| token.to_string());
        let flags = format!("{}{}", u8::from(*ours), u8::from(*coordinated));
        Version::new(format!("{uid}/{resource_version}/{transitions}/{renewed}/{token}/{flags}"))
    }

    /// Reads what [`version`](Self::version) wrote. None: it comes from elsewhere.
    pub(crate) fn from_version(version: &Version) -> Option<Self> {
        let mut parts = version.as_str().split('/');
        let mut part = || parts.next();
        let at = Self {
            uid: part()?.to_owned(),
            resource_version: part()?.to_owned(),
            transitions: part()?.parse().ok()?,
            renewed: optional(part()?, |text| {
                Timestamp::from_microsecond(text.parse().ok()?).ok()
            })?,
            token: optional(part()?, |text| text.parse().ok())?,
            ours: false,
            coordinated: false,
        };
        let (ours, coordinated) = match part()? {
            "00" => (false, false),
            "01" => (false, true),
            "10" => (true, false),
            "11" => (true, true),
            _ => return None,
        };
        parts.next().is_none().then_some(Self { ours, coordinated, ..at })
    }
}

/// An empty part is none; one that can't be read spoils the whole.
fn optional<T>(text: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { read(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_was_written() {
        for (renewed, token, ours, coordinated) in
            [(None, None, false, true), (Some(1_767_225_600_000_001), Some(7), true, false)]
        {
            let at = At {
                uid: "4f1c".to_owned(),
                resource_version: "812".to_owned(),
                transitions: 3,
                renewed: renewed.map(|micros| Timestamp::from_microsecond(micros).unwrap()),
                token,
                ours,
                coordinated,
            };
            assert_eq!(At::from_version(&at.version()), Some(at));
        }
        for text in ["", "1", "u/1/x///10", "u/1/0/a//10", "u/1/0///2", "u/1/0///10/"] {
            assert_eq!(At::from_version(&Version::new(text)), None, "{text}");
        }
    }
}
