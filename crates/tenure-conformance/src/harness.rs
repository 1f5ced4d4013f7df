//! What a store's author writes once, so that the suite can open, break and look into the store.

use std::sync::Arc;
use std::time::Duration;

use tenure_core::clock::Instant;
use tenure_core::error::Error;
use tenure_core::identity::{FencingToken, Instance, Name, Namespace};
use tenure_core::record_store::RecordStore;
use tenure_core::store::{Store, StoreAdmin};

use crate::executor::{Work, block_on};

/// One fresh store, and everything that the suite may do to it.
///
/// The suite makes a new harness for each behaviour. Five methods are required; each of the
/// hooks belongs to a [`Capability`], and is called only if the harness doesn't
/// [lack](Self::lacks) it. A hook panics where it fails.
pub trait Harness: Send + Sync {
    /// The store's name, as the head of its column in the table: `sqlite`, `redis (sentinel)`.
    fn name(&self) -> &str;

    /// Opens one more session of this harness's store.
    ///
    /// Sessions must be as independent as those of two processes: separate connections, separate
    /// caches. Only the data is shared, and only within a namespace. Called from many threads.
    fn open(&self, namespace: &Namespace) -> Arc<dyn Store>;

    /// What time it is, on the clock that [`advance`](Self::advance) moves.
    fn now(&self) -> Instant;

    /// Lets time pass, for the store as well as for everyone who holds or waits.
    ///
    /// Where the store's clock can be turned, turn it: the suite is then done in seconds. For a
    /// real server, sleep.
    fn advance(&self, by: Duration);

    /// Why the store doesn't have this capability, as a sentence for the table. None: it has it,
    /// every behaviour that needs it runs, and a failure is red.
    ///
    /// There is no way to waive a behaviour which needs no capability, or to lack one without a
    /// reason.
    fn lacks(&self, capability: Capability) -> Option<&'static str>;

    /// A short ttl that is practical here. At least [`Profile::shortest_ttl`]; for a real server
    /// long enough that a slow machine doesn't lose a grant by accident.
    ///
    /// [`Profile::shortest_ttl`]: tenure_core::store::Profile::shortest_ttl
    fn ttl(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// By how much what the suite measures may be off: round trips, and the inexactness of
    /// sleeping. Zero where the clock is turned by hand.
    fn slack(&self) -> Duration {
        Duration::ZERO
    }

    /// By how much behaviours that repeat themselves hundreds of times are cut short, where each
    /// request takes a slow server milliseconds. 1: not at all. What is repeated less often shows
    /// the same, with a smaller chance of meeting what is rare.
    fn thrift(&self) -> usize {
        1
    }

    /// Runs a future to its end. Override it where the store's futures need a runtime around
    /// them, for instance with tokio's `Handle::block_on`.
    fn drive(&self, work: Work<'_>) {
        block_on(work);
    }

    /// [`Capability::Forget`]: loses all the data, as a wipe or a failover to an empty replica
    /// does. Open sessions stay open.
    fn forget(&self) {
        unhooked("forget")
    }

    /// [`Capability::Restore`]: copies all the data aside.
    fn back_up(&self) {
        unhooked("back_up")
    }

    /// [`Capability::Restore`]: puts the copy back. Open sessions stay open.
    fn restore_backup(&self) {
        unhooked("restore_backup")
    }

    /// [`Capability::DeleteByHand`]: deletes one record behind the store's back.
    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        let _ = (namespace, name);
        unhooked("delete_by_hand")
    }

    /// [`Capability::CountsWrites`]: how many writes the store has carried out until now, in any
    /// unit that grows by at least one with each.
    fn writes(&self) -> u64 {
        unhooked("writes")
    }

    /// [`Capability::Restart`]: stops the server and starts it again on its data. Open sessions
    /// must find back by themselves, with transient errors in between.
    fn restart(&self) {
        unhooked("restart")
    }

    /// [`Capability::RawRecords`]: the stored record, as JSON.
    fn raw_read(&self, namespace: &Namespace, name: &Name) -> Option<Vec<u8>> {
        let _ = (namespace, name);
        unhooked("raw_read")
    }

    /// [`Capability::RawRecords`]: overwrites a stored record's JSON behind the store's back.
    fn raw_write(&self, namespace: &Namespace, name: &Name, json: &[u8]) {
        let _ = (namespace, name, json);
        unhooked("raw_write")
    }

    /// [`Capability::Endpoints`]: a session through another server of the same cluster.
    /// Endpoint 0 is the one that [`open`](Self::open) uses; there is at least a 1.
    fn open_at(&self, endpoint: usize, namespace: &Namespace) -> Arc<dyn Store> {
        let _ = (endpoint, namespace);
        unhooked("open_at")
    }

    /// [`Capability::ConnectionFaults`]: a session whose next request meets this fault.
    fn open_faulty(&self, fault: ConnectionFault, namespace: &Namespace) -> Arc<dyn Store> {
        let _ = (fault, namespace);
        unhooked("open_faulty")
    }

    /// [`Capability::ProvesDeath`]: a session, and what lets its process die without a word.
    fn open_mortal(&self, namespace: &Namespace) -> (Arc<dyn Store>, Box<dyn FnOnce() + Send>) {
        let _ = namespace;
        unhooked("open_mortal")
    }

