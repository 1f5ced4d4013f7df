//! What objects are called: `PREFIX/NAMESPACE/NAME`, in an alphabet that keeps the order of bytes.

use object_store::path::Path;
use percent_encoding::percent_decode_str;
use tenure_core::Error;
use tenure_core::identity::{NAME_BYTES_MAX, Name, Namespace};

/// What stands before all keys unless the URL names something else.
pub(crate) const PREFIX: &str = "tenure";
/// The longest key that every object store takes, in bytes.
const KEY_BYTES_MAX: usize = 1024;
/// What a byte takes at most.
const CODE_BYTES: usize = 3;
/// What prefix and namespace may take together, so that the longest name still fits.
const FOLDER_BYTES_MAX: usize = KEY_BYTES_MAX - CODE_BYTES * NAME_BYTES_MAX - 2;

/// How one session's objects are called.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    /// `PREFIX/NAMESPACE`, as it stands in keys.
    folder: String,
}

impl Keys {
    /// # Errors
    /// `Invalid`: a prefix that can't be one, or too long with this namespace.
    pub(crate) fn new(prefix: &str, namespace: &Namespace) -> Result<Self, Error> {
        let prefix = prefix.trim_matches('/').to_owned();
        let usable = !prefix.is_empty() && Path::parse(&prefix).is_ok_and(|p| p.as_ref() == prefix);
        if !usable {
            return Err(Error::invalid(format!(
                "`{prefix}` can't stand before keys; leave out empty parts, `.`, `..` and control \
                 characters"
            )));
        }
        let folder = format!("{prefix}/{}", encoded(namespace.as_str()));
        if folder.len() > FOLDER_BYTES_MAX {
            return Err(Error::invalid(format!(
                "prefix and namespace take {} bytes of a key; {FOLDER_BYTES_MAX} are left by the \
                 longest name",
                folder.len()
            )));
        }
        Ok(Self { prefix, folder })
    }

    /// The object of a record.
    pub(crate) fn record(&self, name: &Name) -> Path {
        path(&format!("{}/{}", self.folder, encoded(name.as_str())))
    }

    /// The folder of all records.
    pub(crate) fn folder(&self) -> Path {
        path(&self.folder)
    }

    /// A key that stands before all names with this beginning, but hardly before any other.
    /// None: every name begins so.
    pub(crate) fn before(&self, beginning: &str) -> Option<Path> {
        let mut code = encoded(beginning);
        code.pop()?;
        (!code.is_empty()).then(|| path(&format!("{}/{code}", self.folder)))
    }

    /// The place beside the namespaces, none of which begins with `@` as all names there do.
    pub(crate) fn beside(&self) -> Self {
        Self { prefix: self.prefix.clone(), folder: self.prefix.clone() }
    }

    /// The name of a record's object. None: it isn't one of ours.
    pub(crate) fn name(&self, object: &Path) -> Option<Name> {
        let code = object.as_ref().strip_prefix(&self.folder)?.strip_prefix('/')?;
        let text = decoded(code)?;
        let name = if text.starts_with('@') { Name::reserved(&text) } else { Name::new(&text) };
        // One name has one key: what another hand made is nobody's.
        name.ok().filter(|_| encoded(&text) == code)
    }

    /// What stands before all keys.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

fn path(text: &str) -> Path {
    Path::parse(text).expect("the alphabet of keys holds nothing that a path can't")
}

/// Letters, digits and `-` stand for themselves. Any other byte is two hexadecimal digits after
/// a mark that lies in the same gap between those, so that keys sort as names do.
fn encoded(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for byte in text.bytes() {
        let mark = match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => {
                code.push(char::from(byte));
                continue;
            }
            0..b'-' => '!',
            b'-'..b'0' => '.',
            b'0'..b'A' => '=',
            b'A'..b'a' => '_',
            _ => '~',
        };
        code.push(mark);
        code.push_str(&format!("{byte:02X}"));
    }
    code
}

fn decoded(code: &str) -> Option<String> {
    let percent: String = code
        .chars()
        .map(|c| if matches!(c, '!' | '.' | '=' | '_' | '~') { '%' } else { c })
        .collect();
    Some(percent_decode_str(&percent).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenure_core::chance::Chance;

    fn keys(namespace: &str) -> Keys {
        Keys::new("apps/tenure", &Namespace::new(namespace).unwrap()).unwrap()
    }

    const NAMES: [&str; 14] = [
        "billing", "a/b", "a//b", "/", ".", "..", "a.b", "a%2Fb", "a_b", "a b", "é", "漢字", "~",
        "Z",
    ];

    #[test]
    fn a_key_tells_its_name_and_no_two_share_one() {
        let keys = keys("shop");
        let mut seen = std::collections::BTreeSet::new();
        for text in NAMES {
            let name = Name::new(text).unwrap();
            let key = keys.record(&name);
            assert_eq!(keys.name(&key), Some(name), "{key}");
            assert!(seen.insert(key.to_string()), "{key} twice");
        }
        assert_eq!(keys.record(&Name::new("a/b").unwrap()).as_ref(), "apps/tenure/shop/a.2Fb");
        let mark = keys.beside().record(&Name::reserved("@mark").unwrap());
        assert_eq!(mark.as_ref(), "apps/tenure/=40mark");
        assert_eq!(keys.name(&mark), None);
        assert_eq!(keys.name(&path("apps/tenure/shop/a.2fb")), None, "not how we write it");
        let inside = self::keys("a/b");
        assert_ne!(
            inside.record(&Name::new("c").unwrap()),
            self::keys("a").record(&Name::new("b/c").unwrap())
        );
    }

    #[test]
    fn keys_sort_as_names_do() {
        let mut chance = Chance::seeded(7);
        let mut names: Vec<String> = NAMES.iter().map(ToString::to_string).collect();
        for _ in 0..2000 {
            let length = 1 + chance.next_u64() % 6;
            let text: String = (0..length)
                .map(|_| char::from_u32(0x20 + (chance.next_u64() % 0x5f) as u32).unwrap())
                .collect();
            names.push(text);
        }
        names.sort();
        let codes: Vec<String> = names.iter().map(|name| encoded(name)).collect();
        assert!(codes.is_sorted());
        for (name, code) in names.iter().zip(&codes) {
            assert_eq!(decoded(code).as_ref(), Some(name));
            for end in (1..=name.len()).filter(|end| name.is_char_boundary(*end)) {
                let before = &code[..encoded(&name[..end]).len() - 1];
                assert!(before < code.as_str(), "{before} isn't before {code}");
            }
        }
    }

    #[test]
    fn the_longest_name_fits_and_a_folder_that_leaves_no_place_is_refused() {
        let longest = Name::new("é".repeat(127)).unwrap();
        assert!(keys("shop").record(&longest).as_ref().len() <= KEY_BYTES_MAX);
        let wide = Namespace::new("é".repeat(100)).unwrap();
        let error = Keys::new("tenure", &wide).unwrap_err();
        assert!(error.to_string().contains("left by the longest name"), "{error}");
        for prefix in ["", "a//b", "..", "a/./b"] {
            assert!(Keys::new(prefix, &Namespace::default()).is_err(), "{prefix}");
        }
    }
}
