//! One instance as the suite plays it: a session, its identity, and what it asks of the store.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::{Instant, Timestamp};
use tenure_core::decide::{Occupancy, occupancy};
use tenure_core::error::Error;
use tenure_core::identity::{
    ClaimId, FencingToken, Incarnation, Instance, Name, Namespace, Nonce, StoreId,
};
use tenure_core::record::{Demand, Metadata, Order};
use tenure_core::store::{
    Acquired, Answer, Claim, Grant, Hold, OrderRequest, Ordered, Release, Released, Renewed,
    Reserved, Snapshot, Store, Version,
};

use crate::drive;
use crate::harness::Harness;

/// How often a request that failed transiently is repeated.
const ATTEMPTS_MAX: usize = 1000;

/// One instance: a session of its own, and an identity.
pub struct Player<'h> {
    /// The store that it plays on.
    pub harness: &'h dyn Harness,
    /// Its session.
    pub store: Arc<dyn Store>,
    /// Who it is.
    pub instance: Instance,
    chance: Mutex<Chance>,
}

/// What a player holds.
#[derive(Clone, Debug)]
pub struct Held {
    /// What is held.
    pub name: Name,
    /// By whom.
    pub instance: Instance,
    /// By which claim.
    pub claim: ClaimId,
    /// With which token.
    pub token: FencingToken,
    /// For how long from each renewal.
    pub ttl: Duration,
    /// Until when the name stays taken at least.
    pub min_hold_until: Instant,
    /// The version last seen.
    pub version: Version,
    /// Granted by which store.
    pub store: StoreId,
    /// When the last confirmed claim or renewal was sent.
    pub confirmed: Instant,
}

impl Held {
    /// Asserts that this grant came after `before`, with a larger token.
    #[track_caller]
    pub fn follows(&self, before: &Self) {
        assert!(
            self.token > before.token,
            "token {} of `{}` follows {}: a guard would let the former holder pass",
            self.token,
            self.name,
            before.token
        );
    }
}

/// The namespace that the suite plays in.
#[must_use]
pub fn namespace() -> Namespace {
    Namespace::new("conformance").expect("it is a namespace")
}

/// A name that is known to be valid.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("the suite's own names are valid")
}

/// Another chance each time, also among processes that share one server.
fn fresh_chance() -> Chance {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let number = DRAWN.fetch_add(1, Ordering::Relaxed);
    // The standard library seeds each of these from the operating system.
    Chance::from_state(std::array::from_fn(|_| RandomState::new().hash_one(number)))
}

impl<'h> Player<'h> {
    /// A new instance with a session of its own, in the suite's namespace.
    #[must_use]
    pub fn new(harness: &'h dyn Harness, text: &str) -> Self {
        Self::on(harness, text, harness.open(&namespace()))
    }

    /// Two instances.
    #[must_use]
    pub fn two(harness: &'h dyn Harness) -> (Self, Self) {
        (Self::new(harness, "a"), Self::new(harness, "b"))
    }

    /// A new instance on a session that is open already.
    #[must_use]
    pub fn on(harness: &'h dyn Harness, text: &str, store: Arc<dyn Store>) -> Self {
        let mut chance = fresh_chance();
        let instance = Instance::new(name(text), Incarnation::draw(&mut chance));
        Self { harness, store, instance, chance: Mutex::new(chance) }
    }

    /// Runs one answer of the store to its end.
    pub fn run<T: Send>(&self, answer: Answer<'_, T>) -> Result<T, Error> {
        drive::run(self.harness, answer)
    }

