//! The way to the server: connections from a pool, and which store the session believes in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Timeouts,
};
use tenure_core::chance::Chance;
use tenure_core::identity::{Namespace, StoreId};
use tenure_core::store::Expiry;
use tenure_core::{Error, ErrorKind, Operation};
use tokio::time::error::Elapsed;
use tokio_postgres::types::{ToSql, Type};

use crate::config::{CONNECT_DEFAULT, PostgresConfig, Schema};
use crate::driver::{ClientError, Own, Pool, Row};
use crate::errors::{
    Failure, from_connecting, from_statement, layout_unfit, no_connection_in_time,
};
use crate::layout::Hamode;
use crate::prepared::Prepared;
use crate::rows::Origin;
use crate::schema::Statements;
#[cfg(feature = "sqlx")]
use crate::sqlx_pool;
use crate::tls;

/// A parameter with its type, so that its statement needs no preparing.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);
/// A statement's parameters.
pub(crate) type Params<'a> = &'a [Param<'a>];

/// Whether a statement that nobody answered may have changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

/// The way to one store.
pub(crate) struct Link {
    server: Server,
    pub(crate) schema: Schema,
    pub(crate) statements: Statements,
    pub(crate) namespace: Namespace,
    pub(crate) location: Arc<str>,
    /// Whose clock decides: written by `init`, and constant.
    pub(crate) expiry: Expiry,
    shared: bool,
    believed: Mutex<StoreId>,
    chance: Mutex<Chance>,
}

/// A connection that goes back to the pool only if its statement was answered: behind one that
/// wasn't, the next would wait in vain.
struct Lent(Option<Object>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

/// The connections of a configuration.
pub(crate) fn own(config: &PostgresConfig) -> Result<Own, Error> {
    let prepared = Arc::default();
    let pool = pool(config, &prepared)?;
    Ok(Own { pool, prepared })
}

fn pool(
    config: &PostgresConfig,
    prepared: &Arc<Prepared>,
) -> Result<deadpool_postgres::Pool, Error> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config.server.clone(), tls::connector(config)?, recycling);
    let connecting = connecting(config);
    let prepared = Arc::clone(prepared);
    let prepare = Hook::async_fn(move |client: &mut ClientWrapper, _| {
        let prepared = Arc::clone(&prepared);
        Box::pin(async move {
            prepared.on(client).await;
            Ok(())
        })
    });
    deadpool_postgres::Pool::builder(manager)
        .max_size(config.connections)
        .post_create(prepare)
        .runtime(deadpool_postgres::Runtime::Tokio1)
        .timeouts(Timeouts {
            wait: Some(connecting),
            create: Some(connecting),
            recycle: Some(connecting),
        })
        .build()
        .map_err(|error| Error::invalid(format!("the pool can't be built: {error}")))
}

fn connecting(config: &PostgresConfig) -> Duration {
    config.server.get_connect_timeout().copied().unwrap_or(CONNECT_DEFAULT)
}

/// A server's pool, and how it is asked.
pub(crate) struct Server {
    pool: Pool,
    schema: Schema,
    timeout: Duration,
    /// How long a connection of a host's pool is waited for.
    #[cfg_attr(
        not(feature = "sqlx"),
        expect(dead_code, reason = "other pools have it themselves")
    )]
    connecting: Duration,
    hamode: Option<Hamode>,
    closed: AtomicBool,
}

impl Server {
    pub(crate) fn new(pool: Pool, config: &PostgresConfig) -> Self {
        Self {
            pool,
            schema: config.schema.clone(),
            timeout: config.timeout,
            connecting: connecting(config),
            hamode: config.hamode.clone(),
            closed: AtomicBool::new(false),
        }
    }

