//! How a fault is done, until it is over; and the proof that it was one.

use tenure::sqlite::rusqlite::Connection;
use tenure_conformance::proxy::{Direction, Fault, Then};

use crate::contender::Contender;
use crate::fault::Kind;
use crate::scene::Scene;
use crate::{clock, draw};

/// How much longer than a ttl a cut lasts, in hundredths of a ttl.
const PAST_TTL: u32 = 130;

impl Scene {
    /// Lets a fault befall the holder and be over: it is in nobody's way when this returns.
    /// False if it missed: the term was over just before it.
    #[must_use]
    pub(crate) fn strike(&mut self, kind: Kind, holder: usize, token: u64) -> bool {
        match kind {
            Kind::BlackHoled => return self.cut(holder, token, Fault::BlackHole),
            Kind::HalfOpened => return self.cut(holder, token, Fault::HalfOpen),
            Kind::AnswersHeld => return self.cut(holder, token, Fault::Hold(Direction::Answers)),
            Kind::RequestsHeld => return self.cut(holder, token, Fault::Hold(Direction::Requests)),
            Kind::AllCutOff => self.cut_all(),
            Kind::Delayed => self.delay_all(holder),
            Kind::Reset => self.reset(holder),
            Kind::Refused => {
                self.contenders[holder].fault(Fault::Reset);
                self.contenders[holder].fault(Fault::Refuse);
                self.sleep(20, 60);
                self.contenders[holder].heal();
            }
            Kind::RenewalAnswersLost => self.lose_renewals(holder),
            Kind::AcquireAnswersLost => self.lose_grants(holder),
            Kind::ReleaseAnswerLost => self.lose_release(holder, token),
            Kind::HolderKilled => self.kill(holder),
            Kind::HolderPaused => {
                self.contenders[holder].pause();
                self.another_acts(token);
                self.sleep(0, 50);
                self.contenders[holder].resume();
            }
            Kind::HolderPausedInAct => return self.pause_in_act(holder, token),
            Kind::HolderPausedBriefly => {
                self.contenders[holder].pause();
                self.sleep(10, 100);
                self.contenders[holder].resume();
            }
            Kind::SessionDropped => {
                let who = self.contenders[holder].who;
                self.observer.opens_again(who);
                self.contenders[holder].tell("drop");
                self.until("it opens another", |scene| scene.observer.has_opened(who));
            }
            Kind::Released => {
                self.contenders[holder].tell("release 50");
                self.another_acts(token);
            }
            Kind::Transferred => {
                let to = self.other_than(holder);
                let to = self.contenders[to].who;
                self.contenders[holder].tell(&format!("transfer c{to}"));
                self.another_acts(token);
            }
            Kind::ServersKilled => {
                (0..self.servers.count()).for_each(|index| self.servers.kill(index));
                self.sleep(0, 150);
                (0..self.servers.count()).for_each(|index| self.servers.start(index));
            }
            Kind::ServersRestarted => {
                (0..self.servers.count()).for_each(|index| self.servers.stop(index));
                (0..self.servers.count()).for_each(|index| self.servers.start(index));
            }
            Kind::ServersPaused => {
                (0..self.servers.count()).for_each(|index| self.servers.pause(index));
                let limit = self.past_deadlines();
                self.sleep(PAST_TTL, PAST_TTL);
                self.all_must_have_stopped(limit, "no server answered for longer than a ttl");
                self.servers.resume();
            }
            Kind::ConnectionsEnded => self.place.end_connections(&self.url),
            Kind::LeaderKilled | Kind::LeaderStopped | Kind::LeaderPaused => self.depose(kind),
            Kind::FileLocked | Kind::FileLockedBriefly => self.lock_file(kind),
        }
        true
    }

    /// When every deadline has passed that counts from before now.
    fn past_deadlines(&self) -> u64 {
        clock() + self.place.ttl().as_nanos() as u64
    }

    /// Cuts the holder off until another holds the name, and a little longer. False if it wasn't
    /// the holder any more.
    fn cut(&mut self, holder: usize, token: u64, fault: Fault) -> bool {
        let before = self.contenders[holder].seen();
        self.contenders[holder].fault(fault);
        let limit = self.past_deadlines();
        self.another_acts(token);
        self.observer.must_have_stopped(token, limit, "it was cut off from its store");
        let after = self.contenders[holder].seen();
        self.sleep(0, 50);
        self.contenders[holder].heal();
        match fault {
            // Nothing is even read.
            Fault::HalfOpen => before.answers == after.answers,
            Fault::Hold(Direction::Answers) => after.answers > before.answers,
            _ => after.requests > before.requests,
        }
    }

    /// Has an effect come late, which only a guard can stop. False if the process stood elsewhere.
    fn pause_in_act(&mut self, holder: usize, token: u64) -> bool {
        let before = self.observer.late_effects;
        self.contenders[holder].tell("pause");
        self.until("it pauses, or holds no longer", |scene| {
            scene.contenders[holder].is_paused() || scene.observer.has_newer(token)
        });
        if !self.contenders[holder].is_paused() {
            return false;
        }
        self.another_acts(token);
        self.contenders[holder].resume();
        self.until("its effect comes late", |scene| scene.observer.late_effects > before);
        true
    }

