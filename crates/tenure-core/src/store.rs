//! The contract of a store: what each method does, and each condition under which it must refuse.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::Error;
use crate::identity::{ClaimId, FencingToken, Instance, Name, Nonce, StoreId, Successor};
use crate::record::{Bound, Metadata, Order, Record};

/// What a store's methods return: object-safe, without a macro in implementers' errors.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Where leases are kept, within one namespace.
///
/// Every method takes a batch and answers item by item, in the order of the batch. `Err` means
/// that nothing of the batch was done; where only a part failed, or was sent without an answer,
/// each item says so itself, as `Failed` with an error whose kind tells which.
///
/// **Invariant:** a store decides nothing. Whether a record is free, a claim found, a renewal
/// due, is decided by [`decide`](crate::decide), or by the same rules in the store's one atomic
/// statement.
///
/// # Cancel safety
/// Dropping an answer before it is ready is an unknown outcome for whatever was sent: the
/// request may still take effect.
pub trait Store: Send + Sync + 'static {
    /// What this store promises and costs. Constant while the store is open.
    fn profile(&self) -> &Profile;

    /// Grants each claimed name to its claimant, if the name is free; else writes nothing.
    ///
    /// A claim that finds its own id in a held, unexpired record is granted again with the same
    /// token and extends nothing. Two claims of one batch must not name the same lease.
    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>>;

    /// Prolongs each hold by its ttl, if name, instance, claim and token are those of the grant
    /// in force and it has neither expired nor been revoked or released.
    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>>;

    /// Gives each name back, if instance, claim and token are those of the last grant and it
    /// isn't released already. The record stays as a tombstone, with its token.
    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>>;

    /// Reads each record, linearizably where the store can.
    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>>;

    /// Lists records in byte order of their names, a page at a time, after `after`.
    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page>;

    /// Puts an operator's order on the grant in force.
    fn order<'a>(&'a self, name: &'a Name, order: &'a OrderRequest) -> Answer<'a, Ordered>;

    /// Listens for changes under a prefix. None: this store can't push, so poll it.
    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        let _ = prefix;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// What the store's own clock showed when it last answered a renewal, counted from any
    /// instant of its own. None: no clock of its own decides expiry, or it hasn't answered yet.
    fn clock_shown(&self) -> Option<Duration> {
        None
    }

    /// Lets go of connections, threads and files. What is held stays held.
    fn close(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The operator's side of a store. Running needs none of these rights.
pub trait StoreAdmin: Send + Sync {
    /// What [`init`](Self::init) would do, as text that an operator can read or run.
    fn setup(&self) -> String;

    /// Creates what the store needs. Does nothing to what is there already.
    fn init<'a>(&'a self, options: &'a InitOptions) -> Answer<'a, StoreId>;

    /// Measures what the store promises instead of believing it.
    fn diagnose(&self) -> Answer<'_, Vec<Finding>>;
}

/// What `init` can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InitOptions {
    /// A mark that `?cluster=` is compared with, so that two fleets don't share a store unawares.
    pub cluster: Option<String>,
    /// Whether contenders shall observe expiry, although the store has a clock: for one that
    /// fails over between hosts with different clocks.
    pub observed: bool,
}

/// One thing that `doctor` looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at, as one lower-case word with underscores.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// The fact, and the cure where there is one.
    pub detail: String,
}

impl Finding {
    /// A finding.
    pub fn new(check: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { check: check.into(), verdict, detail: detail.into() }
    }
}

/// How a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Usable, with a limit that the detail names.
    Limited,
    /// A guarantee doesn't hold here.
    Bad,
}

/// What a store promises and costs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// `sqlite`, `memory` and so on.
    pub kind: &'static str,
    /// Where it is, without secrets.
    pub location: Arc<str>,
    /// What it guarantees.
    pub level: Level,
    /// Why that isn't more than it is, in a clause, where something could be set otherwise.
    pub limited_by: Option<&'static str>,
    /// Whose clock decides expiry.
    pub expiry: Expiry,
    /// How a waiter learns of a change.
    pub wake: Wake,
    /// The shortest ttl that it keeps.
    pub shortest_ttl: Duration,
    /// How much later than the ttl it may notice an expiry.
    pub detection: Duration,
    /// How many items one request carries at most.
    pub batch_max: usize,
}

