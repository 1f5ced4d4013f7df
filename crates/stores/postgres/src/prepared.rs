//! Statements that a connection keeps prepared: only where it is the server's own.
//!
//! A pooler in transaction mode hands the server's connections around, and with them what others
//! have prepared under the same names. So nothing is prepared before the session has heard its
//! own notification, which no such pooler passes on, nor on a pool that the host has made.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_postgres::ClientWrapper;
use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

/// What the connections of one pool keep prepared.
#[derive(Default)]
pub(crate) struct Prepared {
    statements: OnceLock<Vec<String>>,
    mixed_up: AtomicBool,
}

impl Prepared {
    /// From now on each new connection has these prepared before it is used.
    pub(crate) fn keep(&self, statements: Vec<String>) {
        // A second call would find the same statements.
        let _ = self.statements.set(statements);
    }

    pub(crate) fn has(&self, statement: &str) -> bool {
        let kept = || self.statements.get().is_some_and(|kept| kept.iter().any(|s| s == statement));
        !self.mixed_up.load(Ordering::Relaxed) && kept()
    }

    /// Prepares all on a new connection, in one go. What can't be is told by its first use.
    pub(crate) async fn on(&self, client: &ClientWrapper) {
        let kept = self.statements.get().map(Vec::as_slice).unwrap_or_default();
        join_all(kept.iter().map(|statement| client.prepare_cached(statement))).await;
    }

    /// Runs a statement that is kept. None: it certainly wasn't run, because the connection knows
    /// it no more or knows another by its name; nothing counts as prepared from then on.
    pub(crate) async fn run(
        &self,
        client: &ClientWrapper,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Option<Result<Vec<Row>, Error>> {
        let answered = match client.prepare_cached(statement).await {
            Ok(prepared) => client.query(&prepared, values).await,
            Err(error) => Err(error),
        };
        let mixed_up = answered.as_ref().is_err_and(is_mixed_up);
        if mixed_up {
            self.mixed_up.store(true, Ordering::Relaxed);
            return None;
        }
        Some(answered)
    }
}

/// What the server says of a statement's name before it runs anything.
fn is_mixed_up(error: &Error) -> bool {
    [
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DUPLICATE_PSTATEMENT,
        // The parameters are those of another statement.
        SqlState::PROTOCOL_VIOLATION,
        SqlState::DATATYPE_MISMATCH,
        SqlState::INVALID_BINARY_REPRESENTATION,
        // Its result has another form since it was prepared.
        SqlState::FEATURE_NOT_SUPPORTED,
    ]
    .iter()
    .any(|code| error.code() == Some(code))
}
