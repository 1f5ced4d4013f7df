//! Sessions notice that their store's clock was set, and prove all that they hold anew.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenure::core::chance::Chance;
use tenure::core::identity::Name;
use tenure::core::memory::MemoryStore;
use tenure::core::protocol::store_clock::Jump;
use tenure::core::store::{
    Acquired, Answer, Claim, Hold, OrderRequest, Ordered, Page, Profile, Query, Release, Released,
    Renewed, Snapshot, Store,
};
use tenure::{Attempt, Measured, Meter, Session, SystemClock};

/// A store whose clock says what it is told to say, and counts what it renews.
struct Turned {
    inner: Arc<dyn Store>,
    began: std::time::Instant,
    ahead_millis: AtomicU64,
    renewed: Mutex<Vec<String>>,
}

impl Store for Turned {
    fn profile(&self) -> &Profile {
        self.inner.profile()
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        self.inner.acquire(claims)
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        self.renewed.lock().unwrap().extend(holds.iter().map(|hold| hold.name.to_string()));
        self.inner.renew(holds)
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        self.inner.release(releases)
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        self.inner.read(names)
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        self.inner.list(query, after)
    }

    fn order<'a>(&'a self, name: &'a Name, order: &'a OrderRequest) -> Answer<'a, Ordered> {
        self.inner.order(name, order)
    }

    fn clock_shown(&self) -> Option<Duration> {
        let ahead = Duration::from_millis(self.ahead_millis.load(Ordering::SeqCst));
        Some(self.began.elapsed() + ahead)
    }
}

#[derive(Default)]
struct Jumps(Mutex<Vec<Jump>>);

impl Meter for Jumps {
    fn record(&self, measured: Measured) {
        if let Measured::StoreClockJump(jump) = measured {
            self.0.lock().unwrap().push(jump);
        }
    }
}

#[tokio::test]
async fn a_store_clock_that_was_set_is_told_and_every_hold_is_proven_anew() {
    let mut chance = Chance::seeded(7);
    let memory = MemoryStore::new(Arc::new(SystemClock), &mut chance);
    let store = Arc::new(Turned {
        inner: Arc::new(memory.opened(Default::default())),
        began: std::time::Instant::now(),
        ahead_millis: AtomicU64::new(0),
        renewed: Mutex::default(),
    });
    let jumps = Arc::new(Jumps::default());
    let session =
        Session::builder().store(store.clone()).meter(jumps.clone()).open().await.unwrap();
    let hold = async |name: &str, ttl: u64| match session
        .lease(name)
        .ttl(Duration::from_secs(ttl))
        .try_acquire()
        .await
        .unwrap()
    {
        Attempt::Granted(lease) => lease,
        Attempt::Refused(by) => panic!("{by}"),
    };
    // The one beats each second, the other each ten minutes.
    let (_quick, _slow) = (hold("quick", 3).await, hold("slow", 1800).await);
    let renewals = |of: &str| store.renewed.lock().unwrap().iter().filter(|n| *n == of).count();
    let until = async |done: &dyn Fn() -> bool| {
        for _ in 0..600 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never happened");
    };
    until(&|| renewals("quick") >= 2).await;
    assert_eq!((renewals("slow"), jumps.0.lock().unwrap().len()), (0, 0));
    store.ahead_millis.store(60_000, Ordering::SeqCst);
    until(&|| renewals("slow") == 1).await;
    let told = jumps.0.lock().unwrap().clone();
    assert!(matches!(told[..], [Jump::Ahead(by)] if by > Duration::from_secs(58)), "{told:?}");
    session.close().await.unwrap();
}
