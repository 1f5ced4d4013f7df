//! What a lane does with its grant: it works under it, renews it and gives it back.

use std::time::Duration;

use tenure_core::clock::Reading;
use tenure_core::error::ErrorKind;
use tenure_core::exchange::Known;
use tenure_core::identity::{FencingToken, Nonce};
use tenure_core::protocol::contend::{Patience, Ticket};
use tenure_core::protocol::elect;
use tenure_core::protocol::hold::{self, Cause, Ending, cause_of_loss};
use tenure_core::record::Record;
use tenure_core::store::{Grant, Hold, Release, Released, Renewed, Reserved};

use crate::held::Standpoint;
use crate::lane::{Desk, Lane, Role};
use crate::operation::Want;
use crate::rules::{Acting, Rules};
use crate::work::Act;

impl Lane {
    /// Whether its work would act now.
    pub(crate) fn may_act(&self, now: Reading, rules: &dyn Rules) -> Option<Act> {
        let held = self.held.as_ref()?;
        let work = held.work.as_ref()?;
        let limits = held.holding.limits();
        let may = rules.may_act(&limits, now, work.acting, held.renewing > 0);
        let (claim, sent) = (held.ticket.id, held.ticket.sent.elapsed);
        may.then_some(Act { token: held.token, claim, sent })
    }

    /// The work's own course: it acts, it ends, and at its deadline it is dead.
    pub(crate) fn run_work(&mut self, desk: &mut Desk<'_>) {
        let act = self.may_act(desk.now, desk.rules);
        let Some(held) = self.held.as_mut() else { return };
        let Some(work) = held.work.as_mut() else { return };
        let now = desk.now.elapsed;
        let killed = work.acting == Acting::Unchecked && act.is_none();
        if killed || work.ends_at.is_some_and(|at| now >= at) {
            held.work = None;
            let over = held.holding.limits().ended.is_some();
            desk.note(|| format!("its work is {}", if killed { "killed" } else { "done" }));
            self.tell_hold(hold::Event::WorkEnded, desk);
            if let (Role::Election(_), false) = (&self.role, over) {
                self.tell_candidate(elect::Event::WorkEnded, desk);
            }
            return;
        }
        if now >= work.act_at {
            work.acted(now, &self.timing, desk.chance);
            desk.acts.extend(act);
        }
    }

    pub(crate) fn tell_hold(&mut self, event: hold::Event, desk: &mut Desk<'_>) {
        let Some(held) = self.held.as_mut() else { return };
        let tick = matches!(event, hold::Event::Tick);
        if tick && held.renewing > 0 && !desk.rules.tells_time_while_renewing() {
            return;
        }
        let actions = held.holding.on(event, desk.now, desk.chance);
        for action in actions {
            let Some(held) = self.held.as_mut() else { return };
            match action {
                hold::Action::Renew => self.renew(desk),
                hold::Action::Announce(standing) => {
                    let token = held.token;
                    desk.note(|| format!("token {token}: {}", standing.as_str()));
                }
                hold::Action::StopWork(cause) => {
                    if let Some(work) = &mut held.work {
                        let now = desk.now.elapsed;
                        work.told_to_stop(cause.is_some(), now, &self.timing, desk.chance);
                    }
                }
                hold::Action::Overrun => desk.note(|| "its work overruns".to_owned()),
                hold::Action::Release(ending) => {
                    let (ticket, grant) = (held.ticket.clone(), held.grant.clone());
                    let known = held.known.clone();
                    desk.note(|| format!("releases token {}", grant.token));
                    let release = self.release(&ticket, &grant, &ending, desk);
                    desk.wants.push(Want::Release(Box::new(release), known));
                }
                hold::Action::Over => self.over(desk),
            }
        }
    }

    pub(crate) fn over(&mut self, desk: &mut Desk<'_>) {
        self.held = None;
        let rest = desk.chance.between(Duration::ZERO, self.timing.ttl() / 2);
        match &mut self.role {
            Role::Loop { start_at } => *start_at = desk.now.elapsed + rest,
            Role::Election(_) => self.tell_candidate(elect::Event::TermOver, desk),
        }
        if self.campaign_wanted {
            self.contend(Patience::Forever, desk);
        }
    }

