//! 21–24, 26, 40: many at once, and exactly one wins.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tenure_core::ErrorKind;
use tenure_core::identity::{FencingToken, Name};
use tenure_core::store::{Acquired, Claim, Released, Renewed, Version};

use crate::harness::Harness;
use crate::player::{Held, Player, name, namespace};
use crate::suite::basics::is_held_as;

/// How many contend at once.
const CONTENDERS: usize = 64;
/// How often they do.
const ROUNDS: usize = 200;
/// How many grants 40 asks for.
const GRANTS: usize = 10_000;

/// Lets all players act at once, each on a thread of its own, once a round. What they return is
/// judged afterwards: a panic in between would leave the others waiting.
fn race<T: Send>(
    players: &[Player<'_>],
    rounds: usize,
    act: impl Fn(&Player<'_>, usize) -> T + Sync,
) -> Vec<Vec<T>> {
    let start = Barrier::new(players.len());
    let run = |player| {
        let (mut outcomes, mut panic) = (Vec::with_capacity(rounds), None);
        for round in 0..rounds {
            start.wait();
            // Whoever has panicked comes to each start all the same: the others wait for it.
            if panic.is_none() {
                match catch_unwind(AssertUnwindSafe(|| act(player, round))) {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(why) => panic = Some(why),
                }
            }
        }
        panic.map_or(outcomes, |why| resume_unwind(why))
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = players.iter().map(|player| scope.spawn(|| run(player))).collect();
        running.into_iter().map(|thread| thread.join().expect("contenders don't panic")).collect()
    })
}

/// Judges a race for names: exactly one wins each, and the losers are told of it.
fn one_winner_each(players: &[Player<'_>], names: &[Name], outcomes: &[Vec<(Claim, Acquired)>]) {
    for (round, name) in names.iter().enumerate() {
        let answers: Vec<_> = outcomes.iter().map(|of_one| &of_one[round]).collect();
        let granted: Vec<_> = answers
            .iter()
            .filter_map(|(claim, answer)| match answer {
                Acquired::Granted(grant) => Some((claim, grant)),
                _ => None,
            })
            .collect();
        assert_eq!(granted.len(), 1, "`{name}` was granted {} times: {granted:?}", granted.len());
        let (claim, grant) = granted[0];
        let seen = players[0].sees(name);
        assert_eq!(seen.record.claim, claim.id, "`{name}`: the record names another winner");
        assert_eq!(seen.record.token, grant.token, "`{name}`: the record has another token");
        for (_, answer) in answers {
            match answer {
                Acquired::Granted(_) => {}
                Acquired::Refused(by) => assert_eq!(by.record.claim, claim.id, "`{name}`"),
                other => panic!("`{name}`: a contender was told {other:?}"),
            }
        }
    }
}

fn numbered(prefix: &str, count: usize) -> Vec<Name> {
    (0..count).map(|n| name(&format!("{prefix} {n}"))).collect()
}

/// How often they do here.
fn rounds(harness: &dyn Harness) -> usize {
    (ROUNDS / harness.thrift()).max(1)
}

fn contenders<'h>(harness: &'h dyn Harness, count: usize) -> Vec<Player<'h>> {
    (0..count).map(|n| Player::new(harness, &format!("p{n}"))).collect()
}

