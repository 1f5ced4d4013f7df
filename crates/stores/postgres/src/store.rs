//! The store itself: each request is one statement.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tenure_core::batch;
use tenure_core::chance::Chance;
use tenure_core::cluster;
use tenure_core::decide;
use tenure_core::identity::{Name, StoreId};
use tenure_core::neighbour::{is_made_up, takes_no_orders};
use tenure_core::store::{
    Acquired, Answer, Claim, Expiry, Hints, Hold, Level, OrderRequest, Ordered, Page, Prefix,
    Profile, Query, Release, Released, Renewed, Snapshot, Store, Wake,
};
use tenure_core::{Error, ErrorKind, Operation};
use tokio_postgres::types::Type;

use crate::config::PostgresConfig;
use crate::driver::{HostPool, Pool, Row};
use crate::errors::{Failure, missing};
use crate::guard::Guard;
use crate::layout::Hamode;
use crate::link::{Effect, Link, Params, Server, own};
use crate::rows::{self, Claims, Holds, Releases, get, in_order};
use crate::schema::{Statements, TABLES_FORMAT};
use crate::watch::{Listening, hears_itself};

/// How often a waiter reads although no hint came, in case one was lost.
const POLL_PUSHED: Duration = Duration::from_secs(5);
/// How often it reads where no hints come.
const POLL: Duration = Duration::from_secs(1);
/// How often an order is tried on a record that others change meanwhile.
const ORDER_TRIES: usize = 16;
/// The oldest server, as `server_version_num` counts: generated columns came with it.
const SERVER_LEAST: i32 = 120_000;

/// Leases in a PostgreSQL database, as one session sees them.
///
/// A few pooled connections serve it, one more while somebody waits for hints. A batch is one
/// statement, in a transaction of its own.
pub struct PostgresStore {
    profile: Profile,
    pub(crate) link: Arc<Link>,
    listening: Option<Listening>,
    /// What the server's clock showed last, since 1970; 0 before it did.
    shown_micros: AtomicI64,
}

impl PostgresStore {
    /// Connects, and makes sure that the store is one.
    ///
    /// # Timing
    /// A few round trips; at most the configuration's connect timeout for each.
    ///
    /// # Errors
    /// - `Unavailable`: no connection, or the server is a standby.
    /// - `Denied`: the server refuses the credentials, or the role may not use the tables.
    /// - `Misconfigured`: no such database, no tables (the message names them and `tenure
    ///   init`), newer tables, another cluster's mark, a server that is too old or whose
    ///   encoding isn't UTF-8, TLS that doesn't fit.
    ///
    /// # Cancel safety
    /// Nothing was written.
    pub async fn open(config: PostgresConfig, chance: Chance) -> Result<Self, Error> {
        let pool = Pool::Own(own(&config)?);
        let store = Self::open_by(pool, config, chance).await?;
        if store.listening.is_some() {
            store.link.prepare().await;
        }
        Ok(store)
    }

    /// The same on a pool that the host has already: one of
    /// [`deadpool_postgres`](crate::deadpool_postgres), or with the feature `sqlx` a
    /// `sqlx::PgPool`. It stays open when the session is closed.
    ///
    /// `config.server` is used for hints alone, on a connection beside the pool; where that leads
    /// to another server or to none, or with `push` off, waiters poll.
    ///
    /// # Timing
    /// As [`open`](Self::open). A request waits for a connection of the pool as long as the pool
    /// says; of a `sqlx::PgPool` no longer than the configuration's connect timeout.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// Nothing was written.
    pub async fn open_on(
        pool: impl Into<HostPool>,
        config: PostgresConfig,
        chance: Chance,
    ) -> Result<Self, Error> {
        let HostPool(pool) = pool.into();
        Self::open_by(pool, config, chance).await
    }

