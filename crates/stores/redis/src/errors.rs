//! What Redis, its client and the network say, as the kinds of error that tenure knows.

use redis::{RedisError, ServerError};
use tenure_core::{Error, ErrorKind, Operation};

/// Why no connection could be had: nothing was sent.
pub(crate) fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!(
        "the server can't be reached ({error}); is it up, and the URL right, `rediss://` just where it wants TLS?"
    );
    Error::new(ErrorKind::Unavailable, Operation::Open, message).with_source(error)
}

/// What came of logging in, or of listening.
pub(crate) fn from_login(error: RedisError) -> Error {
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return refused_login(&error);
    }
    // The client tells a refused SELECT in its own words.
    if error.to_string().contains("DB index is out of range") {
        let message = "the server has no database of this number; name another in the URL, or \
                       raise `databases`";
        return Error::new(ErrorKind::Misconfigured, Operation::Open, message).with_source(error);
    }
    match error.clone().into_server_errors().as_deref() {
        Some([(_, said), ..]) => from_server(said, Operation::Open),
        _ => unreachable(error),
    }
}

/// The client tells a refused AUTH without the server's code.
fn refused_login(error: &RedisError) -> Error {
    let said = error.to_string();
    // The server is asked for nothing but AUTH here, so its words hold no secret.
    let message = if said.contains("WRONGPASS") || said.contains("invalid password") {
        "the server refused the user or the password; put the right ones into the URL"
    } else {
        "the server refused the credentials; put the right ones into the URL"
    };
    Error::new(ErrorKind::Denied, Operation::Open, message)
}

/// The request was sent, and no answer came.
pub(crate) fn unanswered(operation: Operation, why: &str) -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        operation,
        format!("{why} before the server answered; the request may be done or not"),
    )
}

/// What the server said instead of an answer.
///
/// Whatever stops a script before its first write is certainly not done. The scripts write what
/// is denied when memory is short first, and commands that might not be permitted are tried when
/// the store is opened.
pub(crate) fn from_server(said: &ServerError, operation: Operation) -> Error {
    let detail = said.details().unwrap_or_default();
    let (kind, message) = match said.code() {
        "NOAUTH" | "WRONGPASS" => (
            ErrorKind::Denied,
            "the server asks for a user and a password; put them into the URL".to_owned(),
        ),
        "NOPERM" => (
            ErrorKind::Denied,
            format!("this user lacks a permission ({detail}); docs/stores/redis.md names them all"),
        ),
        // From within a script: once it has opened the store, it may have written by then.
        "ERR" if detail.contains("The user executing the script") => (
            if operation == Operation::Open || operation == Operation::Diagnose {
                ErrorKind::Denied
            } else {
                ErrorKind::OutcomeUnknown
            },
            format!("this user lacks a permission ({detail}); docs/stores/redis.md names them all"),
        ),
        "LOADING" => (
            ErrorKind::Unavailable,
            "the server is loading its data; it will answer when it has".to_owned(),
        ),
        "BUSY" => (
            ErrorKind::Unavailable,
            "somebody's script keeps the server busy; end it with SCRIPT KILL".to_owned(),
        ),
        "OOM" => (
            ErrorKind::Unavailable,
            "the server's memory is full, and nothing was written; raise maxmemory or free some"
                .to_owned(),
        ),
        "READONLY" => (
            ErrorKind::Unavailable,
            "the server is a replica, and nothing was written; name the master, or the sentinels"
                .to_owned(),
        ),
        "MASTERDOWN" => (
            ErrorKind::Unavailable,
            "the server is a replica that has lost its master; wait for a failover".to_owned(),
        ),
        "MISCONF" => (
            ErrorKind::Unavailable,
            "the server can't save its data and refuses writes; look at its log and its disk"
                .to_owned(),
        ),
        "NOREPLICAS" => (
            ErrorKind::Unavailable,
            "too few replicas are connected (min-replicas-to-write); bring them back".to_owned(),
        ),
        "CLUSTERDOWN" | "TRYAGAIN" | "ASK" | "MOVED" => (
            ErrorKind::Unavailable,
            format!(
                "the cluster has no place for the bucket just now ({}); try again",
                said.code()
            ),
        ),
        "WRONGTYPE" => (
            ErrorKind::Corrupt,
            "a key of tenure's holds something else; look at it, or choose another `prefix`"
                .to_owned(),
        ),
        "ERR" if detail.contains("cluster support disabled") => (
            ErrorKind::Misconfigured,
            "the server is not part of a cluster; name it with `redis://`".to_owned(),
        ),
        "ERR" if detail.contains("unknown command") && detail.contains("SENTINEL") => (
            ErrorKind::Misconfigured,
            "the server is no sentinel; name the sentinels, not the servers that they watch"
                .to_owned(),
        ),
        "ERR" if detail.contains("unknown command") => (
            ErrorKind::Misconfigured,
            format!("the server lacks a command that tenure needs: {detail}"),
        ),
        "ERR" if detail.contains("Write commands not allowed after non deterministic") => (
            ErrorKind::Misconfigured,
            "the server's scripts can't write after reading the clock; use Redis 5 or newer"
                .to_owned(),
        ),
        code => (
            ErrorKind::OutcomeUnknown,
            format!("the server broke the request off ({code} {detail}); it may be done or not"),
        ),
    };
    Error::new(kind, operation, message)
}

/// The server answered with what no script of ours says.
pub(crate) fn unintelligible(operation: Operation) -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        operation,
        "the server's answer doesn't fit the request; is a proxy in between?",
    )
}

/// The store was closed before the request was begun.
pub(crate) fn closed(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the store was closed; open it anew")
}
