//! What PostgreSQL says, as the kinds of error that tenure knows.

use std::error::Error as StdError;
use std::io;

use tenure_core::{Error, ErrorKind, Operation};
use tokio_postgres::error::SqlState;

use crate::driver::{ClientError, Said};
use crate::layout::Hamode;

/// What our own functions raise.
pub(crate) mod raised {
    /// The store isn't the one that was expected; the message is the id that is there.
    pub(crate) const STORE: &str = "TN001";
    /// A guard's refusal; the message is the reason.
    pub(crate) const NOT_IN_FORCE: &str = "TN002";
    /// A high-water mark's refusal; the message is the newest token.
    pub(crate) const STALE: &str = "TN003";
    /// No token is left.
    pub(crate) const NO_TOKENS: &str = "TN004";
}

/// What became of a statement that failed.
pub(crate) enum Failure {
    /// Another store answers: its id, or none.
    OtherStore(String),
    /// Anything else.
    Told(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// A statement that failed, in the words of the contract.
///
/// `writes`: without the server's word, nobody knows whether it was carried out.
pub(crate) fn from_statement(
    error: impl Into<ClientError>,
    operation: Operation,
    writes: bool,
    schema: &str,
) -> Failure {
    let error = error.into();
    let Some(said) = error.said() else {
        let kind = if writes { ErrorKind::OutcomeUnknown } else { ErrorKind::Unavailable };
        let message = format!("the connection was lost before the server answered{}", tail(&error));
        return Error::new(kind, operation, message).into();
    };
    if said.code.code() == raised::STORE {
        return Failure::OtherStore(said.message.to_owned());
    }
    let (kind, message) = meaning(&said, schema);
    // The backend was told to end: just before the commit, or just after.
    let ended = matches!(said.code.code(), "57P01" | "57P02" | "57P05");
    let kind = if ended && writes { ErrorKind::OutcomeUnknown } else { kind };
    Error::new(kind, operation, message).into()
}

/// What is amiss with the table of a layout, if that is what the server complains of.
pub(crate) fn layout_unfit(
    error: &ClientError,
    operation: Operation,
    hamode: &Hamode,
) -> Option<Error> {
    let Said { code, message: said } = error.said()?;
    let names_it = said.contains(&hamode.to_string()) || said.contains(hamode.table());
    let (kind, cure) = match code {
        SqlState::UNDEFINED_TABLE if names_it => {
            (ErrorKind::Misconfigured, "create it, or name another with &table=SCHEMA.TABLE")
        }
        SqlState::UNDEFINED_COLUMN | SqlState::INVALID_COLUMN_REFERENCE => (
            ErrorKind::Misconfigured,
            "name HAMode's table, with its five columns and a key on lease_name, with &table=",
        ),
        SqlState::INSUFFICIENT_PRIVILEGE if names_it => {
            (ErrorKind::Denied, "grant this role SELECT, INSERT and UPDATE on it")
        }
        _ => return None,
    };
    let message = format!("`{hamode}`, which layout=hamode shares, can't be used ({said}); {cure}");
    Some(Error::new(kind, operation, message))
}

/// A connection that could not be made.
pub(crate) fn from_connecting(error: impl Into<ClientError>, operation: Operation) -> Error {
    let error = error.into();
    if let Some(said) = error.said() {
        let (kind, message) = meaning(&said, "");
        return Error::new(kind, operation, message);
    }
    let words = error.as_dyn().to_string();
    let (kind, message) = match source_of::<rustls::Error>(&error) {
        Some(tls) => (
            ErrorKind::Misconfigured,
            format!(
                "the server's certificate is refused ({tls}); name its authority with \
                 sslrootcert=FILE, or a host that the certificate is for"
            ),
        ),
        #[cfg(feature = "sqlx")]
        None if matches!(error, ClientError::Sqlx(sqlx::Error::Tls(_))) => {
            (ErrorKind::Misconfigured, format!("{words}; see the pool's ssl_mode"))
        }
        None if words.contains("TLS") => (
            ErrorKind::Misconfigured,
            "the server doesn't offer TLS; set `ssl = on` there, or say sslmode=disable".to_owned(),
        ),
        None if words.contains("invalid configuration") || words.contains("password missing") => (
            ErrorKind::Denied,
            "the server asks for a password, and the URL has none; add it".to_owned(),
        ),
        None => (
            ErrorKind::Unavailable,
            format!(
                "no connection to the server{}; is it up, and is the address right?",
                tail(&error)
            ),
        ),
    };
    Error::new(kind, operation, message)
}

/// A pool that has no connection to give.
pub(crate) fn no_connection_in_time(operation: Operation) -> Error {
    let message = "no connection to the server in time; is it up and reachable, and are there \
                   enough connections?";
    Error::new(ErrorKind::Unavailable, operation, message)
}

/// The innermost reason, if there is one that says more.
fn tail(error: &ClientError) -> String {
    if let Some(io) = source_of::<io::Error>(error) {
        return format!(" ({io})");
    }
    match error {
        ClientError::Postgres(_) => String::new(),
        #[cfg(feature = "sqlx")]
        ClientError::Sqlx(error) => format!(" ({error})"),
    }
}

fn source_of<T: StdError + 'static>(error: &ClientError) -> Option<&T> {
    let mut source = error.as_dyn().source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error hides what it was made of from `source`.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = inner.downcast_ref()
        {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn meaning(said: &Said<'_>, schema: &str) -> (ErrorKind, String) {
    let Said { code, message: said } = said;
    match code.code() {
        raised::NO_TOKENS => (
            ErrorKind::Corrupt,
            format!("`{said}` has the largest token there is; no later one can be granted"),
        ),
        _ if *code == SqlState::UNDEFINED_TABLE
            || *code == SqlState::UNDEFINED_OBJECT
            || *code == SqlState::UNDEFINED_FUNCTION
            || *code == SqlState::INVALID_SCHEMA_NAME
            // Those of another release.
            || *code == SqlState::UNDEFINED_COLUMN
            || *code == SqlState::AMBIGUOUS_FUNCTION =>
        {
            (ErrorKind::Misconfigured, missing(schema, said))
        }
        _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => (
            ErrorKind::Denied,
            format!(
                "{said}; grant this role USAGE on the schema `{schema}` and SELECT, INSERT and \
                 UPDATE on its tables"
            ),
        ),
        _ if *code == SqlState::INVALID_PASSWORD
            || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
        {
            (ErrorKind::Denied, format!("the server refused the credentials: {said}"))
        }
        _ if *code == SqlState::INVALID_CATALOG_NAME => {
            (ErrorKind::Misconfigured, format!("{said}; create it, or name another in the URL"))
        }
        _ if *code == SqlState::READ_ONLY_SQL_TRANSACTION => (
            ErrorKind::Unavailable,
            "the server is a standby, or read-only just now; name the primary, or all hosts and \
             target_session_attrs=read-write"
                .to_owned(),
        ),
        _ if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED => {
            (ErrorKind::Corrupt, format!("the database is damaged: {said}; restore it"))
        }
        _ if *code == SqlState::UNTRANSLATABLE_CHARACTER => {
            (ErrorKind::Invalid, "a text has a NUL in it, which PostgreSQL can't keep".to_owned())
        }
        _ if *code == SqlState::DISK_FULL => (
            ErrorKind::Unavailable,
            "the server's disk is full, and nothing was written; free some space".to_owned(),
        ),
        _ if *code == SqlState::TOO_MANY_CONNECTIONS => (
            ErrorKind::Unavailable,
            format!("{said}; raise max_connections, or lower connections= in the URL"),
        ),
        // An error ends its transaction: nothing of it was done.
        _ => (ErrorKind::Unavailable, format!("the server says: {said} ({})", code.code())),
    }
}

/// What to say where tenure's tables or functions aren't there.
pub(crate) fn missing(schema: &str, said: &str) -> String {
    format!(
        "`{schema}.leases` and its functions are not all there ({said}); create them with `tenure \
         init`, or name their schema with ?schema="
    )
}