    async fn open_by(pool: Pool, config: PostgresConfig, chance: Chance) -> Result<Self, Error> {
        let location: Arc<str> = config.location(&pool).into();
        let server = Server::new(pool, &config);
        let opened = Opened::read(&server, &config).await;
        let opened = opened.map_err(|error| error.with_store(Arc::clone(&location)))?;
        let pushes = config.push && hears_itself(&server, &config).await;
        let mut profile = Profile::new("postgres", Arc::clone(&location));
        (profile.level, profile.limited_by) = opened.level(config.hamode.is_some());
        profile.expiry = opened.expiry;
        profile.wake = match config.hamode {
            _ if !pushes => Wake::Poll(POLL),
            // The neighbours push nothing.
            Some(_) => Wake::Push(POLL),
            None => Wake::Push(POLL_PUSHED),
        };
        let listening = pushes.then(|| Listening::new(&config));
        let link = Link::new(server, &config, location, opened.store, opened.expiry, chance);
        Ok(Self { profile, link: Arc::new(link), listening, shown_micros: AtomicI64::new(0) })
    }

    /// What checks a grant of this session inside a transaction of the user's own.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::new(Arc::clone(&self.link))
    }

    async fn read_all(&self, names: &[Name]) -> Result<Vec<Option<Snapshot>>, Error> {
        let link = &self.link;
        let (origin, keys) = (link.origin(), texts(names));
        let (store, namespace) = (origin.store.to_string(), link.namespace.as_str());
        let params: Params<'_> =
            &[(&store, Type::TEXT), (&namespace, Type::TEXT), (&keys, Type::TEXT_ARRAY)];
        let statement = &link.statements.read;
        let rows = link.ask(Operation::Read, Effect::Reads, statement, params).await?;
        let mut read: Vec<Option<Snapshot>> = names.iter().map(|_| None).collect();
        for row in &rows {
            let item: i64 = get(row, "item")?;
            let at = usize::try_from(item - 1).unwrap_or(usize::MAX);
            if let (Some(place), Some(name)) = (read.get_mut(at), names.get(at)) {
                *place = rows::snapshot(row, name, origin)
                    .map_err(|error| error.with_store(Arc::clone(&link.location)))?;
            }
        }
        Ok(read)
    }

    /// Reads, decides and swaps, until nobody was in between.
    async fn put_order(&self, name: &Name, request: &OrderRequest) -> Result<Ordered, Error> {
        let link = &self.link;
        for _ in 0..ORDER_TRIES {
            let id = link.store();
            let current = self.read_all(std::slice::from_ref(name)).await?.pop().flatten();
            if let Some(current) = &current
                && is_made_up(&current.record)
            {
                let error = takes_no_orders(&current.record);
                return Err(error.with_store(Arc::clone(&link.location)));
            }
            let Some(marked) = decide::ordered(current.as_ref(), request) else {
                return Ok(Ordered::NotHeld(current.map(Box::new)));
            };
            let Some(before) = current else { return Ok(Ordered::NotHeld(None)) };
            let (record, nonce, not_before) = rows::stored(&marked);
            let (store, namespace) = (id.to_string(), link.namespace.as_str());
            let (key, version) = (name.as_str(), before.version.as_str());
            let params: Params<'_> = &[
                (&store, Type::TEXT),
                (&namespace, Type::TEXT),
                (&key, Type::TEXT),
                (&version, Type::TEXT),
                (&nonce, Type::TEXT),
                (&not_before, Type::INT8),
                (&record, Type::TEXT),
            ];
            let statement = &link.statements.swap;
            let rows = link.ask(Operation::Order, Effect::Writes, statement, params).await?;
            if let Some(row) = rows.first() {
                let snapshot = Snapshot { record: marked, version: rows::version(row)?, ..before };
                return Ok(Ordered::Ordered(Box::new(snapshot)));
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            Operation::Order,
            "the record changed each time just before the order was written; try again",
        ))
    }
}

