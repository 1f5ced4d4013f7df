//! The mark of a store, by which two fleets notice that they share one unawares.

use crate::error::{Error, ErrorKind, Operation};
use crate::identity::Name;

/// Whether `mark` can be one: it is text as a name is.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid).
pub fn check(mark: &str) -> Result<(), Error> {
    Name::new(mark)
        .map(drop)
        .map_err(|error| Error::invalid(format!("the cluster mark can't be used: {error}")))
}

/// Whether a store with the mark `found` is one that was asked for by `?cluster=wanted`.
///
/// # Errors
/// [`Misconfigured`](ErrorKind::Misconfigured): it bears another mark, or none.
pub fn compare(wanted: Option<&str>, found: Option<&str>) -> Result<(), Error> {
    let Some(wanted) = wanted else { return Ok(()) };
    let message = match found {
        Some(found) if found == wanted => return Ok(()),
        Some(found) => format!(
            "the store bears the mark `{found}`, not `{wanted}`; name the right store, or the \
             right cluster"
        ),
        None => {
            format!("the store bears no mark; give it one with `tenure init --cluster {wanted}`")
        }
    };
    Err(Error::new(ErrorKind::Misconfigured, Operation::Open, message))
}

/// The refusal of `init` to give another mark to a store that bears one.
#[must_use]
pub fn taken(wanted: &str) -> Error {
    Error::new(
        ErrorKind::Misconfigured,
        Operation::Init,
        format!("the store bears another mark than `{wanted}` already; keep that"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mark_that_was_asked_for_will_do() {
        assert!(compare(None, None).is_ok() && compare(None, Some("prod")).is_ok());
        assert!(compare(Some("prod"), Some("prod")).is_ok());
        let other = compare(Some("prod"), Some("test")).unwrap_err();
        assert!(other.to_string().contains("the mark `test`"), "{other}");
        let none = compare(Some("prod"), None).unwrap_err();
        assert!(none.to_string().contains("init --cluster prod"), "{none}");
        assert!(check("a\nb").is_err() && check("prod").is_ok());
    }
}
