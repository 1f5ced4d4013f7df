//! What an object's version is: its etag, and a generation where the store compares those.

use object_store::{ObjectMeta, PutResult, UpdateVersion};
use tenure_core::store::Version;

/// What stands between etag and generation in a version's text; neither can hold it.
const BETWEEN: char = '\n';

/// Etag and generation of one state of an object. Both are opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) e_tag: String,
    generation: Option<String>,
}

impl Tag {
    /// `generations`: whether the store compares them, and not etags.
    pub(crate) fn of_read(meta: &ObjectMeta, generations: bool) -> Option<Self> {
        Self::of(meta.e_tag.as_ref(), meta.version.as_ref(), generations)
    }

    pub(crate) fn of_write(written: &PutResult, generations: bool) -> Option<Self> {
        Self::of(written.e_tag.as_ref(), written.version.as_ref(), generations)
    }

    fn of(e_tag: Option<&String>, version: Option<&String>, generations: bool) -> Option<Self> {
        let generation = if generations { Some(version?.clone()) } else { None };
        Some(Self { e_tag: e_tag.cloned().unwrap_or_default(), generation })
            .filter(|tag| generations || !tag.e_tag.is_empty())
    }

    /// The text that the core keeps of it.
    pub(crate) fn version(&self) -> Version {
        match &self.generation {
            Some(generation) => Version::new(format!("{}{BETWEEN}{generation}", self.e_tag)),
            None => Version::new(self.e_tag.as_str()),
        }
    }

    /// What a conditional write demands.
    pub(crate) fn demanded(version: &Version) -> UpdateVersion {
        let text = version.as_str();
        let (e_tag, generation) = match text.split_once(BETWEEN) {
            Some((e_tag, generation)) => (e_tag, Some(generation.to_owned())),
            None => (text, None),
        };
        UpdateVersion { e_tag: Some(e_tag.to_owned()), version: generation }
    }

    /// Whether an etag of a listing is this one: some stores quote it in one place and not in
    /// the other.
    pub(crate) fn is_listed_as(&self, e_tag: Option<&str>) -> bool {
        let bare = |tag: &str| tag.trim_matches('"').to_owned();
        e_tag.is_some_and(|listed| !listed.is_empty() && bare(listed) == bare(&self.e_tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(e_tag: &str, version: Option<&str>) -> PutResult {
        PutResult {
            e_tag: Some(e_tag.to_owned()),
            version: version.map(str::to_owned),
            extensions: Default::default(),
        }
    }

    #[test]
    fn a_demand_is_what_was_told() {
        let tag = Tag::of_write(&put("\"abc\"", Some("v7")), false).expect("a tag");
        let demanded = Tag::demanded(&tag.version());
        assert_eq!(demanded.e_tag.as_deref(), Some("\"abc\""), "as it came, with its quotes");
        assert_eq!(demanded.version, None, "a bucket's own versions are nothing to compare");
        let tag = Tag::of_write(&put("\"abc\"", Some("1700")), true).expect("a tag");
        assert_eq!(Tag::demanded(&tag.version()).version.as_deref(), Some("1700"));
        assert!(Tag::of_write(&put("\"abc\"", None), true).is_none());
        assert!(Tag::of_write(&put("", None), false).is_none());
        assert!(tag.is_listed_as(Some("abc")) && !tag.is_listed_as(None));
    }
}
