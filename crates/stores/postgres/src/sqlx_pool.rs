//! A host's sqlx pool: its connections are borrowed for one statement each.
//!
//! A statement goes out as text, with its values written into it. With parameters sqlx would take
//! two round trips, and in between a pooler in transaction mode may hand the server's connection,
//! with the statement that was just parsed on it, to somebody else.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres};
use tenure_core::{Error, ErrorKind, Operation};

use crate::driver::{ClientError, Row};
use crate::errors::{from_connecting, no_connection_in_time};
use crate::link::Params;
use crate::literal::written_out;

/// A connection that goes back to the pool only if its statement was answered.
pub(crate) struct Lent(Option<PoolConnection<Postgres>>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            // The pool makes another in its place; this one is closed under its statement.
            drop(connection.detach());
        }
    }
}

impl Lent {
    /// Waits for a connection, as long as the pool waits, and no longer than `most`.
    pub(crate) async fn of(
        pool: &PgPool,
        most: Duration,
        operation: Operation,
    ) -> Result<Self, Error> {
        match tokio::time::timeout(most, pool.acquire()).await {
            Ok(Ok(connection)) => Ok(Self(Some(connection))),
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => Err(no_connection_in_time(operation)),
            Ok(Err(sqlx::Error::PoolClosed)) => {
                Err(Error::new(ErrorKind::Unavailable, operation, "the host has closed its pool"))
            }
            Ok(Err(error)) => Err(from_connecting(error, operation)),
        }
    }

    /// Sends a statement that [`text`] has written out.
    pub(crate) async fn query(mut self, text: String) -> Result<Vec<Row>, ClientError> {
        let connection = self.0.as_mut().expect("it is lent until its statement was answered");
        let answered = query(connection, text).await;
        if answered.as_ref().map_or_else(|error| error.said().is_some(), |_| true) {
            drop(self.0.take());
        }
        answered
    }
}

/// Sends a statement that [`text`] has written out, on a connection that is the caller's concern.
pub(crate) async fn query(
    connection: &mut PgConnection,
    text: String,
) -> Result<Vec<Row>, ClientError> {
    // Safe: values stand in it as literals, see `literal`.
    let rows = sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(connection).await?;
    Ok(rows.into_iter().map(Row::Sqlx).collect())
}

/// A statement with its values in it.
///
/// # Errors
/// `Invalid`: one has a NUL in it.
pub(crate) fn text(
    operation: Operation,
    statement: &str,
    params: Params<'_>,
) -> Result<String, Error> {
    written_out(statement, params).map_err(|error| {
        let message = format!("a value can't be written into a statement: {error}");
        Error::new(ErrorKind::Invalid, operation, message)
    })
}

/// Where a pool leads, without a secret: hosts and database.
pub(crate) fn place(pool: &PgPool) -> String {
    let options = pool.connect_options();
    let host = options
        .get_socket()
        .map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string());
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("{host}:{}/{database}", options.get_port())
}