/// Each claims each name once, at the same time as all others.
fn claim_all(players: &[Player<'_>], names: &[Name]) {
    let outcomes = race(players, names.len(), |player, round| {
        let claim = player.claim(&names[round]);
        let answer = player.ask_patiently(&claim);
        (claim, answer)
    });
    one_winner_each(players, names, &outcomes);
}

/// 21: 64 claim a free name at once, and one is granted it; 200 times.
pub fn one_winner_of_64(harness: &dyn Harness) {
    claim_all(&contenders(harness, CONTENDERS), &numbered("free", rounds(harness)));
}

/// 22: 64 claim an expired name at once, and one takes it over; 200 times.
pub fn one_winner_of_64_on_expired(harness: &dyn Harness) {
    let players = contenders(harness, CONTENDERS);
    let names = numbered("expired", rounds(harness));
    let dead = Player::new(harness, "dead");
    let held: Vec<Held> = names.iter().map(|name| dead.acquire(name)).collect();
    // All watch the same versions, as contenders of a store without a clock do.
    let ttl = held.iter().map(|held| held.ttl).max().unwrap_or_default();
    dead.pass(tenure_core::timing::observed(ttl) + dead.store.profile().detection);
    let outcomes = race(&players, names.len(), |player, round| {
        let claim = watching(player, &held[round].name, &held[round].version);
        let answer = player.ask_patiently(&claim);
        (claim, answer)
    });
    one_winner_each(&players, &names, &outcomes);
    for (held, name) in held.iter().zip(&names) {
        assert!(dead.sees(name).record.token > held.token, "`{name}`: the token didn't grow");
    }
}

fn watching(player: &Player<'_>, name: &Name, version: &Version) -> Claim {
    let mut claim = player.claim(name);
    claim.watched = Some(version.clone());
    claim
}

/// 23: the same through different endpoints of one cluster.
pub fn one_winner_across_endpoints(harness: &dyn Harness) {
    let players: Vec<_> = (0..16)
        .map(|n| {
            let store = harness.open_at(n % 2, &namespace());
            Player::on(harness, &format!("p{n}"), store)
        })
        .collect();
    claim_all(&players, &numbered("endpoints", rounds(harness)));
}

/// 24: a takeover races with a renewal: exactly one wins, and the loser learns it.
pub fn takeover_against_renewal(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let names = numbered("contested", rounds(harness));
    let held: Vec<Held> = names.iter().map(|name| a.acquire(name)).collect();
    let ttl = harness.ttl();
    a.pass(tenure_core::timing::observed(ttl) + a.store.profile().detection);
    for held in &held {
        let mut renewal = a.renewal(held);
        // The holder's clock stood still: only the store keeps the two apart.
        renewal.unconfirmed_for = Duration::ZERO;
        let claim = watching(&b, &held.name, &held.version);
        let start = Barrier::new(2);
        let (renewed, acquired) = std::thread::scope(|scope| {
            let renewing = scope.spawn(|| {
                start.wait();
                a.send_renewal(&renewal)
            });
            start.wait();
            let acquired = b.ask_patiently(&claim);
            (renewing.join().expect("a renewal doesn't panic"), acquired)
        });
        let seen = a.sees(&held.name).record;
        match (&renewed, &acquired) {
            (Renewed::Renewed(_), Acquired::Refused(by)) => {
                assert_eq!(by.record.token, held.token, "refused by whom?");
                assert_eq!(seen.token, held.token, "renewed, and yet taken over");
            }
            (Renewed::NotHeld(_), Acquired::Granted(grant)) => {
                assert_eq!(seen.token, grant.token, "granted, and yet another's");
                assert!(grant.token > held.token, "the token didn't grow");
            }
            both => panic!("`{}` came to {both:?}", held.name),
        }
    }
}

/// 26: a late release races with a takeover: the takeover stands.
pub fn release_against_takeover(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let names = numbered("given up", rounds(harness));
    let held: Vec<Held> = names.iter().map(|name| a.acquire(name)).collect();
    a.pass(tenure_core::timing::observed(harness.ttl()) + a.store.profile().detection);
    for held in &held {
        let (claim, release) = (watching(&b, &held.name, &held.version), a.release_of(held));
        let start = Barrier::new(2);
        let sent = harness.now();
        let (released, acquired) = std::thread::scope(|scope| {
            let releasing = scope.spawn(|| {
                start.wait();
                a.send_release(&release)
            });
            start.wait();
            let acquired = b.ask_patiently(&claim);
            (releasing.join().expect("a release doesn't panic"), acquired)
        });
        assert!(
            matches!(released, Released::Released(_) | Released::NotHeld(_)),
            "the release was told {released:?}"
        );
        let Acquired::Granted(grant) = acquired else {
            panic!("`{}` was free, and B was told {acquired:?}", held.name);
        };
        is_held_as(&a.sees(&held.name), &b.held(&claim, grant, sent));
    }
}

/// 40: no token of a name is granted twice in 10 000 grants to 64 contenders.
pub fn unique_over_10k_grants_from_64(harness: &dyn Harness) {
    let players = contenders(harness, CONTENDERS);
    let names = numbered("shared", 32);
    let wanted = (GRANTS / harness.thrift()).max(1);
    // Names are taken in turn, so that about two contend for each: refusals prove nothing here.
    let (total, turn) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let grants = race(&players, 1, |player, _| {
        let mut granted: Vec<(Name, FencingToken)> = Vec::new();
        let mut trouble = None;
        for attempt in 0.. {
            // A bound on attempts, so that a store which grants nothing fails instead of hanging.
            if total.load(Ordering::Relaxed) >= wanted || attempt >= 2 * wanted {
                break;
            }
            let claim = player.claim(&names[turn.fetch_add(1, Ordering::Relaxed) % names.len()]);
            match player.ask_patiently(&claim) {
                Acquired::Granted(grant) => {
                    total.fetch_add(1, Ordering::Relaxed);
                    granted.push((claim.name.clone(), grant.token));
                    let held = player.held(&claim, grant, harness.now());
                    let release = player.release_of(&held);
                    let mut doubt = false;
                    let released = (0..100).any(|_| match player.send_release(&release) {
                        Released::Released(_) => true,
                        // The copy before may have been done.
                        Released::NotHeld(_) => doubt,
                        Released::Failed(error) => {
                            doubt |= error.kind() == ErrorKind::OutcomeUnknown;
                            false
                        }
                        _ => false,
                    });
                    if !released {
                        trouble = Some(format!("`{}` could not be given back", held.name));
                        break;
                    }
                }
                Acquired::Refused(_) => std::thread::yield_now(),
                other => {
                    trouble = Some(format!("a contender was told {other:?}"));
                    break;
                }
            }
        }
        (granted, trouble)
    });
    let mut seen: BTreeMap<(Name, FencingToken), usize> = BTreeMap::new();
    for (contender, (granted, trouble)) in grants.into_iter().flatten().enumerate() {
        assert!(trouble.is_none(), "{trouble:?}");
        for name in &names {
            let tokens = granted.iter().filter(|(of, _)| of == name).map(|(_, token)| token);
            assert!(tokens.is_sorted(), "`{name}`: tokens went back for one contender");
        }
        for (name, token) in granted {
            let twice = seen.insert((name.clone(), token), contender);
            assert!(twice.is_none(), "token {token} of `{name}` was granted twice");
        }
    }
    assert!(seen.len() >= wanted, "only {} grants", seen.len());
}
