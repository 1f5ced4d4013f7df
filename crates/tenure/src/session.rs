//! One instance's connection to one store, and all that it holds there.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use tenure_core::chance::Chance;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{Incarnation, Instance, Name, Namespace};
use tenure_core::store::{Expiry, Level, Profile, Store};

use crate::clock::Time;
use crate::connect;
use crate::keeper;
use crate::meter::{Meter, NoMeter};
use crate::observations::{Observations, Place};
use crate::shared::{AtDeadline, Parts, Shared};

/// One instance's connection to one store. Clones are the same session.
///
/// A session keeps all that it holds alive with one batch of renewals every ttl/3, and watches
/// their deadlines on a thread of its own. Close it when the service ends: without
/// [`close`](Self::close) even a clean exit costs the others a ttl.
#[derive(Clone)]
pub struct Session {
    pub(crate) shared: Arc<Shared>,
}

/// How a session is opened.
#[must_use]
pub struct SessionBuilder {
    store: StoreChoice,
    namespace: Option<Namespace>,
    instance: Option<Name>,
    require: Option<Level>,
    at_deadline: AtDeadline,
    ends_with_process: bool,
    suspended_limit: bool,
    meter: Arc<dyn Meter>,
    pub(crate) time: Time,
    guard: connect::TransactionGuard,
    observations: Option<PathBuf>,
    /// Instead of the operating system's: tests are the same each time.
    pub(crate) chance: Option<Chance>,
}

enum StoreChoice {
    None,
    Url(String),
    Opened(Arc<dyn Store>),
}

impl SessionBuilder {
    /// The store, by URL: `sqlite:/var/lib/shop/leases.db?namespace=shop&require=fenced`.
    pub fn url(self, url: impl Into<String>) -> Self {
        Self { store: StoreChoice::Url(url.into()), ..self }
    }

    /// The store, opened by the caller. Its namespace is the one that it was opened in.
    pub fn store(self, store: Arc<dyn Store>) -> Self {
        Self { store: StoreChoice::Opened(store), ..self }
    }

    /// The SQLite store, opened by the caller: as [`store`](Self::store), and its leases guard
    /// transactions.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(self, store: tenure_sqlite::SqliteStore) -> Self {
        let guard = connect::TransactionGuard::Sqlite(store.guard());
        Self { guard, ..self.store(Arc::new(store)) }
    }

    /// The PostgreSQL store, opened by the caller, on a pool of its own perhaps: as
    /// [`store`](Self::store), and its leases guard transactions on the same database.
    #[cfg(feature = "postgres")]
    pub fn postgres(self, store: tenure_postgres::PostgresStore) -> Self {
        let guard = connect::TransactionGuard::Postgres(store.guard());
        Self { guard, ..self.store(Arc::new(store)) }
    }

    /// What stands before every name. A URL may say it, too; this counts.
    pub fn namespace(self, namespace: Namespace) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    /// The instance's readable name, instead of `POD_NAME` or the host's name. It need not be
    /// unique: a random incarnation tells two processes of one name apart.
    pub fn instance(self, name: Name) -> Self {
        Self { instance: Some(name), ..self }
    }

    /// The least that the store must guarantee; one that can't fails to open, naming why.
    pub fn require(self, level: Level) -> Self {
        Self { require: Some(level), ..self }
    }

    /// What happens when work still runs at its deadline.
    pub fn at_deadline(self, at_deadline: AtDeadline) -> Self {
        Self { at_deadline, ..self }
    }

    /// Whoever counts.
    pub fn meter(self, meter: Arc<dyn Meter>) -> Self {
        Self { meter, ..self }
    }

    /// The work of this session is more than this process: a store that can prove the process
    /// dead must not free its names for that, and a hold that a suspend has put in doubt is
    /// lost unless a renewal proves it within ttl/6. The `tenure` command is opened like this.
    pub fn work_outlives_process(self) -> Self {
        Self { ends_with_process: false, suspended_limit: true, ..self }
    }

    /// Keeps what contenders have seen in this file, so that the next process of this host goes
    /// on from there.
    ///
    /// On a store without a clock (`profile().expiry` is `Observed`) whoever contends for the name
    /// of a dead holder has to watch it for a ttl; cron jobs and functions would do that each time
    /// they are started. Only observations by this host's clock since its last boot count, and
    /// only of records that haven't changed since; a wall clock that was set discards them. On a
    /// store with a clock the file isn't touched. Several processes may share it.
    pub fn observations(self, file: impl Into<PathBuf>) -> Self {
        Self { observations: Some(file.into()), ..self }
    }

    /// Opens the session. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// - [`Invalid`](ErrorKind::Invalid): the URL, or the instance's name.
    /// - [`Misconfigured`](ErrorKind::Misconfigured): the store is unsuitable, or below the
    ///   required level; the message names the cure.
    /// - [`Unavailable`](ErrorKind::Unavailable), [`Denied`](ErrorKind::Denied): the store can't
    ///   be reached, or refuses. Opening fails at once and isn't tried again.
    ///
    /// # Cancel safety
    /// Nothing is held yet.
    pub async fn open(self) -> Result<Session, Error> {
        let mut chance = match self.chance {
            Some(chance) => chance,
            None => chance_of_system()?,
        };
        let instance = match self.instance {
            Some(name) => name,
            None => default_name()?,
        };
        let instance = Instance::new(instance, Incarnation::draw(&mut chance));
        let opened = match self.store {
            StoreChoice::None => return Err(Error::invalid("no store was named; give its URL")),
            StoreChoice::Opened(store) => connect::Opened {
                store,
                namespace: self.namespace.clone().unwrap_or_default(),
                require: None,
                guard: self.guard,
            },
            StoreChoice::Url(url) => {
                connect::open(&url, self.namespace, self.time.clock(), &mut chance).await?
            }
        };
        let profile = opened.store.profile();
        if let Some(required) = self.require.max(opened.require)
            && profile.level < required
        {
            let why = profile.limited_by.map(|why| format!(" ({why})")).unwrap_or_default();
            let message = format!(
                "the store's level is {}{why}, and {required} is required; use another store, or \
                     require less",
                profile.level
            );
            return Err(Error::new(ErrorKind::Misconfigured, Operation::Open, message)
                .with_store(profile.location.clone()));
        }
        let observations = match self.observations {
            Some(file) if profile.expiry == Expiry::Observed => {
                let location = profile.location.to_string();
                let place = Place { location, namespace: opened.namespace.clone() };
                Some(Arc::new(Observations::open(file, place)?))
            }
            _ => None,
        };
        let shared = Shared::new(Parts {
            store: opened.store,
            namespace: opened.namespace,
            instance,
            time: self.time,
            meter: self.meter,
            at_deadline: self.at_deadline,
            ends_with_process: self.ends_with_process,
            suspended_limit: self.suspended_limit,
            chance,
            guard: opened.guard,
            observations,
        });
        let looked = Arc::downgrade(&shared);
        shared
            .deadlines
            .start(&shared.time, move || looked.upgrade().map(|shared| shared.look()))?;
        keeper::start(&shared);
        Ok(Session { shared })
    }
}