    /// Has connections of our own keep these statements prepared, those that are open already
    /// included. Only where they are the server's own.
    pub(crate) async fn prepare(&self, statements: Vec<String>) {
        let Pool::Own(Own { pool, prepared }) = &self.pool else { return };
        prepared.keep(statements);
        // Opening has used one connection at a time, so there is one.
        if let Ok(object) = pool.get().await {
            let mut lent = Lent(Some(object));
            if let Some(client) = &lent.0
                && tokio::time::timeout(self.timeout, prepared.on(client)).await.is_ok()
            {
                drop(lent.0.take());
            }
        }
    }

    /// Sends one statement, on a connection that does nothing else meanwhile.
    pub(crate) async fn query(
        &self,
        operation: Operation,
        effect: Effect,
        statement: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Failure> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed(operation).into());
        }
        let answered = match &self.pool {
            Pool::Own(Own { pool, prepared }) => {
                self.borrowed(pool, operation, statement, params, Some(prepared)).await?
            }
            Pool::Hosts(pool) => self.borrowed(pool, operation, statement, params, None).await?,
            #[cfg(feature = "sqlx")]
            Pool::Sqlx(pool) => {
                let text = sqlx_pool::text(operation, statement, params)?;
                let lent = sqlx_pool::Lent::of(pool, self.connecting, operation).await?;
                tokio::time::timeout(self.timeout, lent.query(text)).await
            }
        };
        match answered {
            Ok(answered) => {
                let writes = effect == Effect::Writes;
                let schema = self.schema.as_str();
                answered.map_err(|error: ClientError| {
                    let of_theirs = self
                        .hamode
                        .as_ref()
                        .and_then(|hamode| layout_unfit(&error, operation, hamode));
                    of_theirs.map_or_else(
                        || from_statement(error, operation, writes, schema),
                        Failure::Told,
                    )
                })
            }
            Err(_) => {
                let kind = match effect {
                    Effect::Reads => ErrorKind::Unavailable,
                    Effect::Writes => ErrorKind::OutcomeUnknown,
                };
                let message = format!("the server didn't answer within {:?}", self.timeout);
                Err(Error::new(kind, operation, message).into())
            }
        }
    }
}

impl Server {
    /// Asks by our client, on a connection of the pool. The outer error: nothing was sent.
    async fn borrowed(
        &self,
        pool: &deadpool_postgres::Pool,
        operation: Operation,
        statement: &str,
        params: Params<'_>,
        prepared: Option<&Prepared>,
    ) -> Result<Result<Result<Vec<Row>, ClientError>, Elapsed>, Error> {
        let object = pool.get().await.map_err(|error| no_connection(error, operation))?;
        let answer = async {
            let rows = Lent(Some(object)).query(statement, params, prepared).await?;
            Ok(rows.into_iter().map(Row::Postgres).collect())
        };
        Ok(tokio::time::timeout(self.timeout, answer).await)
    }
}

impl Lent {
    async fn query(
        mut self,
        statement: &str,
        params: Params<'_>,
        prepared: Option<&Prepared>,
    ) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        let client = self.0.as_ref().expect("it is lent until its statement was answered");
        let mut answered = None;
        if let Some(prepared) = prepared.filter(|prepared| prepared.has(statement)) {
            let values: Vec<&(dyn ToSql + Sync)> = params.iter().map(|(value, _)| *value).collect();
            answered = prepared.run(client, statement, &values).await;
        }
        let answered = match answered {
            Some(answered) => answered,
            None => client.query_typed(statement, params).await,
        };
        let broken = answered.as_ref().is_err_and(|error| error.as_db_error().is_none());
        if !broken {
            // Answered, if only by an error: the connection is as good as new.
            drop(self.0.take());
        }
        answered
    }
}

pub(crate) fn no_connection(error: PoolError, operation: Operation) -> Error {
    match error {
        PoolError::Backend(error) => from_connecting(error, operation),
        PoolError::Timeout(_) => no_connection_in_time(operation),
        PoolError::Closed => closed(operation),
        other => Error::new(ErrorKind::Unavailable, operation, "no connection to the server")
            .with_source(other),
    }
}

