//! Whether the endpoint honours preconditions: tried, because many ignore what they don't know.

use futures_util::future::join_all;
use object_store::PutOptions;
use object_store::path::Path;
use tenure_core::chance::Chance;
use tenure_core::record_store::{Expected, Written};
use tenure_core::store::Version;
use tenure_core::{Error, ErrorKind, Operation};

use crate::keys::Keys;
use crate::records::Bucket;

/// How many write at once in the race that `doctor` runs.
pub(crate) const RACERS: usize = 50;
/// Two versions that no object has: an MD5 of nothing that is ever written, and a generation of
/// long before. Each store compares the one that it knows.
const STRANGE: &str = "\"00000000000000000000000000000000\"\n1";

/// What an endpoint did, though the condition forbade it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// `If-None-Match: *` on an object that is there.
    AbsentOnPresent,
    /// `If-Match` with another version than the object's.
    MatchOnPresent,
    /// `If-Match` on an object that isn't there.
    MatchOnMissing,
    /// A version that had been overwritten, by bytes that were the same before.
    Stale,
    /// More than one of many writers won, or none: how many of how many.
    Race(usize, &'static str),
    /// The object isn't the winner's.
    NotTheWinners,
    /// What was acknowledged isn't read.
    StaleRead,
}

impl Ignored {
    /// The fact, and what follows.
    pub(crate) fn sentence(self) -> String {
        let fact = match self {
            Self::AbsentOnPresent => {
                "it ignores `If-None-Match: *`: an object that is there was overwritten".to_owned()
            }
            Self::MatchOnPresent => {
                "it ignores `If-Match`: a write on a version that the object hasn't was done"
                    .to_owned()
            }
            Self::MatchOnMissing => {
                "it ignores `If-Match` where there is no object: the write made one".to_owned()
            }
            Self::Stale => "it takes a version that was overwritten for the present one".to_owned(),
            Self::Race(won, what) => format!(
                "it checks and then acts: of {RACERS} writers at once {won} could {what} an object"
            ),
            Self::NotTheWinners => {
                "of many writers at once another's bytes than the winner's were kept".to_owned()
            }
            Self::StaleRead => "it does not read what it had acknowledged".to_owned(),
        };
        format!("{fact}; no lease can be had there, so use a store with conditional writes")
    }
}

/// The quick proof, of each opening: three writes, all of which must be refused.
///
/// # Errors
/// `Misconfigured`: one was done.
pub(crate) async fn on_opening(bucket: &Bucket, keys: &Keys) -> Result<(), Error> {
    let mut proof = Proof::new(bucket, keys);
    match proof.quick().await? {
        Some(ignored) => {
            let message = format!("the endpoint can't be used: {}", ignored.sentence());
            Err(Error::new(ErrorKind::Misconfigured, Operation::Open, message))
        }
        None => Ok(()),
    }
}

/// Tries what an endpoint's conditions are worth, on objects of its own.
pub(crate) struct Proof<'b> {
    bucket: &'b Bucket,
    keys: &'b Keys,
    written: u64,
}

impl<'b> Proof<'b> {
    pub(crate) fn new(bucket: &'b Bucket, keys: &'b Keys) -> Self {
        Self { bucket, keys, written: 0 }
    }

    async fn write(
        &mut self,
        object: &Path,
        expected: Expected<'_>,
    ) -> Result<Option<Version>, Error> {
        self.written += 1;
        let bytes = format!("{{\"format\":1,\"probe\":{}}}", self.written);
        let write = self.bucket.write(object, bytes.as_bytes(), expected, PutOptions::default());
        Ok(match write.await.map_err(nothing_of_the_callers)? {
            Written::Written(version) => Some(version),
            Written::Conflict => None,
        })
    }

    pub(crate) async fn quick(&mut self) -> Result<Option<Ignored>, Error> {
        let there = self.keys.own("probe");
        let missing = self.keys.own("probe-missing");
        let strange = self.strange();
        // The first opening of all makes it; any other finds it.
        if self.write(&there, Expected::Absent).await?.is_some()
            && self.write(&there, Expected::Absent).await?.is_some()
        {
            return Ok(Some(Ignored::AbsentOnPresent));
        }
        if self.write(&there, Expected::Version(&strange)).await?.is_some() {
            return Ok(Some(Ignored::MatchOnPresent));
        }
        if self.write(&missing, Expected::Version(&strange)).await?.is_some() {
            return Ok(Some(Ignored::MatchOnMissing));
        }
        Ok(None)
    }

