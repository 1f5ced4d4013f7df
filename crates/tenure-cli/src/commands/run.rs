//! `run`: runs CMD while holding a name, once.

use std::process::ExitCode;
use std::time::Duration;

use tenure::{Attempt, Lease, Session};
use tokio::sync::mpsc::unbounded_channel;

use super::grant::{Events, Gone, Grant, settle};
use super::outer::Outer;
use super::{block_on, waiting};
use crate::args::{Arguments, Run};
use crate::exit::{Failure, say};
use crate::holder;
use crate::store::{self, Chosen};
use crate::supervise::{self, Event, LeaseSide, Mode, NotTaken, Seat, Work};

/// How long a session that holds nothing may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Runs it, in the keeper.
pub(super) fn keep(arguments: &Arguments, run: Run, seat: Seat) -> ExitCode {
    let store = match store::choose(arguments, store::Default::Allowed) {
        Ok(store) => store,
        Err(failure) => return failure.exit(),
    };
    let outer = Outer::read();
    let work = Work {
        argv: run.command.clone(),
        env: outer.environment(),
        stop_timeout: run.tenancy.stop_timeout,
        mode: Mode::Once,
    };
    let quiet = arguments.common.quiet;
    let (sender, told) = unbounded_channel();
    let tell = move |event| {
        // A lease side that has ended needs to hear nothing.
        let _ = sender.send(event);
    };
    let lease_side = move |side: LeaseSide| {
        let once = Once { run, store, outer, quiet, side: side.clone() };
        if let Err(failure) = block_on(once.carry_out(Events::new(told))) {
            failure.say();
            side.finish(failure.code);
        }
    };
    supervise::keep(seat, work, tell, lease_side)
}

struct Once {
    run: Run,
    store: Chosen,
    outer: Outer,
    quiet: bool,
    side: LeaseSide,
}

impl Once {
    async fn carry_out(self, mut events: Events) -> Result<(), Failure> {
        let session = tokio::select! {
            opened = self.store.open_for(&self.run.tenancy) => opened?,
            () = events.abandoned() => {
                self.side.finish(events.code());
                return Ok(());
            }
        };
        let ended = self.hold(&session, &mut events).await;
        close(session).await;
        match ended? {
            Some(released) => settle(&self.side, released),
            None => self.side.finish(events.code()),
        }
        Ok(())
    }

    /// Waits for the name and has CMD run under it: whether the name was given back, or nothing
    /// if a signal ended the wait.
    async fn hold(&self, session: &Session, events: &mut Events) -> Result<Option<bool>, Failure> {
        self.outer.refuse(session, &self.run.tenancy.name).await?;
        loop {
            let lease = tokio::select! {
                granted = acquire(&self.run, session, self.quiet) => granted?,
                () = events.abandoned() => return Ok(None),
            };
            match Grant::begin(&self.store.url, session, &self.side, lease) {
                Ok(grant) => return Ok(Some(self.attend(grant, events).await)),
                Err((lease, why)) => {
                    // It runs out by itself if this fails.
                    let _ = lease.release_at_once("never used").await;
                    if why != NotTaken::TooLate {
                        let message = format!("the grant can't be used ({why:?}); shorten the URL");
                        return Err(Failure::new(supervise::INTERNAL, message));
                    }
                }
            }
        }
    }

    async fn attend(&self, mut grant: Grant<'_>, events: &mut Events) -> bool {
        let gone = loop {
            let event = grant.attend(events).await;
            if let Some(gone) = Gone::of(event) {
                break gone;
            }
            match event {
                Event::Started { .. } if !self.quiet => say(&format!("running as {grant}")),
                _ if events.relayed => grant.stops(),
                _ => {}
            }
        };
        grant.end(gone, events).await
    }
}

/// Asks for the name as the user wants it asked for.
async fn acquire(run: &Run, session: &Session, quiet: bool) -> Result<Lease, Failure> {
    let tenancy = &run.tenancy;
    let timing = tenancy.timing()?;
    let request = session
        .lease(tenancy.name.as_str())
        .ttl(timing.ttl())
        .grace(timing.grace())
        .min_hold(timing.min_hold())
        .metadata(holder::metadata(&run.command)?);
    let attempt = match run.wait {
        _ if run.no_wait => request.try_acquire().await?,
        Some(Some(Duration::ZERO)) => request.try_acquire().await?,
        Some(Some(patience)) => tokio::select! {
            attempt = request.acquire_within(patience) => attempt?,
            never = waiting::tell(session, &tenancy.name, quiet) => match never {},
        },
        Some(None) | None => tokio::select! {
            lease = request.acquire() => Attempt::Granted(lease?),
            never = waiting::tell(session, &tenancy.name, quiet) => match never {},
        },
    };
    match attempt {
        Attempt::Granted(lease) => Ok(lease),
        Attempt::Refused(by) => Err(Failure::new(run.exit_not_acquired, holder::held(&by))),
    }
}

/// Closes a session that holds nothing any more. A claim that is still unknown is settled first.
pub(super) async fn close(session: Session) {
    // What is left of it runs out by itself.
    let _ = tokio::time::timeout(CLOSE_MAX, session.close()).await;
}
