//! Contenders on a place, with the observer that reads what they write.

use std::path::PathBuf;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use crate::contender::Contender;
use crate::observer::Observer;
use crate::place::Place;
use crate::server::Servers;
use crate::{LOOK_EVERY, clock, draw};

/// How many compete.
const CONTENDERS: u64 = 4;
/// How long anything may take that must come: a name that is held again, most of all. Servers of
/// one process each start anew within seconds; an etcd without a leader for a while extends what
/// it granted by a ttl.
const HELD_AGAIN_MAX: Duration = Duration::from_secs(20);
/// How recently a holder acted.
const JUST_NOW: Duration = Duration::from_millis(100);

pub(crate) struct Scene {
    _alone: MutexGuard<'static, ()>,
    pub place: Place,
    pub url: String,
    pub folder: PathBuf,
    pub contenders: Vec<Contender>,
    pub servers: Servers,
    pub observer: Observer,
    next_who: u64,
    /// What chance has come to.
    pub chance: u64,
}

impl Scene {
    pub(crate) fn of(place: Place, seed: u64) -> Self {
        let alone = place.alone();
        let folder = place.folder("faults", seed);
        let servers = Servers::of(place.processes());
        let url = place.url(&folder);
        Place::init(&url);
        let contenders =
            (1..=CONTENDERS).map(|who| Contender::start(who, place, &url, &folder)).collect();
        let observer = Observer::of(&folder);
        let next_who = CONTENDERS + 1;
        Self {
            _alone: alone,
            place,
            url,
            folder,
            contenders,
            servers,
            observer,
            next_who,
            chance: seed,
        }
    }

    /// Waits until something is so, looking at what has been written meanwhile.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        loop {
            self.look();
            if so(self) {
                return;
            }
            if begun.elapsed() > HELD_AGAIN_MAX {
                panic!("not within {HELD_AGAIN_MAX:?}: {what}\n{}", self.observer.timeline());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Reads on; nothing that must never be may have been.
    #[track_caller]
    pub(crate) fn look(&mut self) {
        self.contenders.iter_mut().for_each(Contender::must_live);
        self.observer.look();
        let violations = self.observer.violations();
        assert!(violations.is_empty(), "{violations:#?}\n{}", self.observer.timeline());
    }

    /// Who acts now, as an index, and its token; and every other one has opened its session.
    pub(crate) fn holder(&mut self) -> (usize, u64) {
        let mut found = None;
        self.until("somebody holds, and all are there", |scene| {
            let all = scene.contenders.iter().all(|one| scene.observer.has_opened(one.who));
            let holder = scene.observer.holder().filter(|(_, term)| {
                term.acts > 3 && clock().saturating_sub(term.last) < JUST_NOW.as_nanos() as u64
            });
            found = holder.and_then(|(token, term)| {
                let index = scene.contenders.iter().position(|one| one.who == term.who)?;
                Some((index, token))
            });
            all && found.is_some()
        });
        found.expect("it was waited for")
    }

    /// Waits until somebody acts under a newer token.
    pub(crate) fn another_acts(&mut self, token: u64) {
        self.until("somebody acts under a newer token", |scene| scene.observer.has_newer(token));
    }

    /// Asserts that nobody acted by a check that began after `limit`.
    #[track_caller]
    pub(crate) fn all_must_have_stopped(&mut self, limit: u64, why: &str) {
        self.look();
        assert!(
            !self.observer.acted_after(limit),
            "somebody acted too long: {why}\n{}",
            self.observer.timeline()
        );
    }

    /// Kills a contender, and puts another process in its place.
    pub(crate) fn kill(&mut self, index: usize) {
        self.contenders[index].kill();
        self.contenders[index].start_again(self.next_who, self.place, &self.folder);
        self.next_who += 1;
    }

    /// One of the contenders that isn't this one.
    pub(crate) fn other_than(&mut self, index: usize) -> usize {
        let step = 1 + draw(&mut self.chance) as usize % (self.contenders.len() - 1);
        (index + step) % self.contenders.len()
    }

    /// Waits between two shares of a ttl, in hundredths.
    pub(crate) fn sleep(&mut self, least: u32, most: u32) {
        let share = least + (draw(&mut self.chance) % u64::from(most - least + 1)) as u32;
        std::thread::sleep(self.place.ttl() * share / 100);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.contenders.clear();
        self.servers.resume();
        if !std::thread::panicking() {
            self.place.clear(&self.url);
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