impl Profile {
    /// The profile of a store at `location`: fenced, with a clock, polled each second.
    pub fn new(kind: &'static str, location: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            location: location.into(),
            level: Level::Fenced,
            limited_by: None,
            expiry: Expiry::StoreClock,
            wake: Wake::Poll(Duration::from_secs(1)),
            shortest_ttl: crate::timing::TTL_MIN,
            detection: Duration::ZERO,
            batch_max: 10_000,
        }
    }
}

/// What a store guarantees, weakest first, so that levels compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Level {
    /// It may forget what it acknowledged.
    BestEffort,
    /// Mutual exclusion; tokens can start again.
    Lease,
    /// Tokens increase for ever, short of losing the store's data.
    Fenced,
    /// A guard and the lease in one transaction.
    FencedTx,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BestEffort => "best-effort",
            Self::Lease => "lease",
            Self::Fenced => "fenced",
            Self::FencedTx => "fenced-tx",
        })
    }
}

impl std::str::FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "best-effort" => Ok(Self::BestEffort),
            "lease" => Ok(Self::Lease),
            "fenced" => Ok(Self::Fenced),
            "fenced-tx" => Ok(Self::FencedTx),
            _ => Err(Error::invalid(format!(
                "`{text}` is not a level; best-effort, lease, fenced and fenced-tx are"
            ))),
        }
    }
}

/// Whose clock decides expiry: a property of the store, not of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// The store's own, which says how long a grant has left.
    StoreClock,
    /// Each contender's own: it watches a record that doesn't change.
    Observed,
}

/// How a waiter learns of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wake {
    /// The store pushes; polls every so often heal what a push lost.
    Push(Duration),
    /// It must be asked every so often.
    Poll(Duration),
}

impl Wake {
    /// Between two polls.
    #[must_use]
    pub fn poll(self) -> Duration {
        match self {
            Self::Push(every) | Self::Poll(every) => every,
        }
    }
}

/// A record's opaque compare-and-swap handle, known to the store and the core only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// A version by the store's own text for it.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The store's own text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A record as it was read: what the store said, and what it knows about its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The record.
    pub record: Record,
    /// Its version.
    pub version: Version,
    /// The store that it was read from.
    pub store: StoreId,
    /// How long ago the holder last wrote it (grant, renewal or release), by the store's clock.
    /// None: no clock that may be compared, so a contender must watch it.
    pub age: Option<Duration>,
    /// The store has proof that the holder's process, and with it the work, is gone.
    pub holder_gone: bool,
}

/// A request to acquire a name.
///
/// It keeps its id and its draws while it is repeated; only `unanswered_for` grows.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What is asked for.
    pub name: Name,
    /// By whom.
    pub instance: Instance,
    /// This claim's own id.
    pub id: ClaimId,
    /// Written into the record; drawn for this claim.
    pub nonce: Nonce,
    /// How long the grant shall last.
    pub ttl: Duration,
    /// How long the name shall stay taken at least.
    pub min_hold: Duration,
    /// The holder's own words.
    pub metadata: Metadata,
    /// What keeps it alive, if not renewals of its own.
    pub bound_to: Option<Bound>,
    /// The claimant's wall clock, for people.
    pub at: Timestamp,
    /// How long ago this claim was first sent.
    pub unanswered_for: Duration,
    /// The version that the contender has watched until it expired.
    pub watched: Option<Version>,
    /// The highest token that the contender has seen of any store under this session: a grant
    /// must be above it.
    pub above: Option<FencingToken>,
    /// Whether the end of this process is the end of its work, so that a store which can prove
    /// a process dead may free the name at once.
    pub ends_with_process: bool,
}

/// What a claim came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Acquired {
    /// The name is the claimant's.
    Granted(Grant),
    /// Held by another, or kept for one. Nothing was written, and this claim is over.
    Refused(Box<Snapshot>),
    /// No grant is known of, and the error's kind says what is. After
    /// [`OutcomeUnknown`](crate::error::ErrorKind::OutcomeUnknown) repeat the same claim.
    Failed(Error),
}

/// What was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its fencing token.
    pub token: FencingToken,
    /// The record's version.
    pub version: Version,
    /// The store that granted it.
    pub store: StoreId,
}

/// A hold to renew.
#[derive(Clone, Debug)]
pub struct Hold {
    /// What is held.
    pub name: Name,
    /// By whom.
    pub instance: Instance,
    /// By which claim.
    pub claim: ClaimId,
    /// With which token.
    pub token: FencingToken,
    /// The ttl that the renewal starts anew.
    pub ttl: Duration,
    /// The rest of its min-hold.
    pub not_before: Duration,
    /// The version last seen.
    pub version: Version,
    /// Written into the record; drawn for this renewal.
    pub nonce: Nonce,
    /// How long ago the last confirmed claim or renewal was sent. At a ttl or more the hold has
    /// expired, and no store may renew it.
    pub unconfirmed_for: Duration,
}

