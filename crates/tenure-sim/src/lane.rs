//! One name at one instance: its contender, its holder and its candidate, driven as the runtime
//! drives them.

use std::time::Duration;

use tenure_core::chance::Chance;
use tenure_core::clock::{Instant, Reading};
use tenure_core::error::{Error, ErrorKind};
use tenure_core::identity::{FencingToken, Instance, Name, StoreId, Successor};
use tenure_core::protocol::contend::{self, Contender, Patience, Terms, Ticket};
use tenure_core::protocol::elect::{self, Candidate};
use tenure_core::protocol::hold::{self, Ending, Holding};
use tenure_core::protocol::observe::{Kept, Observation};
use tenure_core::record::Metadata;
use tenure_core::store::{Claim, Grant, Wake};
use tenure_core::timing::Timing;

use crate::held::Held;
use crate::operation::{Outcome, Want};
use crate::rules::{Acting, Rules};
use crate::work::{Act, Work};

/// What a lane finds around it while it is driven, and what it leaves to be done.
pub(crate) struct Desk<'a> {
    pub(crate) now: Reading,
    pub(crate) chance: &'a mut Chance,
    pub(crate) rules: &'a dyn Rules,
    /// The chaos is over: nobody ends anything of their own will.
    pub(crate) calm: bool,
    pub(crate) wants: Vec<Want>,
    pub(crate) acts: Vec<Act>,
    pub(crate) notes: Vec<String>,
    /// The lane met a reset: the other lanes of the session must hear of it.
    pub(crate) met_reset: bool,
}

impl Desk<'_> {
    pub(crate) fn elapsed(&self) -> Instant {
        self.now.elapsed
    }

    pub(crate) fn note(&mut self, note: impl FnOnce() -> String) {
        self.notes.push(note());
    }
}

/// How a lane stands for its name.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Acquire, work, release, again.
    Loop { start_at: Instant },
    /// An election.
    Election(Box<Candidate>),
}

/// One name at one instance.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) name: Name,
    pub(crate) instance: Instance,
    pub(crate) timing: Timing,
    pub(crate) wake: Wake,
    pub(crate) acting: Acting,
    pub(crate) role: Role,
    /// The id of the store that this lane believes in.
    pub(crate) store: Option<StoreId>,
    pub(crate) opening: bool,
    pub(crate) open_at: Instant,
    pub(crate) contender: Option<Contender>,
    pub(crate) campaign_wanted: bool,
    pub(crate) held: Option<Held>,
    pub(crate) above: Option<FencingToken>,
    pub(crate) reset_noticed: Option<Instant>,
    /// What was observed last, in a file that outlives the process.
    pub(crate) observed: Option<Kept>,
}

impl Lane {
    pub(crate) fn new(
        name: Name,
        instance: Instance,
        timing: Timing,
        wake: Wake,
        acting: Acting,
        election: bool,
    ) -> Self {
        let role = if election {
            Role::Election(Box::new(Candidate::new(timing)))
        } else {
            Role::Loop { start_at: Instant::default() }
        };
        Self {
            name,
            instance,
            timing,
            wake,
            acting,
            role,
            store: None,
            opening: false,
            open_at: Instant::default(),
            contender: None,
            campaign_wanted: false,
            held: None,
            above: None,
            reset_noticed: None,
            observed: None,
        }
    }

    /// When it wants to be told the time at the latest.
    pub(crate) fn wake_at(&self, rules: &dyn Rules) -> Option<Instant> {
        let open = (self.store.is_none() && !self.opening).then_some(self.open_at);
        let contender = self.contender.as_ref().and_then(Contender::wake_at);
        let role = match &self.role {
            Role::Loop { start_at } => self.rests().then_some(*start_at),
            Role::Election(candidate) => candidate.wake_at(),
        };
        let held = self.held.as_ref().and_then(|held| held.wake_at(rules));
        [open, contender, role, held].into_iter().flatten().min()
    }