    fn cut_all(&mut self) {
        self.contenders.iter().for_each(|one| one.fault(Fault::BlackHole));
        let limit = self.past_deadlines();
        self.sleep(PAST_TTL, PAST_TTL);
        self.all_must_have_stopped(limit, "all were cut off for longer than a ttl");
        self.contenders.iter().for_each(Contender::heal);
    }

    fn delay_all(&mut self, holder: usize) {
        let before = self.contenders[holder].seen();
        for index in 0..self.contenders.len() {
            let mut some = || self.place.ttl() * (1 + draw(&mut self.chance) % 20) as u32 / 100;
            let (requests, answers) = (some(), some());
            self.contenders[index].fault(Fault::Delay { requests, answers });
        }
        self.sleep(60, 120);
        self.until("it asks meanwhile", |scene| {
            scene.contenders[holder].seen().requests > before.requests
        });
        self.contenders.iter().for_each(Contender::heal);
    }

    fn reset(&mut self, holder: usize) {
        let before = self.contenders[holder].seen();
        self.contenders[holder].fault(Fault::Reset);
        self.sleep(0, 10);
        self.contenders[holder].heal();
        self.until("it connects anew", |scene| {
            scene.contenders[holder].seen().connections > before.connections
        });
    }

    fn lose_renewals(&mut self, holder: usize) {
        let then = [Then::Silence, Then::Close, Then::Reset];
        let then = then[draw(&mut self.chance) as usize % then.len()];
        let before = self.contenders[holder].seen();
        self.contenders[holder].fault(Fault::DropAnswers { pass: 0, then });
        self.until("an answer is lost", |scene| {
            scene.contenders[holder].seen().answers > before.answers
        });
        self.sleep(0, 100);
        self.contenders[holder].heal();
    }

    /// Whoever gets the name next isn't told. The holder stays away meanwhile.
    fn lose_grants(&mut self, holder: usize) {
        let others: Vec<usize> = (0..self.contenders.len()).filter(|one| *one != holder).collect();
        for one in &others {
            self.contenders[*one].fault(Fault::drop_answers());
        }
        let rests = self.place.ttl().as_millis() * 2;
        self.contenders[holder].tell(&format!("release {rests}"));
        let before: Vec<_> = others.iter().map(|one| self.contenders[*one].seen()).collect();
        self.until("an answer is lost", |scene| {
            let seen = others.iter().map(|one| scene.contenders[*one].seen());
            seen.zip(&before).any(|(seen, before)| {
                seen.requests > before.requests && seen.answers > before.answers
            })
        });
        self.sleep(10, 120);
        self.contenders.iter().for_each(Contender::heal);
    }

    fn lose_release(&mut self, holder: usize, token: u64) {
        let before = self.contenders[holder].seen();
        self.contenders[holder].fault(Fault::drop_answers());
        let rests = self.place.ttl().as_millis();
        self.contenders[holder].tell(&format!("release {rests}"));
        self.another_acts(token);
        self.until("an answer is lost", |scene| {
            scene.contenders[holder].seen().answers > before.answers
        });
        self.contenders[holder].heal();
    }

    /// Takes the leader of the cluster away for a while.
    fn depose(&mut self, kind: Kind) {
        let mut leader = None;
        self.until("the cluster has a leader", |scene| {
            leader = scene.servers.leader();
            leader.is_some()
        });
        let leader = leader.expect("it was waited for");
        match kind {
            Kind::LeaderKilled => self.servers.kill(leader),
            Kind::LeaderStopped => self.servers.stop(leader),
            _ => self.servers.pause(leader),
        }
        self.sleep(20, 150);
        match kind {
            Kind::LeaderPaused => self.servers.resume(),
            _ => self.servers.start(leader),
        }
    }

    fn lock_file(&mut self, kind: Kind) {
        let path = self.url.trim_start_matches("sqlite:").to_owned();
        let writer = Connection::open(path).unwrap();
        writer.busy_timeout(self.place.ttl()).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        if kind == Kind::FileLocked {
            let limit = self.past_deadlines();
            self.sleep(PAST_TTL, PAST_TTL);
            self.all_must_have_stopped(limit, "nobody could write for longer than a ttl");
        } else {
            self.sleep(10, 60);
        }
        writer.execute_batch("ROLLBACK").unwrap();
    }

    /// Puts the network of another contender at fault, or doesn't; and whose it is.
    pub(crate) fn strike_beside(&mut self, kind: Kind, holder: usize) -> Option<usize> {
        if self.servers.count() == 0
            || !kind.leaves_room()
            || !draw(&mut self.chance).is_multiple_of(3)
        {
            return None;
        }
        let slow = self.place.ttl() / 10;
        let faults = [
            Fault::BlackHole,
            Fault::HalfOpen,
            Fault::drop_answers(),
            Fault::Hold(Direction::Requests),
            Fault::Hold(Direction::Answers),
            Fault::Delay { requests: slow, answers: slow },
        ];
        let fault = faults[draw(&mut self.chance) as usize % faults.len()];
        let other = self.other_than(holder);
        self.observer.note(clock(), format!("c{} beside: {fault:?}", self.contenders[other].who));
        self.contenders[other].fault(fault);
        Some(other)
    }
}
