//! Whether a record store honours what its writes demand: tried, because many ignore what they
//! don't know, and some check and then act.

use crate::chance::Chance;
use crate::error::{Error, ErrorKind, Operation};
use crate::identity::Name;
use crate::record_leases::join;
use crate::record_store::{Expected, RecordStore, Stored, Written};
use crate::store::Version;

/// How many write at once in a race.
pub const RACERS: usize = 50;

/// What a store did, though a write's demand forbade it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ignored {
    /// A key that is there was created.
    AbsentOnPresent,
    /// A version that had been overwritten was taken for the present one.
    Stale,
    /// A version was found on a key that isn't there.
    VersionOnMissing,
    /// More than one of many writers won, or none: how many, and at what.
    Race(usize, &'static str),
    /// The bytes that were kept aren't the winner's.
    NotTheWinners,
    /// What was acknowledged isn't read.
    StaleRead,
}

impl Ignored {
    /// The fact, in a clause.
    #[must_use]
    pub fn fact(self) -> String {
        match self {
            Self::AbsentOnPresent => "a key that is there was created once more".to_owned(),
            Self::Stale => "a write on a version that was overwritten was done".to_owned(),
            Self::VersionOnMissing => "a write on a version of a missing key was done".to_owned(),
            Self::Race(won, what) => {
                format!("of {RACERS} writers at once {won} could {what} one key")
            }
            Self::NotTheWinners => {
                "of many writers at once another's bytes than the winner's were kept".to_owned()
            }
            Self::StaleRead => "what was written is not read".to_owned(),
        }
    }
}

/// Tries a store's preconditions, on keys of its own that stay.
///
/// An outcome that stays unknown is told as [`Unavailable`](ErrorKind::Unavailable): a trial does
/// nothing that anybody asked for.
///
/// # Cancel safety
/// Any part of it may be dropped: what it leaves are keys of the trial's own.
pub struct Trial<'r, R> {
    records: &'r R,
    chance: Chance,
    /// A version that some key once had.
    known: Option<Version>,
}

impl<'r, R: RecordStore> Trial<'r, R> {
    /// Nothing was tried yet. `chance` tells this trial's writes from those of others.
    pub fn new(records: &'r R, chance: Chance) -> Self {
        Self { records, chance, known: None }
    }

    /// What each opening can afford: a create on a key that is there, and a write on a version
    /// that was overwritten, both of which must be refused. The key is shared by all openings, and
    /// tells an overwritten version of itself; so any number of them can try at once.
    ///
    /// # Errors
    /// As the store's.
    pub async fn quick(&mut self) -> Result<Option<Ignored>, Error> {
        let key = own("probe");
        // Twice nothing is to be tried yet: the first opening of all makes the key and overwrites it.
        for _ in 0..3 {
            let Some(now) = self.read(&key).await? else {
                let bytes = self.body(None);
                self.prepare(&key, &bytes, Expected::Absent).await?;
                continue;
            };
            let Some(old) = overwritten(&now) else {
                let bytes = self.body(Some(&now.version));
                self.prepare(&key, &bytes, Expected::Version(&now.version)).await?;
                continue;
            };
            if self.write(&key, Expected::Absent).await?.is_some() {
                return Ok(Some(Ignored::AbsentOnPresent));
            }
            let stale =
                old == now.version || self.write(&key, Expected::Version(&old)).await?.is_some();
            self.known = Some(old);
            return Ok(stale.then_some(Ignored::Stale));
        }
        // A store that reads what it has written has told of an overwritten version by now.
        Ok(Some(Ignored::StaleRead))
    }

