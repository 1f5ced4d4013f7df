//! What can go wrong, each kind defined once: what happened, and whether one may try again.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A failure. Being second is not one: see [`Acquired::Refused`](crate::store::Acquired).
///
/// `Display` prints the fact and the way out, never a secret; [`source`](StdError::source)
/// carries what the store's client said. Clones share their source, so that one failed
/// batch can be told for each of its items.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    kind: ErrorKind,
    operation: Operation,
    name: Option<Arc<str>>,
    store: Option<Arc<str>>,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What happened, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Certainly not done. What is held may be used until its deadline; try again, with jitter.
    Unavailable,
    /// Sent, but no answer came: done or not. Keep the *old* deadline and repeat the same
    /// claim, renewal or release.
    OutcomeUnknown,
    /// The store refused the credentials or the permission. Report it and try slowly.
    Denied,
    /// Something is missing or unsuitable: a table, a bucket, a file system, a cluster mark.
    /// The message names it and the command that mends it. Nothing is tried again.
    Misconfigured,
    /// The caller's name, timing or argument. Refused before any I/O.
    Invalid,
    /// A record that can't be read. Nothing is overwritten; stop.
    Corrupt,
    /// The store isn't the one that was opened, or forgot what it had acknowledged: its id
    /// changed, or its tokens went back. Nothing was done. Every hold is lost; contenders wait
    /// for one longest ttl and then go on, with tokens above any that were seen.
    StoreReset,
}

impl ErrorKind {
    /// Whether the same request may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::OutcomeUnknown | Self::Denied | Self::StoreReset)
    }

    /// The kind as one lower-case word, for logs, metrics and `--json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Denied => "denied",
            Self::Misconfigured => "misconfigured",
            Self::Invalid => "invalid",
            Self::Corrupt => "corrupt",
            Self::StoreReset => "store_reset",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Connecting to a store and proving that it is suitable.
    Open,
    /// Creating what the store needs.
    Init,
    /// Asking for a name.
    Acquire,
    /// Prolonging what is held.
    Renew,
    /// Giving a name back.
    Release,
    /// Reading single records.
    Read,
    /// Listing records by prefix.
    List,
    /// Giving a holder an order.
    Order,
    /// Listening for changes.
    Watch,
    /// Comparing a token with what a resource has seen.
    Guard,
    /// Measuring what a store promises.
    Diagnose,
    /// Reading an argument.
    Parse,
}

impl Operation {
    /// The operation as one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Init => "init",
            Self::Acquire => "acquire",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Read => "read",
            Self::List => "list",
            Self::Order => "order",
            Self::Watch => "watch",
            Self::Guard => "guard",
            Self::Diagnose => "diagnose",
            Self::Parse => "parse",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// A failure of `operation`. `message` is lower case without a full stop: fact, then cure.
    pub fn new(kind: ErrorKind, operation: Operation, message: impl Into<String>) -> Self {
        let inner = Inner {
            kind,
            operation,
            name: None,
            store: None,
            message: message.into(),
            source: None,
        };
        Self { inner: Arc::new(inner) }
    }

    /// An argument that is refused before any I/O.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, Operation::Parse, message)
    }

    /// The same failure, with the lease that it was about.
    #[must_use]
    pub fn with_name(self, name: impl AsRef<str>) -> Self {
        self.changed(|inner| inner.name = Some(name.as_ref().into()))
    }

    /// The same failure, with the store's redacted location.
    #[must_use]
    pub fn with_store(self, location: impl Into<Arc<str>>) -> Self {
        let location = location.into();
        self.changed(|inner| inner.store = Some(location))
    }

    /// The same failure, met in another operation.
    #[must_use]
    pub fn during(self, operation: Operation) -> Self {
        self.changed(|inner| inner.operation = operation)
    }

    /// The same failure, with what caused it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        self.changed(|inner| inner.source = Some(source))
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.inner.operation
    }

    /// The lease that it was about, if it was about one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_deref()
    }

    /// Where the store is, without secrets.
    #[must_use]
    pub fn store(&self) -> Option<&str> {
        self.inner.store.as_deref()
    }

    fn changed(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        match Arc::get_mut(&mut self.inner) {
            Some(inner) => {
                change(inner);
                self
            }
            // A shared failure keeps its whole self as the source of the changed one.
            None => {
                let mut inner = Inner {
                    kind: self.inner.kind,
                    operation: self.inner.operation,
                    name: self.inner.name.clone(),
                    store: self.inner.store.clone(),
                    message: self.inner.message.clone(),
                    source: Some(Box::new(self)),
                };
                change(&mut inner);
                Self { inner: Arc::new(inner) }
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        if let Some(store) = &inner.store {
            write!(f, "{store}: ")?;
        }
        if let Some(name) = &inner.name {
            write!(f, "lease `{name}`: ")?;
        }
        f.write_str(&inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("operation", &self.inner.operation)
            .field("name", &self.inner.name)
            .field("store", &self.inner.store)
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_the_store_and_the_lease() {
        let error = Error::new(ErrorKind::Unavailable, Operation::Acquire, "the file is locked")
            .with_name("billing")
            .with_store("sqlite:/tmp/x.db");
        assert_eq!(error.to_string(), "sqlite:/tmp/x.db: lease `billing`: the file is locked");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn changing_a_shared_failure_leaves_the_other_alone() {
        let first = Error::new(ErrorKind::OutcomeUnknown, Operation::Renew, "no answer");
        let second = first.clone().during(Operation::Release);
        assert_eq!(first.operation(), Operation::Renew);
        assert_eq!(second.operation(), Operation::Release);
        assert_eq!(second.kind(), ErrorKind::OutcomeUnknown);
    }
}
