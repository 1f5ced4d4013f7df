//! What SQLite and the file system say, as the kinds of error that tenure knows.

use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::ErrorCode;
use tenure_core::{Error, ErrorKind, Operation};

use crate::answer::Ended;

/// How far a transaction had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Whatever it had written is rolled back: certainly not done.
    BeforeCommit,
    /// The commit itself failed.
    Commit,
}

/// Why a transaction came to nothing.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite failed.
    Sqlite(rusqlite::Error),
    /// The row that says which store this is has vanished.
    Unmarked,
    /// Anything that is told as it is.
    Told(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// Whether somebody else has the file just now, so that trying again may do.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

/// Whether a statement failed since tenure's tables aren't there (any more).
pub(crate) fn is_missing_table(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(code, Some(message))
        if code.code == ErrorCode::Unknown && message.starts_with("no such table: tenure_"))
        || matches!(error, rusqlite::Error::SqlInputError { msg, .. }
            if msg.starts_with("no such table: tenure_"))
}

/// What SQLite said, in a phase of an operation.
pub(crate) fn from_sqlite(error: rusqlite::Error, operation: Operation, phase: Phase) -> Error {
    let opening = operation == Operation::Open || operation == Operation::Init;
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (
            ErrorKind::Unavailable,
            "the disk is full, and nothing was written; free some space".to_owned(),
        ),
        Some(ErrorCode::ReadOnly) => (
            ErrorKind::Denied,
            "the file can't be written; give this user write permission to it and its directory"
                .to_owned(),
        ),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => (
            ErrorKind::Denied,
            "access to the file was refused; give this user read and write permission".to_owned(),
        ),
        Some(ErrorCode::NotADatabase) if opening => (
            ErrorKind::Misconfigured,
            "the file is not an SQLite database; name another, or move this one out of the way"
                .to_owned(),
        ),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            "the file is damaged; stop whoever uses it and restore it, or look with `sqlite3 FILE \
             .recover`"
                .to_owned(),
        ),
        Some(ErrorCode::SystemIoFailure) if phase == Phase::Commit => (
            ErrorKind::OutcomeUnknown,
            "the disk failed while the transaction was committed; it may be done or not".to_owned(),
        ),
        Some(ErrorCode::SystemIoFailure) => {
            (ErrorKind::Unavailable, "the disk failed; look at the system's log".to_owned())
        }
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::Unavailable,
            "the file or one beside it can't be opened; look at its directory and at how many \
             files are open"
                .to_owned(),
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Unavailable, "the file is in use; try again".to_owned())
        }
        Some(
            ErrorCode::SchemaChanged | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted,
        ) => (ErrorKind::Unavailable, format!("the request was broken off: {error}")),
        // A full table of a test or of a quota, say: nothing of it was committed.
        Some(_) if phase == Phase::BeforeCommit => {
            (ErrorKind::Unavailable, format!("the statement failed: {error}"))
        }
        Some(_) => (ErrorKind::OutcomeUnknown, format!("the commit failed: {error}")),
        None => (
            ErrorKind::Corrupt,
            format!("tenure's tables hold what no release wrote: {error}; look at them"),
        ),
    };
    Error::new(kind, operation, message).with_source(error)
}

/// Others held the file for too long.
pub(crate) fn stayed_busy(operation: Operation, waited: Duration) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        operation,
        format!(
            "other processes kept the file locked for {waited:?}; end their long transactions or \
             wait longer (busy_ms)"
        ),
    )
}

/// What the system said about a path.
pub(crate) fn from_io(path: &Path, doing: &str, error: io::Error) -> Error {
    let at = path.display();
    let (kind, cure) = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Denied, "give this user permission to read and write there")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Misconfigured, "it is mounted read-only; choose another place")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Unavailable, "free some space")
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            (ErrorKind::Unavailable, "it is not there; put its directory back")
        }
        _ => (ErrorKind::Unavailable, "look at the system's log"),
    };
    let message = format!("{doing} `{at}` failed ({}); {cure}", error.kind());
    Error::new(kind, Operation::Open, message).with_source(error)
}

/// A worker's thread ended before it answered.
pub(crate) fn ended(ended: Ended, operation: Operation) -> Error {
    match ended {
        Ended::BeforeItBegan => closed(operation),
        Ended::AtWork => Error::new(
            ErrorKind::OutcomeUnknown,
            operation,
            "the store's thread ended at work on the request; it may be done or not",
        ),
    }
}

/// The store was closed before the request was begun.
pub(crate) fn closed(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the store was closed; open it anew")
}
