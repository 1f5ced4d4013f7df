//! What keys are called: `PREFIX.NAMESPACE.NAME`, in an alphabet that means nothing in a URL and
//! nothing to Dapr.

use tenure_core::identity::{Name, Namespace};

/// What stands before all keys unless something else is set.
pub(crate) const PREFIX: &str = "tenure";
/// How many indexes the names of a namespace are spread over.
pub(crate) const INDEXES: usize = 16;

/// How one session's keys are called.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    folder: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, namespace: &Namespace) -> Self {
        let folder = format!("{prefix}.{}", encoded(namespace.as_str()));
        Self { prefix: prefix.to_owned(), folder }
    }

    /// The key of a record.
    pub(crate) fn record(&self, name: &Name) -> String {
        format!("{}.{}", self.folder, encoded(name.as_str()))
    }

    /// The key of one of the indexes of names. No encoded name has a `.` in it.
    pub(crate) fn index(&self, number: usize) -> String {
        format!("{}.index.{number:02}", self.folder)
    }

    /// Which index a name stands in: of the format, since a change would lose it.
    pub(crate) fn index_of(name: &Name) -> usize {
        // FNV-1a.
        let hash = name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        (hash % INDEXES as u64) as usize
    }

    /// The place beside the namespaces, none of which is empty.
    pub(crate) fn beside(&self) -> Self {
        Self { prefix: self.prefix.clone(), folder: format!("{}.", self.prefix) }
    }
}

/// Letters, digits and `-` stand for themselves, any other byte is `_` and two digits.
fn encoded(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => code.push(char::from(byte)),
            _ => code.push_str(&format!("_{byte:02X}")),
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_names_share_a_key_and_none_needs_escaping() {
        let mut keys = BTreeSet::new();
        for (namespace, name) in [
            ("a", "b.c"),
            ("a.b", "c"),
            ("a", "b/c"),
            ("a", "b_c"),
            ("a", "b_2Fc"),
            ("a", "index.00"),
        ] {
            let key = Keys::new(PREFIX, &Namespace::new(namespace).unwrap());
            let key = key.record(&Name::new(name).unwrap());
            assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
            assert!(keys.insert(key));
        }
        let folder = Keys::new(PREFIX, &Namespace::new("a").unwrap());
        assert!(!keys.contains(&folder.index(0)));
        let mark = folder.beside().record(&Name::reserved("@mark").unwrap());
        assert_eq!(mark, "tenure.._40mark");
        assert!(!keys.contains(&mark));
    }

    #[test]
    fn the_index_of_a_name_is_of_the_format() {
        assert_eq!(Keys::index_of(&Name::new("billing").unwrap()), BILLING);
    }

    const BILLING: usize = 12;
}
