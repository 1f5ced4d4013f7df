//! The queue before the file's lock: a `flock`, whose waiters the kernel lets in one by one.
//!
//! Waiting for a `flock` can't be bounded, so a thread of its own does it, started when somebody
//! is in the way for the first time. Whoever asked it may stop waiting at any moment; what the
//! thread then gets it gives back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::presence::hand_to;

/// The gate of one connection.
pub(crate) struct Gate {
    /// For trying, without waiting.
    tried: File,
    path: PathBuf,
    usher: Option<Arc<Usher>>,
    inside: Option<By>,
}

/// How a connection came to be in the gate.
#[derive(Clone, Copy)]
enum By {
    Trying,
    Waiting,
}

/// Who waits for the gate on behalf of a connection.
struct Usher {
    /// Another open file than the one for trying: a `flock` belongs to the open file.
    waited: File,
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Default)]
struct Asked {
    wanted: bool,
    granted: bool,
    over: bool,
}

impl Gate {
    /// Opens the gate in the directory of side files, for whom the database is open to.
    pub(crate) fn open(side: &Path, database: &Path) -> io::Result<Self> {
        let path = side.join("gate");
        let of = std::fs::metadata(database)?;
        let tried = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(of.mode() & 0o666)
            .open(&path)?;
        hand_to(&path, of.uid(), of.gid());
        Ok(Self { tried, path, usher: None, inside: None })
    }

    /// Enters the gate, if nobody is in it; whether it is in.
    pub(crate) fn enter_at_once(&mut self) -> bool {
        if self.inside.is_none() && self.tried.try_lock().is_ok() {
            self.inside = Some(By::Trying);
        }
        self.inside.is_some()
    }

    /// Enters the gate, or gives up after `patience`; whether it is in.
    pub(crate) fn enter(&mut self, patience: Duration) -> bool {
        if !self.enter_at_once() {
            if self.usher.is_none() {
                self.usher = Usher::start(&self.path).ok();
            }
            let entered = self.usher.as_ref().is_some_and(|usher| usher.wait(patience));
            self.inside = entered.then_some(By::Waiting);
        }
        self.inside.is_some()
    }

    /// Lets the next one in, if this one was in.
    pub(crate) fn leave(&mut self) {
        let locked = match (self.inside.take(), &self.usher) {
            (Some(By::Trying), _) => &self.tried,
            (Some(By::Waiting), Some(usher)) => &usher.waited,
            _ => return,
        };
        // If this fails, the kernel drops the lock with the file.
        let _ = locked.unlock();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.leave();
        if let Some(usher) = &self.usher {
            usher.asked().over = true;
            usher.changed.notify_all();
        }
    }
}

impl Usher {
    fn start(path: &Path) -> io::Result<Arc<Self>> {
        let waited = File::open(path)?;
        let usher = Arc::new(Self { waited, asked: Mutex::default(), changed: Condvar::new() });
        let at_work = Arc::clone(&usher);
        thread::Builder::new().name("tenure-sqlite-q".into()).spawn(move || at_work.work())?;
        Ok(usher)
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut asked = self.asked();
        asked.wanted = true;
        self.changed.notify_all();
        while !asked.granted {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || asked.over {
                asked.wanted = false;
                return false;
            }
            let waited = self.changed.wait_timeout(asked, left);
            asked = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        asked.granted = false;
        true
    }

    fn work(&self) {
        let mut asked = self.asked();
        loop {
            while !asked.wanted && !asked.over {
                asked = self.changed.wait(asked).unwrap_or_else(PoisonError::into_inner);
            }
            if asked.over {
                return;
            }
            drop(asked);
            let entered = self.waited.lock();
            asked = self.asked();
            match entered {
                Ok(()) if asked.wanted && !asked.over => {
                    *asked = Asked { wanted: false, granted: true, over: false };
                    self.changed.notify_all();
                }
                Ok(()) => drop(self.waited.unlock()),
                // Nobody shall wait for what can't be had; who asked goes on without.
                Err(_) => asked.over = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn gate(scratch: &Scratch) -> Gate {
        let database = scratch.path.join("x.db");
        std::fs::write(&database, "").unwrap();
        Gate::open(&scratch.path, &database).unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn one_is_in_the_gate_and_the_next_waits_its_turn() {
        let scratch = Scratch::new("gate");
        let (mut one, mut other) = (gate(&scratch), gate(&scratch));
        assert!(one.enter(Duration::ZERO) && one.enter(Duration::ZERO));
        assert!(!other.enter(Duration::from_millis(20)));
        thread::scope(|scope| {
            let second = scope.spawn(|| other.enter(LONG));
            thread::sleep(Duration::from_millis(20));
            one.leave();
            assert!(second.join().unwrap());
        });
        assert!(!one.enter(Duration::ZERO));
        other.leave();
        other.leave();
        assert!(one.enter(LONG));
    }

    #[test]
    fn what_the_usher_gets_when_nobody_waits_any_more_it_gives_back() {
        let scratch = Scratch::new("gate-usher");
        let (mut one, mut other) = (gate(&scratch), gate(&scratch));
        for _ in 0..20 {
            assert!(one.enter(LONG));
            assert!(!other.enter(Duration::from_micros(100)));
            one.leave();
        }
        assert!(one.enter(LONG));
        one.leave();
        assert!(other.enter(LONG));
    }

    #[test]
    fn whoever_drops_its_gate_leaves_it() {
        let scratch = Scratch::new("gate-dropped");
        let (mut one, mut other) = (gate(&scratch), gate(&scratch));
        assert!(one.enter(LONG));
        assert!(!other.enter(Duration::ZERO));
        drop(one);
        assert!(other.enter(LONG));
        drop(other);
        assert!(gate(&scratch).enter(LONG));
    }
}
