//! Contended rounds: tenure's instances and another system's race for a name that both share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenure_core::decide::{Occupancy, occupancy};
use tenure_core::identity::{FencingToken, Incarnation, Instance, Name};
use tenure_core::neighbour::holder_id;
use tenure_core::store::Acquired;

use crate::harness::Harness;
use crate::player::{Held, Player, name};

/// For how long a hold of either side lasts: much longer than anybody keeps one here.
pub const TTL: Duration = Duration::from_secs(30);
/// How many rounds are played where nobody says otherwise.
pub const ROUNDS_DEFAULT: u64 = 1000;
/// The variable that the number of rounds is read from.
pub const ROUNDS_VARIABLE: &str = "TENURE_TEST_CONTENDED_ROUNDS";
/// Each side must win one round of so many: a race that one side never runs proves nothing.
const SHARE_LEAST: u64 = 100;
/// How long it may take until somebody wins the next round.
const ROUND_MOST: Duration = Duration::from_secs(30);

/// One process of the other system, with a connection of its own, that sends its exact
/// statements. It panics where the store fails it.
pub trait Neighbour: Send {
    /// Acquires or renews: whether `holder` holds `name` now.
    fn acquire(&mut self, name: &str, holder: &str, ttl: Duration) -> bool;

    /// Gives back what `holder` holds.
    fn release(&mut self, name: &str, holder: &str);

    /// Who holds `name` by the other system's own rule.
    fn holder(&mut self, name: &str) -> Option<String>;
}

/// How many of each side race, for how many rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contenders {
    /// Sessions of tenure's.
    pub ours: usize,
    /// Processes of the other system.
    pub theirs: usize,
    /// How many rounds are played.
    pub rounds: u64,
}

impl Contenders {
    /// Three of each, for as many rounds as [`ROUNDS_VARIABLE`] says, or [`ROUNDS_DEFAULT`].
    ///
    /// # Panics
    /// The variable isn't a number.
    #[must_use]
    pub fn from_env() -> Self {
        let rounds = std::env::var(ROUNDS_VARIABLE)
            .map_or(ROUNDS_DEFAULT, |rounds| rounds.parse().expect("it is a number of rounds"));
        Self { ours: 3, theirs: 3, rounds }
    }
}

/// Who won how many rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Tenure's sessions.
    pub ours: u64,
    /// The other system's processes.
    pub theirs: u64,
    /// How long all of them took.
    pub took: Duration,
}