    fn rests(&self) -> bool {
        self.contender.is_none() && self.held.is_none() && self.store.is_some()
    }

    /// Whether it waits for a name that another holds.
    pub(crate) fn waits(&self) -> bool {
        self.contender.as_ref().is_some_and(|contender| contender.last_seen().is_some())
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, desk: &mut Desk<'_>) {
        if self.store.is_none() && !self.opening && desk.elapsed() >= self.open_at {
            self.opening = true;
            desk.wants.push(Want::Open);
        }
        self.run_work(desk);
        self.tell_hold(hold::Event::Tick, desk);
        if self.contender.is_some() {
            self.tell_contender(contend::Event::Tick, desk.now, desk);
        }
        match &self.role {
            Role::Loop { start_at } if self.rests() && desk.elapsed() >= *start_at => {
                let patience = self.patience(desk);
                self.contend(patience, desk);
            }
            Role::Loop { .. } => {}
            Role::Election(_) => self.tell_candidate(elect::Event::Tick, desk),
        }
    }

    fn patience(&self, desk: &mut Desk<'_>) -> Patience {
        match desk.chance.below(4) {
            0 if !desk.calm => Patience::Try,
            1 if !desk.calm => {
                let wait = desk.chance.between(Duration::ZERO, self.timing.ttl() * 2);
                Patience::Until(desk.elapsed() + wait)
            }
            _ => Patience::Forever,
        }
    }

    /// The store hinted at a change.
    pub(crate) fn hint(&mut self, desk: &mut Desk<'_>) {
        if self.contender.is_some() {
            self.tell_contender(contend::Event::Hint, desk.now, desk);
        }
    }

    /// Somebody here wants the term, or the hold, to end.
    pub(crate) fn resign(&mut self, to: Option<Successor>, desk: &mut Desk<'_>) {
        match &self.role {
            Role::Election(_) => self.tell_candidate(elect::Event::Resign { to }, desk),
            Role::Loop { .. } => {
                let ending =
                    Ending { successor: to, why: "given back".to_owned(), ..Ending::default() };
                self.tell_hold(hold::Event::End(ending), desk);
            }
        }
    }

    /// Its health gate speaks.
    pub(crate) fn healthy(&mut self, healthy: bool, desk: &mut Desk<'_>) {
        if let Role::Election(_) = self.role {
            self.tell_candidate(elect::Event::Healthy(healthy), desk);
        }
    }

    /// The work ends by itself.
    pub(crate) fn end_work(&mut self, desk: &mut Desk<'_>) {
        let held = self.held.as_mut();
        if let Some(work) = held.and_then(|held| held.work.as_mut()) {
            work.ends_at = Some(desk.elapsed());
            self.run_work(desk);
        }
    }

    pub(crate) fn contend(&mut self, patience: Patience, desk: &mut Desk<'_>) {
        if self.contender.is_some() || self.held.is_some() {
            self.campaign_wanted = true;
            return;
        }
        self.campaign_wanted = false;
        let terms = Terms {
            instance: self.instance.clone(),
            timing: self.timing,
            wake: self.wake,
            patience,
        };
        let mut contender = Contender::new(terms);
        let before = self.observed.as_ref().and_then(|kept| Observation::resumed(kept, desk.now));
        if let Some(before) = before {
            contender = contender.having_observed(before);
        }
        if let (Some(noticed), true) = (self.reset_noticed, desk.rules.waits_after_reset()) {
            contender = contender.after_reset(noticed, self.above);
        }
        self.contender = Some(contender);
        self.tell_contender(contend::Event::Tick, desk.now, desk);
    }

