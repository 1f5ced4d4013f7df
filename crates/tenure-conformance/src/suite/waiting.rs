//! 63–66, 68–69, 81: waiting costs the store little, and hints are only hints.

use std::time::Duration;

use tenure_core::record::Demand;
use tenure_core::store::{Acquired, Hints, Prefix, Query, Renewed, Store};

use crate::drive;
use crate::harness::Harness;
use crate::player::{Player, name};
use crate::suite::basics::taken_for;

/// How long, in real time, a hint may take to arrive.
const HINT_MAX: Duration = Duration::from_secs(5);
/// How often it is asked whether something is as it should be.
const LOOKS_MAX: usize = 500;

#[track_caller]
fn listen(player: &Player<'_>, prefix: &Prefix) -> Hints {
    player
        .run(player.store.watch(prefix))
        .expect("a watch")
        .expect("the profile says that the store pushes")
}

/// Whether a hint comes in time. An error says that hints were lost, which is a hint, too.
fn hinted(player: &Player<'_>, hints: &mut Hints) -> bool {
    drive::run_for(player.harness, HINT_MAX, hints.next()).is_some()
}

/// 63: a release, a transfer and an order wake whoever listens, in another session as well.
pub fn wakes_on_release(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("job/1"));
    for prefix in [Prefix::from(&held.name), Prefix::new("job/"), Prefix::all()] {
        let mut hints = listen(&b, &prefix);
        let held = a.take_over(&held.name);
        assert!(hinted(&b, &mut hints), "a grant gave no hint under {prefix:?}");
        b.orders(&held.name, Demand::Resign { to: None });
        assert!(hinted(&b, &mut hints), "an order gave no hint under {prefix:?}");
        a.release(&held);
        assert!(hinted(&b, &mut hints), "a release gave no hint under {prefix:?}");
    }
    let mut late = listen(&b, &Prefix::from(&held.name));
    let held = b.acquire(&held.name);
    b.release(&held);
    // Changes that came before anybody asked are not lost.
    assert!(hinted(&b, &mut late), "a hint that came before it was waited for was lost");
}

/// 64: a waiter is told when to come back, and however often it comes, it writes nothing.
pub fn wakes_on_expiry_without_polling_storm(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("job"));
    let before = harness.writes();
    let first = b.is_refused(&held.name);
    for _ in 0..100 {
        b.is_refused(&held.name);
        b.sees(&held.name);
    }
    assert_eq!(harness.writes(), before, "waiting wrote to the store");
    b.pass(taken_for(&b, &first) + b.store.profile().detection);
    // One look at the told time is enough.
    let mut claim = b.claim(&held.name);
    claim.watched = Some(first.version);
    b.acquire_by(&claim);
}

/// 65: whoever hears no hint learns everything by its next poll, and the profile says when
/// that is.
pub fn lost_event_is_healed(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let every = b.store.profile().wake.poll();
    assert!(!every.is_zero() && every <= Duration::from_secs(60), "a poll each {every:?}");
    let deaf = b.run(b.store.watch(&Prefix::all())).expect("a watch or none");
    let held = a.acquire(&name("job"));
    b.is_refused(&held.name);
    a.release(&held);
    b.acquire(&held.name);
    drop(deaf);
}

/// 66: a hundred claims after one release make few writes. (That they don't all come at once is
/// the session's part: jitter.)
pub fn no_herd(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let waiters: Vec<_> = (0..10).map(|n| Player::new(harness, &format!("w{n}"))).collect();
    let held = a.acquire(&name("job"));
    a.release(&held);
    let before = harness.writes();
    let mut granted = 0;
    for round in 0..100 {
        let waiter = &waiters[round % waiters.len()];
        match waiter.ask_patiently(&waiter.claim(&held.name)) {
            Acquired::Granted(_) => granted += 1,
            Acquired::Refused(_) => {}
            other => panic!("a waiter was told {other:?}"),
        }
    }
    let writes = harness.writes() - before;
    assert_eq!(granted, 1);
    assert!(writes <= 4, "one release and a hundred waiters made {writes} writes");
}

/// 68: credentials are replaced while somebody waits and somebody holds; neither stops.
pub fn credentials_rotate_while_waiting(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut held = a.acquire(&name("job"));
    b.is_refused(&held.name);
    harness.rotate_credentials();
    let renewed = (0..LOOKS_MAX).any(|_| match a.renew(&mut held) {
        Renewed::Renewed(_) => true,
        Renewed::Failed(_) => {
            std::thread::sleep(Duration::from_millis(10));
            false
        }
        other => panic!("the holder was told {other:?}"),
    });
    assert!(renewed, "the holder never came through with its new credentials");
    b.is_refused(&held.name);
    a.release(&held);
    b.acquire(&held.name);
}

/// 69: a watch that was cut ends with an error or a hint, and one begun anew works.
pub fn watch_resumes_after_reconnect_and_compaction(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let prefix = Prefix::new("job/");
    let mut hints = listen(&b, &prefix);
    let held = a.acquire(&name("job/1"));
    assert!(hinted(&b, &mut hints), "a grant gave no hint");
    harness.cut_watches();
    a.release(&held);
    assert!(hinted(&b, &mut hints), "a cut watch stays silent: neither a hint nor an error");
    let mut anew = listen(&b, &prefix);
    let held = a.acquire(&held.name);
    assert!(hinted(&b, &mut anew), "a watch begun anew gives no hint");
    a.release(&held);
}

/// 81: an observer that reads, lists and watches writes nothing.
pub fn observer_never_writes(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let mut held = a.acquire(&name("job"));
    a.keeps(&mut held);
    // Opening may write the store's id, where there was none; looking may not.
    let observer = Player::new(harness, "observer");
    let before = harness.writes();
    let hints = observer.run(observer.store.watch(&Prefix::all())).expect("a watch or none");
    for text in ["job", "nothing"] {
        observer.read(&name(text));
    }
    let store: &dyn Store = &*observer.store;
    observer.run(store.list(&Query::new(Prefix::all()), None)).expect("a page");
    drop(hints);
    observer.run(store.close()).expect("closing");
    assert_eq!(harness.writes(), before, "an observer wrote to the store");
    a.keeps(&mut held);
}
