//! A name that is shared with LeaderElection.S3: our own record, and beside it their object.
//!
//! No write reaches both. Our record decides among tenure's instances, as without a layout. Whoever
//! has it then takes their object, by the version that was read; who can't gives the record back.
//! An instance acts only while it has both.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use object_store::{Attribute, AttributeValue, Attributes, PutOptions};
use tenure_core::clock::Timestamp;
use tenure_core::identity::{Instance, Name, Nonce};
use tenure_core::neighbour::{Neighbour, holder_id, is_made_up, takes_no_orders};
use tenure_core::record::{Demand, Record, State};
use tenure_core::record_leases::RecordLeases;
use tenure_core::record_store::{Expected, Written};
use tenure_core::store::{
    Acquired, Claim, Hold, OrderRequest, Ordered, Release, Released, Renewed, Snapshot, Store,
    Version,
};
use tenure_core::timing::observed;
use tenure_core::{Error, ErrorKind, Operation};

use crate::entry::{Entry, refuse_unsafe_writer};
use crate::layout::Layout;
use crate::records::{Bucket, Objects};
use crate::tag::Tag;

/// Why the level is no more than `best-effort`.
pub(crate) const LIMIT: &str =
    "a name is shared by `layout`, and a neighbour compares its wall clock with ours";
/// How far wall clocks may stand apart before we take what a neighbour still believes in.
const SKEW: Duration = Duration::from_secs(2);
/// How often their object is read anew because it changed under a write.
const CONFLICTS_MAX: usize = 16;

/// Their object, as one session sees it.
pub(crate) struct SharedObject {
    layout: Layout,
    bucket: Bucket,
    poll: Duration,
    /// Which state of it was seen last, and since when.
    sighting: Mutex<Option<(Version, Instant)>>,
}

/// Their object as it was read; none: it isn't there.
type Look = Option<(Entry, Version)>;

/// What came of taking their object.
enum Taken {
    Ours,
    Theirs(Box<Snapshot>),
}

type Leases = RecordLeases<Objects>;

impl SharedObject {
    /// # Errors
    /// `Misconfigured`: an unsafe release wrote it. `Corrupt`: it is something else.
    pub(crate) async fn open(
        layout: Layout,
        bucket: Bucket,
        poll: Duration,
    ) -> Result<Self, Error> {
        let shared = Self { layout, bucket, poll, sighting: Mutex::default() };
        shared.look().await?;
        Ok(shared)
    }

    pub(crate) async fn acquire(&self, leases: &Leases, claim: &Claim) -> Result<Acquired, Error> {
        self.layout.admit(&claim.name)?;
        // Who is kept out by a neighbour writes nothing.
        let ours = match self.look().await? {
            Some((entry, version)) if !self.left(&entry, &version).is_zero() => {
                let ours = read(leases, &claim.name).await?;
                if !is_tenures(&entry, &claim.instance, ours.as_ref()) {
                    let seen = self.made_up(leases, &entry, version, &claim.name, ours);
                    return Ok(Acquired::Refused(Box::new(seen.await?)));
                }
                ours
            }
            _ => None,
        };
        let acquired = leases.acquire(std::slice::from_ref(claim)).await?.pop();
        let grant = match acquired {
            Some(Acquired::Granted(grant)) => grant,
            Some(other) => return Ok(other),
            None => return Err(unanswered()),
        };
        let lasts = claim.ttl.saturating_sub(claim.unanswered_for);
        // Our record says that we hold, so nothing may be told as not done from here on.
        match self.take(leases, claim, lasts, ours).await.map_err(in_doubt)? {
            Taken::Ours => Ok(Acquired::Granted(grant)),
            Taken::Theirs(by) => {
                let release = Release {
                    name: claim.name.clone(),
                    instance: claim.instance.clone(),
                    claim: claim.id,
                    token: grant.token,
                    version: grant.version,
                    nonce: claim.nonce.next(),
                    successor: None,
                    why: "a neighbour was faster".to_owned(),
                    at: claim.at,
                };
                match leases.release(std::slice::from_ref(&release)).await?.pop() {
                    Some(Released::Failed(error)) => Err(in_doubt(error)),
                    _ => Ok(Acquired::Refused(by)),
                }
            }
        }
    }

