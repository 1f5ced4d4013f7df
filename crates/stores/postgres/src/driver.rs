//! Which client statements go through, ours or the host's, and what differs between them: a pool,
//! a row, a failure. Statements and rules are the same.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

#[cfg(feature = "sqlx")]
use sqlx::Row as _;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::FromSql;

use crate::prepared::Prepared;

/// A pool that the host has already, as [`PostgresStore::open_on`](crate::PostgresStore::open_on)
/// takes it. A session borrows connections of it, and leaves it open at its end.
#[derive(Clone)]
pub struct HostPool(pub(crate) Pool);

impl From<deadpool_postgres::Pool> for HostPool {
    fn from(pool: deadpool_postgres::Pool) -> Self {
        Self(Pool::Hosts(pool))
    }
}

#[cfg(feature = "sqlx")]
impl From<sqlx::PgPool> for HostPool {
    fn from(pool: sqlx::PgPool) -> Self {
        Self(Pool::Sqlx(pool))
    }
}

impl fmt::Debug for HostPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostPool").finish_non_exhaustive()
    }
}

/// Connections of our own, and what they keep prepared.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) pool: deadpool_postgres::Pool,
    pub(crate) prepared: Arc<Prepared>,
}

/// Whose connections are used, and by which client.
#[derive(Clone)]
pub(crate) enum Pool {
    /// Made here, and closed with the session.
    Own(Own),
    Hosts(deadpool_postgres::Pool),
    #[cfg(feature = "sqlx")]
    Sqlx(sqlx::PgPool),
}

/// What one client or the other has read.
pub(crate) enum Row {
    Postgres(tokio_postgres::Row),
    #[cfg(feature = "sqlx")]
    Sqlx(sqlx::postgres::PgRow),
}

impl Row {
    pub(crate) fn get<'a, T: Column<'a>>(
        &'a self,
        column: &str,
    ) -> Result<T, Box<dyn StdError + Send + Sync>> {
        match self {
            Self::Postgres(row) => Ok(row.try_get(column)?),
            #[cfg(feature = "sqlx")]
            Self::Sqlx(row) => Ok(row.try_get(column)?),
        }
    }
}

/// What a column can be read as, whichever client has read it.
#[cfg(not(feature = "sqlx"))]
pub(crate) trait Column<'a>: FromSql<'a> {}

#[cfg(not(feature = "sqlx"))]
impl<'a, T: FromSql<'a>> Column<'a> for T {}

/// What a column can be read as, whichever client has read it.
#[cfg(feature = "sqlx")]
pub(crate) trait Column<'a>:
    FromSql<'a> + sqlx::Decode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>
{
}

#[cfg(feature = "sqlx")]
impl<'a, T> Column<'a> for T where
    T: FromSql<'a> + sqlx::Decode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>
{
}

/// Why a client has no rows for a statement.
pub(crate) enum ClientError {
    Postgres(tokio_postgres::Error),
    #[cfg(feature = "sqlx")]
    Sqlx(sqlx::Error),
}

/// What the server itself said against a statement.
pub(crate) struct Said<'e> {
    pub(crate) code: SqlState,
    pub(crate) message: &'e str,
}

impl ClientError {
    /// None: it didn't come to an answer.
    pub(crate) fn said(&self) -> Option<Said<'_>> {
        match self {
            Self::Postgres(error) => error
                .as_db_error()
                .map(|said| Said { code: said.code().clone(), message: said.message() }),
            #[cfg(feature = "sqlx")]
            Self::Sqlx(error) => error.as_database_error().map(|said| Said {
                code: SqlState::from_code(&said.code().unwrap_or_default()),
                message: said.message(),
            }),
        }
    }

    pub(crate) fn as_dyn(&self) -> &(dyn StdError + 'static) {
        match self {
            Self::Postgres(error) => error,
            #[cfg(feature = "sqlx")]
            Self::Sqlx(error) => error,
        }
    }
}

impl From<tokio_postgres::Error> for ClientError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

#[cfg(feature = "sqlx")]
impl From<sqlx::Error> for ClientError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(error)
    }
}