fn texts(names: &[Name]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

impl Store for PostgresStore {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn acquire<'a>(&'a self, claims: &'a [Claim]) -> Answer<'a, Vec<Acquired>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Acquire, claims.len())?;
            let link = &self.link;
            let (origin, columns) = (link.origin(), Claims::of(claims));
            let (store, namespace) = (origin.store.to_string(), link.namespace.as_str());
            let params: Params<'_> = &[
                (&store, Type::TEXT),
                (&namespace, Type::TEXT),
                (&columns.names, Type::TEXT_ARRAY),
                (&columns.holders, Type::TEXT_ARRAY),
                (&columns.incarnations, Type::TEXT_ARRAY),
                (&columns.ids, Type::TEXT_ARRAY),
                (&columns.nonces, Type::TEXT_ARRAY),
                (&columns.ttls, Type::INT8_ARRAY),
                (&columns.min_holds, Type::INT8_ARRAY),
                (&columns.unanswered, Type::INT8_ARRAY),
                (&columns.watched, Type::TEXT_ARRAY),
                (&columns.above, Type::INT8_ARRAY),
                (&columns.records, Type::TEXT_ARRAY),
                (&columns.lines, Type::TEXT_ARRAY),
            ];
            let statement = &link.statements.acquire;
            let rows = link.ask(Operation::Acquire, Effect::Writes, statement, params).await;
            let outcome = rows.and_then(|rows| {
                let unanswered = || Acquired::Failed(unanswered(Operation::Acquire));
                in_order(claims.len(), &rows, unanswered, |row, at| {
                    rows::acquired(row, &claims[at].name, origin)
                })
            });
            batch::each(outcome, claims.len(), Acquired::Failed)
        })
    }

    fn renew<'a>(&'a self, holds: &'a [Hold]) -> Answer<'a, Vec<Renewed>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Renew, holds.len())?;
            let link = &self.link;
            let (origin, columns) = (link.origin(), Holds::of(holds));
            let (store, namespace) = (origin.store.to_string(), link.namespace.as_str());
            let params: Params<'_> = &[
                (&store, Type::TEXT),
                (&namespace, Type::TEXT),
                (&columns.names, Type::TEXT_ARRAY),
                (&columns.holders, Type::TEXT_ARRAY),
                (&columns.claims, Type::TEXT_ARRAY),
                (&columns.tokens, Type::INT8_ARRAY),
                (&columns.ttls, Type::INT8_ARRAY),
                (&columns.not_befores, Type::INT8_ARRAY),
                (&columns.nonces, Type::TEXT_ARRAY),
                (&columns.unconfirmed, Type::INT8_ARRAY),
            ];
            let statement = &link.statements.renew;
            let rows = link.ask(Operation::Renew, Effect::Writes, statement, params).await;
            let outcome = rows.and_then(|rows| {
                if let Some(row) = rows.first() {
                    self.shown_micros.store(get(row, "shown")?, Ordering::SeqCst);
                }
                in_order(
                    holds.len(),
                    &rows,
                    || Renewed::NotHeld(None),
                    |row, at| rows::renewed(row, &holds[at].name, origin),
                )
            });
            batch::each(outcome, holds.len(), Renewed::Failed)
        })
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> Answer<'a, Vec<Released>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Release, releases.len())?;
            let link = &self.link;
            let (origin, columns) = (link.origin(), Releases::of(releases));
            let (store, namespace) = (origin.store.to_string(), link.namespace.as_str());
            let params: Params<'_> = &[
                (&store, Type::TEXT),
                (&namespace, Type::TEXT),
                (&columns.names, Type::TEXT_ARRAY),
                (&columns.holders, Type::TEXT_ARRAY),
                (&columns.claims, Type::TEXT_ARRAY),
                (&columns.tokens, Type::INT8_ARRAY),
                (&columns.nonces, Type::TEXT_ARRAY),
                (&columns.reservations, Type::TEXT_ARRAY),
                (&columns.lines, Type::TEXT_ARRAY),
            ];
            let statement = &link.statements.release;
            let rows = link.ask(Operation::Release, Effect::Writes, statement, params).await;
            let outcome = rows.and_then(|rows| {
                in_order(
                    releases.len(),
                    &rows,
                    || Released::NotHeld(None),
                    |row, at| rows::released(row, &releases[at].name, origin),
                )
            });
            batch::each(outcome, releases.len(), Released::Failed)
        })
    }

    fn read<'a>(&'a self, names: &'a [Name]) -> Answer<'a, Vec<Option<Snapshot>>> {
        Box::pin(async move {
            batch::check(&self.profile, Operation::Read, names.len())?;
            self.read_all(names).await
        })
    }

    fn list<'a>(&'a self, query: &'a Query, after: Option<&'a Name>) -> Answer<'a, Page> {
        Box::pin(async move {
            let link = &self.link;
            let limit = query.limit.clamp(1, Query::LIMIT_MAX);
            let (origin, namespace) = (link.origin(), link.namespace.as_str());
            let (store, first) = (origin.store.to_string(), query.prefix.as_str());
            let (after, last) = (after.map(Name::as_str), end_of(&query.prefix));
            let most = i64::try_from(limit + 1).unwrap_or(i64::MAX);
            let params: Params<'_> = &[
                (&store, Type::TEXT),
                (&namespace, Type::TEXT),
                (&first, Type::TEXT),
                (&after, Type::TEXT),
                (&last, Type::TEXT),
                (&most, Type::INT8),
            ];
            let statement = &link.statements.list;
            let rows = link.ask(Operation::List, Effect::Reads, statement, params).await?;
            let mut page = Page::default();
            for row in rows.iter().take(limit) {
                let name = Name::new(get::<&str>(row, "name")?)?;
                page.snapshots.extend(rows::snapshot(row, &name, origin)?);
            }
            if rows.len() > limit {
                page.next = page.snapshots.last().map(|last| last.record.name.clone());
            }
            Ok(page)
        })
    }

    fn order<'a>(&'a self, name: &'a Name, request: &'a OrderRequest) -> Answer<'a, Ordered> {
        Box::pin(async move {
            match self.put_order(name, request).await {
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                    Ok(Ordered::Failed(error))
                }
                other => other,
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix) -> Answer<'a, Option<Hints>> {
        Box::pin(async move {
            let Some(listening) = &self.listening else { return Ok(None) };
            let heard = listening.listen(&self.link.namespace, prefix).await;
            let source =
                heard.map_err(|error| error.with_store(Arc::clone(&self.link.location)))?;
            Ok(Some(Hints::new(source)))
        })
    }

    fn clock_shown(&self) -> Option<Duration> {
        let micros = u64::try_from(self.shown_micros.load(Ordering::SeqCst)).ok()?;
        let decides = self.profile.expiry == Expiry::StoreClock && micros > 0;
        decides.then(|| Duration::from_micros(micros))
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Some(listening) = &self.listening {
                listening.close();
            }
            self.link.close();
            Ok(())
        })
    }
}