    /// Writes their object for the claimant, who has our record.
    async fn take(
        &self,
        leases: &Leases,
        claim: &Claim,
        lasts: Duration,
        mut before: Option<Snapshot>,
    ) -> Result<Taken, Error> {
        let me = holder_id(&claim.instance);
        for _ in 0..CONFLICTS_MAX {
            let look = self.look().await?;
            if let Some((entry, version)) = &look
                && !self.left(entry, version).is_zero()
                && !is_tenures(entry, &claim.instance, before.as_ref())
            {
                // Our record's history tells whose entry it is that still stands there.
                before = read(leases, &claim.name).await?;
                if !is_tenures(entry, &claim.instance, before.as_ref()) {
                    let seen = self.made_up(leases, entry, version.clone(), &claim.name, before);
                    return Ok(Taken::Theirs(Box::new(seen.await?)));
                }
            }
            let version = look.as_ref().map(|(_, version)| version);
            match self.write(&Entry::held(&me, lasts), version).await? {
                Written::Written(_) => return Ok(Taken::Ours),
                Written::Conflict => {}
            }
        }
        Err(too_busy())
    }

    pub(crate) async fn renew(&self, leases: &Leases, hold: &Hold) -> Result<Renewed, Error> {
        let renew = || leases.renew(std::slice::from_ref(hold));
        if hold.unconfirmed_for < hold.ttl {
            let me = holder_id(&hold.instance);
            let mut kept = false;
            for _ in 0..CONFLICTS_MAX {
                let look = self.look().await?;
                let Some((entry, version)) = look.filter(|(entry, _)| entry.holder == me) else {
                    // Taken or deleted: no renewal makes it anew.
                    let seen = self.shown(leases, &hold.name, read(leases, &hold.name).await?);
                    return Ok(Renewed::NotHeld(seen.await?.map(Box::new)));
                };
                // A late copy must not shorten what a later one has written.
                let bytes = Entry::held(&me, hold.ttl.max(entry.lasts()));
                if let Written::Written(_) = self.write(&bytes, Some(&version)).await? {
                    kept = true;
                    break;
                }
            }
            if !kept {
                return Err(in_doubt(too_busy()));
            }
        }
        renew().await?.pop().ok_or_else(unanswered)
    }

    pub(crate) async fn release(
        &self,
        leases: &Leases,
        release: &Release,
    ) -> Result<Released, Error> {
        let released = leases.release(std::slice::from_ref(release)).await?.pop();
        let released = released.ok_or_else(unanswered)?;
        let held_anew = match &released {
            Released::Failed(_) => return Ok(released),
            // A later grant of the same instance's keeps its entry.
            Released::NotHeld(Some(by)) => {
                by.record.holder == release.instance && by.record.state == State::Held
            }
            _ => false,
        };
        // A transfer keeps it for the successor, who knows it by our record's history.
        if release.successor.is_none() && !held_anew {
            self.free(&release.instance, release.nonce).await.map_err(in_doubt)?;
        }
        Ok(released)
    }

    /// Frees their object, if it is this instance's.
    async fn free(&self, instance: &Instance, nonce: Nonce) -> Result<(), Error> {
        let me = holder_id(instance);
        let mut nonce = nonce;
        for _ in 0..CONFLICTS_MAX {
            let look = self.look().await?;
            let Some((_, version)) = look.filter(|(entry, _)| entry.holder == me) else {
                return Ok(());
            };
            nonce = nonce.next();
            if let Written::Written(_) = self.write(&Entry::free(nonce), Some(&version)).await? {
                return Ok(());
            }
        }
        Err(too_busy())
    }

    pub(crate) async fn order(
        &self,
        leases: &Leases,
        name: &Name,
        request: &OrderRequest,
    ) -> Result<Ordered, Error> {
        self.layout.admit(name)?;
        let seen = self.shown(leases, name, read(leases, name).await?).await?;
        if let Some(seen) = seen.filter(|seen| is_made_up(&seen.record)) {
            return Err(takes_no_orders(&seen.record));
        }
        let ordered = leases.order(name, request).await?;
        if let (Ordered::Ordered(marked), Demand::RevokeNow) = (&ordered, &request.order.demand) {
            self.free(&marked.record.holder, request.nonce).await.map_err(in_doubt)?;
        }
        Ok(ordered)
    }

    /// A name as it is: a neighbour's where one holds it.
    pub(crate) async fn shown(
        &self,
        leases: &Leases,
        name: &Name,
        ours: Option<Snapshot>,
    ) -> Result<Option<Snapshot>, Error> {
        if *name != self.layout.name {
            return Ok(ours);
        }
        let Some((entry, version)) = self.look().await? else { return Ok(ours) };
        let nobody = entry.is_free() || self.left(&entry, &version).is_zero();
        let mine = ours.as_ref().is_some_and(|ours| names(&ours.record, &entry.holder));
        if nobody || mine {
            return Ok(ours);
        }
        self.made_up(leases, &entry, version, name, ours).await.map(Some)
    }

