//! Keys of another system that leases are shared with, so that a fleet can move replica by replica.

use tenure_core::error::Error;

/// What HAMode's keys begin with, unless its host says otherwise.
const HAMODE_PREFIX: &str = "app_runtime_leases/";
/// The longest prefix, in bytes.
const BYTES_MAX: usize = 255;

/// The neighbour whose keys a lease's holder keeps as well, in the same Txn.
///
/// Either side then respects the other's holds. The level is `lease`: a neighbour's work carries
/// no token, so no guard can tell it from a stale one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// MaksIT.HAMode's: a key for each name.
    Hamode {
        /// What stands before the name. There is no namespace in it.
        prefix: String,
    },
}

impl Layout {
    /// HAMode's keys, as it calls them by itself.
    #[must_use]
    pub fn hamode() -> Self {
        Self::Hamode { prefix: HAMODE_PREFIX.to_owned() }
    }

    /// The layout of a URL's word, and what stands before its names if the URL says so.
    pub(crate) fn of_url(word: &str, prefix: Option<String>) -> Result<Self, Error> {
        match word {
            "hamode" => Ok(Self::Hamode { prefix: prefix.unwrap_or(HAMODE_PREFIX.to_owned()) }),
            _ => Err(Error::invalid(format!("`{word}` is no layout; hamode is"))),
        }
    }

    /// The word of `?layout=`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Hamode { .. } => "hamode",
        }
    }

    /// What stands before every name.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Self::Hamode { prefix } => prefix,
        }
    }

    /// Whether it can be used beside tenure's own keys, which begin with `own`.
    pub(crate) fn check(&self, own: &str) -> Result<(), Error> {
        let prefix = self.prefix();
        if prefix.is_empty() || prefix.len() > BYTES_MAX {
            return Err(Error::invalid(format!(
                "`layout_prefix` is {} bytes long; 1 to {BYTES_MAX} are allowed",
                prefix.len()
            )));
        }
        if own.starts_with(prefix) || prefix.starts_with(own) {
            return Err(Error::invalid(format!(
                "`layout_prefix={prefix}` would mix the neighbour's keys with tenure's own (`{own}…`)"
            )));
        }
        Ok(())
    }
}
