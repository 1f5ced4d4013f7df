//! The checking side of a token: inside a transaction on the leases' own database, or beside
//! any other resource.

use std::sync::Arc;

use tenure_core::guard::{GuardError, admit};
use tenure_core::identity::{FencingToken, Name};
use tenure_core::{Error, ErrorKind, Operation};
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::config::Schema;
use crate::driver::ClientError;
use crate::errors::{Failure, from_statement, raised};
use crate::link::{Link, Param, Params};
use crate::schema::Statements;
#[cfg(feature = "sqlx")]
use crate::sqlx_pool;

/// A transaction of sqlx's on PostgreSQL.
#[cfg(feature = "sqlx")]
pub type PgTransaction<'c> = sqlx::Transaction<'c, sqlx::Postgres>;

/// Lets a transaction on the leases' own database go on only while a grant is in force.
///
/// The check locks the lease's row FOR KEY SHARE: the next grant of the name waits until the
/// transaction has ended, however long that takes, so what it commits it commits under the
/// lease. Renewals go on meanwhile, of this name and of all others.
///
/// Where the transaction's isolation is REPEATABLE READ or more, check first: a renewal since
/// its first statement would fail it as a conflict.
#[derive(Clone)]
pub struct Guard {
    link: Arc<Link>,
}

impl Guard {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// Fails unless `name` is granted with exactly `token`, unexpired and not revoked.
    ///
    /// PostgreSQL lets a transaction go no further after a failure, so it can't be overlooked.
    ///
    /// # Errors
    /// [`GuardError::NotInForce`]: roll back; another may act already.
    /// [`GuardError::Failed`]: it couldn't be told; roll back, too. `Misconfigured` if the
    /// transaction isn't on the database that this session's leases are in.
    ///
    /// # Cancel safety
    /// A check that was dropped has let nothing through: roll back.
    pub async fn check(
        &self,
        transaction: &Transaction<'_>,
        name: &Name,
        token: FencingToken,
    ) -> Result<(), GuardError> {
        let question = Question::new(&self.link, name, token);
        let statement = &self.link.statements.guard;
        let answered = transaction.query_typed(statement, &question.params()).await;
        question.verdict(answered.err().map(ClientError::from))
    }

    /// [`check`](Self::check) in a transaction of sqlx's.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    ///
    /// # Cancel safety
    /// A check that was dropped has let nothing through: roll back.
    #[cfg(feature = "sqlx")]
    pub async fn check_sqlx(
        &self,
        transaction: &mut PgTransaction<'_>,
        name: &Name,
        token: FencingToken,
    ) -> Result<(), GuardError> {
        let question = Question::new(&self.link, name, token);
        let statement = &self.link.statements.guard;
        let text = sqlx_pool::text(Operation::Guard, statement, &question.params());
        let text = text.map_err(GuardError::Failed)?;
        let answered = sqlx_pool::query(transaction, text).await;
        question.verdict(answered.err())
    }
}

/// Whether a grant is in force.
struct Question<'q> {
    link: &'q Link,
    name: &'q Name,
    token: FencingToken,
    store: String,
    namespace: &'q str,
    key: &'q str,
    number: i64,
}

impl<'q> Question<'q> {
    fn new(link: &'q Link, name: &'q Name, token: FencingToken) -> Self {
        let (store, namespace) = (link.store().to_string(), link.namespace.as_str());
        let (key, number) = (name.as_str(), token.get().cast_signed());
        Self { link, name, token, store, namespace, key, number }
    }

    fn params(&self) -> [Param<'_>; 4] {
        [
            (&self.store, Type::TEXT),
            (&self.namespace, Type::TEXT),
            (&self.key, Type::TEXT),
            (&self.number, Type::INT8),
        ]
    }

    fn verdict(&self, failure: Option<ClientError>) -> Result<(), GuardError> {
        let Some(error) = failure else { return Ok(()) };
        Err(match refusal(&error, raised::NOT_IN_FORCE) {
            Some(why) => GuardError::not_in_force(self.token, why),
            None => {
                let error = failed(error, &self.link.schema).with_name(self.name);
                GuardError::Failed(error.with_store(Arc::clone(&self.link.location)))
            }
        })
    }
}

/// The highest token that each resource has seen, in the schema's table `high_water`.
///
/// For a resource whose changes aren't in one transaction with the lease: it lets nobody through
/// whose token is older than one that it has let through before. Other languages have the same:
/// `SELECT tenure.admit('resource', token)` in the transaction that makes the change.
#[derive(Clone, Debug)]
pub struct HighWater {
    schema: Schema,
    admit: String,
}

impl HighWater {
    /// The marks in a schema that `tenure init` has created.
    #[must_use]
    pub fn new(schema: Schema) -> Self {
        let admit = Statements::new(&schema, None).admit;
        Self { schema, admit }
    }

    /// Lets a token through that is at least as new as all before it, and remembers it when the
    /// transaction commits. Until then the next token for the resource waits.
    ///
    /// # Errors
    /// [`GuardError::Stale`]: a newer token was here already; roll back.
    /// [`GuardError::Failed`]: it couldn't be told; roll back, too.
    ///
    /// # Cancel safety
    /// A call that was dropped has let nothing through: roll back.
    pub async fn admit(
        &self,
        transaction: &Transaction<'_>,
        resource: &str,
        token: FencingToken,
    ) -> Result<(), GuardError> {
        let number = token.get().cast_signed();
        let params: Params<'_> = &[(&resource, Type::TEXT), (&number, Type::INT8)];
        let answered = transaction.query_typed(&self.admit, params).await;
        self.verdict(token, answered.err().map(ClientError::from))
    }

    /// [`admit`](Self::admit) in a transaction of sqlx's.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    ///
    /// # Cancel safety
    /// A call that was dropped has let nothing through: roll back.
    #[cfg(feature = "sqlx")]
    pub async fn admit_sqlx(
        &self,
        transaction: &mut PgTransaction<'_>,
        resource: &str,
        token: FencingToken,
    ) -> Result<(), GuardError> {
        let number = token.get().cast_signed();
        let params: Params<'_> = &[(&resource, Type::TEXT), (&number, Type::INT8)];
        let text = sqlx_pool::text(Operation::Guard, &self.admit, params);
        let answered = sqlx_pool::query(transaction, text.map_err(GuardError::Failed)?).await;
        self.verdict(token, answered.err())
    }

    fn verdict(&self, token: FencingToken, failure: Option<ClientError>) -> Result<(), GuardError> {
        let Some(error) = failure else { return Ok(()) };
        let newest = refusal(&error, raised::STALE).and_then(|newest| newest.parse().ok());
        let newest = newest.and_then(FencingToken::new);
        admit(newest, token)?;
        Err(GuardError::Failed(failed(error, &self.schema)))
    }
}

fn refusal(error: &ClientError, code: &str) -> Option<String> {
    error.said().filter(|said| said.code.code() == code).map(|said| said.message.to_owned())
}

fn failed(error: ClientError, schema: &Schema) -> Error {
    match from_statement(error, Operation::Guard, false, schema.as_str()) {
        Failure::Told(error) => error,
        Failure::OtherStore(_) => Error::new(
            ErrorKind::Misconfigured,
            Operation::Guard,
            "the transaction is on another database than the leases; begin it on this one",
        ),
    }
}
