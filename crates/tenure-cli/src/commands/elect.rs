//! `elect`: campaigns for a name for ever; CMD lives while this instance leads.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use tenure::core::clock::Instant;
use tenure::core::protocol::elect::{Action, Candidate, Event as Ballot};
use tenure::{ADDRESS, Changes, Leader, Lease, LeaseRequest, Session};
use tokio::sync::mpsc::unbounded_channel;

use super::grant::{Events, Gone, Grant, settle};
use super::outer::Outer;
use super::run::close;
use super::{block_on, hooks};
use crate::args::{Arguments, Elect};
use crate::exit::{Failure, say};
use crate::holder;
use crate::store::{self, Chosen};
use crate::supervise::{self, Event, LOST, LeaseSide, Mode, Seat, Status, Work, boottime_nanos};

/// The longest uninterrupted sleep: tokio's timers stand still while the machine is suspended.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// Runs it, in the keeper.
pub(super) fn keep(arguments: &Arguments, elect: Elect, seat: Seat) -> ExitCode {
    let store = match store::choose(arguments, store::Default::Refused) {
        Ok(store) => store,
        Err(failure) => return failure.exit(),
    };
    let outer = Outer::read();
    let work = Work {
        argv: hooks::work(&elect),
        env: outer.environment(),
        stop_timeout: elect.tenancy.stop_timeout,
        mode: Mode::Repeat,
    };
    let quiet = arguments.common.quiet;
    let (sender, told) = unbounded_channel();
    let tell = move |event| {
        // A lease side that has ended needs to hear nothing.
        let _ = sender.send(event);
    };
    let lease_side = move |side: LeaseSide| {
        let code = block_on(campaign(&elect, &store, &outer, quiet, &side, Events::new(told)));
        side.finish(code.unwrap_or_else(|failure| {
            failure.say();
            failure.code
        }));
    };
    supervise::keep(seat, work, tell, lease_side)
}

async fn campaign(
    elect: &Elect,
    store: &Chosen,
    outer: &Outer,
    quiet: bool,
    side: &LeaseSide,
    mut events: Events,
) -> Result<u8, Failure> {
    let session = tokio::select! {
        opened = store.open_for(&elect.tenancy) => opened?,
        () = events.abandoned() => return Ok(events.code()),
    };
    outer.refuse(&session, &elect.tenancy.name).await?;
    side.ready();
    let standing = Stand {
        elect,
        url: &store.url,
        session: &session,
        side,
        quiet,
        events,
        candidate: Candidate::new(elect.tenancy.timing()?),
        request: request(elect, &session)?,
        contention: None,
        won: None,
        grant: None,
        following: None,
        told_follower: false,
        last: None,
    };
    let ended = standing.drive().await;
    close(session).await;
    ended
}

fn request(elect: &Elect, session: &Session) -> Result<LeaseRequest, Failure> {
    let timing = elect.tenancy.timing()?;
    let mut metadata = holder::metadata(&elect.command)?;
    if let Some(address) = &elect.advertise {
        metadata = metadata.with(ADDRESS, address.clone())?;
    }
    Ok(session
        .lease(elect.tenancy.name.as_str())
        .ttl(timing.ttl())
        .grace(timing.grace())
        .min_hold(timing.min_hold())
        .metadata(metadata))
}

type Contention = Pin<Box<dyn Future<Output = Result<Lease, tenure::Error>>>>;

/// A candidate: the machine's actions carried out with the keeper.
struct Stand<'a> {
    elect: &'a Elect,
    url: &'a str,
    session: &'a Session,
    side: &'a LeaseSide,
    quiet: bool,
    events: Events,
    candidate: Candidate,
    request: LeaseRequest,
    contention: Option<Contention>,
    /// Won, its work not started yet.
    won: Option<Lease>,
    grant: Option<Grant<'a>>,
    /// Who leads, while it is another.
    following: Option<Changes>,
    /// `--on-follow` was run since this instance led last.
    told_follower: bool,
    /// How the last term's work ended.
    last: Option<Gone>,
}

