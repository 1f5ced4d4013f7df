//! Where things lie in etcd: `PREFIX NAMESPACE⇥NAME⇥KIND`, so that all of a name lies together.
//!
//! Neither namespaces nor names have control characters, so a tab between them keeps them apart
//! whatever they are; and it sorts before every character of a name, so that keys lie in the
//! order of their names.

use std::ops::Range;

use tenure_core::identity::{Name, Namespace};
use tenure_core::store::Prefix;

use crate::layout::Layout;
use crate::wire::RangeRequest;

/// Between namespace, name and kind.
const SEPARATOR: char = '\t';
/// The least character that is greater than the separator.
const AFTER_SEPARATOR: char = '\n';

/// What a key of a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An operator asks the holder to resign; on the grant's lease.
    Asked,
    /// The grant in force: created with it, deleted with it, on the etcd lease of its ttl.
    Held,
    /// Min-hold: the name stays taken as long as this is there.
    Kept,
    /// All that is known of the name, as JSON.
    Record,
    /// The name was released for a successor, and is kept for it as long as this is there.
    Reserved,
    /// An operator has ended the grant's renewals; on the grant's lease.
    Revoked,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Asked, Self::Held, Self::Kept, Self::Record, Self::Reserved, Self::Revoked];

    fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Held => "held",
            Self::Kept => "kept",
            Self::Record => "record",
            Self::Reserved => "reserved",
            Self::Revoked => "revoked",
        }
    }
}

/// The keys of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    space: String,
    layout: Option<Layout>,
}

impl Keys {
    pub(crate) fn new(prefix: &str, namespace: &Namespace, layout: Option<Layout>) -> Self {
        let space = format!("{prefix}{namespace}{SEPARATOR}");
        Self { prefix: prefix.to_owned(), space, layout }
    }

    /// The neighbour's key of a name, where names are shared.
    pub(crate) fn entry(&self, name: &Name) -> Option<Vec<u8>> {
        let layout = self.layout.as_ref()?;
        Some(format!("{}{name}", layout.prefix()).into_bytes())
    }

    /// The neighbour's keys of the names from one to another, both included.
    pub(crate) fn entries_span(&self, first: &Name, last: &Name) -> Option<Range<Vec<u8>>> {
        let mut end = self.entry(last)?;
        end.push(0);
        Some(self.entry(first)?..end)
    }

    /// The neighbour's keys of the names under a prefix.
    pub(crate) fn entries_under(&self, prefix: &Prefix) -> Option<Range<Vec<u8>>> {
        let layout = self.layout.as_ref()?;
        let start = format!("{}{}", layout.prefix(), prefix.as_str()).into_bytes();
        let end = end_of(&start);
        Some(start..end)
    }

    /// The name that a neighbour's key is of. None: of none that could be leased here.
    pub(crate) fn name_of_entry(&self, key: &[u8]) -> Option<Name> {
        let name = std::str::from_utf8(key).ok()?.strip_prefix(self.layout.as_ref()?.prefix())?;
        Name::try_from(name.to_owned()).ok()
    }

    /// The name that a key of this namespace, or a neighbour's, is of.
    pub(crate) fn name_of(&self, key: &[u8]) -> Option<Name> {
        self.parse(key).map(|(name, _)| name).or_else(|| self.name_of_entry(key))
    }