    fn strange(&self) -> Version {
        if self.bucket.generations {
            return Version::new(STRANGE);
        }
        Version::new(STRANGE.split('\n').next().unwrap_or_default())
    }

    /// Versions in turn, with reads between: each version is accepted once, and what was written
    /// is read at once.
    pub(crate) async fn versions(&mut self, chance: &mut Chance) -> Result<Option<Ignored>, Error> {
        let object = self.fresh(chance);
        let mut old = Vec::new();
        let Some(mut now) = self.write(&object, Expected::Absent).await? else {
            return Ok(Some(Ignored::StaleRead));
        };
        for _ in 0..4 {
            let Some(next) = self.write(&object, Expected::Version(&now)).await? else {
                return Ok(Some(Ignored::StaleRead));
            };
            old.push(std::mem::replace(&mut now, next));
            // Without what was remembered of it: the store is asked, not our memory.
            let read = self.bucket.fetch_whole(&object).await?;
            let read = read.map(|got| got.meta);
            let seen = read.and_then(|m| crate::tag::Tag::of_read(&m, self.bucket.generations));
            if seen.map(|tag| tag.version()) != Some(now.clone()) {
                return Ok(Some(Ignored::StaleRead));
            }
            for version in &old {
                if self.write(&object, Expected::Version(version)).await?.is_some() {
                    return Ok(Some(Ignored::Stale));
                }
            }
        }
        Ok(None)
    }

    /// Many create one object at once, then many overwrite it: one of them wins each time.
    pub(crate) async fn race(&mut self, chance: &mut Chance) -> Result<Option<Ignored>, Error> {
        let object = self.fresh(chance);
        let (made, ignored) = self.round(&object, Expected::Absent, "create").await?;
        if ignored.is_some() {
            return Ok(ignored);
        }
        let Some(version) = made else { return Ok(Some(Ignored::Race(0, "create"))) };
        let (_, ignored) =
            self.round(&object, Expected::Version(&version), "overwrite one version of").await?;
        Ok(ignored)
    }

    async fn round(
        &self,
        object: &Path,
        expected: Expected<'_>,
        what: &'static str,
    ) -> Result<(Option<Version>, Option<Ignored>), Error> {
        let writes = (0..RACERS).map(|n| async move {
            // Never what stood there before: an etag may be a hash of the content.
            let bytes = format!("{{\"format\":1,\"to\":\"{what}\",\"racer\":{n}}}").into_bytes();
            let write = self.bucket.write(object, &bytes, expected, PutOptions::default());
            write.await.map(|written| (bytes, written))
        });
        let mut won = Vec::new();
        let mut unknown = None;
        for written in join_all(writes).await {
            match written {
                Ok((bytes, Written::Written(version))) => won.push((bytes, version)),
                Ok((_, Written::Conflict)) => {}
                Err(error) => unknown = Some(error),
            }
        }
        if won.len() > 1 {
            return Ok((None, Some(Ignored::Race(won.len(), what))));
        }
        let Some((bytes, version)) = won.pop() else {
            // The winner may be among those whose answer was lost.
            return unknown.map_or(Ok((None, Some(Ignored::Race(0, what)))), Err);
        };
        let kept = match self.bucket.fetch_whole(object).await? {
            Some(got) => got.bytes().await.ok(),
            None => None,
        };
        let ignored = (kept.as_deref() != Some(&bytes[..])).then_some(Ignored::NotTheWinners);
        Ok((Some(version), ignored))
    }

    /// An object that nobody else uses. It stays: nothing here is ever deleted.
    fn fresh(&self, chance: &mut Chance) -> Path {
        self.keys.own(&format!("doctor-{:016x}", chance.next_u64()))
    }
}

/// A probe of unknown outcome has done nothing that anybody asked for.
fn nothing_of_the_callers(error: Error) -> Error {
    if error.kind() != ErrorKind::OutcomeUnknown {
        return error.during(Operation::Open);
    }
    let message = format!("the object store could not be tried: {error}");
    Error::new(ErrorKind::Unavailable, Operation::Open, message).with_source(error)
}