    /// [`Capability::Purge`]: deletes now whatever tombstones the store may delete.
    fn purge(&self) {
        unhooked("purge")
    }

    /// [`Capability::Credentials`]: replaces the credentials that open sessions use. The old
    /// ones are refused from now on, the new ones lie where the store looks for them.
    fn rotate_credentials(&self) {
        unhooked("rotate_credentials")
    }

    /// [`Capability::WatchFaults`]: cuts whatever carries hints, and discards what is kept of
    /// the history (a compaction), so that listeners must begin anew.
    fn cut_watches(&self) {
        unhooked("cut_watches")
    }

    /// [`Capability::Records`]: the records under a store that is a
    /// [`RecordStore`], as one more session sees them.
    fn open_records(&self, namespace: &Namespace) -> Arc<dyn RecordStore> {
        let _ = namespace;
        unhooked("open_records")
    }

    /// [`Capability::Doctor`]: the operator's side of the store.
    fn admin(&self) -> Arc<dyn StoreAdmin> {
        unhooked("admin")
    }

    /// [`Capability::FencedTx`]: begins a transaction of the user's own on the store, guarded by
    /// this grant. Where the store bounds such transactions, the hook ends it at the bound.
    ///
    /// # Errors
    /// The grant isn't in force.
    fn begin_guarded(
        &self,
        namespace: &Namespace,
        grant: &GuardedBy,
    ) -> Result<Box<dyn GuardedTransaction>, Error> {
        let _ = (namespace, grant);
        unhooked("begin_guarded")
    }

    /// [`Capability::FencedTx`]: what guarded transactions have written and committed last.
    fn read_guarded(&self) -> Option<String> {
        unhooked("read_guarded")
    }
}

fn unhooked(hook: &str) -> ! {
    panic!("the harness has the capability but not its hook: implement `Harness::{hook}`")
}

/// What not every store has, or not every harness can do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// The store's clock decides expiry. The suite compares this with the profile.
    StoreClock,
    /// Contenders observe expiry. The suite compares this with the profile.
    ObservedExpiry,
    /// The store pushes hints. The suite compares this with the profile.
    Push,
    /// A guard and the lease in one transaction. The suite compares this with the profile.
    FencedTx,
    /// The store is the lease over a [`RecordStore`], whose preconditions can be tried.
    Records,
    /// The store can tell that a holder's process is dead.
    ProvesDeath,
    /// The store deletes tombstones at times.
    Purge,
    /// The store is reached through several endpoints.
    Endpoints,
    /// The store has a [`StoreAdmin`] that diagnoses it.
    Doctor,
    /// The store can be restarted without losing what it acknowledged.
    Restart,
    /// The store can be made to lose its data.
    Forget,
    /// The store can be backed up and restored.
    Restore,
    /// A record can be deleted behind the store's back.
    DeleteByHand,
    /// Writes can be counted.
    CountsWrites,
    /// A record's JSON can be read and written behind the store's back.
    RawRecords,
    /// Connections can be refused, reset and delayed.
    ConnectionFaults,
    /// Credentials can be replaced under open sessions.
    Credentials,
    /// What carries hints can be cut.
    WatchFaults,
    /// A renewal writes the record. (Elsewhere it prolongs something beside it.)
    RenewalWrites,
    /// Many holds are renewed by few requests. (Elsewhere each renewal is a request of its own, and
    /// thousands of them are bounded by the server's speed alone.)
    Batches,
    /// A name in one namespace has nothing to do with the same name in another. (Elsewhere all
    /// share it with another system, which knows no namespaces.)
    Namespaces,
}

impl Capability {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::StoreClock,
        Self::ObservedExpiry,
        Self::Push,
        Self::FencedTx,
        Self::Records,
        Self::ProvesDeath,
        Self::Purge,
        Self::Endpoints,
        Self::Doctor,
        Self::Restart,
        Self::Forget,
        Self::Restore,
        Self::DeleteByHand,
        Self::CountsWrites,
        Self::RawRecords,
        Self::ConnectionFaults,
        Self::Credentials,
        Self::WatchFaults,
        Self::RenewalWrites,
        Self::Batches,
        Self::Namespaces,
    ];
}

/// What happens to a request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionFault {
    /// Nobody listens: certainly not done.
    Refused,
    /// The connection is reset before the store has seen the request.
    ResetBefore,
    /// The connection is reset after the store has carried the request out.
    ResetAfter,
    /// The store carries the request out, and its answer never comes.
    NoAnswer,
}

/// The grant that guards a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedBy {
    /// What is held.
    pub name: Name,
    /// By whom.
    pub instance: Instance,
    /// With which token.
    pub token: FencingToken,
}

/// A transaction of the user's own that commits only while its grant is in force.
pub trait GuardedTransaction {
    /// Writes a value that [`Harness::read_guarded`] reads after the commit.
    ///
    /// # Errors
    /// The grant isn't in force any more.
    fn write(&mut self, value: &str) -> Result<(), Error>;

    /// Commits what was written.
    ///
    /// # Errors
    /// The grant isn't in force any more; nothing was written.
    fn commit(self: Box<Self>) -> Result<(), Error>;
}
