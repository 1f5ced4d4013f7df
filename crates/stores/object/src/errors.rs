//! What an object store, its client and the network say, as the kinds of error that tenure knows.

use http::StatusCode;
use object_store::client::{HttpError, HttpErrorKind};
use tenure_core::preconditions::Ignored;
use tenure_core::record_store::Written;
use tenure_core::{Error, ErrorKind, Operation};

use crate::wire::Answered;

/// What is known of a client's ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// Ours: it sends each request once, and says how far it came.
    Ours,
    /// The host's own, which may have sent a request more than once before it failed.
    Hosts,
}

/// What a conditional write came to that the client calls an error.
///
/// With one request sent, a refused precondition is certain. A client that sends again may tell of
/// a precondition that its own first copy has broken: whoever asked reads, and finds that.
pub(crate) fn of_write(error: object_store::Error, client: Client) -> Result<Written, Error> {
    match error {
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            Ok(Written::Conflict)
        }
        other => Err(told(other, Operation::Acquire, client, true)),
    }
}

/// What a read came to that the client calls an error.
pub(crate) fn of_read(error: object_store::Error, operation: Operation, client: Client) -> Error {
    told(error, operation, client, false)
}

/// Whether the same read may well succeed at once.
pub(crate) fn is_passing(error: &object_store::Error) -> bool {
    if let Some(answered) = found::<Answered>(error) {
        return answered.status.is_server_error()
            || answered.status == StatusCode::TOO_MANY_REQUESTS;
    }
    found::<HttpError>(error).is_some_and(|error| error.kind() == HttpErrorKind::Interrupted)
}

/// What it means that a condition was ignored.
pub(crate) fn consequence(ignored: Ignored) -> String {
    let how = match ignored {
        Ignored::AbsentOnPresent => " (it ignores `If-None-Match: *`)",
        Ignored::Stale | Ignored::VersionOnMissing => " (it ignores `If-Match`)",
        Ignored::Race(..) => " (it checks and then acts)",
        _ => "",
    };
    format!(
        "{}{how}; no lease can be had there, so use a store with conditional writes",
        ignored.fact()
    )
}

/// The refusal of an endpoint that ignored a condition.
pub(crate) fn unfit(ignored: Ignored) -> Error {
    let message = format!("the endpoint can't be used: {}", consequence(ignored));
    Error::new(ErrorKind::Misconfigured, Operation::Open, message)
}

/// No answer came in time.
pub(crate) fn silent(operation: Operation, writes: bool) -> Error {
    let kind = if writes { ErrorKind::OutcomeUnknown } else { ErrorKind::Unavailable };
    let message = format!(
        "the object store did not answer within {} s{}",
        crate::wire::ANSWER_MAX.as_secs(),
        if writes { "; the write may be done or not" } else { "; try again" },
    );
    Error::new(kind, operation, message)
}

fn told(error: object_store::Error, operation: Operation, client: Client, writes: bool) -> Error {
    use object_store::Error as E;
    let (kind, message) = match &error {
        E::PermissionDenied { .. } => (
            ErrorKind::Denied,
            "the object store refuses this identity; it needs to read, write and list under the \
             prefix (without the right to list, a missing object looks the same)"
                .to_owned(),
        ),
        E::Unauthenticated { .. } => (
            ErrorKind::Denied,
            "the object store doesn't know these credentials; put the right ones where its tools \
             look for them"
                .to_owned(),
        ),
        E::NotImplemented { .. } | E::NotSupported { .. } => (
            ErrorKind::Misconfigured,
            "this client can't write on a condition; use one that can (a directory of files can't)"
                .to_owned(),
        ),
        E::NotFound { .. } => (ErrorKind::Misconfigured, no_place()),
        E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => {
            (ErrorKind::Misconfigured, "the object store's place can't be used".to_owned())
        }
        _ => match (found::<Answered>(&error), found::<HttpError>(&error)) {
            (Some(answered), _) => answer(answered, writes),
            (None, Some(http)) => on_the_way(http, client, writes),
            (None, None) => unknown(&error.to_string(), writes),
        },
    };
    // The client's own words hold addresses and answers, never credentials.
    Error::new(kind, operation, message).with_source(error)
}

fn no_place() -> String {
    "the bucket or container doesn't exist; create it, or name another".to_owned()
}