impl Session {
    /// Opens a session on the store of this URL, with the defaults.
    ///
    /// # Errors
    /// As [`SessionBuilder::open`].
    pub async fn open(url: impl Into<String>) -> Result<Self, Error> {
        Self::builder().url(url).open().await
    }

    /// Says more about a session before it is opened.
    pub fn builder() -> SessionBuilder {
        SessionBuilder {
            store: StoreChoice::None,
            namespace: None,
            instance: None,
            require: None,
            at_deadline: AtDeadline::default(),
            ends_with_process: true,
            suspended_limit: false,
            meter: Arc::new(NoMeter),
            time: Time::System,
            guard: connect::TransactionGuard::None,
            observations: None,
            chance: None,
        }
    }

    /// Who this is.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.shared.instance
    }

    /// The namespace of its names.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.shared.namespace
    }

    /// What the store promises.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        self.shared.store.profile()
    }

    /// Why the last claim of this session failed; nothing once one is answered. Where nobody holds
    /// a name, this is what its waiters wait for.
    #[must_use]
    pub fn failed_claim(&self) -> Option<Error> {
        self.shared.failed_claim.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The store underneath, for what a session doesn't do: listing, reading, orders.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// How many names this session holds, those that are being given back included.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.shared.cells().len()
    }

    /// A source of ids and jitter, seeded by the operating system.
    #[must_use]
    pub fn chance(&self) -> Chance {
        self.shared.chance()
    }

    /// Ends all work, awaits its end, and gives everything back in one batch.
    ///
    /// Leases whose handles are still around are ended locally first: their `check()` fails
    /// from here on. Work in [`Lease::run`](crate::Lease::run) is dropped by its own task; if
    /// that doesn't happen before the deadline, the name waits for its ttl.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) and the like: some name could not be given
    /// back before its grant ran out.
    ///
    /// # Cancel safety
    /// Dropping the future goes on closing in the background.
    pub async fn close(self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        shared.begin_to_close();
        let (mut ended, mut unsettled) = shared.end_all().await;
        // Whoever still waited for a name has heard of it. A claim whose outcome is unknown is
        // settled first; what it won in the last moment is given back, too.
        shared.no_contention().await;
        let late = shared.end_all().await;
        ended += late.0;
        unsettled += late.1;
        let closed = shared.store.close().await;
        shared.save_observations().await;
        if unsettled > 0 {
            let message = format!(
                "{unsettled} of {ended} names could not be given back; they are free after their ttl"
            );
            return Err(Error::new(ErrorKind::OutcomeUnknown, Operation::Release, message)
                .with_store(shared.store.profile().location.clone()));
        }
        closed
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("instance", &self.shared.instance)
            .field("store", &self.profile().location)
            .finish_non_exhaustive()
    }
}

/// A source of ids and jitter, seeded with 256 bits of the operating system's.
///
/// # Errors
/// [`Misconfigured`](ErrorKind::Misconfigured): the operating system gave none.
pub fn chance_of_system() -> Result<Chance, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(
            ErrorKind::Misconfigured,
            Operation::Open,
            "the operating system gave no random bytes, and without them two processes could \
             have one identity",
        )
        .with_source(error.to_string())
    })?;
    let mut state = [0; 4];
    for (word, bytes) in state.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("chunks of 8 are 8 long"));
    }
    Ok(Chance::from_state(state))
}

/// `POD_NAME`, else the host's name.
fn default_name() -> Result<Name, Error> {
    if let Some(pod) = std::env::var_os("POD_NAME").filter(|pod| !pod.is_empty()) {
        return Name::new(pod.to_string_lossy())
            .map_err(|error| Error::invalid("POD_NAME is no instance name").with_source(error));
    }
    Name::new(host_name()).or_else(|_| Name::new("instance"))
}

#[cfg(unix)]
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "instance".to_owned())
}