/// What the store's own row, and the server, say when a session opens.
struct Opened {
    store: StoreId,
    expiry: Expiry,
    durable: bool,
}

impl Opened {
    async fn read(server: &Server, config: &PostgresConfig) -> Result<Self, Error> {
        let about_server = ask(
            server,
            "SELECT current_setting('server_version_num')::int AS version, \
             pg_is_in_recovery() AS standby, current_setting('server_encoding') AS encoding, \
             current_setting('synchronous_commit') <> 'off' AND current_setting('fsync') = 'on' \
             AS durable",
            &[],
        )
        .await?;
        let Some(running) = about_server.first() else {
            return Err(misfit("the server doesn't say what it is".into()));
        };
        let version: i32 = get(running, "version")?;
        if version < SERVER_LEAST {
            return Err(misfit(format!(
                "the server is PostgreSQL {}; tenure needs 12 or newer",
                version / 10_000
            )));
        }
        if get(running, "standby")? {
            return Err(Error::new(
                ErrorKind::Misconfigured,
                Operation::Open,
                "the server is a standby, where nothing can be written; name the primary, or all \
                 hosts and target_session_attrs=read-write",
            ));
        }
        let encoding: &str = get(running, "encoding")?;
        if encoding != "UTF8" {
            return Err(misfit(format!(
                "the database's encoding is {encoding}; names need UTF8: use another database"
            )));
        }
        let about = ask(server, &Statements::new(&config.schema, None).about, &[]).await?;
        let Some(about) = about.first() else {
            return Err(misfit(missing(config.schema.as_str(), "its row about the store is gone")));
        };
        let format: i32 = get(about, "format")?;
        if format > TABLES_FORMAT {
            return Err(misfit(format!(
                "the tables are in format {format}, and this release reads up to {TABLES_FORMAT}; \
                 upgrade tenure here"
            )));
        }
        cluster::compare(config.cluster.as_deref(), get(about, "cluster")?)?;
        let opened = Self {
            store: get::<&str>(about, "store")?.parse()?,
            expiry: match get::<&str>(about, "clock")? {
                "observed" => Expiry::Observed,
                _ => Expiry::StoreClock,
            },
            durable: get(running, "durable")?,
        };
        if let Some(hamode) = &config.hamode {
            opened.shares(server, hamode).await?;
        }
        Ok(opened)
    }