/// What a renewal came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Renewed {
    /// Prolonged.
    Renewed(Version),
    /// Prolonged, and an operator asks the holder to resign.
    Asked(Version, Box<Order>),
    /// Expired, revoked, released, or another's: final for this grant.
    NotHeld(Option<Box<Snapshot>>),
    /// Nothing changes for the holder; the error's kind says whether it may have been done.
    Failed(Error),
}

/// A name to give back.
#[derive(Clone, Debug)]
pub struct Release {
    /// What is given back.
    pub name: Name,
    /// By whom.
    pub instance: Instance,
    /// By which claim it was held.
    pub claim: ClaimId,
    /// With which token.
    pub token: FencingToken,
    /// The version last seen.
    pub version: Version,
    /// Written into the record; drawn for this release.
    pub nonce: Nonce,
    /// In favour of whom. A transfer ends min-hold, too.
    pub successor: Option<Reserved>,
    /// Why, for the history.
    pub why: String,
    /// The holder's wall clock, for people.
    pub at: Timestamp,
}

/// For whom a released name is kept, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// For whom.
    pub successor: Successor,
    /// For how long.
    pub lasts: Duration,
}

/// What a release came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Released {
    /// Given back: once this was said, nothing of the holder's changes the record again.
    Released(Version),
    /// It wasn't held any more; nothing was written.
    NotHeld(Option<Box<Snapshot>>),
    /// Repeat the same release; the error's kind says whether it may have been done.
    Failed(Error),
}

/// An order, with what its write needs.
#[derive(Clone, Debug)]
pub struct OrderRequest {
    /// What is asked, by whom, and why.
    pub order: Order,
    /// Only if this is still the token of the grant in force. None: whichever is.
    pub token: Option<FencingToken>,
    /// Written into the record; drawn for this order.
    pub nonce: Nonce,
}

/// What an order came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Ordered {
    /// On the record.
    Ordered(Box<Snapshot>),
    /// Nobody holds the name, or not with that token; nothing was written.
    NotHeld(Option<Box<Snapshot>>),
    /// The error's kind says whether it may have been done.
    Failed(Error),
}

/// Which records to list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// What their names begin with.
    pub prefix: Prefix,
    /// How many at most.
    pub limit: usize,
}

impl Query {
    /// The most records that one page holds.
    pub const LIMIT_MAX: usize = 1000;

    /// All records whose names begin with `prefix`, in pages of [`Self::LIMIT_MAX`].
    #[must_use]
    pub fn new(prefix: Prefix) -> Self {
        Self { prefix, limit: Self::LIMIT_MAX }
    }

    /// The same in pages of at most `limit`, which is kept within 1 and [`Self::LIMIT_MAX`].
    #[must_use]
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit: limit.clamp(1, Self::LIMIT_MAX), ..self }
    }
}

/// The beginning of names, perhaps empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// Every name.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Names that begin with `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` begins with it.
    #[must_use]
    pub fn covers(&self, name: &Name) -> bool {
        name.as_str().starts_with(&self.0)
    }
}

impl From<&Name> for Prefix {
    fn from(name: &Name) -> Self {
        Self(name.as_str().to_owned())
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The records, in byte order of their names.
    pub snapshots: Vec<Snapshot>,
    /// Where the next page starts after; none: this was the last.
    pub next: Option<Name>,
}

/// A stream of hints: something under the prefix may have changed.
///
/// Hints are hints. One may be missing, late, doubled or wrong; whoever waits also wakes at the
/// computed expiry and at a slow poll.
pub struct Hints(Box<dyn HintSource>);

/// Where hints come from; implemented by stores.
pub trait HintSource: Send {
    /// Waits for the next change. Changes that came since the last call may be merged into one.
    ///
    /// # Cancel safety
    /// Dropping the answer loses no hint.
    fn next(&mut self) -> Answer<'_, ()>;
}

impl Hints {
    /// Hints from a store's source.
    pub fn new(source: impl HintSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Waits for the next hint.
    ///
    /// # Errors
    /// The connection that carried the hints is gone: watch anew.
    ///
    /// # Cancel safety
    /// Dropping the future loses no hint.
    pub async fn next(&mut self) -> Result<(), Error> {
        self.0.next().await
    }
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hints")
    }
}
