//! What a store that answers a whole batch at once says of its items.

use crate::error::{Error, ErrorKind, Operation};
use crate::store::Profile;

/// Whether a request of so many items may be sent.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid): more than [`Profile::batch_max`].
pub fn check(profile: &Profile, operation: Operation, items: usize) -> Result<(), Error> {
    let most = profile.batch_max;
    if items <= most {
        return Ok(());
    }
    let message = format!("{items} items are too many for one request; {most} are allowed");
    let error = Error::new(ErrorKind::Invalid, operation, message);
    Err(error.with_store(profile.location.clone()))
}

/// Tells an unknown outcome item by item, since `Err` means that nothing was done.
///
/// # Errors
/// Any other error, as it is.
pub fn each<T>(
    outcome: Result<Vec<T>, Error>,
    items: usize,
    failed: impl Fn(Error) -> T,
) -> Result<Vec<T>, Error> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
            Ok((0..items).map(|_| failed(error.clone())).collect())
        }
        other => other,
    }
}
