//! The way to the server: connections from a pool, and which store the session believes in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Timeouts,
};
use tenure_core::chance::Chance;
use tenure_core::identity::{Namespace, StoreId};
use tenure_core::store::Expiry;
use tenure_core::{Error, ErrorKind, Operation};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::config::{CONNECT_DEFAULT, PostgresConfig, Schema};
use crate::errors::{Failure, from_connecting, from_statement, layout_unfit};
use crate::layout::Hamode;
use crate::prepared::Prepared;
use crate::rows::Origin;
use crate::schema::Statements;
use crate::tls;

/// A statement's parameters with their types, so that it needs no preparing.
pub(crate) type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

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

/// The pool of a configuration.
fn pool(config: &PostgresConfig, prepared: &Arc<Prepared>) -> Result<Pool, Error> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config.server.clone(), tls::connector(config)?, recycling);
    let connecting = config.server.get_connect_timeout().copied().unwrap_or(CONNECT_DEFAULT);
    let prepared = Arc::clone(prepared);
    let prepare = Hook::async_fn(move |client: &mut ClientWrapper, _| {
        let prepared = Arc::clone(&prepared);
        Box::pin(async move {
            prepared.on(client).await;
            Ok(())
        })
    });
    Pool::builder(manager)
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

/// A server's pool, and how it is asked.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) pool: Pool,
    pub(crate) schema: Schema,
    pub(crate) timeout: Duration,
    hamode: Option<Hamode>,
    prepared: Arc<Prepared>,
}

impl Server {
    /// On connections of our own.
    pub(crate) fn of(config: &PostgresConfig) -> Result<Self, Error> {
        let prepared = Arc::default();
        let pool = pool(config, &prepared)?;
        Ok(Self { prepared, ..Self::on(pool, config) })
    }

    /// On a pool that the host has made.
    pub(crate) fn on(pool: Pool, config: &PostgresConfig) -> Self {
        Self {
            pool,
            prepared: Arc::default(),
            schema: config.schema.clone(),
            timeout: config.timeout,
            hamode: config.hamode.clone(),
        }
    }

    /// Has connections keep these statements prepared, those that are open already included.
    ///
    /// Only for a pool of ours whose connections are the server's own.
    pub(crate) async fn prepare(&self, statements: Vec<String>) {
        self.prepared.keep(statements);
        // Opening has used one connection at a time, so there is one.
        if let Ok(object) = self.pool.get().await {
            let mut lent = Lent(Some(object));
            if let Some(client) = &lent.0
                && tokio::time::timeout(self.timeout, self.prepared.on(client)).await.is_ok()
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
        let object = self.pool.get().await.map_err(|error| no_connection(error, operation))?;
        let lent = Lent(Some(object));
        match tokio::time::timeout(self.timeout, lent.query(statement, params, &self.prepared))
            .await
        {
            Ok(answered) => {
                let writes = effect == Effect::Writes;
                let schema = self.schema.as_str();
                answered.map_err(|error| {
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

impl Lent {
    async fn query(
        mut self,
        statement: &str,
        params: Params<'_>,
        prepared: &Prepared,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let client = self.0.as_ref().expect("it is lent until its statement was answered");
        let mut answered = None;
        if prepared.has(statement) {
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
        PoolError::Timeout(_) => Error::new(
            ErrorKind::Unavailable,
            operation,
            "no connection to the server in time; is it up and reachable, and are there enough \
             connections?",
        ),
        PoolError::Closed => {
            Error::new(ErrorKind::Unavailable, operation, "the session was closed")
        }
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

    /// Lets go of all connections.
    pub(crate) fn close(&self) {
        self.server.pool.close();
    }
}

/// How the store's row says whose clock decides.
pub(crate) fn clock_word(expiry: Expiry) -> &'static str {
    match expiry {
        Expiry::StoreClock => "server",
        Expiry::Observed => "observed",
    }
}
