//! LeaderElection.S3's object: two fields of JSON, and the mark of the releases that must be kept
//! away from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use object_store::{Attribute, Attributes};
use serde_json::{Map, Value, json};
use tenure_core::identity::Nonce;
use tenure_core::{Error, ErrorKind, Operation};

/// What stands for the time of an entry that nobody holds.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Headers that releases up to 1.1.1 meant as conditions and sent as plain metadata.
const UNSAFE_MARKS: [&str; 2] = ["if-match", "if-none-match"];

/// What the object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Empty: nobody.
    pub(crate) holder: String,
    /// Until when, by its writer's wall clock, in milliseconds since 1970.
    pub(crate) until: i64,
}

impl Entry {
    /// Reads it as they do: field names without regard to case, times with `Z` or an offset.
    ///
    /// # Errors
    /// `Corrupt`: it is something else. They would overwrite it; we don't.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let misfit = |why: &str| {
            let message = format!(
                "the shared object isn't LeaderElection's ({why}); look at it, or name another by \
                 `layout_key`"
            );
            Error::new(ErrorKind::Corrupt, Operation::Read, message)
        };
        let fields: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|_| misfit("no JSON object"))?;
        let field = |name: &str| {
            fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        let holder = match field("holderId") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(holder)) => holder.clone(),
            Some(_) => return Err(misfit("`holderId` is no text")),
        };
        let until = field("leaseUntilUtc").and_then(Value::as_str);
        let until: Timestamp =
            until.unwrap_or(NEVER).parse().map_err(|_| misfit("`leaseUntilUtc` is no time"))?;
        Ok(Self { holder, until: until.as_millisecond() })
    }

    /// An entry of ours, from now on for `lasts`, in the form that all their releases read right.
    pub(crate) fn held(holder: &str, lasts: Duration) -> Vec<u8> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from((since + lasts).as_micros()).unwrap_or(i64::MAX);
        let until = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
        json!({ "holderId": holder, "leaseUntilUtc": until.to_string() }).to_string().into_bytes()
    }

    /// An entry that nobody holds. `nonce` makes it differ from each one before: etags are hashes.
    pub(crate) fn free(nonce: Nonce) -> Vec<u8> {
        let entry =
            json!({ "holderId": "", "leaseUntilUtc": NEVER, "tenureNonce": nonce.to_string() });
        entry.to_string().into_bytes()
    }

    /// Whether nobody holds it, by its own words.
    pub(crate) fn is_free(&self) -> bool {
        self.holder.is_empty()
    }

    /// How long it lasts by the two wall clocks; zero where it has ended.
    pub(crate) fn lasts(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = Duration::from_millis(u64::try_from(self.until).unwrap_or(0));
        until.saturating_sub(now)
    }
}

/// Refuses an object that a release without conditional writes has written.
///
/// # Errors
/// `Misconfigured`.
pub(crate) fn refuse_unsafe_writer(attributes: &Attributes) -> Result<(), Error> {
    for (attribute, _) in attributes {
        let Attribute::Metadata(key) = attribute else { continue };
        if UNSAFE_MARKS.contains(&key.to_ascii_lowercase().as_str()) {
            let message = format!(
                "the shared object bears `x-amz-meta-{key}`: a LeaderElection.S3 of 1.1.1 or older \
                 wrote it, which sends its conditions as metadata and so overwrites any holder; \
                 move all replicas to 2.0.0 or newer first"
            );
            return Err(Error::new(ErrorKind::Misconfigured, Operation::Read, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_and_both_times_are_read() {
        let new = r#"{"holderId":"a","leaseUntilUtc":"2026-03-16T12:34:56.1234567+00:00"}"#;
        let old = r#"{"HolderId":"a","LeaseUntilUtc":"2026-03-16T12:34:56.1234567Z","x":1}"#;
        let entry = Entry::read(new.as_bytes()).expect("an entry");
        assert_eq!(entry, Entry::read(old.as_bytes()).expect("an entry"));
        assert_eq!((entry.holder.as_str(), entry.until), ("a", 1_773_664_496_123));
        let free = r#"{"holderId":"","leaseUntilUtc":"0001-01-01T00:00:00+00:00"}"#;
        let free = Entry::read(free.as_bytes()).expect("an entry");
        assert!(free.is_free() && free.lasts().is_zero());
        for text in ["", "null", "[]", r#"{"holderId":1}"#, r#"{"leaseUntilUtc":"soon"}"#] {
            assert_eq!(Entry::read(text.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn what_we_write_is_read_by_them() {
        let bytes = Entry::held("api-1/7", Duration::from_secs(30));
        let text = String::from_utf8(bytes.clone()).expect("JSON");
        let (_, time) = text.split_once("leaseUntilUtc\":\"").expect("a time");
        let time = time.trim_end_matches("\"}");
        let fraction = time.split_once('.').map_or("", |(_, fraction)| fraction);
        assert!(time.ends_with('Z') && fraction.len() <= 8, "{time}");
        let entry = Entry::read(&bytes).expect("an entry");
        assert!(!entry.is_free() && entry.lasts() > Duration::from_secs(29));
        let [one, other] = [1, 2].map(|n| Entry::free(Nonce::from_u128(n)));
        assert_ne!(one, other);
        assert!(Entry::read(&one).expect("an entry").is_free());
    }

    #[test]
    fn a_writer_without_conditions_is_betrayed_by_its_metadata() {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/json".into());
        assert!(refuse_unsafe_writer(&attributes).is_ok());
        attributes.insert(Attribute::Metadata("If-None-Match".into()), "*".into());
        let error = refuse_unsafe_writer(&attributes).unwrap_err().to_string();
        assert!(error.contains("1.1.1") && error.contains("2.0.0"), "{error}");
    }
}
