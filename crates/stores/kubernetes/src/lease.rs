//! A `Lease` object as the API server keeps it, as far as tenure looks at it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub(crate) const API_VERSION: &str = "coordination.k8s.io/v1";
/// The annotation that keeps our record, as JSON.
pub(crate) const RECORD: &str = "tenure/record";
/// The annotation that keeps the spec that we wrote with it.
pub(crate) const SPEC: &str = "tenure/spec";
/// The label whose value is the namespace.
pub(crate) const NAMESPACE: &str = "tenure/namespace";

/// An object.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Lease {
    #[serde(default)]
    pub(crate) metadata: Meta,
    #[serde(default)]
    pub(crate) spec: Spec,
}

/// A page of objects.
#[derive(Debug, Deserialize)]
pub(crate) struct LeaseList {
    #[serde(default)]
    pub(crate) metadata: ListMeta,
    #[serde(default)]
    pub(crate) items: Vec<Lease>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListMeta {
    #[serde(default, rename = "continue")]
    pub(crate) next: String,
}

/// What we read of an object's metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) annotations: Annotations,
}

/// Those of ours; all others are left alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Annotations {
    #[serde(rename = "tenure/record")]
    pub(crate) record: Option<String>,
    #[serde(rename = "tenure/spec")]
    pub(crate) spec: Option<String>,
}

/// What client-go's replicas see and write: the truth that is shared with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) holder_identity: Option<String>,
    pub(crate) lease_duration_seconds: Option<i32>,
    pub(crate) acquire_time: Option<Timestamp>,
    pub(crate) renew_time: Option<Timestamp>,
    pub(crate) lease_transitions: Option<i32>,
    /// Set: the control plane says who holds it (coordinated election).
    pub(crate) strategy: Option<String>,
    /// Whom the control plane would rather see holding it.
    pub(crate) preferred_holder: Option<String>,
}

impl Spec {
    /// Who holds it. Empty is nobody, as with client-go.
    pub(crate) fn holder(&self) -> Option<&str> {
        self.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// For whom the holder shall make way, in a coordinated election.
    pub(crate) fn preferred(&self) -> Option<&str> {
        self.preferred_holder.as_deref().filter(|holder| !holder.is_empty())
    }

    /// The strategy by which the control plane chooses the holder.
    pub(crate) fn chosen_by(&self) -> Option<&str> {
        self.strategy.as_deref().filter(|strategy| !strategy.is_empty())
    }
}

/// The five fields of a spec that we write; the others stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OurSpec {
    pub(crate) holder_identity: Option<String>,
    pub(crate) lease_duration_seconds: i32,
    #[serde(with = "micro_time")]
    pub(crate) acquire_time: Timestamp,
    #[serde(with = "micro_time")]
    pub(crate) renew_time: Timestamp,
    pub(crate) lease_transitions: i32,
}

impl OurSpec {
    /// Whether this is what stands there: then nobody else has written it since.
    pub(crate) fn is(&self, spec: &Spec) -> bool {
        self.holder_identity.as_deref() == spec.holder()
            && Some(self.lease_duration_seconds) == spec.lease_duration_seconds
            && Some(self.renew_time) == spec.renew_time
            && Some(self.lease_transitions) == spec.lease_transitions
    }
}

/// The body of a request that writes a record, and our spec if it has one.
///
/// As a JSON merge patch it leaves alone what it doesn't name: others' labels and annotations, a
/// `strategy`. A null takes a field away. `at` is the resource version that must still be there.
pub(crate) fn body(
    object: &str,
    at: Option<&str>,
    label: &str,
    record: &str,
    ours: Option<&OurSpec>,
) -> Vec<u8> {
    let mut annotations = Map::new();
    annotations.insert(RECORD.to_owned(), record.into());
    let mut metadata = json!({ "labels": { NAMESPACE: label } });
    match at {
        Some(version) => metadata["resourceVersion"] = version.into(),
        None => metadata["name"] = object.into(),
    }
    let mut body = json!({ "apiVersion": API_VERSION, "kind": "Lease" });
    if let Some(ours) = ours {
        let spec = serde_json::to_string(ours).expect("a spec has a JSON form");
        body["spec"] = serde_json::from_str::<Value>(&spec).expect("it was JSON just now");
        annotations.insert(SPEC.to_owned(), spec.into());
    }
    metadata["annotations"] = annotations.into();
    body["metadata"] = metadata;
    body.to_string().into_bytes()
}

mod micro_time {
    //! Times as the API server reads them: UTC, with exactly six digits after the point.

    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{at:.6}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> OurSpec {
        OurSpec {
            holder_identity: Some("api-1/07".to_owned()),
            lease_duration_seconds: 15,
            acquire_time: Timestamp::from_microsecond(0).unwrap(),
            renew_time: Timestamp::from_microsecond(1_767_225_600_120_000).unwrap(),
            lease_transitions: 3,
        }
    }

    #[test]
    fn times_have_exactly_six_digits() {
        let text = serde_json::to_string(&ours()).unwrap();
        assert!(text.contains(r#""1970-01-01T00:00:00.000000Z""#), "{text}");
        assert!(text.contains(r#""2026-01-01T00:00:00.120000Z""#), "{text}");
    }

    #[test]
    fn what_we_wrote_is_known_again_and_what_others_wrote_is_not() {
        let body = body("job", None, "default", "{}", Some(&ours()));
        let mut read: Lease = serde_json::from_slice(&body).unwrap();
        let kept: OurSpec =
            serde_json::from_str(read.metadata.annotations.spec.as_deref().unwrap()).unwrap();
        assert!(kept.is(&read.spec) && kept == ours());
        read.spec.strategy = Some("OldestEmulationVersion".to_owned());
        assert!(kept.is(&read.spec), "a strategy is the control plane's");
        let micro = jiff::SignedDuration::from_micros(1);
        read.spec.renew_time = read.spec.renew_time.map(|at| at + micro);
        assert!(!kept.is(&read.spec));
    }

    #[test]
    fn a_patch_names_its_version_and_an_object_its_name() {
        let read = |at| -> Value {
            serde_json::from_slice(&body("job", at, "default", "{}", None)).unwrap()
        };
        assert_eq!(read(None)["metadata"]["name"], "job");
        assert_eq!(read(Some("7"))["metadata"]["resourceVersion"], "7");
        assert!(read(Some("7"))["metadata"].get("name").is_none());
        assert!(read(Some("7")).get("spec").is_none());
    }
}
