//! Keys of another system that leases are shared with, so that a fleet can move replica by replica.

use tenure_core::identity::Name;
use tenure_core::{Error, ErrorKind, Operation};

/// What HAMode's keys begin with, unless its host says otherwise.
const HAMODE_PREFIX: &str = "app_runtime_leases:";
/// LeaderElection.Redis's one key, unless its host says otherwise.
const ELECTION_KEY: &str = "leader-election-lock";
/// The longest prefix or key, in bytes.
const BYTES_MAX: usize = 255;

/// The neighbour whose keys a lease's holder keeps as well, in the same atomic script.
///
/// Either side then respects the other's holds. The level is `lease` at most: a neighbour's work
/// carries no token, so no guard can tell it from a stale one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// MaksIT.HAMode's: a key for each name.
    Hamode {
        /// What stands before the name. There is no namespace in it.
        prefix: String,
    },
    /// LeaderElection.Redis's: one key, which stands for one name.
    LeaderElection {
        /// The only name that can be acquired: so no slip of the pen leaves one unshared.
        name: Name,
        /// The key.
        key: String,
    },
}

impl Layout {
    /// HAMode's keys, as it calls them by itself.
    #[must_use]
    pub fn hamode() -> Self {
        Self::Hamode { prefix: HAMODE_PREFIX.to_owned() }
    }

    /// LeaderElection.Redis's key, as it calls it by itself, for this name.
    #[must_use]
    pub fn leader_election(name: Name) -> Self {
        Self::LeaderElection { name, key: ELECTION_KEY.to_owned() }
    }

    /// The word of `?layout=`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Hamode { .. } => "hamode",
            Self::LeaderElection { .. } => "leaderelection",
        }
    }

    /// The neighbour's key of a name. None: it has none for that.
    pub(crate) fn entry(&self, name: &Name) -> Option<String> {
        match self {
            Self::Hamode { prefix } => Some(format!("{prefix}{name}")),
            Self::LeaderElection { name: shared, key } => (name == shared).then(|| key.clone()),
        }
    }

    /// What its keys are, for an ACL.
    pub(crate) fn pattern(&self) -> String {
        match self {
            Self::Hamode { prefix } => format!("{prefix}*"),
            Self::LeaderElection { key, .. } => key.clone(),
        }
    }

    /// A key that permissions can be tried on: the neighbour's own, or one that it can't have.
    pub(crate) fn trial(&self) -> &str {
        match self {
            Self::Hamode { prefix } => prefix,
            Self::LeaderElection { key, .. } => key,
        }
    }

    /// Refuses a name that isn't shared.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn admit(&self, name: &Name) -> Result<(), Error> {
        match self {
            Self::LeaderElection { name: shared, .. } if name != shared => {
                Err(Error::invalid(format!(
                    "`{name}` isn't shared: `layout_name` says that LeaderElection's key stands \
                     for `{shared}`; acquire other names through a URL without the layout"
                ))
                .with_name(name))
            }
            _ => Ok(()),
        }
    }

    /// Whether it can be used beside tenure's own keys, which begin with `own`.
    pub(crate) fn check(&self, own: &str, in_cluster: bool) -> Result<(), Error> {
        let (option, text) = match self {
            Self::Hamode { prefix } => ("layout_prefix", prefix),
            Self::LeaderElection { key, .. } => ("layout_key", key),
        };
        if text.is_empty() || text.len() > BYTES_MAX {
            return Err(Error::invalid(format!(
                "`{option}` is {} bytes long; 1 to {BYTES_MAX} are allowed",
                text.len()
            )));
        }
        let own = format!("{own}:{{");
        if own.starts_with(text.as_str()) || text.starts_with(&own) {
            return Err(Error::invalid(format!(
                "`{option}={text}` would mix the neighbour's keys with tenure's own (`{own}…`)"
            )));
        }
        if in_cluster {
            return Err(Error::new(
                ErrorKind::Misconfigured,
                Operation::Open,
                format!(
                    "`layout={}` can't be had in a Redis cluster: the neighbour's keys lie in \
                     other hash slots than tenure's, and no script reaches both; share one \
                     server, or leave the layout out",
                    self.word()
                ),
            ));
        }
        Ok(())
    }
}