    /// A nonce, another each time.
    pub fn nonce(&self) -> Nonce {
        Nonce::draw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new claim of a name, for the harness's ttl.
    #[must_use]
    pub fn claim(&self, name: &Name) -> Claim {
        let id = ClaimId::draw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner));
        Claim {
            name: name.clone(),
            instance: self.instance.clone(),
            id,
            nonce: self.nonce(),
            ttl: self.harness.ttl(),
            min_hold: Duration::ZERO,
            metadata: Metadata::new(),
            bound_to: None,
            at: Timestamp::from_millis(1_767_225_600_000),
            unanswered_for: Duration::ZERO,
            watched: None,
            above: None,
            ends_with_process: true,
        }
    }

    /// Sends a claim; a failure of the whole batch is the item's failure.
    pub fn ask(&self, claim: &Claim) -> Acquired {
        match self.run(self.store.acquire(std::slice::from_ref(claim))) {
            Ok(answers) => only("acquire", answers),
            Err(error) => Acquired::Failed(error),
        }
    }

    /// Sends a claim, and repeats it while it fails transiently, as every loop does.
    pub fn ask_patiently(&self, claim: &Claim) -> Acquired {
        let mut claim = claim.clone();
        let sent = self.harness.now();
        for _ in 1..ATTEMPTS_MAX {
            match self.ask(&claim) {
                Acquired::Failed(error) if error.kind().is_transient() => std::thread::yield_now(),
                answer => return answer,
            }
            claim.unanswered_for = self.harness.now().since(sent);
        }
        self.ask(&claim)
    }

    /// What `claim`, sent at `sent`, granted.
    #[must_use]
    pub fn held(&self, claim: &Claim, grant: Grant, sent: Instant) -> Held {
        Held {
            name: claim.name.clone(),
            instance: claim.instance.clone(),
            claim: claim.id,
            token: grant.token,
            ttl: claim.ttl,
            min_hold_until: sent + claim.min_hold,
            version: grant.version,
            store: grant.store,
            confirmed: sent,
        }
    }

    /// Sends a claim that must be granted.
    #[track_caller]
    pub fn acquire_by(&self, claim: &Claim) -> Held {
        let sent = self.harness.now();
        match self.ask_patiently(claim) {
            Acquired::Granted(grant) => self.held(claim, grant, sent),
            other => panic!("{} should be granted `{}`: {other:?}", self.instance, claim.name),
        }
    }

    /// Acquires a name that must be free.
    #[track_caller]
    pub fn acquire(&self, name: &Name) -> Held {
        self.acquire_by(&self.claim(name))
    }

    /// Claims a name that must be refused.
    #[track_caller]
    pub fn is_refused(&self, name: &Name) -> Snapshot {
        self.refused_by(&self.claim(name))
    }

    /// Sends a claim that must be refused.
    #[track_caller]
    pub fn refused_by(&self, claim: &Claim) -> Snapshot {
        match self.ask_patiently(claim) {
            Acquired::Refused(by) => *by,
            other => panic!("{} should be refused `{}`: {other:?}", self.instance, claim.name),
        }
    }

    /// Acquires a name as soon as it can be had: the contender's whole path. It reads, lets time
    /// pass until the store (or, without a clock, its own watching) says that the name is free,
    /// and claims.
    #[track_caller]
    pub fn take_over(&self, name: &Name) -> Held {
        self.take_over_by(self.claim(name))
    }

    /// As [`take_over`](Self::take_over), by a claim that was made already.
    #[track_caller]
    pub fn take_over_by(&self, mut claim: Claim) -> Held {
        if let Some(seen) = self.read(&claim.name) {
            match occupancy(&seen, &self.instance) {
                Occupancy::Free => {}
                Occupancy::Left(left) => {
                    self.pass(left + self.store.profile().detection);
                }
                Occupancy::Watch(lasts) => {
                    self.pass(lasts);
                    claim.watched = Some(seen.version);
                }
            }
        }
        self.acquire_by(&claim)
    }

    /// Lets at least so much time pass.
    pub fn pass(&self, by: Duration) {
        self.harness.advance(by + self.harness.slack());
    }

    /// The renewal of what is held.
    #[must_use]
    pub fn renewal(&self, held: &Held) -> Hold {
        let now = self.harness.now();
        Hold {
            name: held.name.clone(),
            instance: held.instance.clone(),
            claim: held.claim,
            token: held.token,
            ttl: held.ttl,
            not_before: held.min_hold_until.since(now),
            version: held.version.clone(),
            nonce: self.nonce(),
            unconfirmed_for: now.since(held.confirmed),
        }
    }

    /// Sends a renewal, and keeps what its answer says.
    pub fn renew(&self, held: &mut Held) -> Renewed {
        let sent = self.harness.now();
        let renewed = self.send_renewal(&self.renewal(held));
        if let Renewed::Renewed(version) | Renewed::Asked(version, _) = &renewed {
            held.version = version.clone();
            held.confirmed = sent;
        }
        renewed
    }

    /// Sends one renewal; a failure of the whole batch is the item's failure.
    pub fn send_renewal(&self, hold: &Hold) -> Renewed {
        match self.run(self.store.renew(std::slice::from_ref(hold))) {
            Ok(answers) => only("renew", answers),
            Err(error) => Renewed::Failed(error),
        }
    }

    /// Renews what must be held still.
    #[track_caller]
    pub fn keeps(&self, held: &mut Held) {
        for _ in 1..ATTEMPTS_MAX {
            match self.renew(held) {
                Renewed::Renewed(_) => return,
                Renewed::Failed(error) if error.kind().is_transient() => std::thread::yield_now(),
                other => panic!("{} should still hold `{}`: {other:?}", self.instance, held.name),
            }
        }
        panic!("`{}` could not be renewed in {ATTEMPTS_MAX} attempts", held.name);
    }

    /// Renews what must be lost, and returns what stands there instead.
    #[track_caller]
    pub fn has_lost(&self, held: &Held) -> Option<Snapshot> {
        match self.renew(&mut held.clone()) {
            Renewed::NotHeld(by) => by.map(|by| *by),
            other => panic!("{} should have lost `{}`: {other:?}", self.instance, held.name),
        }
    }

    /// The release of what is held.
    #[must_use]
    pub fn release_of(&self, held: &Held) -> Release {
        Release {
            name: held.name.clone(),
            instance: held.instance.clone(),
            claim: held.claim,
            token: held.token,
            version: held.version.clone(),
            nonce: self.nonce(),
            successor: None,
            why: "its work is done".to_owned(),
            at: Timestamp::from_millis(1_767_225_600_000),
        }
    }

    /// Sends one release; a failure of the whole batch is the item's failure.
    pub fn send_release(&self, release: &Release) -> Released {
        match self.run(self.store.release(std::slice::from_ref(release))) {
            Ok(answers) => only("release", answers),
            Err(error) => Released::Failed(error),
        }
    }

    /// Gives back what must be held, or at least not taken.
    #[track_caller]
    pub fn release(&self, held: &Held) -> Version {
        self.released_by(&self.release_of(held))
    }

    /// Gives back in favour of somebody.
    #[track_caller]
    pub fn transfer(&self, held: &Held, reserved: Reserved) -> Version {
        self.released_by(&Release { successor: Some(reserved), ..self.release_of(held) })
    }

    /// Sends a release that must succeed.
    #[track_caller]
    pub fn released_by(&self, release: &Release) -> Version {
        match self.send_release(release) {
            Released::Released(version) => version,
            other => panic!("{} should give `{}` back: {other:?}", self.instance, release.name),
        }
    }

    /// Releases what isn't held, and returns what stands there instead.
    #[track_caller]
    pub fn releases_in_vain(&self, held: &Held) -> Option<Snapshot> {
        match self.send_release(&self.release_of(held)) {
            Released::NotHeld(by) => by.map(|by| *by),
            other => panic!("{} doesn't hold `{}`: {other:?}", self.instance, held.name),
        }
    }

    /// Reads one record.
    #[track_caller]
    pub fn read(&self, name: &Name) -> Option<Snapshot> {
        match self.run(self.store.read(std::slice::from_ref(name))) {
            Ok(answers) => only("read", answers),
            Err(error) => panic!("`{name}` should be readable: {error:?}"),
        }
    }

    /// Reads one record that must be there.
    #[track_caller]
    pub fn sees(&self, name: &Name) -> Snapshot {
        self.read(name).unwrap_or_else(|| panic!("`{name}` should have a record"))
    }

    /// Gives an order, as an operator.
    pub fn order(&self, name: &Name, demand: Demand, token: Option<FencingToken>) -> Ordered {
        let at = Timestamp::from_millis(1_767_225_600_000);
        let order = Order::new(demand, "an operator", "the suite says so", at);
        let request = OrderRequest { order, token, nonce: self.nonce() };
        match self.run(self.store.order(name, &request)) {
            Ok(ordered) => ordered,
            Err(error) => Ordered::Failed(error),
        }
    }

    /// Gives an order that must be taken.
    #[track_caller]
    pub fn orders(&self, name: &Name, demand: Demand) -> Snapshot {
        match self.order(name, demand.clone(), None) {
            Ordered::Ordered(marked) => *marked,
            other => panic!("{demand:?} of `{name}` should be taken: {other:?}"),
        }
    }
}

/// The one answer to a batch of one.
fn only<T>(operation: &str, mut answers: Vec<T>) -> T {
    assert_eq!(answers.len(), 1, "{operation} answers a batch of one with one answer");
    answers.remove(0)
}