    /// Sends the renewal of this hold now; it goes along if another's is due.
    pub(crate) fn renew(&mut self, desk: &mut Desk<'_>) {
        let Some(held) = self.held.as_mut() else { return };
        let now = desk.now.elapsed;
        let hold = Hold {
            name: self.name.clone(),
            instance: self.instance.clone(),
            claim: held.ticket.id,
            token: held.token,
            ttl: self.timing.ttl(),
            not_before: held.holding.min_hold_left(now),
            version: held.grant.version.clone(),
            nonce: Nonce::draw(desk.chance),
            unconfirmed_for: desk.rules.age_at_renewal(now.since(held.holding.confirmed())),
        };
        let known = held.known.clone();
        held.renewing += 1;
        desk.wants.push(Want::Renew(Box::new(hold), known));
        self.tell_hold(hold::Event::Sent(desk.now), desk);
    }

    pub(crate) fn release(
        &self,
        ticket: &Ticket,
        grant: &Grant,
        ending: &Ending,
        desk: &mut Desk<'_>,
    ) -> Release {
        let lasts = self.timing.reservation();
        Release {
            name: self.name.clone(),
            instance: self.instance.clone(),
            claim: ticket.id,
            token: grant.token,
            version: grant.version.clone(),
            nonce: Nonce::draw(desk.chance),
            successor: ending.successor.clone().map(|successor| Reserved { successor, lasts }),
            why: ending.why.clone(),
            at: desk.now.wall,
        }
    }

    pub(crate) fn renewed(
        &mut self,
        token: FencingToken,
        renewed: Renewed,
        record: Option<Record>,
        sent: Reading,
        late: bool,
        desk: &mut Desk<'_>,
    ) {
        let Some(held) = self.held.as_mut().filter(|held| held.token == token) else { return };
        if !late {
            held.renewing = held.renewing.saturating_sub(1);
        }
        if let Renewed::Renewed(version) | Renewed::Asked(version, _) = &renewed {
            held.grant.version = version.clone();
            held.known = record.map(|record| Known { version: version.clone(), record });
        }
        let outcome = match renewed {
            Renewed::Renewed(_) => hold::Outcome::Renewed,
            Renewed::Asked(_, order) => hold::Outcome::Asked(*order),
            Renewed::NotHeld(seen) => {
                let cause = cause_of_loss(token, seen.as_deref());
                if cause == Cause::StoreReset {
                    self.reset_noticed = Some(desk.elapsed());
                }
                hold::Outcome::NotHeld(cause)
            }
            Renewed::Failed(error) => hold::Outcome::Failed(error.kind()),
            _ => return,
        };
        let sent = desk.rules.counted_from(sent, desk.now, late);
        self.tell_hold(hold::Event::Answered { sent, outcome }, desk);
    }

    pub(crate) fn released(
        &mut self,
        token: FencingToken,
        released: &Released,
        late: bool,
        desk: &mut Desk<'_>,
    ) {
        let settled = match released {
            Released::Failed(error) => error.kind() == ErrorKind::StoreReset,
            _ => true,
        };
        let ours = self.held.as_ref().is_some_and(|held| held.token == token);
        if ours && (settled || !late) {
            self.tell_hold(hold::Event::ReleaseAnswered { settled }, desk);
        }
    }

    /// What `check()` says of leadership, for the oracle.
    pub(crate) fn report(&mut self, now: Reading) -> Option<Standpoint> {
        let held = self.held.as_mut()?;
        let check = held.holding.limits().check(now);
        let revived = held.expired && check.is_ok();
        held.expired |= matches!(check, Err(cause) if cause != Cause::Suspended);
        let claim = held.ticket.id;
        Some(Standpoint { claim, leads: check.is_ok(), revived })
    }
}