/// A status that is neither success nor a refused precondition.
fn answer(answered: &Answered, writes: bool) -> (ErrorKind, String) {
    let status = answered.status;
    if status == StatusCode::NOT_FOUND {
        return (ErrorKind::Misconfigured, no_place());
    }
    let malformed = answered.code == "AuthorizationHeaderMalformed";
    if status.is_redirection() || malformed {
        let cure = match &answered.region {
            Some(region) => format!("write `?region={region}`"),
            None => "name it by `?region=`".to_owned(),
        };
        let message = format!("the bucket lies in another region ({answered}); {cure}");
        return (ErrorKind::Misconfigured, message);
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        let message = format!(
            "the object store is asked too often ({answered}), and did nothing; use a longer ttl"
        );
        return (ErrorKind::Unavailable, message);
    }
    if status == StatusCode::NOT_IMPLEMENTED {
        let message = format!("the object store lacks what tenure needs ({answered}); use another");
        return (ErrorKind::Misconfigured, message);
    }
    if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT {
        let message = format!(
            "the object store refuses the request ({answered}); is the endpoint that of one, and \
             the clock of this machine right?"
        );
        return (ErrorKind::Misconfigured, message);
    }
    // A write that was answered with a server's fault has been seen to be done.
    if writes {
        let message = format!("the object store failed ({answered}); the write may be done or not");
        (ErrorKind::OutcomeUnknown, message)
    } else {
        (ErrorKind::Unavailable, format!("the object store failed ({answered}); try again"))
    }
}

fn on_the_way(error: &HttpError, client: Client, writes: bool) -> (ErrorKind, String) {
    let why = deepest(error);
    if error.kind() == HttpErrorKind::Connect && (client == Client::Ours || !writes) {
        let message = format!(
            "the object store can't be reached ({why}); is the endpoint right, and `http://` or \
             `https://` as it wants it?"
        );
        return (ErrorKind::Unavailable, message);
    }
    unknown(&why, writes)
}

fn unknown(why: &str, writes: bool) -> (ErrorKind, String) {
    if writes {
        let message = format!("no answer came ({why}); the write may be done or not");
        (ErrorKind::OutcomeUnknown, message)
    } else {
        (ErrorKind::Unavailable, format!("no answer came ({why}); try again"))
    }
}

/// The first error of a type in a chain of causes.
pub(crate) fn found<'e, T: std::error::Error + 'static>(
    error: &'e (dyn std::error::Error + 'static),
) -> Option<&'e T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The last cause of all, which says most.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(http: HttpError) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: Box::new(http) }
    }

    fn answered(status: u16, code: &str) -> object_store::Error {
        let status = StatusCode::from_u16(status).expect("a status");
        let answered = Answered { status, code: code.to_owned(), region: None };
        generic(HttpError::new(HttpErrorKind::Unknown, answered))
    }

    fn lost(kind: HttpErrorKind) -> object_store::Error {
        generic(HttpError::new(kind, std::io::Error::other("it is gone")))
    }

    #[test]
    fn a_write_is_certainly_not_done_only_where_nothing_can_have_landed() {
        use ErrorKind::{Misconfigured, OutcomeUnknown, Unavailable};
        for (error, kind) in [
            (answered(503, "SlowDown"), OutcomeUnknown),
            (answered(500, "InternalError"), OutcomeUnknown),
            (answered(408, "RequestTimeout"), OutcomeUnknown),
            (answered(429, "SlowDown"), Unavailable),
            (answered(404, "NoSuchBucket"), Misconfigured),
            (answered(400, "InvalidRequest"), Misconfigured),
            (answered(301, "PermanentRedirect"), Misconfigured),
            (lost(HttpErrorKind::Connect), Unavailable),
            (lost(HttpErrorKind::Interrupted), OutcomeUnknown),
            (lost(HttpErrorKind::Timeout), OutcomeUnknown),
        ] {
            let said = format!("{error}");
            assert_eq!(of_write(error, Client::Ours).unwrap_err().kind(), kind, "{said}");
        }
        // A host's client may have sent it before it could connect no more.
        let again = of_write(lost(HttpErrorKind::Connect), Client::Hosts).unwrap_err();
        assert_eq!(again.kind(), OutcomeUnknown);
    }

    #[test]
    fn a_refused_precondition_is_a_conflict() {
        let source = || Box::new(std::io::Error::other("412"));
        for error in [
            object_store::Error::Precondition { path: "k".into(), source: source() },
            object_store::Error::AlreadyExists { path: "k".into(), source: source() },
        ] {
            assert_eq!(of_write(error, Client::Ours).unwrap(), Written::Conflict);
        }
    }

    #[test]
    fn a_read_that_failed_has_learnt_nothing() {
        for error in [answered(503, "SlowDown"), lost(HttpErrorKind::Interrupted)] {
            assert!(is_passing(&error));
            let told = of_read(error, Operation::Read, Client::Ours);
            assert_eq!(told.kind(), ErrorKind::Unavailable);
        }
        assert!(!is_passing(&lost(HttpErrorKind::Connect)));
    }
}