    fn tell_contender(&mut self, event: contend::Event, at: Reading, desk: &mut Desk<'_>) {
        let Some(contender) = self.contender.as_mut() else { return };
        let actions = contender.on(event, at, desk.chance);
        let over = contender.is_over();
        self.observed = contender.observation().kept(at).or(self.observed.take());
        let seen = contender.last_seen().map(|seen| seen.record.token);
        self.above = self.above.max(seen);
        if over {
            self.contender = None;
        }
        let mut failed = false;
        for action in actions {
            match action {
                contend::Action::Claim(ticket) => {
                    desk.note(|| format!("claims ({})", short(ticket.id)));
                    let claim = self.claim(&ticket, desk);
                    desk.wants.push(Want::Claim(Box::new(claim)));
                }
                contend::Action::Look => desk.wants.push(Want::Look),
                contend::Action::Granted { ticket, grant } => self.granted(ticket, grant, desk),
                contend::Action::GiveBack { ticket, grant } => {
                    desk.note(|| format!("gives token {} back unused", grant.token));
                    self.above = self.above.max(Some(grant.token));
                    let ending = Ending {
                        successor: None,
                        why: "not wanted".to_owned(),
                        ..Ending::default()
                    };
                    let release = self.release(&ticket, &grant, &ending, desk);
                    desk.wants.push(Want::GiveBack(Box::new(release)));
                }
                contend::Action::Refused(_) | contend::Action::GaveUp(_) => failed = true,
            }
        }
        if failed {
            desk.note(|| "gives up waiting".to_owned());
        }
        self.contender_left(over, failed, desk);
    }

    /// A contender that is over makes room for what comes next.
    fn contender_left(&mut self, over: bool, failed: bool, desk: &mut Desk<'_>) {
        let rest = desk.chance.between(Duration::ZERO, self.timing.ttl() / 4);
        match &mut self.role {
            Role::Loop { start_at } if over => *start_at = (*start_at).max(desk.now.elapsed + rest),
            Role::Election(_) if failed => self.tell_candidate(elect::Event::CampaignFailed, desk),
            _ => {}
        }
        if over && self.campaign_wanted {
            self.contend(Patience::Forever, desk);
        }
    }

    fn claim(&self, ticket: &Ticket, desk: &Desk<'_>) -> Claim {
        Claim {
            name: self.name.clone(),
            instance: self.instance.clone(),
            id: ticket.id,
            nonce: ticket.nonce,
            ttl: self.timing.ttl(),
            min_hold: self.timing.min_hold(),
            metadata: Metadata::default(),
            bound_to: None,
            at: desk.now.wall,
            unanswered_for: desk.elapsed().since(ticket.sent.elapsed),
            watched: ticket.watched.clone(),
            above: ticket.above,
            ends_with_process: false,
        }
    }

    fn granted(&mut self, ticket: Ticket, grant: Grant, desk: &mut Desk<'_>) {
        let late = desk.elapsed().since(ticket.sent.elapsed) > self.timing.timeout();
        let counted = desk.rules.counted_from(ticket.sent, desk.now, late);
        let mut holding = Holding::new(self.timing, counted, desk.now, desk.chance);
        if self.acting == Acting::Unchecked {
            holding = holding.with_suspended_max(self.timing.ttl() / 6);
        }
        let token = grant.token;
        desk.note(|| format!("is granted token {token}"));
        self.above = self.above.max(Some(token));
        let acts_for = desk.chance.between(self.timing.ttl() / 4, self.timing.ttl() * 4);
        let ends_at = (!desk.calm).then(|| desk.elapsed() + acts_for);
        let mut held = Held {
            holding,
            ticket,
            token,
            grant,
            known: None,
            work: None,
            renewing: 0,
            expired: false,
        };
        if let Role::Loop { .. } = self.role {
            held.work = Some(Work::starting(self.acting, desk.elapsed(), ends_at));
        }
        self.held = Some(held);
        if let Role::Election(_) = self.role {
            self.tell_candidate(elect::Event::Elected(token), desk);
        }
    }

