//! 41: a store that forgot what it had acknowledged is noticed, and life goes on.

use tenure_core::error::ErrorKind;
use tenure_core::store::{Acquired, Prefix, Query, Renewed};

use crate::harness::Harness;
use crate::player::{Held, Player, name};

/// How many answers of `StoreReset` one session may give before it believes in the new store.
const RESETS_MAX: usize = 3;

/// Asks until the answer isn't a reset any more; tells whether one was.
fn after_reset(mut ask: impl FnMut() -> Option<ErrorKind>) -> bool {
    for round in 0..=RESETS_MAX {
        match ask() {
            Some(ErrorKind::StoreReset) => {}
            Some(other) => panic!("a store that forgot answered {other}"),
            None => return round > 0,
        }
    }
    panic!("the session never went on after the reset");
}

/// 41: a store that was wiped says so to each session once: holds are lost, and the next grant
/// has a larger token than any that its claimant has seen.
pub fn store_that_forgot_is_noticed(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let watcher = Player::new(harness, "watcher");
    let held = a.acquire(&name("forgotten"));
    let also = a.acquire(&name("also forgotten"));
    assert_eq!(b.sees(&held.name).record.token, held.token);
    harness.forget();
    let noticed = after_reset(|| match a.send_renewal(&a.renewal(&held)) {
        Renewed::Failed(error) => Some(error.kind()),
        Renewed::NotHeld(_) => None,
        other => panic!("a wiped store renewed: {other:?}"),
    });
    assert!(noticed, "the holder wasn't told of the reset");
    let noticed = after_reset(|| {
        b.run(b.store.read(std::slice::from_ref(&held.name))).err().map(|error| error.kind())
    });
    assert!(noticed, "an observer wasn't told of the reset");
    let all = Query::new(Prefix::all());
    let noticed =
        after_reset(|| watcher.run(watcher.store.list(&all, None)).err().map(|error| error.kind()));
    assert!(noticed, "whoever lists wasn't told of the reset");
    a.has_lost(&also);
    a.releases_in_vain(&held);
    goes_on(&b, &held);
    // A session of later knows nothing of a reset.
    let c = Player::new(harness, "c");
    assert_ne!(c.acquire(&name("new")).store, held.store, "the store's id is the old one");
}

/// 41: a store that was restored from a backup takes nothing back: what was granted since is
/// not renewed, and the next grant has a larger token.
pub fn store_restored_from_a_backup_is_noticed(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let before = a.acquire(&name("restored"));
    harness.back_up();
    a.release(&before);
    let since = b.acquire(&before.name);
    let new = b.acquire(&name("since the backup"));
    harness.restore_backup();
    for held in [&since, &new] {
        after_reset(|| match b.send_renewal(&b.renewal(held)) {
            Renewed::Failed(error) => Some(error.kind()),
            Renewed::NotHeld(_) => None,
            other => panic!("a grant that the store forgot was renewed: {other:?}"),
        });
        b.releases_in_vain(held);
    }
    goes_on(&b, &since);
}

/// A claimant that has seen `held` is granted the name, with a larger token.
fn goes_on(player: &Player<'_>, held: &Held) {
    let mut claim = player.claim(&held.name);
    claim.above = Some(held.token);
    let sent = player.harness.now();
    let mut granted = None;
    after_reset(|| match player.ask(&claim) {
        Acquired::Failed(error) => Some(error.kind()),
        Acquired::Granted(grant) => {
            granted = Some(player.held(&claim, grant, sent));
            None
        }
        // After a restore, the grant before the backup has to expire first.
        Acquired::Refused(_) => None,
        other => panic!("a claim after the reset came to {other:?}"),
    });
    let mut next = granted.unwrap_or_else(|| player.take_over_by(claim));
    assert!(next.token > held.token, "token {} follows {}", next.token, held.token);
    player.keeps(&mut next);
}
