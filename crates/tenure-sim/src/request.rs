//! What travels between an instance and the modelled store, and what it changed there.

use tenure_core::error::Error;
use tenure_core::exchange::{Ask, Reply};
use tenure_core::identity::{Name, StoreId};
use tenure_core::record::Record;
use tenure_core::store::{Acquired, Claim, Hold, Release, Released, Renewed, Snapshot};

/// A request as it travels.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Open,
    Acquire(Box<Claim>),
    Renew(Box<Hold>),
    Release(Box<Release>),
    Read(Name),
    Ask(Ask),
}

/// An answer as it travels.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Opened(StoreId),
    Acquired(Acquired),
    Renewed(Renewed),
    Released(Released),
    Read(Option<Box<Snapshot>>),
    Replied(Reply),
    Failed(Error),
}

/// A record that one request changed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) name: Name,
    pub(crate) after: Option<Record>,
}