/// Races for one name of the harness's store, each contender on a thread of its own; `connect`
/// is one process of the other system more.
///
/// Whoever acquires the name sees to it, by both sides' own rules, that nobody else holds it,
/// renews it, looks again, and gives it back. An umpire in memory trusts neither rule.
///
/// # Panics
/// There were two holders, a token that didn't follow the one before, a hold that was lost
/// though no ttl had run out, a side that won next to no round, or no winner for half a minute.
pub fn race<N: Neighbour>(
    harness: &dyn Harness,
    connect: impl Fn() -> N + Sync,
    contenders: Contenders,
) -> Tally {
    let begun = Instant::now();
    let umpire = Umpire::new(contenders.rounds);
    std::thread::scope(|scope| {
        let (umpire, connect) = (&umpire, &connect);
        let ours = (0..contenders.ours)
            .map(|number| scope.spawn(move || race_ours(umpire, harness, number, connect())));
        let ours: Vec<_> = ours.collect();
        let theirs = (0..contenders.theirs)
            .map(|number| scope.spawn(move || race_theirs(umpire, harness, number, connect())));
        let theirs: Vec<_> = theirs.collect();
        for contender in ours.into_iter().chain(theirs) {
            if let Err(panic) = contender.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let (ours, theirs) = (umpire.ours.won(), umpire.theirs.won());
    let tally = Tally { ours, theirs, took: begun.elapsed() };
    let least = (contenders.rounds / SHARE_LEAST).max(1);
    assert!(ours >= least && theirs >= least, "one side hardly won a round: {tally:?}");
    tally
}

/// A session of tenure's, which also looks with a neighbour's eyes.
fn race_ours(umpire: &Umpire, harness: &dyn Harness, number: usize, mut eyes: impl Neighbour) {
    let _whistle = Whistle(umpire);
    let player = Player::new(harness, &format!("tenure-{number}"));
    let me = holder_id(&player.instance);
    while umpire.goes_on() {
        let acquired = acquire(&player, &umpire.name);
        umpire.ours.tried();
        let Some(mut held) = acquired else { continue };
        umpire.enters(&me);
        umpire.follows(held.token);
        umpire.sees_only(&me, &player, &mut eyes);
        player.keeps(&mut held);
        umpire.sees_only(&me, &player, &mut eyes);
        umpire.leaves(&me, &umpire.ours);
        player.release(&held);
        umpire.lets_try(&umpire.theirs);
    }
}

fn acquire(player: &Player<'_>, name: &Name) -> Option<Held> {
    let mut claim = player.claim(name);
    claim.ttl = TTL;
    let sent = player.harness.now();
    match player.ask_patiently(&claim) {
        Acquired::Granted(grant) => Some(player.held(&claim, grant, sent)),
        Acquired::Refused(_) => None,
        other => panic!("neither granted nor refused: {other:?}"),
    }
}

/// A process of the other system, which also looks with a session's eyes.
fn race_theirs(umpire: &Umpire, harness: &dyn Harness, number: usize, mut peer: impl Neighbour) {
    let _whistle = Whistle(umpire);
    let player = Player::new(harness, "onlooker");
    let (me, name) = (format!("neighbour-{number}"), umpire.name.as_str());
    while umpire.goes_on() {
        let acquired = peer.acquire(name, &me, TTL);
        umpire.theirs.tried();
        if !acquired {
            continue;
        }
        umpire.enters(&me);
        umpire.sees_only(&me, &player, &mut peer);
        assert!(peer.acquire(name, &me, TTL), "{me} could not renew what it held");
        umpire.sees_only(&me, &player, &mut peer);
        umpire.leaves(&me, &umpire.theirs);
        peer.release(name, &me);
        umpire.lets_try(&umpire.ours);
    }
}

/// What the contenders share beside the store.
struct Umpire {
    name: Name,
    rounds: u64,
    holder: Mutex<Option<String>>,
    newest: Mutex<Option<FencingToken>>,
    ours: Side,
    theirs: Side,
    /// When a round was won last.
    won_at: Mutex<Instant>,
    over: AtomicBool,
}

/// Ends the race for all when one contender's thread ends, be it by a panic.
struct Whistle<'u>(&'u Umpire);

impl Drop for Whistle<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

/// How often a side has tried, and how often it has won.
#[derive(Default)]
struct Side {
    tries: AtomicU64,
    wins: AtomicU64,
}

impl Side {
    fn tried(&self) {
        self.tries.fetch_add(1, Ordering::SeqCst);
    }

    fn won(&self) -> u64 {
        self.wins.load(Ordering::SeqCst)
    }
}

impl Umpire {
    fn new(rounds: u64) -> Self {
        Self {
            name: name("contended"),
            rounds,
            holder: Mutex::default(),
            newest: Mutex::default(),
            ours: Side::default(),
            theirs: Side::default(),
            won_at: Mutex::new(Instant::now()),
            over: AtomicBool::new(false),
        }
    }

    fn goes_on(&self) -> bool {
        let won = self.ours.won() + self.theirs.won();
        if won >= self.rounds || self.over.load(Ordering::SeqCst) {
            return false;
        }
        assert!(locked(&self.won_at).elapsed() < ROUND_MOST, "nobody wins round {}", won + 1);
        // Whoever has just lost shall not keep the machine from the one who holds.
        std::thread::yield_now();
        true
    }

    /// Whoever has won tries again only after the other side has: else the first thread that is
    /// scheduled wins every round. A try counts when it is over, so that two winners never wait
    /// for each other.
    fn lets_try(&self, other: &Side) {
        let before = other.tries.load(Ordering::SeqCst);
        while other.tries.load(Ordering::SeqCst) == before && self.goes_on() {}
    }

    fn enters(&self, me: &str) {
        let before = locked(&self.holder).replace(me.to_owned());
        assert_eq!(before, None, "two holders: {me} acquired what was held");
        *locked(&self.won_at) = Instant::now();
    }

    fn leaves(&self, me: &str, side: &Side) {
        let before = locked(&self.holder).take();
        assert_eq!(before.as_deref(), Some(me), "two holders: another took what {me} held");
        side.wins.fetch_add(1, Ordering::SeqCst);
    }

    fn follows(&self, token: FencingToken) {
        let before = locked(&self.newest).replace(token);
        assert!(before < Some(token), "token {token} follows {before:?}");
    }

    /// Nobody but `me` holds the name, by either side's own rule.
    fn sees_only(&self, me: &str, player: &Player<'_>, eyes: &mut impl Neighbour) {
        let theirs = eyes.holder(self.name.as_str());
        assert_eq!(theirs.as_deref(), Some(me), "two holders, by the neighbour's rule");
        let seen = player.read(&self.name);
        let is_mine = seen.as_ref().is_some_and(|seen| {
            let holder = &seen.record.holder;
            occupancy(seen, &stranger()) != Occupancy::Free
                && (holder.name().as_str() == me || holder_id(holder) == me)
        });
        assert!(is_mine, "two holders: {me}, and by tenure's rule another, or none: {seen:?}");
    }
}

/// Somebody for whom no name is reserved.
fn stranger() -> Instance {
    Instance::new(name("stranger"), Incarnation::from_u128(u128::MAX))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
