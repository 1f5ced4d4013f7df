//! Exit codes, and the one line that says why.

use std::error::Error as _;
use std::process::ExitCode;

use tenure::{Error, ErrorKind};

use crate::secret::redacted;

/// Bad usage: a name, a timing, an option.
pub(crate) const USAGE: u8 = 64;
/// A record that can't be read.
const CORRUPT: u8 = 65;
/// The store can't be reached, or didn't answer.
pub(crate) const UNAVAILABLE: u8 = 69;
/// The store refuses the credentials, or the permission.
const DENIED: u8 = 77;
/// Something is missing or unsuitable.
pub(crate) const MISCONFIGURED: u8 = 78;
/// Another holds the name.
pub(crate) const NOT_ACQUIRED: u8 = 75;

/// Why a command ends without having done what it was asked: a code, and fact and cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    pub(crate) fn misconfigured(message: impl Into<String>) -> Self {
        Self::new(MISCONFIGURED, message)
    }

    /// Stdout can't be written to.
    pub(crate) fn stdout(error: &std::io::Error) -> Self {
        Self::new(74, format!("stdout can't be written to: {error}"))
    }

    /// Says it on stderr.
    pub(crate) fn say(&self) {
        say(&self.message);
    }

    /// Says it, and answers the exit code.
    pub(crate) fn exit(&self) -> ExitCode {
        self.say();
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::StoreReset => {
                UNAVAILABLE
            }
            ErrorKind::Denied => DENIED,
            ErrorKind::Misconfigured => MISCONFIGURED,
            ErrorKind::Invalid => USAGE,
            ErrorKind::Corrupt => CORRUPT,
            _ => UNAVAILABLE,
        };
        Self::new(code, explained(&error))
    }
}

/// A failure and its causes on one line.
pub(crate) fn explained(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}

/// One line on stderr, without secrets. It may be closed: then nothing is said, and nothing fails.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    let line = redacted(line).replace(['\n', '\r'], " ");
    let _ = writeln!(std::io::stderr(), "tenure: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenure::Operation;

    #[test]
    fn each_kind_has_its_code() {
        for (kind, code) in [
            (ErrorKind::Invalid, 64),
            (ErrorKind::Corrupt, 65),
            (ErrorKind::Unavailable, 69),
            (ErrorKind::OutcomeUnknown, 69),
            (ErrorKind::Denied, 77),
            (ErrorKind::Misconfigured, 78),
        ] {
            assert_eq!(Failure::from(Error::new(kind, Operation::Open, "x")).code, code);
        }
    }

    #[test]
    fn causes_are_told_once() {
        let inner = Error::new(ErrorKind::Denied, Operation::Open, "permission denied");
        let outer = Error::new(ErrorKind::Denied, Operation::Open, "the file can't be opened");
        let error = outer.with_source(inner);
        assert_eq!(explained(&error), "the file can't be opened: permission denied");
    }
}