impl Link {
    pub(crate) fn new(
        server: Server,
        config: &PostgresConfig,
        location: Arc<str>,
        store: StoreId,
        expiry: Expiry,
        chance: Chance,
    ) -> Self {
        Self {
            server,
            schema: config.schema.clone(),
            statements: Statements::new(&config.schema, config.hamode.as_ref()),
            shared: config.hamode.is_some(),
            namespace: config.namespace.clone(),
            location,
            expiry,
            believed: Mutex::new(store),
            chance: Mutex::new(chance),
        }
    }

    /// The store that this session believes in.
    pub(crate) fn store(&self) -> StoreId {
        *self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the rows that are asked for now are of.
    pub(crate) fn origin(&self) -> Origin {
        Origin { store: self.store(), shared: self.shared }
    }

    /// Sends a statement of the schema's functions.
    ///
    /// # Errors
    /// `StoreReset`, once, when another store answers; the session believes in that one from
    /// then on.
    pub(crate) async fn ask(
        &self,
        operation: Operation,
        effect: Effect,
        statement: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        let outcome = self.server.query(operation, effect, statement, params).await;
        let error = match outcome {
            Ok(rows) => return Ok(rows),
            Err(Failure::Told(error)) => error,
            Err(Failure::OtherStore(found)) => self.other_store(&found, operation).await,
        };
        Err(error.with_store(Arc::clone(&self.location)))
    }

    /// Another store answers than this session believed in.
    async fn other_store(&self, found: &str, operation: Operation) -> Error {
        let before = self.store();
        let found = match found.parse::<StoreId>() {
            Ok(found) => found,
            Err(_) => match self.mark_anew(operation).await {
                Ok(fresh) => fresh,
                Err(error) => return error,
            },
        };
        *self.believed.lock().unwrap_or_else(PoisonError::into_inner) = found;
        let message = format!(
            "the store's id changed from {before} to {found}: what was held is lost; claim it anew"
        );
        Error::new(ErrorKind::StoreReset, operation, message)
    }

    /// Writes the row about the store, where there is none.
    async fn mark_anew(&self, operation: Operation) -> Result<StoreId, Error> {
        let fresh = {
            let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
            StoreId::draw(&mut chance)
        };
        let schema = self.schema.quoted();
        let insert = format!(
            "INSERT INTO {schema}.store (format, store, clock, floor) \
             SELECT 1, $1, $2, coalesce(max(token), 0) FROM {schema}.leases \
             ON CONFLICT DO NOTHING RETURNING store"
        );
        let clock = clock_word(self.expiry);
        let (id, text) = (fresh.to_string(), Type::TEXT);
        let params: Params<'_> = &[(&id, text.clone()), (&clock, text)];
        let effect = Effect::Writes;
        match self.server.query(operation, effect, &insert, params).await {
            Ok(rows) if !rows.is_empty() => Ok(fresh),
            // Somebody else was quicker; the next request is told of that one.
            Ok(_) | Err(Failure::OtherStore(_)) => Err(Error::new(
                ErrorKind::Unavailable,
                operation,
                "the store's row was away for a moment; try again",
            )),
            Err(Failure::Told(error)) => Err(error),
        }
    }

    /// Has connections keep prepared what sessions ask all the time.
    pub(crate) async fn prepare(&self) {
        let Statements { acquire, renew, release, read, .. } = &self.statements;
        let often = [acquire, renew, release, read];
        self.server.prepare(often.into_iter().cloned().collect()).await;
    }

    /// Sends nothing from now on, and lets go of all connections. A host's pool stays open.
    pub(crate) fn close(&self) {
        self.server.closed.store(true, Ordering::SeqCst);
        if let Pool::Own(own) = &self.server.pool {
            own.pool.close();
        }
    }
}

fn closed(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the session was closed")
}

/// How the store's row says whose clock decides.
pub(crate) fn clock_word(expiry: Expiry) -> &'static str {
    match expiry {
        Expiry::StoreClock => "server",
        Expiry::Observed => "observed",
    }
}