    /// Versions in turn, with reads between: each is accepted once, and what was written is read
    /// at once.
    ///
    /// # Errors
    /// As the store's.
    pub async fn versions(&mut self) -> Result<Option<Ignored>, Error> {
        let key = self.fresh();
        let mut old = Vec::new();
        let Some(mut now) = self.write(&key, Expected::Absent).await? else {
            return Ok(Some(Ignored::StaleRead));
        };
        for _ in 0..4 {
            let Some(next) = self.write(&key, Expected::Version(&now)).await? else {
                return Ok(Some(Ignored::StaleRead));
            };
            old.push(std::mem::replace(&mut now, next));
            if self.read(&key).await?.map(|read| read.version) != Some(now.clone()) {
                return Ok(Some(Ignored::StaleRead));
            }
            for version in &old {
                if self.write(&key, Expected::Version(version)).await?.is_some() {
                    return Ok(Some(Ignored::Stale));
                }
            }
        }
        Ok(None)
    }

    /// A write on a version of a key that isn't there: one that never was, so that a store which
    /// made the last one is found out again. After [`quick`](Self::quick) it leaves nothing in a
    /// store that refuses it.
    ///
    /// # Errors
    /// As the store's.
    pub async fn missing(&mut self) -> Result<Option<Ignored>, Error> {
        let version = match self.known.clone() {
            Some(version) => version,
            None => {
                let there = self.fresh();
                let Some(version) = self.write(&there, Expected::Absent).await? else {
                    return Ok(Some(Ignored::StaleRead));
                };
                version
            }
        };
        let missing = self.fresh();
        let written = self.write(&missing, Expected::Version(&version)).await?;
        Ok(written.map(|_| Ignored::VersionOnMissing))
    }

    /// Many create one key at once, then many overwrite it: one of them wins each time.
    ///
    /// # Errors
    /// As the store's: nobody is known to have won.
    pub async fn race(&mut self) -> Result<Option<Ignored>, Error> {
        let key = self.fresh();
        match self.round(&key, Expected::Absent, "create").await? {
            Ok(version) => {
                let overwrite = self.round(&key, Expected::Version(&version), "overwrite");
                Ok(overwrite.await?.err())
            }
            Err(ignored) => Ok(Some(ignored)),
        }
    }

    async fn round(
        &mut self,
        key: &Name,
        expected: Expected<'_>,
        what: &'static str,
    ) -> Result<Result<Version, Ignored>, Error> {
        let bodies: Vec<Vec<u8>> = (0..RACERS).map(|_| self.body(None)).collect();
        let records = self.records;
        let writes = bodies.iter().map(|bytes| async move {
            records.write_if(key, bytes, expected).await.map(|written| (bytes, written))
        });
        let mut won = Vec::new();
        let mut unknown = None;
        for written in join(writes).await {
            match written {
                Ok((bytes, Written::Written(version))) => won.push((bytes, version)),
                Ok((_, Written::Conflict)) => {}
                Err(error) => unknown = Some(error),
            }
        }
        if won.len() > 1 {
            return Ok(Err(Ignored::Race(won.len(), what)));
        }
        let Some((bytes, version)) = won.pop() else {
            // The winner may be among those whose answer was lost.
            return unknown.map_or(Ok(Err(Ignored::Race(0, what))), |error| Err(untried(error)));
        };
        let kept = self.read(key).await?.map(|kept| kept.bytes);
        Ok(if kept.as_ref() == Some(bytes) { Ok(version) } else { Err(Ignored::NotTheWinners) })
    }

    /// A write that others may make instead, at the same time.
    async fn prepare(&self, key: &Name, bytes: &[u8], expected: Expected<'_>) -> Result<(), Error> {
        match self.records.write_if(key, bytes, expected).await {
            Err(error) if error.kind() != ErrorKind::OutcomeUnknown => Err(error),
            _ => Ok(()),
        }
    }

    async fn read(&self, key: &Name) -> Result<Option<Stored>, Error> {
        Ok(self.records.read(std::slice::from_ref(key)).await?.pop().flatten())
    }

    async fn write(
        &mut self,
        key: &Name,
        expected: Expected<'_>,
    ) -> Result<Option<Version>, Error> {
        let bytes = self.body(None);
        Ok(match self.records.write_if(key, &bytes, expected).await.map_err(untried)? {
            Written::Written(version) => Some(version),
            Written::Conflict => None,
        })
    }