impl Stand<'_> {
    /// Stands until it is withdrawn; answers the exit code.
    async fn drive(mut self) -> Result<u8, Failure> {
        let mut ballots = VecDeque::from([Ballot::Tick]);
        loop {
            while let Some(ballot) = ballots.pop_front() {
                let actions = self.candidate.on(ballot, now());
                for action in actions {
                    if action == Action::Over {
                        return Ok(self.code());
                    }
                    ballots.extend(self.act(action).await);
                }
            }
            ballots.extend(self.next().await?);
        }
    }

    async fn act(&mut self, action: Action) -> Option<Ballot> {
        match action {
            Action::Campaign => {
                self.contention = Some(Box::pin(self.request.clone().acquire()));
                let observed = self.session.election(self.elect.tenancy.name.as_str()).observe();
                self.following = observed.await.ok().map(|observer| observer.changes());
            }
            Action::StopCampaign => {
                self.contention = None;
                self.following = None;
            }
            Action::StartWork(_) => {
                let lease = self.won.take()?;
                match Grant::begin(self.url, self.session, self.side, lease) {
                    Ok(grant) => self.grant = Some(grant),
                    Err((lease, _)) => {
                        // It runs out by itself if this fails.
                        let _ = lease.release_at_once("never used").await;
                        return Some(Ballot::TermOver);
                    }
                }
            }
            Action::EndTerm { .. } => match (&mut self.grant, self.won.take()) {
                (Some(grant), _) => grant.stop(),
                (None, Some(lease)) => {
                    let _ = lease.release_at_once("never used").await;
                    return Some(Ballot::TermOver);
                }
                (None, None) => {}
            },
            // Said by the caller.
            Action::Over => {}
        }
        None
    }

    /// Waits for the next thing that happens.
    async fn next(&mut self) -> Result<Vec<Ballot>, Failure> {
        let wake_at = self.candidate.wake_at();
        tokio::select! {
            biased;
            event = attend(self.grant.as_mut(), &mut self.events) => Ok(self.hear(event).await),
            won = contend(self.contention.as_mut()) => {
                self.contention = None;
                self.following = None;
                let lease = won?;
                let token = lease.token();
                self.won = Some(lease);
                Ok(vec![Ballot::Elected(token)])
            }
            leader = change(self.following.as_mut()) => {
                match leader {
                    Some(leader) => self.follow(leader).await,
                    None => self.following = None,
                }
                Ok(self.withdrawal())
            }
            () = sleep_until(wake_at) => Ok(vec![Ballot::Tick]),
        }
    }

    async fn hear(&mut self, event: Event) -> Vec<Ballot> {
        if let Some(gone) = Gone::of(event) {
            return self.term_over(gone).await;
        }
        if let (Event::Started { .. }, Some(grant), false) = (event, &self.grant, self.quiet) {
            say(&format!("leading as {grant}"));
        }
        if self.events.relayed
            && let Some(grant) = &mut self.grant
        {
            grant.stops();
        }
        self.withdrawal()
    }

    /// Whether it is to stand no more.
    fn withdrawal(&self) -> Vec<Ballot> {
        if self.events.ends() { vec![Ballot::Withdraw] } else { Vec::new() }
    }

    /// The work has ended: whatever it was that ended it, the name is given back, and another
    /// may lead.
    async fn term_over(&mut self, gone: Gone) -> Vec<Ballot> {
        self.last = Some(gone);
        let Some(mut grant) = self.grant.take() else { return Vec::new() };
        {
            let hook = hooks::follow(self.elect, None);
            tokio::pin!(hook);
            loop {
                tokio::select! {
                    () = &mut hook => break,
                    // The name stays held until the hook has ended.
                    _ = grant.attend(&mut self.events) => {}
                }
            }
        }
        self.told_follower = true;
        let name = grant.to_string();
        let released = grant.end(gone, &mut self.events).await;
        settle(self.side, released);
        if !self.quiet {
            say(&format!("no longer {name}"));
        }
        let how = if gone.lost { Ballot::TermLost } else { Ballot::WorkEnded };
        let mut ballots = vec![how, Ballot::TermOver];
        if self.elect.once || self.events.ends() {
            ballots.insert(1, Ballot::Withdraw);
        }
        ballots
    }

    /// Another leads, or nobody.
    async fn follow(&mut self, leader: Option<Leader>) {
        let Some(leader) = leader.filter(|leader| leader.instance != *self.session.instance())
        else {
            return;
        };
        let who = holder::who(&leader.instance, &leader.metadata);
        if !self.quiet {
            let (name, token) = (&self.elect.tenancy.name, leader.token);
            say(&format!("following: `{name}` is led by {who} (token {token})"));
        }
        if !std::mem::replace(&mut self.told_follower, true) {
            let leader = leader.instance.name().as_str();
            tokio::select! {
                () = hooks::follow(self.elect, Some(leader)) => {}
                () = self.events.abandoned() => {}
            }
        }
    }

    /// What it all ends with: CMD's last word, if the end reached CMD.
    fn code(&self) -> u8 {
        let worked = self.elect.once || self.events.relayed;
        match self.last {
            Some(Gone { lost: true, .. }) if worked => LOST,
            Some(gone) if worked => gone.status.map_or(0, Status::code),
            _ => self.events.code(),
        }
    }
}

async fn attend(grant: Option<&mut Grant<'_>>, events: &mut Events) -> Event {
    match grant {
        Some(grant) => grant.attend(events).await,
        None => events.next().await,
    }
}

async fn contend(contention: Option<&mut Contention>) -> Result<Lease, tenure::Error> {
    match contention {
        Some(contention) => contention.await,
        None => std::future::pending().await,
    }
}

async fn change(following: Option<&mut Changes>) -> Option<Option<Leader>> {
    match following {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep(at.since(now()).min(SLEEP_MAX)).await,
        None => std::future::pending().await,
    }
}

fn now() -> Instant {
    Instant::from_nanos(boottime_nanos())
}