    async fn made_up(
        &self,
        leases: &Leases,
        entry: &Entry,
        version: Version,
        name: &Name,
        ours: Option<Snapshot>,
    ) -> Result<Snapshot, Error> {
        let ours = match ours {
            Some(ours) => Some(ours),
            None => read(leases, name).await?,
        };
        let neighbour = Neighbour {
            layout: Layout::WORD,
            holder: &entry.holder,
            left: self.left(entry, &version).max(self.poll),
            since: Timestamp::default(),
            version,
        };
        let store = leases.store_id();
        Ok(neighbour.snapshot(name, ours.as_ref().map(|ours| &ours.record), store))
    }

    /// For how long their entry still keeps us out: until it has ended by the wall clocks *and* has
    /// been seen unchanged for as long as their leases last. Zero: it may be taken.
    fn left(&self, entry: &Entry, version: &Version) -> Duration {
        if entry.is_free() {
            return Duration::ZERO;
        }
        let mut sighting = self.sighting.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match &*sighting {
            Some((seen, since)) if seen == version => *since,
            _ => {
                let now = Instant::now();
                *sighting = Some((version.clone(), now));
                now
            }
        };
        let unseen = observed(self.layout.their_ttl).saturating_sub(since.elapsed());
        let by_clock = match entry.lasts() {
            Duration::ZERO => ended(entry).map_or(Duration::ZERO, |ago| SKEW.saturating_sub(ago)),
            lasts => lasts + SKEW,
        };
        unseen.max(by_clock)
    }

    async fn look(&self) -> Result<Look, Error> {
        let Some(got) = self.bucket.fetch_whole(&self.layout.object()).await? else {
            return Ok(None);
        };
        refuse_unsafe_writer(&got.attributes)?;
        let tag = Tag::of_read(&got.meta, self.bucket.generations);
        let bytes = self.bucket.bytes_of(got).await?;
        let version = tag.map(|tag| tag.version()).ok_or_else(unanswered)?;
        Ok(Some((Entry::read(&bytes)?, version)))
    }

    async fn write(&self, bytes: &[u8], version: Option<&Version>) -> Result<Written, Error> {
        let expected = version.map_or(Expected::Absent, Expected::Version);
        let json = AttributeValue::from("application/json");
        let attributes = Attributes::from_iter([(Attribute::ContentType, json)]);
        let options = PutOptions { attributes, ..PutOptions::default() };
        self.bucket.write(&self.layout.object(), bytes, expected, options).await
    }
}

/// How long ago an entry ended by the wall clocks.
fn ended(entry: &Entry) -> Option<Duration> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    let until = Duration::from_millis(u64::try_from(entry.until).unwrap_or(0));
    Some(now.saturating_sub(until))
}

/// Whether their entry is this instance's, or one of tenure's own that our record speaks for: what
/// its holder was has been settled there.
fn is_tenures(entry: &Entry, me: &Instance, ours: Option<&Snapshot>) -> bool {
    entry.holder == holder_id(me) || ours.is_some_and(|ours| names(&ours.record, &entry.holder))
}

/// Whether a record names this holder, now or in its history.
fn names(record: &Record, holder: &str) -> bool {
    let in_history =
        |who: &str| who.parse::<Instance>().is_ok_and(|instance| holder_id(&instance) == holder);
    holder_id(&record.holder) == holder
        || record.transitions.iter().any(|transition| in_history(&transition.who))
}

async fn read(leases: &Leases, name: &Name) -> Result<Option<Snapshot>, Error> {
    Ok(leases.read(std::slice::from_ref(name)).await?.pop().flatten())
}

/// Our record is written, so what failed afterwards leaves the whole unknown.
fn in_doubt(error: Error) -> Error {
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    let message =
        "one of the two objects of a shared name was written, and the other wasn't; repeat it";
    Error::new(ErrorKind::OutcomeUnknown, error.operation(), message).with_source(error)
}

fn too_busy() -> Error {
    let message =
        format!("others changed the shared object {CONFLICTS_MAX} times in a row; try again");
    Error::new(ErrorKind::Unavailable, Operation::Acquire, message)
}

fn unanswered() -> Error {
    let message = "the store's answer doesn't fit the request; is a proxy in between?";
    Error::new(ErrorKind::OutcomeUnknown, Operation::Acquire, message)
}
