//! A store whose connection is at fault for one request.

use std::sync::Arc;

use tenure_core::identity::Name;
use tenure_core::store::{
    Acquired, Answer, Claim, Hints, Hold, OrderRequest, Ordered, Page, Prefix, Profile, Query,
    Release, Released, Renewed, Snapshot, Store,
};

use super::FaultProxy;

/// A store behind a proxy that is healed as soon as one request was answered, by whatever.
struct Once {
    store: Arc<dyn Store>,
    proxy: FaultProxy,
}

impl FaultProxy {
    /// The store, which is opened through this proxy, with the proxy's fault for its next
    /// request alone: what
    /// [`Harness::open_faulty`](crate::harness::Harness::open_faulty) asks for.
    pub fn for_one_request(self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Once { store, proxy: self })
    }
}

impl Once {
    fn then_heal<'a, T: 'a>(&'a self, answer: Answer<'a, T>) -> Answer<'a, T> {
        Box::pin(async move {
            let answered = answer.await;
            self.proxy.heal();
            answered
        })
    }
}

impl Store for Once {
    fn profile(&self) -> &Profile {
        self.store.profile()
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        self.then_heal(self.store.acquire(claims))
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        self.then_heal(self.store.renew(holds))
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        self.then_heal(self.store.release(releases))
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        self.then_heal(self.store.read(names))
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        self.then_heal(self.store.list(query, after))
    }

    fn order<'a>(&'a self, name: &'a Name, order: &'a OrderRequest) -> Answer<'a, Ordered> {
        self.then_heal(self.store.order(name, order))
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        self.then_heal(self.store.watch(prefix))
    }

    fn close(&self) -> Answer<'_, ()> {
        self.store.close()
    }
}