    /// The word of the layout, where names are shared.
    pub(crate) fn layout(&self) -> Option<&'static str> {
        self.layout.as_ref().map(Layout::word)
    }

    /// The store's random id. No namespace begins with `@`.
    pub(crate) fn store(&self) -> Vec<u8> {
        format!("{}@store", self.prefix).into_bytes()
    }

    /// What every token lies above, where revisions have gone back.
    pub(crate) fn floor(&self) -> Vec<u8> {
        format!("{}@floor", self.prefix).into_bytes()
    }

    /// The store's mark.
    pub(crate) fn cluster(&self) -> Vec<u8> {
        format!("{}@cluster", self.prefix).into_bytes()
    }

    /// What `doctor` writes to time commits, and deletes.
    pub(crate) fn doctor(&self) -> Vec<u8> {
        format!("{}@doctor", self.prefix).into_bytes()
    }

    pub(crate) fn of(&self, name: &Name, kind: Kind) -> Vec<u8> {
        format!("{}{name}{SEPARATOR}{}", self.space, kind.as_str()).into_bytes()
    }

    /// Everything of one name.
    pub(crate) fn all_of(&self, name: &Name) -> Range<Vec<u8>> {
        self.first_of(name)..self.after(name)
    }

    /// Everything of the names from one to another, both included.
    pub(crate) fn span(&self, first: &Name, last: &Name) -> Range<Vec<u8>> {
        self.first_of(first)..self.after(last)
    }

    /// Everything under a prefix.
    pub(crate) fn under(&self, prefix: &Prefix) -> Range<Vec<u8>> {
        let start = format!("{}{}", self.space, prefix.as_str()).into_bytes();
        let end = end_of(&start);
        start..end
    }

    fn first_of(&self, name: &Name) -> Vec<u8> {
        format!("{}{name}{SEPARATOR}", self.space).into_bytes()
    }

    /// Where the keys of later names begin.
    pub(crate) fn after(&self, name: &Name) -> Vec<u8> {
        format!("{}{name}{AFTER_SEPARATOR}", self.space).into_bytes()
    }

    /// What a key of this namespace is of. None: of something else.
    pub(crate) fn parse(&self, key: &[u8]) -> Option<(Name, Kind)> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&self.space)?;
        let (name, kind) = key.rsplit_once(SEPARATOR)?;
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        Some((Name::try_from(name.to_owned()).ok()?, kind))
    }
}

/// The end of the range of all keys that begin with `start`, which has a byte below the greatest.
pub(crate) fn end_of(start: &[u8]) -> Vec<u8> {
    let mut end = start.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

impl From<Range<Vec<u8>>> for RangeRequest {
    fn from(range: Range<Vec<u8>>) -> Self {
        Self { key: range.start, range_end: range.end, ..Self::default() }
    }
}

impl RangeRequest {
    /// One key.
    pub(crate) fn one(key: Vec<u8>) -> Self {
        Self { key, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(namespace: &str) -> Keys {
        Keys::new("tenure/", &Namespace::new(namespace).unwrap(), Some(Layout::hamode()))
    }

    #[test]
    fn a_key_says_what_it_is_of() {
        let name = Name::new("a/b c").unwrap();
        let keys = keys("shop");
        assert_eq!(keys.of(&name, Kind::Held), b"tenure/shop\ta/b c\theld");
        for kind in Kind::ALL {
            assert_eq!(keys.parse(&keys.of(&name, kind)), Some((name.clone(), kind)));
            assert!(keys.all_of(&name).contains(&keys.of(&name, kind)));
        }
        assert_eq!(keys.parse(&keys.store()), None);
        let entry = keys.entry(&name).unwrap();
        assert_eq!(entry, b"app_runtime_leases/a/b c");
        assert_eq!(keys.name_of_entry(&entry), Some(name.clone()));
        assert!(keys.entries_span(&name, &name).unwrap().contains(&entry));
        assert!(keys.entries_under(&Prefix::new("a/")).unwrap().contains(&entry));
        assert_eq!(keys.name_of_entry(b"app_runtime_leases/a\tb"), None);
        assert_eq!(keys.parse(b"tenure/shop\ta\tof a newer release"), None);
    }

    #[test]
    fn names_lie_apart_and_in_their_own_order() {
        let name = |text: &str| Name::new(text).unwrap();
        let held = |namespace: &str, text: &str| keys(namespace).of(&name(text), Kind::Held);
        assert_ne!(held("a/b", "c"), held("a", "b/c"));
        let mut names = ["a", "a b", "a!", "ab", "a\u{e9}", "b"].map(name);
        names.sort();
        let of = |name: &Name| keys("x").of(name, Kind::Record);
        assert!(names.is_sorted_by_key(of), "{names:?}");
        assert!(!keys("x").all_of(&name("a")).contains(&of(&name("a b"))));
        let under = keys("x").under(&Prefix::new("a"));
        assert!(under.contains(&of(&name("a"))) && !under.contains(&of(&name("b"))));
    }
}
