//! The checking side of a token, beside any resource that a Redis server is near to.

use redis::aio::ConnectionLike;
use redis::{RedisError, Value};
use tenure_core::guard::{GuardError, admit};
use tenure_core::identity::FencingToken;
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::{from_server, unanswered, unintelligible};
use crate::reply::text;

/// The highest token that each resource has seen, in Redis.
///
/// It lets nobody through whose token is older than one it has let through before. Between the
/// check and the effect there is a gap, unless the effect is in a script of your own that does
/// both: [`SCRIPT`](Self::SCRIPT) is short, and meant to be copied, into other languages as well.
///
/// # Example
/// ```no_run
/// # async fn shown() -> Result<(), Box<dyn std::error::Error>> {
/// use tenure_core::identity::FencingToken;
/// use tenure_redis::{HighWater, redis};
///
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let mut connection = client.get_multiplexed_async_connection().await?;
/// let guard = HighWater::new("shop:high-water:");
/// guard.admit(&mut connection, "ledger", FencingToken::FIRST).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HighWater {
    prefix: String,
}

impl HighWater {
    /// The script. `KEYS[1]` keeps the resource's newest token, which must neither expire nor be
    /// evicted; `ARGV[1]` is the token. Whoever isn't answered with its own token is late.
    pub const SCRIPT: &'static str = include_str!("lua/high_water.lua");

    /// A guard that keeps what it has seen under keys that begin with `prefix`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Lets a token through that is at least as new as all before it, and remembers it.
    ///
    /// # Errors
    /// [`GuardError::Stale`]: a newer token was here already; stop.
    /// [`GuardError::Failed`]: it couldn't be told; do nothing, and ask again.
    ///
    /// # Cancel safety
    /// The token may have been remembered or not; asking again comes to the same.
    pub async fn admit(
        &self,
        connection: &mut impl ConnectionLike,
        resource: &str,
        token: FencingToken,
    ) -> Result<(), GuardError> {
        let mut command = redis::cmd("EVAL");
        let key = format!("{}{resource}", self.prefix);
        command.arg(Self::SCRIPT).arg(1).arg(key).arg(token.get());
        let answer = connection.req_packed_command(&command).await.map_err(failed)?;
        let newest = match &answer {
            Value::ServerError(said) => {
                return Err(GuardError::Failed(from_server(said, Operation::Guard)));
            }
            answer => text(answer).and_then(|newest| newest.parse().ok()),
        };
        let Some(newest) = newest.and_then(FencingToken::new) else {
            return Err(GuardError::Failed(unintelligible(Operation::Guard)));
        };
        admit(Some(newest), token)
    }
}

fn failed(error: RedisError) -> GuardError {
    let told = match error.clone().into_server_errors().as_deref() {
        Some([(_, said), ..]) => from_server(said, Operation::Guard),
        _ if error.is_connection_refusal() => {
            Error::new(ErrorKind::Unavailable, Operation::Guard, "the guard's server is away")
        }
        _ => unanswered(Operation::Guard, "the connection was lost"),
    };
    GuardError::Failed(told.with_source(error))
}
