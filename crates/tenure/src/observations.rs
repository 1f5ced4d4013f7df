//! What contenders have observed, in a file that outlives the process.
//!
//! On a store without a clock a contender takes over only what it has seen unchanged for a ttl. A
//! process that is started anew every few minutes would wait that long each time; here it goes on
//! from what the one before has seen. Nothing here is needed for safety: an entry that is lost or of
//! another clock costs a wait.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tenure_core::clock::{self, Reading};
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{Name, Namespace};
use tenure_core::protocol::observe::{Kept, Observation};

/// How many observations a file holds; the oldest make room.
const ENTRIES_MAX: usize = 1000;
const FORMAT: u32 = 1;

/// The file, and what is known of it.
#[derive(Debug)]
pub(crate) struct Observations {
    path: PathBuf,
    /// Whose interval clock the entries are of.
    clock: String,
    place: Place,
    entries: Mutex<Entries>,
    /// One writer at a time.
    writing: Mutex<()>,
}

/// Which store and namespace this session's names are in.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) location: String,
    pub(crate) namespace: Namespace,
}

type Entries = BTreeMap<String, Kept>;

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    clock: String,
    seen: Entries,
}

/// What a file of any format begins with.
#[derive(Deserialize)]
struct Head {
    format: u32,
    clock: String,
}

impl Observations {
    /// Opens the file, or begins one.
    ///
    /// # Errors
    /// `Misconfigured`: something else is there, it can't be written there, or this system doesn't
    /// tell its clocks apart.
    pub(crate) fn open(path: PathBuf, place: Place) -> Result<Self, Error> {
        let clock = clock::identity().ok_or_else(|| {
            misconfigured(
                &path,
                "this system doesn't say which boot its clock counts from, so nothing observed \
                 before a restart can be trusted; leave the file out",
            )
        })?;
        let this =
            Self { path, clock, place, entries: Mutex::default(), writing: Mutex::default() };
        let seen = this.read().map_err(|error| {
            let why = "it can't be read as one, and is left alone; name another";
            misconfigured(&this.path, why).with_source(error)
        })?;
        *this.entries() = seen;
        this.write().map_err(|error| {
            misconfigured(&this.path, "it can't be written; name a file elsewhere")
                .with_source(error)
        })?;
        Ok(this)
    }

    /// What was seen of a name before, if the clocks let it count on.
    pub(crate) fn recall(&self, name: &Name, now: Reading) -> Option<Observation> {
        let kept = self.entries().get(&self.key(name)).cloned()?;
        Observation::resumed(&kept, now)
    }

    /// Notes what was seen of a name. Whether that is news, and so worth writing.
    pub(crate) fn note(&self, name: &Name, kept: Kept) -> bool {
        let mut entries = self.entries();
        let key = self.key(name);
        if entries.get(&key).is_some_and(|known| known.is_same(&kept)) {
            return false;
        }
        entries.insert(key, kept);
        true
    }

    /// Writes the file, with what other processes have written meanwhile. Failing costs a wait.
    pub(crate) fn save(&self) {
        if let Err(error) = self.write() {
            tracing::warn!(file = %self.path.display(), %error, "observations can't be kept");
        }
    }

    fn write(&self) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = self.read()?;
        seen.extend(self.entries().clone());
        while seen.len() > ENTRIES_MAX {
            let oldest = seen.iter().min_by_key(|(_, kept)| kept.at()).map(|(key, _)| key.clone());
            oldest.map(|key| seen.remove(&key));
        }
        let file = File { format: FORMAT, clock: self.clock.clone(), seen };
        let fresh = self.path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&fresh, serde_json::to_vec(&file)?)?;
        fs::rename(&fresh, &self.path)
    }

    /// The file's entries; none of those of another clock or format.
    fn read(&self) -> io::Result<Entries> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) if !bytes.is_empty() => bytes,
            Ok(_) => return Ok(Entries::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entries::new()),
            Err(error) => return Err(error),
        };
        let head: Head = serde_json::from_slice(&bytes)?;
        if head.format != FORMAT || head.clock != self.clock {
            return Ok(Entries::new());
        }
        Ok(serde_json::from_slice::<File>(&bytes)?.seen)
    }

    fn key(&self, name: &Name) -> String {
        // None of the three has a control character in it.
        let Place { location, namespace } = &self.place;
        format!("{location}\n{}\n{name}", namespace.as_str())
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn misconfigured(path: &Path, why: &str) -> Error {
    let message = format!("the file of observations `{}`: {why}", path.display());
    Error::new(ErrorKind::Misconfigured, Operation::Open, message)
}
