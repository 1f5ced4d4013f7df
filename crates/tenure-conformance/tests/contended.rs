//! Contended rounds can fail: neighbours that share a store rightly, and others that don't.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;
mod flawed;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use common::Memory;
use flawed::{Flaw, Flawed};
use tenure_conformance::contended::{Contenders, Neighbour, race};
use tenure_conformance::harness::Harness;
use tenure_conformance::player::{Held, Player, name};
use tenure_core::decide::{Occupancy, occupancy};
use tenure_core::neighbour::holder_id;
use tenure_core::store::{Acquired, Renewed};

const RACE: Contenders = Contenders { ours: 2, theirs: 2, rounds: 400 };

/// A neighbour that shares the very records, as another system shares a store.
struct Sharing<'h> {
    harness: &'h dyn Harness,
    player: Player<'h>,
    held: Option<Held>,
}

impl<'h> Sharing<'h> {
    fn new(harness: &'h dyn Harness) -> Self {
        Self { harness, player: Player::new(harness, "nobody"), held: None }
    }
}

impl Neighbour for Sharing<'_> {
    fn acquire(&mut self, lease: &str, holder: &str, ttl: Duration) -> bool {
        if let Some(held) = &mut self.held {
            return matches!(self.player.renew(held), Renewed::Renewed(_));
        }
        self.player = Player::on(self.harness, holder, self.player.store.clone());
        let mut claim = self.player.claim(&name(lease));
        claim.ttl = ttl;
        let sent = self.harness.now();
        if let Acquired::Granted(grant) = self.player.ask(&claim) {
            self.held = Some(self.player.held(&claim, grant, sent));
        }
        self.held.is_some()
    }

    fn release(&mut self, _: &str, _: &str) {
        self.player.release(&self.held.take().unwrap());
    }

    fn holder(&mut self, lease: &str) -> Option<String> {
        let seen = self.player.read(&name(lease))?;
        let holder = &seen.record.holder;
        let ours = holder.name().as_str().starts_with("tenure-");
        (occupancy(&seen, &self.player.instance) != Occupancy::Free)
            .then(|| if ours { holder_id(holder) } else { holder.name().to_string() })
    }
}

/// A neighbour that keeps an entry of its own, and overlooks tenure's.
struct Ignoring<'e> {
    entry: &'e Mutex<Option<String>>,
}

impl Neighbour for Ignoring<'_> {
    fn acquire(&mut self, _: &str, holder: &str, _: Duration) -> bool {
        let mut entry = self.entry.lock().unwrap();
        entry.get_or_insert_with(|| holder.to_owned()) == holder
    }

    fn release(&mut self, _: &str, _: &str) {
        *self.entry.lock().unwrap() = None;
    }

    fn holder(&mut self, _: &str) -> Option<String> {
        self.entry.lock().unwrap().clone()
    }
}

/// A neighbour that never gets anything.
struct Hopeless;

impl Neighbour for Hopeless {
    fn acquire(&mut self, _: &str, _: &str, _: Duration) -> bool {
        false
    }

    fn release(&mut self, _: &str, _: &str) {}

    fn holder(&mut self, _: &str) -> Option<String> {
        None
    }
}

/// As [`Sharing`], but its word for who holds is always right, so that it never wins and never
/// complains.
struct Onlooking<'h>(Sharing<'h>);

impl Neighbour for Onlooking<'_> {
    fn acquire(&mut self, _: &str, _: &str, _: Duration) -> bool {
        false
    }

    fn release(&mut self, _: &str, _: &str) {}

    fn holder(&mut self, lease: &str) -> Option<String> {
        self.0.holder(lease)
    }
}

/// Rounds enough that a flaw which is a matter of luck appears; the race ends with it.
const UNLUCKY: u64 = 50_000;

/// Runs a race that must fail, and say so in one of these words.
fn fails<N: Neighbour>(harness: &dyn Harness, connect: impl Fn() -> N + Sync, words: &[&str]) {
    fails_within(RACE.rounds, harness, connect, words);
}

fn fails_within<N: Neighbour>(
    rounds: u64,
    harness: &dyn Harness,
    connect: impl Fn() -> N + Sync,
    words: &[&str],
) {
    let contenders = Contenders { rounds, ..RACE };
    let raced = catch_unwind(AssertUnwindSafe(|| race(harness, connect, contenders)));
    let panic = raced.expect_err("the race overlooked it");
    let said = panic.downcast_ref::<String>().expect("it says what it found");
    assert!(words.iter().any(|word| said.contains(word)), "{said}");
}

#[test]
fn a_neighbour_that_shares_the_store_passes() {
    let memory = Memory::new();
    let tally = race(&memory, || Sharing::new(&memory), RACE);
    assert!(tally.ours + tally.theirs >= RACE.rounds, "{tally:?}");
}

#[test]
fn a_neighbour_that_ignores_the_store_is_a_second_holder() {
    let entry = Mutex::default();
    fails(&Memory::new(), || Ignoring { entry: &entry }, &["two holders"]);
}

#[test]
fn a_neighbour_whose_entry_does_not_move_with_ours_is_told() {
    fails(&Memory::new(), || Hopeless, &["by the neighbour's rule"]);
}

#[test]
fn a_race_that_one_side_does_not_run_proves_nothing() {
    let memory = Memory::new();
    fails(&memory, || Onlooking(Sharing::new(&memory)), &["one side hardly won"]);
}

#[test]
fn a_store_whose_tokens_restart_is_told() {
    let flawed = Flawed::new(Flaw::TokenRestarts);
    fails(&flawed, || Sharing::new(&flawed), &["follows"]);
}

#[test]
fn a_store_that_checks_and_then_acts_is_told() {
    let flawed = Flawed::new(Flaw::TwoSteps);
    // Whoever looks first: a second holder, or the first, whose hold was overwritten.
    let words = ["two holders", "should still hold", "should give", "follows"];
    fails_within(UNLUCKY, &flawed, || Sharing::new(&flawed), &words);
}
