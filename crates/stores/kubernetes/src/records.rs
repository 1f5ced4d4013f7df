//! Records in `Lease` objects: the translation, and nothing else.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use http::Method;
use jiff::Timestamp;
use tenure_core::hint::HintBoard;
use tenure_core::identity::{Name, Namespace};
use tenure_core::record_store::{Expected, RecordStore, Stored, TOKENS_KEY, Written};
use tenure_core::store::{Answer, Expiry, Hints, Prefix, Profile, Wake};
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::{Effect, unintelligible};
use crate::lease::{API_VERSION, Lease, LeaseList, body};
use crate::link::{Link, Reply};
use crate::names::{label, lease, object};
use crate::revision::{counted, raised};
use crate::translate::{spec_for, stored};
use crate::version::At;
use crate::watch::Watcher;

/// The shortest ttl: client-go's replicas see whole seconds, and take none below 2.
pub(crate) const TTL_MIN: Duration = Duration::from_secs(2);
/// Between two polls that heal what a watch lost: that of client-go.
const POLL: Duration = Duration::from_secs(2);
/// By how much a poll may be late.
const POLL_LATEST: Duration = Duration::from_millis(2400);
/// How many objects one page of a listing has.
const PAGE: usize = 500;
/// How often a listing begins anew because the cluster has forgotten how far it had come.
const LISTINGS_MAX: usize = 3;

/// Records in the `Lease` objects of one namespace of Kubernetes, in one namespace of tenure's.
pub struct LeaseRecords {
    pub(crate) link: Arc<Link>,
    pub(crate) namespace: Namespace,
    profile: Profile,
    board: HintBoard,
    watcher: Watcher,
}

impl LeaseRecords {
    pub(crate) fn new(link: Link, namespace: Namespace) -> Self {
        let location = format!("kubernetes://{}", link.kube_namespace);
        let mut profile = Profile::new("kubernetes", location);
        profile.expiry = Expiry::Observed;
        profile.wake = Wake::Push(POLL);
        profile.shortest_ttl = TTL_MIN;
        profile.detection = POLL_LATEST;
        let (board, watcher) = (HintBoard::default(), Watcher::default());
        Self { link: Arc::new(link), namespace, profile, board, watcher }
    }

    /// Lets go of connections. What is held stays held.
    pub(crate) fn close(&self) {
        self.watcher.end();
        self.link.close();
        self.board.changed();
    }

    /// `?labelSelector=…`: this namespace's objects.
    pub(crate) fn selector(&self) -> String {
        format!("labelSelector=tenure%2Fnamespace%3D{}", label(&self.namespace))
    }

    async fn read_one(&self, name: &Name) -> Result<Option<Stored>, Error> {
        let target = object(&self.namespace, name);
        if name.as_str() == TOKENS_KEY {
            return counted(&self.link, &target).await.map(Some);
        }
        let path = self.link.path(Some(&target));
        // Without a resource version the answer is as of now: the server asks a quorum.
        match self.link.ask::<Lease>(Method::GET, &path, Vec::new(), Operation::Read).await? {
            Reply::Done(lease) => stored(name, &lease).map(Some),
            Reply::Missing => Ok(None),
            Reply::Conflict => Err(unintelligible(Operation::Read, Effect::None)),
        }
    }

    async fn write_one(
        &self,
        name: &Name,
        bytes: &[u8],
        expected: Expected<'_>,
    ) -> Result<Written, Error> {
        if let (TOKENS_KEY, Expected::Version(version)) = (name.as_str(), expected) {
            return Ok(raised(version));
        }
        let record = std::str::from_utf8(bytes).map_err(|error| {
            Error::invalid("a record is JSON, so UTF-8; these bytes aren't").with_source(error)
        })?;
        let before = match expected {
            Expected::Absent => None,
            Expected::Version(version) => match At::from_version(version) {
                // No version of ours: certainly not what is there.
                None => return Ok(Written::Conflict),
                at => at,
            },
        };
        let spec = spec_for(bytes, before.as_ref(), wall_clock())?;
        let target = object(&self.namespace, name);
        let at = before.as_ref().map(|at| at.resource_version.as_str());
        let body = body(&target, at, &label(&self.namespace), record, spec.as_ref());
        let (method, path) = match &before {
            None => (Method::POST, self.link.path(None)),
            // A patch, unlike a PUT, never makes an object that was deleted meanwhile.
            Some(_) => (Method::PATCH, self.link.path(Some(&target))),
        };
        let operation = Operation::Acquire;
        match self.link.ask::<Lease>(method, &path, body, operation).await? {
            Reply::Done(lease) => Ok(Written::Written(At::of(&lease).version())),
            Reply::Conflict => Ok(Written::Conflict),
            Reply::Missing if before.is_some() => Ok(Written::Conflict),
            Reply::Missing => Err(self.no_namespace(operation)),
        }
    }