    /// What the store guarantees, and why it isn't more.
    fn level(&self, shared: bool) -> (Level, Option<&'static str>) {
        if !self.durable {
            (Level::BestEffort, Some("`fsync` or `synchronous_commit` is off"))
        } else if shared {
            (Level::BestEffort, Some("its names are shared with HAMode, whose clocks decide"))
        } else if self.expiry == Expiry::Observed {
            (Level::Fenced, Some("without its clock no guard can tell whether a grant has expired"))
        } else {
            (Level::FencedTx, None)
        }
    }

    /// Makes sure that the table which is shared can be.
    async fn shares(&self, server: &Server, hamode: &Hamode) -> Result<(), Error> {
        if self.expiry == Expiry::Observed {
            return Err(misfit(
                "layout=hamode needs the server's clock, and this store was created with `--clock \
                 observed`; create another with ?schema="
                    .to_owned(),
            ));
        }
        let theirs = hamode.quoted();
        // The columns first: it names what isn't there, or may not be read.
        let columns = format!(
            "SELECT lease_name, holder_id, version, acquired_at_utc, expires_at_utc FROM {theirs} \
             LIMIT 0"
        );
        ask(server, &columns, &[]).await?;
        let rights = "SELECT has_table_privilege($1, 'INSERT') AND has_table_privilege($1, 'UPDATE') \
                      AS may";
        let rows = ask(server, rights, &[(&theirs, Type::TEXT)]).await?;
        if rows.first().map_or(Ok(false), |row| get(row, "may"))? {
            return Ok(());
        }
        let message =
            format!("this role may not write `{hamode}`; grant it INSERT and UPDATE there");
        Err(Error::new(ErrorKind::Denied, Operation::Open, message))
    }
}

async fn ask(server: &Server, statement: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
    let asked = server.query(Operation::Open, Effect::Reads, statement, params).await;
    asked.map_err(|failure| match failure {
        Failure::Told(error) => error,
        Failure::OtherStore(_) => misfit("the server raises what only tenure's do".into()),
    })
}

fn misfit(message: String) -> Error {
    Error::new(ErrorKind::Misconfigured, Operation::Open, message)
}

fn unanswered(operation: Operation) -> Error {
    Error::new(ErrorKind::OutcomeUnknown, operation, "the server's answer has no row for it")
}

/// The least text that is greater than all names under a prefix, if there is one.
fn end_of(prefix: &Prefix) -> Option<String> {
    let mut characters: Vec<char> = prefix.as_str().chars().collect();
    while let Some(last) = characters.pop() {
        // The next character, past those that are none; in UTF-8 it is the next in byte order.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}
