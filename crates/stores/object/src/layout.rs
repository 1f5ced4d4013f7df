//! The object of another system that one name is shared with, so that a fleet can move replica by
//! replica.

use std::time::Duration;

use object_store::path::Path;
use tenure_core::Error;
use tenure_core::identity::Name;

use crate::keys::Keys;

/// How long LeaderElection's lease lasts unless its host says otherwise.
const THEIR_TTL: Duration = Duration::from_secs(30);
/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 1024;

/// LeaderElection.S3's object, which a name's holder keeps as well.
///
/// Either side then respects the other's holds. LeaderElection 2.0.0 or newer: older releases
/// write without a condition, and an object that bears their mark is refused. The level is
/// `best-effort`: its replicas compare their wall clocks with one another's, and its work carries
/// no token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// The only name that can be acquired: so no slip of the pen leaves one unshared.
    pub name: Name,
    /// The object's key in the bucket, without our prefix.
    pub key: String,
    /// Their `LeaseDuration`, the longest of the fleet: 30 s unless set. An entry of theirs that
    /// stood unchanged for so long is a dead replica's.
    pub their_ttl: Duration,
}

impl Layout {
    /// The object of this key, which stands for this name.
    #[must_use]
    pub fn leader_election(name: Name, key: impl Into<String>) -> Self {
        Self { name, key: key.into(), their_ttl: THEIR_TTL }
    }

    /// The word of `?layout=`.
    pub(crate) const WORD: &str = "leaderelection";

    /// Refuses a name that isn't shared.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn admit(&self, name: &Name) -> Result<(), Error> {
        if *name == self.name {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "`{name}` isn't shared: `layout_name` says that LeaderElection's object stands for \
             `{}`; acquire other names through a URL without the layout",
            self.name
        ))
        .with_name(name))
    }

    /// Whether it can be used beside tenure's own objects.
    pub(crate) fn check(&self, keys: &Keys) -> Result<(), Error> {
        let usable = Path::parse(&self.key).is_ok_and(|path| path.as_ref() == self.key);
        if self.key.is_empty() || self.key.len() > KEY_BYTES_MAX || !usable {
            return Err(Error::invalid(format!(
                "`layout_key={}` is no key that an object store takes",
                self.key
            )));
        }
        let own = format!("{}/", keys.prefix());
        if self.key.starts_with(&own) {
            return Err(Error::invalid(format!(
                "`layout_key={}` would mix the neighbour's object with tenure's own (`{own}…`)",
                self.key
            )));
        }
        Ok(())
    }

    /// Where it is.
    pub(crate) fn object(&self) -> Path {
        Path::parse(&self.key).unwrap_or_default()
    }
}
