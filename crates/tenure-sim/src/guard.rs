//! The guarded resource: it lets no older token through after a newer one.

use std::collections::BTreeMap;

use tenure_core::identity::{FencingToken, Name};

/// The resource that effects go to.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    newest: BTreeMap<Name, FencingToken>,
}

impl Guard {
    /// Whether an effect under `token` is let through.
    pub(crate) fn admits(&mut self, name: &Name, token: FencingToken) -> bool {
        let newest = self.newest.entry(name.clone()).or_insert(token);
        let admitted = token >= *newest;
        *newest = token.max(*newest);
        admitted
    }
}