    /// All objects of the namespace, each with its lease's name.
    async fn all(&self) -> Result<Vec<(Name, Lease)>, Error> {
        let mut found = Vec::new();
        let mut listings = 0;
        let mut next = String::new();
        loop {
            let path = self.link.path(None);
            let path = format!("{path}?limit={PAGE}&{}{next}", self.selector());
            match self.link.ask::<LeaseList>(Method::GET, &path, Vec::new(), Operation::List).await
            {
                Ok(Reply::Done(page)) => {
                    found.extend(page.items.into_iter().filter_map(named));
                    if page.metadata.next.is_empty() {
                        return Ok(found);
                    }
                    next = format!("&continue={}", escaped(&page.metadata.next));
                }
                Ok(_) => return Err(self.no_namespace(Operation::List)),
                // Or the place to go on from has expired: from the beginning.
                Err(_) if !next.is_empty() && listings < LISTINGS_MAX => {
                    listings += 1;
                    found.clear();
                    next.clear();
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn no_namespace(&self, operation: Operation) -> Error {
        let kube_namespace = &self.link.kube_namespace;
        Error::new(
            ErrorKind::Misconfigured,
            operation,
            format!(
                "the cluster has no namespace `{kube_namespace}`, or no {API_VERSION}; make it with \
                 `kubectl create namespace {kube_namespace}`, or name another"
            ),
        )
    }
}

/// The lease that an object is. None: its name says nothing, and nor does its record.
fn named(object: Lease) -> Option<(Name, Lease)> {
    let of_record = || {
        let record = object.metadata.annotations.record.as_deref()?;
        let record: serde_json::Value = serde_json::from_str(record).ok()?;
        Name::try_from(record.get("name")?.as_str()?.to_owned()).ok()
    };
    let name = lease(&object.metadata.name).or_else(of_record)?;
    Some((name, object))
}

/// A continue token as a value in a query.
fn escaped(token: &str) -> String {
    percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros())
        .ok()
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .unwrap_or_default()
}

impl RecordStore for LeaseRecords {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn read<'a>(&'a self, keys: &'a [Name]) -> Answer<'a, Vec<Option<Stored>>> {
        Box::pin(try_join_all(keys.iter().map(|name| self.read_one(name))))
    }

    fn write_if<'a>(
        &'a self,
        key: &'a Name,
        bytes: &'a [u8],
        expected: Expected<'a>,
    ) -> Answer<'a, Written> {
        Box::pin(self.write_one(key, bytes, expected))
    }

    /// Reads all objects of the namespace for each page: Kubernetes orders them by names that aren't ours.
    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Name>,
        limit: usize,
    ) -> Answer<'a, Vec<(Name, Stored)>> {
        Box::pin(async move {
            let mut found = self.all().await?;
            found.retain(|(name, _)| prefix.covers(name) && after.is_none_or(|after| name > after));
            found.sort_by(|(one, _), (other, _)| one.cmp(other));
            found.truncate(limit);
            let told =
                |(name, lease): (Name, Lease)| stored(&name, &lease).map(|stored| (name, stored));
            found.into_iter().map(told).collect()
        })
    }

    fn watch<'a>(&'a self, _prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        Box::pin(async move {
            let path = format!("{}?watch=true&{}", self.link.path(None), self.selector());
            let watching = self.watcher.watch(&self.link, path, &self.board).await?;
            Ok(Some(Hints::new(watching)))
        })
    }
}
