//! Who and what: names, instances, tokens and the random ids of the protocol.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::error::Error;

/// The longest name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;

/// What is leased. A `Name` that exists is valid: 1 to 255 bytes of UTF-8 without control
/// characters, `@` as the first character reserved to tenure.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::ErrorKind::Invalid): empty, longer than [`NAME_BYTES_MAX`],
    /// with a control character, or beginning with `@`.
    pub fn new(text: impl AsRef<str>) -> Result<Self, Error> {
        let text = text.as_ref();
        check_text("name", text)?;
        if text.starts_with('@') {
            return Err(Error::invalid(format!(
                "the name `{text}` begins with `@`, which is reserved to tenure; begin it with \
                 another character"
            )));
        }
        Ok(Self(text.into()))
    }

    /// A name of tenure's own, beginning with `@`.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::ErrorKind::Invalid): without the `@`, or as [`Name::new`].
    pub fn reserved(text: impl AsRef<str>) -> Result<Self, Error> {
        let text = text.as_ref();
        check_text("name", text)?;
        if !text.starts_with('@') {
            return Err(Error::invalid(format!("the reserved name `{text}` lacks its `@`")));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    /// Reads a stored name; a reserved one is a name, too.
    fn try_from(text: String) -> Result<Self, Error> {
        if text.starts_with('@') { Self::reserved(text) } else { Self::new(text) }
    }
}

/// What stands before every name in every store, so that two applications can share one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Parses a namespace, by the rules of [`Name::new`].
    ///
    /// # Errors
    /// [`Invalid`](crate::error::ErrorKind::Invalid), as for a name.
    pub fn new(text: impl AsRef<str>) -> Result<Self, Error> {
        let text = text.as_ref();
        check_text("namespace", text)?;
        if text.starts_with('@') {
            return Err(Error::invalid(format!(
                "the namespace `{text}` begins with `@`, which is reserved to tenure"
            )));
        }
        Ok(Self(text.into()))
    }

    /// The namespace as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".into())
    }
}

impl TryFrom<String> for Namespace {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(text)
    }
}

fn check_text(what: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::invalid(format!("the {what} is empty; give it at least one character")));
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the {what} is {} bytes long; at most {NAME_BYTES_MAX} are allowed",
            text.len()
        )));
    }
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return Err(Error::invalid(format!(
            "the {what} {text:?} has the control character {control:?} in it; leave it out"
        )));
    }
    Ok(())
}

macro_rules! text_impls {
    ($($type:ident)*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl From<$type> for String {
            fn from(text: $type) -> Self {
                text.as_str().to_owned()
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    )*};
}

text_impls!(Name Namespace);

macro_rules! random_id {
    ($($(#[$doc:meta])* $type:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(u128);

        impl $type {
            /// Draws a new one.
            pub fn draw(chance: &mut Chance) -> Self {
                Self(chance.next_u128())
            }

            /// From its 128 bits.
            #[must_use]
            pub const fn from_u128(bits: u128) -> Self {
                Self(bits)
            }

            /// Its 128 bits.
            #[must_use]
            pub fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    if let Ok(bits) = u128::from_str_radix(text, 16) {
                        return Ok(Self(bits));
                    }
                }
                Err(Error::invalid(format!("{text:?} is not an id: 32 hexadecimal digits are")))
            }
        }
    )*};
}

random_id! {
    /// One start of a process: random, made when a session opens.
    Incarnation;
    /// A claim's id, so that a claim whose answer was lost can be repeated and finds itself.
    ClaimId;
    /// New in every write: no two writes of a record are byte-equal.
    Nonce;
    /// A store's random id, written when it was initialised.
    StoreId;
}

impl Nonce {
    /// The nonce of a second write within one request.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// One running process: a readable name and a random incarnation made when its session opened.
///
/// **Invariant:** two processes with one name are two instances; only both parts together are
/// ever compared to decide who holds a lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance {
    name: Name,
    incarnation: Incarnation,
}

impl Instance {
    /// An instance by its two parts.
    #[must_use]
    pub fn new(name: Name, incarnation: Incarnation) -> Self {
        Self { name, incarnation }
    }

