//! What the guards of every store and resource say: whether a token may pass, and why not.

use std::error::Error as StdError;
use std::fmt;

use crate::error::Error;
use crate::identity::FencingToken;

/// A token that a guard didn't let through. In each case: undo what it guards, roll back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GuardError {
    /// A newer token was seen: whoever carries this one has lost its lease.
    #[non_exhaustive]
    Stale {
        /// The token that was refused.
        token: FencingToken,
        /// The newest that was seen.
        newest: FencingToken,
    },
    /// The grant with this token isn't in force.
    #[non_exhaustive]
    NotInForce {
        /// The token that was refused.
        token: FencingToken,
        /// What the store says of it, in a clause.
        why: String,
    },
    /// The guard couldn't tell; nothing was let through.
    Failed(Error),
}

impl GuardError {
    /// The refusal of a grant that isn't in force, as [`in_force`](crate::decide::in_force) says.
    #[must_use]
    pub fn not_in_force(token: FencingToken, why: String) -> Self {
        Self::NotInForce { token, why }
    }

    /// Whether the token was refused, and will be for ever.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { token, newest } => {
                write!(f, "token {token} is stale: token {newest} has been here")
            }
            Self::NotInForce { token, why } => write!(f, "token {token} is not in force: {why}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl StdError for GuardError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Stale { .. } | Self::NotInForce { .. } => None,
        }
    }
}

/// The rule of a high-water mark: a token passes unless a newer one has been there.
///
/// # Errors
/// [`Stale`](GuardError::Stale).
pub fn admit(newest: Option<FencingToken>, token: FencingToken) -> Result<(), GuardError> {
    match newest {
        Some(newest) if newest > token => Err(GuardError::Stale { token, newest }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_older_than_one_that_was_seen_passes() {
        let token = |number| FencingToken::new(number).unwrap();
        assert!(admit(None, token(1)).is_ok());
        assert!(admit(Some(token(4)), token(4)).is_ok());
        assert!(admit(Some(token(4)), token(5)).is_ok());
        let refused = admit(Some(token(4)), token(3)).unwrap_err();
        assert_eq!(refused.to_string(), "token 3 is stale: token 4 has been here");
        assert!(refused.is_refusal());
    }
}
