//! What etcd and the way to it say, as the kinds of error that tenure knows.

use std::error::Error as StdError;

use tenure_core::{Error, ErrorKind, Operation};
use tonic::{Code, ConnectError, Status};

/// Whether a request that nobody answered may have changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

/// Why a request failed, as far as what follows from it differs.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This server can't be reached, or knows no leader: certainly not done, and another server
    /// may do it.
    Elsewhere(Error),
    /// The token that authentication gave has expired: certainly not done.
    TokenExpired(Error),
    /// An etcd lease that the request names is gone: certainly not done.
    LeaseGone(Error),
    /// Anything else.
    Told(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Elsewhere(error)
            | Failure::TokenExpired(error)
            | Failure::LeaseGone(error)
            | Failure::Told(error) => error,
        }
    }
}

/// A request that failed, in the words of the contract. `needs`: the keys that tenure uses here.
pub(crate) fn from_status(
    status: &Status,
    operation: Operation,
    effect: Effect,
    needs: &str,
) -> Failure {
    let failed = |kind, message: String| Failure::from(Error::new(kind, operation, message));
    let not_done = |message: String| Error::new(ErrorKind::Unavailable, operation, message);
    if let Some(refused) = certificate_refused(status) {
        let message = format!(
            "no trusted connection ({refused}); name the authority of the servers' certificates \
             with ca=FILE, and a host that they are for"
        );
        return failed(ErrorKind::Misconfigured, message);
    }
    if source_of::<ConnectError>(status).is_some() {
        return Failure::Elsewhere(not_done(format!(
            "no connection to the server{}; is it up, the address right, and `etcds://` just where it wants TLS?",
            innermost(status)
        )));
    }
    let said = status.message().strip_prefix("etcdserver: ").unwrap_or_default().to_owned();
    match said.as_str() {
        "no leader" => {
            let message = "the server knows of no leader, so nothing was done";
            return Failure::Elsewhere(not_done(message.into()));
        }
        "invalid auth token" | "revision of auth store is old" => {
            return Failure::TokenExpired(not_done("the server no longer knows us".into()));
        }
        "requested lease not found" => {
            return Failure::LeaseGone(not_done("an etcd lease of ours is gone".into()));
        }
        "permission denied" => {
            let message = format!("the user may not read and write {needs}");
            return failed(ErrorKind::Denied, message);
        }
        "user name is empty" | "authentication failed, invalid user ID or password" => {
            let message = "the server refused the credentials; name a user and the right password";
            return failed(ErrorKind::Denied, message.into());
        }
        "mvcc: database space exceeded" => {
            let message = "etcd's space quota is used up, and nothing was written; compact and \
                           defragment it, then disarm its alarm";
            return not_done(message.into()).into();
        }
        "too many requests" => {
            return not_done("the server has too much to do, and refused".into()).into();
        }
        "request is too large" | "too many operations in txn request" => {
            let message = format!("the server's limits are too low for this request: {said}");
            return failed(ErrorKind::Misconfigured, message);
        }
        "corrupt cluster" => {
            let message = "etcd found its own data corrupt; restore the member";
            return failed(ErrorKind::Corrupt, message.into());
        }
        _ => {}
    }
    let from_server = !said.is_empty();
    match status.code() {
        Code::Unimplemented => {
            let message = "what answers is no etcd of version 3.4 or later";
            failed(ErrorKind::Misconfigured, message.into())
        }
        // Refused before anything was proposed, and no word that is known here.
        Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied
            if from_server =>
        {
            not_done(format!("the server says: {said}")).into()
        }
        _ if from_server => failed(unanswered(effect), format!("the server gave up: {said}")),
        _ => {
            let why = innermost(status);
            let cure = match operation {
                Operation::Open => "; is it an etcd, and `etcds://` just where it wants TLS?",
                _ => "",
            };
            let message = format!("the connection was lost before the server answered{why}{cure}");
            failed(unanswered(effect), message)
        }
    }
}

/// The innermost reason, in brackets, if there is one.
fn innermost(status: &Status) -> String {
    chain(status).last().map_or_else(String::new, |error| format!(" ({error})"))
}

/// No answer within the time that the configuration gives.
pub(crate) fn timed_out(operation: Operation, effect: Effect) -> Error {
    Error::new(unanswered(effect), operation, "the server didn't answer in time")
}

/// An answer that has not what it must have.
pub(crate) fn garbled(operation: Operation, effect: Effect) -> Error {
    Error::new(unanswered(effect), operation, "the server's answer lacks what was asked for")
}

/// The session was closed.
pub(crate) fn closed(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the session was closed")
}

fn unanswered(effect: Effect) -> ErrorKind {
    match effect {
        Effect::Reads => ErrorKind::Unavailable,
        Effect::Writes => ErrorKind::OutcomeUnknown,
    }
}

fn certificate_refused(status: &Status) -> Option<String> {
    // An I/O error hides what it was made of from `source`.
    let refused = |error: &(dyn StdError + 'static)| {
        let io = error.downcast_ref::<std::io::Error>()?;
        let inner = io.get_ref()?.to_string();
        (io.kind() == std::io::ErrorKind::InvalidData && inner.contains("certificate"))
            .then_some(inner)
    };
    chain(status).find_map(refused)
}

fn source_of<T: StdError + 'static>(status: &Status) -> Option<&T> {
    chain(status).find_map(|error| error.downcast_ref())
}

fn chain(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(status.source(), |error: &&(dyn StdError + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: Status, effect: Effect) -> ErrorKind {
        Error::from(from_status(&status, Operation::Acquire, effect, "`a` to `b`")).kind()
    }

    #[test]
    fn what_may_have_been_done_is_unknown() {
        for said in ["leader changed", "request timed out", "server stopped"] {
            let status = || Status::unavailable(format!("etcdserver: {said}"));
            assert_eq!(kind(status(), Effect::Writes), ErrorKind::OutcomeUnknown, "{said}");
            assert_eq!(kind(status(), Effect::Reads), ErrorKind::Unavailable, "{said}");
        }
        assert_eq!(kind(Status::unknown("reset"), Effect::Writes), ErrorKind::OutcomeUnknown);
    }

    #[test]
    fn what_was_refused_before_it_was_proposed_is_not_done() {
        for (code, said, wanted) in [
            (Code::Unavailable, "no leader", ErrorKind::Unavailable),
            (Code::ResourceExhausted, "too many requests", ErrorKind::Unavailable),
            (Code::ResourceExhausted, "mvcc: database space exceeded", ErrorKind::Unavailable),
            (Code::NotFound, "requested lease not found", ErrorKind::Unavailable),
            (Code::Unauthenticated, "invalid auth token", ErrorKind::Unavailable),
            (Code::PermissionDenied, "permission denied", ErrorKind::Denied),
            (Code::InvalidArgument, "user name is empty", ErrorKind::Denied),
            (Code::InvalidArgument, "duplicate key given in txn request", ErrorKind::Unavailable),
        ] {
            let status = Status::new(code, format!("etcdserver: {said}"));
            assert_eq!(kind(status, Effect::Writes), wanted, "{said}");
        }
        assert_eq!(kind(Status::unimplemented("x"), Effect::Writes), ErrorKind::Misconfigured);
    }
}