    /// Never the same twice.
    fn body(&mut self, overwrites: Option<&Version>) -> Vec<u8> {
        let probe = format!("{:032x}", self.chance.next_u128());
        let overwrites = overwrites.map(Version::as_str);
        let body = serde_json::json!({ "format": 1, "probe": probe, "overwrites": overwrites });
        body.to_string().into_bytes()
    }

    /// A key that nobody else uses. It stays: nothing is ever deleted.
    fn fresh(&mut self) -> Name {
        own(&format!("trial-{:016x}", self.chance.next_u64()))
    }
}

/// A write of unknown outcome, as what it means to whoever tries the store.
fn untried(error: Error) -> Error {
    if error.kind() != ErrorKind::OutcomeUnknown {
        return error;
    }
    let message = format!("the store could not be tried: {error}; try again");
    Error::new(ErrorKind::Unavailable, Operation::Open, message).with_source(error)
}

/// The version that the probe's last write has overwritten.
fn overwritten(probe: &Stored) -> Option<Version> {
    let body: serde_json::Value = serde_json::from_slice(&probe.bytes).ok()?;
    body.get("overwrites")?.as_str().map(Version::new)
}

fn own(what: &str) -> Name {
    Name::reserved(format!("@{what}")).expect("the key begins with @")
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::memory::MemoryRecords;
    use crate::store::{Answer, Prefix, Profile};

    /// Memory that ignores one demand.
    struct Careless {
        records: MemoryRecords,
        ignores_absent: bool,
        ignores_versions: bool,
    }

    impl RecordStore for Careless {
        fn profile(&self) -> &Profile {
            self.records.profile()
        }

        fn read<'a>(&'a self, keys: &'a [Name]) -> Answer<'a, Vec<Option<Stored>>> {
            self.records.read(keys)
        }

        fn write_if<'a>(
            &'a self,
            key: &'a Name,
            bytes: &'a [u8],
            expected: Expected<'a>,
        ) -> Answer<'a, Written> {
            Box::pin(async move {
                let current = self.records.read(std::slice::from_ref(key)).await?.remove(0);
                let current = current.map(|stored| stored.version);
                let expected = match (expected, &current) {
                    (Expected::Absent, Some(now)) if self.ignores_absent => Expected::Version(now),
                    (Expected::Version(_), Some(now)) if self.ignores_versions => {
                        Expected::Version(now)
                    }
                    (Expected::Version(_), None) if self.ignores_versions => Expected::Absent,
                    (expected, _) => expected,
                };
                self.records.write_if(key, bytes, expected).await
            })
        }

        fn list<'a>(
            &'a self,
            _: &'a Prefix,
            _: Option<&'a Name>,
            _: usize,
        ) -> Answer<'a, Vec<(Name, Stored)>> {
            Box::pin(ready(Ok(Vec::new())))
        }
    }

    fn run<T>(future: impl Future<Output = Result<T, Error>>) -> T {
        let mut future = Box::pin(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(outcome) => outcome.unwrap(),
            std::task::Poll::Pending => panic!("memory never waits"),
        }
    }

    #[test]
    fn each_carelessness_is_seen_and_care_is_not_mistaken_for_it() {
        for (ignores_absent, ignores_versions) in [(false, false), (true, false), (false, true)] {
            let records = MemoryRecords::new();
            let store = Careless { records, ignores_absent, ignores_versions };
            let mut trial = Trial::new(&store, Chance::seeded(1));
            let absent = ignores_absent.then_some(Ignored::AbsentOnPresent);
            let stale = ignores_versions.then_some(Ignored::Stale);
            assert_eq!(run(trial.quick()), absent.or(stale));
            assert_eq!(run(trial.quick()), absent.or(stale), "with its key there");
            assert_eq!(run(trial.versions()), stale);
            let missing = ignores_versions.then_some(Ignored::VersionOnMissing);
            assert_eq!(run(trial.missing()), missing);
            assert_eq!(run(trial.missing()), missing, "and again");
            let careless = ignores_absent || ignores_versions;
            assert_eq!(run(trial.race()).is_some(), careless);
        }
    }
}
