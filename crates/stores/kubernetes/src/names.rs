//! Which object a lease is: a name that Kubernetes takes stays as it is, so that client-go's replicas name
//! the same one.

use ring::digest::{SHA256, digest};
use tenure_core::identity::{Name, Namespace};

/// The longest name of an object, in bytes.
const OBJECT_BYTES_MAX: usize = 253;
/// The longest value of a label, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// What the objects begin with whose names stand in them in other letters. No lease's own name may.
const WRITTEN: &str = "tenure-x.";
/// What the objects begin with whose names are too long for that.
const HASHED: &str = "tenure-h.";
/// How many bytes of a hash stand in a name or label: too many for two names to share them by chance.
const HASH_BYTES: usize = 20;

/// The object that keeps a lease's record.
///
/// A lease of the namespace `default` whose name is a DNS-1123 subdomain is the object of that name.
/// All others are `tenure-x.NAMESPACE.NAME`, in letters and digits: whatever isn't one of `0-9`, `a-w`,
/// `y`, `z` is `x` and two digits of hexadecimal. Where that is too long, a hash stands for it; the record
/// itself has the name.
pub(crate) fn object(namespace: &Namespace, name: &Name) -> String {
    let plain = name.as_str();
    let reserved = plain.starts_with(WRITTEN) || plain.starts_with(HASHED);
    if *namespace == Namespace::default() && is_subdomain(plain) && !reserved {
        return plain.to_owned();
    }
    let written = format!("{WRITTEN}{}.{}", escaped(namespace.as_str()), escaped(plain));
    if written.len() <= OBJECT_BYTES_MAX {
        return written;
    }
    format!("{HASHED}{}", hash(&[namespace.as_str(), plain]))
}

/// The lease whose object this is, read back from its name. None: a hash stands for it.
pub(crate) fn lease(object: &str) -> Option<Name> {
    let Some(rest) = object.strip_prefix(WRITTEN) else {
        return if object.starts_with(HASHED) { None } else { Name::new(object).ok() };
    };
    let (_, written) = rest.split_once('.')?;
    Name::try_from(unescaped(written)?).ok()
}

/// The value of the label that all objects of a namespace bear.
pub(crate) fn label(namespace: &Namespace) -> String {
    let written = escaped(namespace.as_str());
    if written.len() <= LABEL_BYTES_MAX {
        return written;
    }
    // An `x` that no digits follow can't come from a name.
    format!("xh{}", hash(&[namespace.as_str()]))
}

/// Whether Kubernetes takes this as a namespace's name: a DNS-1123 label.
pub(crate) fn is_kube_namespace(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX && !text.contains('.') && is_subdomain(text)
}

fn is_subdomain(text: &str) -> bool {
    let label = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= OBJECT_BYTES_MAX && text.split('.').all(label)
}

fn escaped(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (byte.is_ascii_lowercase() || byte.is_ascii_digit()) && byte != b'x' {
            written.push(byte as char);
        } else {
            written.push_str(&format!("x{byte:02x}"));
        }
    }
    written
}

fn unescaped(written: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written.as_bytes();
    while let [first, after @ ..] = rest {
        rest = if *first == b'x' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            &after[2..]
        } else {
            bytes.push(*first);
            after
        };
    }
    String::from_utf8(bytes).ok()
}

/// Parts have a bound between them that none of them can hold.
fn hash(parts: &[&str]) -> String {
    let hashed = digest(&SHA256, parts.join("\0").as_bytes());
    hashed.as_ref()[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn of(namespace: &str, name: &str) -> String {
        object(&Namespace::new(namespace).unwrap(), &Name::try_from(name.to_owned()).unwrap())
    }

    #[test]
    fn a_name_that_kubernetes_takes_is_the_objects() {
        for name in ["billing", "a.b-c", "7", "kube-scheduler"] {
            assert_eq!(of("default", name), name);
        }
        for (namespace, name, object) in [
            ("default", "job/1", "tenure-x.default.jobx2f1"),
            ("default", "Xx", "tenure-x.default.x58x78"),
            ("default", "@store", "tenure-x.default.x40store"),
            ("default", "-a", "tenure-x.default.x2da"),
            ("default", "a..b", "tenure-x.default.ax2ex2eb"),
            ("default", "tenure-x.default.a", "tenure-x.default.tenurex2dx78x2edefaultx2ea"),
            ("shop", "billing", "tenure-x.shop.billing"),
        ] {
            assert_eq!(of(namespace, name), object);
        }
    }

    #[test]
    fn no_two_names_are_one_object_and_each_object_can_be_named() {
        let long = "ä".repeat(127);
        let longer = format!("{long}b");
        let names = ["a", "A", "xa", "x61", "a/b", "a.b", "a_b", "@a", " ", &long, &longer];
        let mut objects = HashSet::new();
        for namespace in ["default", "a", "default.a", &long] {
            for name in names {
                let object = of(namespace, name);
                assert!(is_subdomain(&object), "{object}");
                assert!(objects.insert(object), "{namespace} {name}");
            }
            let label = label(&Namespace::new(namespace).unwrap());
            assert!(label.len() <= LABEL_BYTES_MAX && is_subdomain(&label), "{label}");
        }
    }

    #[test]
    fn a_kubernetes_namespace_is_one_label() {
        assert!(is_kube_namespace("kube-system"));
        for text in ["", "a.b", "A", "-a", "a-", &"a".repeat(64)] {
            assert!(!is_kube_namespace(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_back(text in "\\PC{1,20}") {
            prop_assert_eq!(unescaped(&escaped(&text)), Some(text));
        }
    }

    #[test]
    fn an_object_says_whose_it_is() {
        for name in ["billing", "a/b", "@store", "tenure-x.default.a"] {
            assert_eq!(lease(&of("default", name)).map(String::from).as_deref(), Some(name));
            assert_eq!(lease(&of("shop", name)).map(String::from).as_deref(), Some(name));
        }
        assert_eq!(lease(&of("default", &"ä".repeat(127))), None);
        for damaged in ["tenure-x.a", "tenure-x.a.x", "tenure-x.a.xzz", "tenure-x.a.xff"] {
            assert_eq!(lease(damaged), None, "{damaged}");
        }
    }
}