    pub(crate) fn tell_candidate(&mut self, event: elect::Event, desk: &mut Desk<'_>) {
        let Role::Election(candidate) = &mut self.role else { return };
        for action in candidate.on(event, desk.now.elapsed) {
            match action {
                elect::Action::Campaign => self.contend(Patience::Forever, desk),
                elect::Action::StopCampaign => {
                    self.campaign_wanted = false;
                    self.tell_contender(contend::Event::Cancel, desk.now, desk);
                }
                elect::Action::StartWork(_) => {
                    let work = Work::starting(self.acting, desk.elapsed(), None);
                    if let Some(held) = &mut self.held {
                        held.work = Some(work);
                    }
                }
                elect::Action::EndTerm { successor, why } => {
                    let ending = Ending { successor, why: why.to_owned(), ..Ending::default() };
                    self.tell_hold(hold::Event::End(ending), desk);
                    if self.held.as_ref().is_some_and(|held| held.work.is_none()) {
                        self.tell_hold(hold::Event::WorkEnded, desk);
                    }
                }
                elect::Action::Over => {}
            }
        }
    }

    /// An operation was answered, or timed out; `late`: after its timeout.
    pub(crate) fn answered(
        &mut self,
        outcome: Outcome,
        sent: Reading,
        opened: Option<StoreId>,
        late: bool,
        desk: &mut Desk<'_>,
    ) {
        self.reset_met(outcome.error(), opened, desk);
        match outcome {
            Outcome::Opened(opened) => self.opened(opened.ok(), desk),
            Outcome::Claimed(id, acquired, known) => {
                self.tell_contender(
                    contend::Event::Claimed { id, outcome: acquired },
                    desk.now,
                    desk,
                );
                let held = self.held.as_mut().filter(|held| held.ticket.id == id);
                if let (Some(held), Some(known)) = (held, known) {
                    held.known.get_or_insert(known);
                }
            }
            // A late look shows what may be long past: it belongs to no question any more.
            Outcome::Looked(_) if late => {}
            Outcome::Looked(seen) => {
                let at = desk.rules.observed_at(sent, desk.now);
                self.tell_contender(contend::Event::Looked(seen), at, desk);
            }
            Outcome::Renewed(token, renewed, record) => {
                self.renewed(token, renewed, record, sent, late, desk);
            }
            Outcome::Released(token, released) => self.released(token, &released, late, desk),
            Outcome::GaveBack => {}
        }
    }

    fn opened(&mut self, opened: Option<StoreId>, desk: &mut Desk<'_>) {
        self.opening = false;
        if opened.is_none() {
            let wait = desk.chance.between(self.timing.ttl() / 30, self.timing.ttl() / 6);
            self.open_at = desk.elapsed() + wait;
        }
    }

    /// Every operation may be the one that meets a reset, unless it was sent before an earlier
    /// one was met.
    fn reset_met(&mut self, error: Option<&Error>, opened: Option<StoreId>, desk: &mut Desk<'_>) {
        let reset = error.is_some_and(|error| error.kind() == ErrorKind::StoreReset);
        if reset && opened == self.store && opened.is_some() {
            desk.note(|| "meets a reset".to_owned());
            desk.met_reset = true;
            // Also where it was a late answer, which the contender would not hear of otherwise.
            self.reset_told(desk);
        }
    }

    /// Another lane of this session met a reset, or this one did.
    pub(crate) fn reset_told(&mut self, desk: &mut Desk<'_>) {
        self.store = None;
        self.open_at = desk.elapsed();
        self.shaken(desk);
        if desk.rules.waits_after_reset() {
            self.tell_contender(contend::Event::StoreReset, desk.now, desk);
        }
    }

    fn shaken(&mut self, desk: &mut Desk<'_>) {
        self.reset_noticed = Some(desk.elapsed());
        self.tell_hold(hold::Event::StoreReset, desk);
    }

    pub(crate) fn timing(&self) -> &Timing {
        &self.timing
    }
}

fn short(id: impl std::fmt::Display) -> String {
    id.to_string().chars().take(6).collect()
}
