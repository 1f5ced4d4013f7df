//! Saying on stderr what is waited for: after two seconds, then every minute.

use std::convert::Infallible;
use std::time::Duration;

use tenure::{Name, Session};

use crate::exit::{explained, say};
use crate::holder;

/// After what time of waiting the holder is named for the first time.
const FIRST: Duration = Duration::from_secs(2);
/// And then again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long the holder's record is waited for.
const READ_MAX: Duration = Duration::from_secs(5);

/// Says it, for ever; or nothing, for ever, if it shall be quiet.
pub(super) async fn tell(session: &Session, name: &Name, quiet: bool) -> Infallible {
    if quiet {
        return std::future::pending().await;
    }
    tokio::time::sleep(FIRST).await;
    loop {
        if let Some(why) = why(session, name).await {
            say(&format!("waiting: {why}"));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn why(session: &Session, name: &Name) -> Option<String> {
    let names = std::slice::from_ref(name);
    match tokio::time::timeout(READ_MAX, session.store().read(names)).await {
        Ok(Ok(read)) => {
            let snapshot = read.into_iter().next().flatten();
            let taken = snapshot.and_then(|found| holder::taken(&found, session.instance()));
            // Nobody has it, and still it isn't granted: a right to write may be missing.
            taken.or_else(|| session.failed_claim().map(|error| explained(&error)))
        }
        Ok(Err(error)) => Some(explained(&error)),
        Err(_) => Some(format!("{} does not answer", session.profile().location)),
    }
}
