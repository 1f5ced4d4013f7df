//! What an idle holder costs, counted at the wire.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenure::{Attempt, Session};
use tenure_conformance::proxy::FaultProxy;

/// Short, so that there are some beats to count.
const TTL: Duration = Duration::from_secs(3);
/// How long is counted for.
const WATCHED: Duration = Duration::from_secs(12);
/// A beat every ten seconds, as with the default ttl.
const BEATS_AN_HOUR: f64 = 360.0;

/// A holder of so many names does nothing but hold them: requests and bytes a beat, and an hour.
pub(crate) async fn idle(url: &str, holds: usize) -> Result<()> {
    let (scheme, rest) = url.split_once("://").context("the url names no scheme")?;
    let (user, rest) = rest.split_once('@').map_or(("", rest), |(user, rest)| (user, rest));
    let at = if user.is_empty() { "" } else { "@" };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (address, path) = rest.split_at(end);
    let proxy = FaultProxy::start(address).with_context(|| format!("a proxy before {address}"))?;
    let session = Session::open(format!("{scheme}://{user}{at}{}{path}", proxy.address())).await?;
    let mut held = Vec::with_capacity(holds);
    for n in 0..holds {
        match session.lease(format!("idle-{n}")).ttl(TTL).try_acquire().await? {
            Attempt::Granted(lease) => held.push(lease),
            Attempt::Refused(by) => bail!("{by}"),
        }
    }
    // The first beats bring names of different times together.
    tokio::time::sleep(TTL * 2).await;
    let before = proxy.count();
    tokio::time::sleep(WATCHED).await;
    let seen = proxy.count() - before;
    let beats = WATCHED.as_secs_f64() / (TTL.as_secs_f64() / 3.0);
    let bytes = (seen.requests.bytes + seen.answers.bytes) as f64;
    println!(
        "  {holds} idle holds: {:.1} requests and {:.0} bytes a beat; {:.0} requests and {:.0} kB an hour",
        seen.turns() as f64 / beats,
        bytes / beats,
        seen.turns() as f64 / beats * BEATS_AN_HOUR,
        bytes / beats * BEATS_AN_HOUR / 1000.0,
    );
    drop(held);
    session.close().await?;
    Ok(())
}
