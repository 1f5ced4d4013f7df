//! What the API server, its client and the network say, as the kinds of error that tenure knows.

use std::error::Error as StdError;

use kube::core::Status;
use tenure_core::{Error, ErrorKind, Operation};

/// Whether a request that fails may have been carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It reads.
    None,
    /// It writes.
    Write,
}

/// What the client says of a request that it couldn't bring to its end.
pub(crate) fn from_client(error: kube::Error, operation: Operation, effect: Effect) -> Error {
    if let kube::Error::Api(status) = &error {
        return from_status(status, operation, effect);
    }
    if let kube::Error::Auth(_) | kube::Error::InferKubeconfig(_) | kube::Error::InferConfig(_) =
        &error
    {
        let message = format!(
            "no credentials could be had ({}); look at the kubeconfig, its exec plugin, or the \
             pod's service account",
            root(&error)
        );
        return Error::new(ErrorKind::Denied, operation, message).with_source(error);
    }
    if never_sent(&error) {
        return unreachable(error, operation);
    }
    match effect {
        Effect::None => {
            let message =
                format!("the connection broke before the API server answered ({})", root(&error));
            Error::new(ErrorKind::Unavailable, operation, message).with_source(error)
        }
        Effect::Write => unanswered(operation, "the connection broke").with_source(error),
    }
}

/// No connection could be had: nothing was sent.
fn unreachable(error: kube::Error, operation: Operation) -> Error {
    let said = root(&error);
    if said.contains("invalid peer certificate") {
        let message = format!(
            "the API server's certificate isn't trusted ({said}); put its authority into the kubeconfig"
        );
        return Error::new(ErrorKind::Misconfigured, operation, message).with_source(error);
    }
    let message = format!(
        "the API server can't be reached ({said}); is the cluster up, and the context the right one?"
    );
    Error::new(ErrorKind::Unavailable, operation, message).with_source(error)
}

/// No answer came in time.
pub(crate) fn late(operation: Operation, effect: Effect) -> Error {
    match effect {
        Effect::None => Error::new(
            ErrorKind::Unavailable,
            operation,
            "the API server didn't answer in time; try again",
        ),
        Effect::Write => unanswered(operation, "the time ran out"),
    }
}

fn unanswered(operation: Operation, why: &str) -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        operation,
        format!("{why} before the API server answered; the request may be done or not"),
    )
}

/// What the API server said instead of doing it.
pub(crate) fn from_status(status: &Status, operation: Operation, effect: Effect) -> Error {
    let said = status.message.as_str();
    let (kind, message) = match status.code {
        401 => (
            ErrorKind::Denied,
            "the API server takes no such credentials; renew the token or the certificate"
                .to_owned(),
        ),
        403 if said.contains("being terminated") => (
            ErrorKind::Misconfigured,
            format!("the Kubernetes namespace is going away ({said}); name another"),
        ),
        403 => (
            ErrorKind::Denied,
            format!("{said}; `tenure init --print` prints the Role that is needed"),
        ),
        404 => (
            ErrorKind::Misconfigured,
            format!("{said}; make the Kubernetes namespace, or name one that is there"),
        ),
        400 | 413 | 415 | 422 => (
            ErrorKind::Misconfigured,
            format!(
                "the API server refused the object: {said}; is it one of Kubernetes 1.20 or newer?"
            ),
        ),
        // Turned away before it was looked at.
        429 => (
            ErrorKind::Unavailable,
            format!("the API server has too much to do ({said}); try again"),
        ),
        code if effect == Effect::None => {
            (ErrorKind::Unavailable, format!("the API server failed ({code}: {said}); try again"))
        }
        code => (
            ErrorKind::OutcomeUnknown,
            format!("the API server broke the request off ({code}: {said}); it may be done or not"),
        ),
    };
    Error::new(kind, operation, message)
}

/// The server's answer isn't what was asked for.
pub(crate) fn unintelligible(operation: Operation, effect: Effect) -> Error {
    let kind =
        if effect == Effect::None { ErrorKind::Unavailable } else { ErrorKind::OutcomeUnknown };
    let message = "the API server's answer is no Lease; is something else at this address?";
    Error::new(kind, operation, message)
}

/// The store was closed before the request was begun.
pub(crate) fn closed(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the store was closed; open it anew")
}

/// Whether the request certainly never left: there was no connection to send it on.
fn never_sent(error: &kube::Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(one) = next {
        if let Some(hyper) = one.downcast_ref::<hyper_util::client::legacy::Error>() {
            return hyper.is_connect();
        }
        next = one.source();
    }
    false
}

/// The innermost cause, which says what happened.
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str) -> Status {
        let mut status = Status::failure(message, "");
        status.code = code;
        status
    }

    #[test]
    fn what_may_have_been_written_is_never_called_undone() {
        for code in [500, 502, 503, 504] {
            let of = |effect| from_status(&status(code, "x"), Operation::Renew, effect).kind();
            assert_eq!(of(Effect::Write), ErrorKind::OutcomeUnknown, "{code}");
            assert_eq!(of(Effect::None), ErrorKind::Unavailable, "{code}");
        }
        let busy = from_status(&status(429, "x"), Operation::Renew, Effect::Write);
        assert_eq!(busy.kind(), ErrorKind::Unavailable);
        assert_eq!(late(Operation::Renew, Effect::Write).kind(), ErrorKind::OutcomeUnknown);
    }

    #[test]
    fn a_refusal_names_the_way_out() {
        for (code, kind, word) in [
            (401, ErrorKind::Denied, "token"),
            (403, ErrorKind::Denied, "init --print"),
            (404, ErrorKind::Misconfigured, "namespace"),
            (422, ErrorKind::Misconfigured, "refused"),
        ] {
            let error = from_status(&status(code, "said"), Operation::Acquire, Effect::Write);
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
