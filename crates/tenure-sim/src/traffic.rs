//! The traffic between instances and the store: requests, answers, hints and timeouts.

use std::time::Duration;

use tenure_core::clock::Reading;
use tenure_core::error::{Error, ErrorKind};
use tenure_core::identity::{Name, StoreId};
use tenure_core::store::Wake;

use crate::instance::Inbound;
use crate::lane::Lane;
use crate::network::Way;
use crate::operation::{Next, Operation, Outcome, Purpose, Want};
use crate::oracle::Key;
use crate::request::{Answer, Call};
use crate::world::{Event, Packet, World};

impl World<'_> {
    pub(crate) fn begin(&mut self, who: usize, lane: usize, want: Want) {
        let over_records = !self.config.store.has_clock();
        let process = &mut self.processes[who];
        let opened = process.lanes[lane].store;
        let name = self.names[lane].clone();
        let sent = process.clock.reading(self.now);
        let timeout_at = sent.elapsed + process.make.timing.timeout();
        let opens = matches!(want, Want::Open);
        let (operation, first) = Operation::start(
            lane,
            &name,
            &process.identity,
            want,
            opened,
            over_records,
            sent,
            timeout_at,
            &mut process.chance,
        );
        let number = process.next_operation;
        process.next_operation += 1;
        let unopened = opened.is_none() && !opens;
        let first = if unopened {
            Next::Done(operation.failed(ErrorKind::Unavailable, "the store is not open"))
        } else {
            first
        };
        process.operations.insert(number, operation);
        self.go_on(who, number, first);
    }

    pub(crate) fn take_in(&mut self, who: usize, inbound: Inbound) {
        match inbound {
            Inbound::Hint { lane } => self.drive(who, lane, Lane::hint),
            Inbound::Answer { operation: number, step, answer } => {
                let process = &mut self.processes[who];
                let Some(operation) = process.operations.get_mut(&number) else { return };
                if operation.step != step {
                    return;
                }
                let next = match (operation.take(answer), operation.claim()) {
                    (Next::Done(Outcome::Claimed(id, acquired, known)), Some(claim)) => {
                        let acquired = self.rules.claimed(claim, acquired);
                        Next::Done(Outcome::Claimed(id, acquired, known))
                    }
                    (next, _) => next,
                };
                self.go_on(who, number, next);
            }
        }
    }

    /// Carries an operation on: its next request, or its end.
    fn go_on(&mut self, who: usize, number: u64, next: Next) {
        match next {
            Next::Call(call) => self.send(who, number, call),
            Next::Done(outcome) => {
                let Some(operation) = self.processes[who].operations.remove(&number) else {
                    return;
                };
                let Operation { lane, sent, opened, timed_out, purpose, .. } = operation;
                let key = (who, self.processes[who].lives, number);
                self.tell(who, lane, key, &purpose, outcome, (sent, opened, timed_out));
            }
        }
    }

    fn tell(
        &mut self,
        who: usize,
        lane: usize,
        key: Key,
        purpose: &Purpose,
        outcome: Outcome,
        (sent, opened, late): (Reading, Option<StoreId>, bool),
    ) {
        self.oracle.told(key, purpose, &outcome, self.now);
        let opens = match &outcome {
            Outcome::Opened(Ok(id)) if !late => Some(*id),
            _ => None,
        };
        self.drive(who, lane, |lane, desk| lane.answered(outcome, sent, opened, late, desk));
        if let Some(id) = opens {
            for lane in &mut self.processes[who].lanes {
                lane.store = Some(id);
            }
        }
    }

    fn send(&mut self, who: usize, number: u64, call: Call) {
        let now = self.now;
        let process = &mut self.processes[who];
        let lives = process.lives;
        let Some(operation) = process.operations.get(&number) else { return };
        let step = operation.step;
        let packet = Packet {
            who,
            key: (who, lives, number),
            step,
            lane: operation.lane,
            opened: operation.opened,
            purpose: operation.purpose.clone(),
            call,
        };
        let refused = process.link.refuses(now);
        let arrivals = process.link.arrivals(Way::Request, now, &mut process.weather);
        let broken = arrivals.is_empty() && process.weather.one_in(3);
        if refused || broken {
            let kind = if refused { ErrorKind::Unavailable } else { ErrorKind::OutcomeUnknown };
            let error = Error::new(kind, packet.purpose.doing, "the network failed");
            let inbound =
                Inbound::Answer { operation: number, step, answer: Answer::Failed(error) };
            self.plan(now + Duration::from_millis(1), Event::Reached { who, lives, inbound });
        }
        if !refused {
            for at in arrivals {
                self.plan(at, Event::Asked(Box::new(packet.clone())));
            }
        }
    }

    /// A request reaches the store, which carries it out and answers.
    pub(crate) fn asked(&mut self, packet: Packet) {
        let Packet { who, key, step, lane, opened, purpose, call } = packet;
        // A session's belief is its own affair, and may have changed since the request left.
        let opened = self.processes[who].lanes.get(lane).and_then(|lane| lane.store).or(opened);
        let (answer, change) = self.store.handle(call, opened, self.now, self.rules);
        if let Some(change) = change {
            let moment = self.moment();
            let name = change.name.clone();
            let cautious = self.is_cautious(who, key.1);
            self.note(|| format!("store  {} of {name} by i{who}", purpose.doing));
            if self.oracle.changed(change, &purpose, key, cautious, moment) {
                self.everybody_acts(&name);
            }
            self.hint(&name);
        }
        let inbound = Inbound::Answer { operation: key.2, step, answer };
        self.send_back(who, key.1, inbound);
    }

    fn send_back(&mut self, who: usize, lives: u32, inbound: Inbound) {
        let process = &mut self.processes[who];
        for at in process.link.arrivals(Way::Answer, self.now, &mut process.weather) {
            self.plan(at, Event::Reached { who, lives, inbound: inbound.clone() });
        }
    }

    /// Each contender hears of a change, where the store pushes.
    pub(crate) fn hint(&mut self, name: &Name) {
        let Wake::Push(_) = self.scenario.wake else { return };
        let Some(lane) = self.names.iter().position(|known| known == name) else { return };
        for who in 0..self.processes.len() {
            self.send_back(who, self.processes[who].lives, Inbound::Hint { lane });
        }
    }

    /// Nobody answered in time. What was sent goes its way, and may still be answered.
    pub(crate) fn time_out(&mut self, who: usize, number: u64) {
        let process = &mut self.processes[who];
        let lives = process.lives;
        let forgets = process.weather.one_in(2);
        let Some(operation) = process.operations.get_mut(&number) else { return };
        operation.timed_out = true;
        let kind = match operation.claim() {
            Some(_) => self.rules.unanswered_claim(),
            None => ErrorKind::OutcomeUnknown,
        };
        let outcome = operation.failed(kind, "no answer in time");
        let (lane, purpose) = (operation.lane, operation.purpose.clone());
        let about = (operation.sent, operation.opened, false);
        if forgets {
            process.operations.remove(&number);
        }
        self.tell(who, lane, (who, lives, number), &purpose, outcome, about);
    }
}