    /// The readable name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Which start of it.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.incarnation)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Instance {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.parse::<Successor>()? {
            Successor { name, incarnation: Some(incarnation) } => Ok(Self { name, incarnation }),
            _ => Err(Error::invalid(format!("`{text}` lacks an incarnation: NAME#INCARNATION"))),
        }
    }
}

/// Whom a lease is handed to: any instance of a name, or one incarnation of it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Successor {
    /// The instance's readable name.
    pub name: Name,
    /// Which start of it; any, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
}

impl Successor {
    /// Whether `instance` is meant.
    #[must_use]
    pub fn is(&self, instance: &Instance) -> bool {
        self.name == instance.name
            && self.incarnation.is_none_or(|incarnation| incarnation == instance.incarnation)
    }
}

impl From<Instance> for Successor {
    fn from(instance: Instance) -> Self {
        Self { name: instance.name, incarnation: Some(instance.incarnation) }
    }
}

impl FromStr for Successor {
    type Err = Error;

    /// Reads `NAME` or `NAME#INCARNATION`; a `#` that no incarnation follows belongs to the name.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some((name, incarnation)) = text.rsplit_once('#')
            && let Ok(incarnation) = incarnation.parse()
        {
            return Ok(Self { name: Name::new(name)?, incarnation: Some(incarnation) });
        }
        Ok(Self { name: Name::new(text)?, incarnation: None })
    }
}

impl fmt::Display for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.incarnation {
            Some(incarnation) => write!(f, "{}#{incarnation}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl fmt::Debug for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The fencing token: at least 1, strictly greater at each grant of a name, for ever.
///
/// Write it beside what you change, and let a guard compare it there (Kleppmann, "How to do
/// distributed locking", 2016; Chubby's sequencer).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(NonZeroU64);

impl FencingToken {
    /// The first token of all.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The token of this number; none for 0.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The next token.
    ///
    /// # Errors
    /// [`Corrupt`](crate::error::ErrorKind::Corrupt) after `u64::MAX`, which no sequence of
    /// grants reaches: a record says so that somebody wrote by hand.
    pub fn next(self) -> Result<Self, Error> {
        self.0.checked_add(1).map(Self).ok_or_else(|| {
            Error::new(
                crate::error::ErrorKind::Corrupt,
                crate::error::Operation::Acquire,
                "the record's token is the largest there is; no later one can be granted",
            )
        })
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_are_refused_say_why() {
        for (text, why) in [
            ("", "empty"),
            ("a\nb", "control character"),
            ("\u{85}", "control character"),
            ("@store", "reserved"),
        ] {
            let error = Name::new(text).unwrap_err();
            assert!(error.to_string().contains(why), "{text:?}: {error}");
        }
        assert!(Name::new("x".repeat(256)).unwrap_err().to_string().contains("256 bytes"));
        assert!(Name::new("x".repeat(255)).is_ok());
        assert!(Name::new("é".repeat(128)).is_err(), "bytes are counted, not characters");
    }

    #[test]
    fn same_name_other_incarnation_is_another_instance() {
        let name = Name::new("api-2").unwrap();
        let first = Instance::new(name.clone(), Incarnation::from_u128(1));
        let second = Instance::new(name, Incarnation::from_u128(2));
        assert_ne!(first, second);
        let any: Successor = "api-2".parse().unwrap();
        assert!(any.is(&first) && any.is(&second));
        let one: Successor = first.to_string().parse().unwrap();
        assert!(one.is(&first) && !one.is(&second));
    }

    #[test]
    fn ids_are_read_strictly() {
        assert!("+0000000000000000000000000000001".parse::<ClaimId>().is_err());
        assert!("1".parse::<ClaimId>().is_err());
    }

    proptest! {
        #[test]
        fn a_name_is_refused_or_kept_as_it_is(text in any::<String>()) {
            if let Ok(name) = Name::new(&text) {
                prop_assert_eq!(name.as_str(), text.as_str());
            }
        }

        #[test]
        fn ids_survive_their_text(bits in any::<u128>()) {
            let id = Nonce::from_u128(bits);
            prop_assert_eq!(id.to_string().parse::<Nonce>().unwrap(), id);
        }
    }
}
