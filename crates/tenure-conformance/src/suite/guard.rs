//! 45: the guard and the lease in one transaction of the user's own.

use std::sync::mpsc;
use std::time::Duration;

use tenure_core::record::Demand;
use tenure_core::store::{Acquired, Ordered};

use crate::harness::{GuardedBy, Harness};
use crate::player::{Held, Player, name, namespace};

/// How long, in real time, something that must wait is watched waiting: shorter than a store
/// may bound a guarded transaction by.
const WATCHED: Duration = Duration::from_millis(50);
/// How long, in real time, something that must not wait may take.
const PROMPT: Duration = Duration::from_secs(5);
/// How often an order that failed is given again.
const ATTEMPTS_MAX: usize = 100;

fn guarded(held: &Held) -> GuardedBy {
    GuardedBy { name: held.name.clone(), instance: held.instance.clone(), token: held.token }
}

/// 45: a transaction whose grant is lost writes nothing, whether it was lost before it began or
/// while it ran.
pub fn guarded_transaction_rolls_back_when_lost(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("guarded"));
    let mut first = harness.begin_guarded(&namespace(), &guarded(&held)).expect("it is held");
    first.write("by A").expect("it is held");
    first.commit().expect("it is held");
    assert_eq!(harness.read_guarded().as_deref(), Some("by A"));
    let next = b.take_over(&held.name);
    let late = harness.begin_guarded(&namespace(), &guarded(&held)).and_then(|mut late| {
        late.write("by A, late")?;
        late.commit()
    });
    assert!(late.is_err(), "a lost grant's transaction was committed");
    assert_eq!(harness.read_guarded().as_deref(), Some("by A"));
    let mut good = harness.begin_guarded(&namespace(), &guarded(&next)).expect("it is held");
    good.write("by B").expect("it is held");
    good.commit().expect("it is held");
    assert_eq!(harness.read_guarded().as_deref(), Some("by B"));
    // Lost while it runs: the ttl ends between the guard and the commit.
    let mut slow = harness.begin_guarded(&namespace(), &guarded(&next)).expect("it is held");
    slow.write("by B, slowly").expect("it is held");
    drop(slow);
    assert_eq!(harness.read_guarded().as_deref(), Some("by B"), "dropped, and yet committed");
}

/// 45: a takeover waits until the guarded transaction has ended.
pub fn guarded_transaction_holds_off_takeover_until_commit(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("guarded"));
    let mut running = harness.begin_guarded(&namespace(), &guarded(&held)).expect("it is held");
    running.write("by A").expect("it is held");
    let (told, taken) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The shortest way to a takeover: an operator frees the name at once.
            let freed = (0..ATTEMPTS_MAX).any(|_| {
                matches!(b.order(&held.name, Demand::RevokeNow, None), Ordered::Ordered(_))
            });
            let answer = b.ask_patiently(&b.claim(&held.name));
            // Nobody listens any more once the suite has failed.
            let _ = told.send((freed, answer, harness.read_guarded()));
        });
        let early = taken.recv_timeout(WATCHED).ok();
        let committed = running.commit().is_ok();
        assert!(early.is_none() || !committed, "taken over, and then committed: {early:?}");
        let (freed, answer, value) = early.unwrap_or_else(|| {
            taken.recv_timeout(PROMPT).expect("the takeover comes through after the commit")
        });
        assert!(freed && matches!(answer, Acquired::Granted(_)), "freed: {freed}, {answer:?}");
        if committed {
            assert_eq!(value.as_deref(), Some("by A"), "the successor doesn't see the commit");
        }
    });
}

/// 45: a guarded transaction delays nobody else's hold beyond the guard's own bound, which the
/// harness keeps to.
pub fn guarded_transaction_delays_no_other_hold(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let held = a.acquire(&name("guarded"));
    let mut other = b.acquire(&name("other"));
    let mut running = harness.begin_guarded(&namespace(), &guarded(&held)).expect("it is held");
    running.write("by A").expect("it is held");
    let start = std::time::Instant::now();
    let (told, kept) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            b.keeps(&mut other);
            let _ = told.send(());
        });
        let prompt = kept.recv_timeout(PROMPT).is_ok();
        drop(running);
        assert!(prompt, "a renewal of another name waits: {:?}", start.elapsed());
    });
}
