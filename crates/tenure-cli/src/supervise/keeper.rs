//! The keeper's main thread: starts CMD, waits for it, ends it in time, and proves it gone.
//!
//! It does no I/O on a store and waits for no lock, so that a hung store delays no deadline.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, WaitOptions};

use super::clock::{self, Alarm};
use super::cmd::Cmd;
use super::kernel;
use super::lease_side::{Event, LeaseSide, Order, Orders, desk};
use super::rules::{self, Phase, Side, Verdict};
use super::say::say;
use super::seat::Seat;
use super::signals::{self, Arrival, Caller, Inbox};
use super::status::{self, Status};
use super::sweep::{SWEEP_BOUND, sweep};
use super::terminal::Terminal;
use super::work::{Mode, Work};

/// How long the lease side may take to end once there is nobody left to end it.
const LEAVE_BOUND: Duration = Duration::from_secs(10);
/// How many orphans are reaped before anything else is looked at.
const REAP_BATCH: usize = 64;

/// Keeps a seat: runs `lease_side` on a thread of its own and CMD from this one, until the end.
///
/// `tell` is called on this thread and must not block; typically it sends into a channel that
/// the lease side awaits. The answer is also on the page, from where the supervisor takes it.
pub(crate) fn keep<T, L>(seat: Seat, work: Work, tell: T, lease_side: L) -> ExitCode
where
    T: FnMut(Event),
    L: FnOnce(LeaseSide) + Send + 'static,
{
    let page = seat.page;
    let code = Keeper::start(seat, work, tell, lease_side).map_or_else(
        |error| {
            say(format_args!("the keeper cannot start: {error}"));
            page.set_exit_code(status::SYSTEM);
            status::SYSTEM
        },
        Keeper::run,
    );
    ExitCode::from(code)
}

struct Keeper<T> {
    seat: Seat,
    work: Work,
    tell: T,
    caller: Caller,
    orders: Orders,
    children: Inbox,
    alarm: Alarm,
    terminal: Option<Terminal>,
    /// CMD, not reaped yet.
    cmd: Option<Cmd>,
    name: String,
    told_lost: bool,
    /// What the term's end was, for the exit code.
    end: End,
    /// A signal came while there was no CMD: none is started any more.
    abandoned: Option<Signal>,
    /// The supervisor is dead.
    orphaned: bool,
    /// The lease side is overdue then.
    leave_by: Option<u64>,
}

#[derive(Clone, Copy, Default)]
struct End {
    status: Option<Status>,
    lost: bool,
    /// Something of the work may live on, CMD itself if it has no status.
    unproven: bool,
}

/// Tells the main thread when the lease side's thread ends, however it does.
struct Farewell(LeaseSide);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.gone();
    }
}

impl<T: FnMut(Event)> Keeper<T> {
    fn start<L>(seat: Seat, work: Work, tell: T, lease_side: L) -> io::Result<Self>
    where
        L: FnOnce(LeaseSide) + Send + 'static,
    {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        kernel::block(signals::blocked());
        let (side, orders) = desk(seat.page)?;
        let children = Inbox::of_children()?;
        let alarm = Alarm::new()?;
        let caller = seat.page.caller();
        thread::Builder::new().name("lease-side".into()).spawn(move || {
            let farewell = Farewell(side.clone());
            lease_side(side);
            drop(farewell);
        })?;
        // After the thread: a real-time thread would hand on a nice value of 0.
        kernel::take_fifo();
        Ok(Self {
            terminal: Terminal::open(caller.group),
            seat,
            work,
            tell,
            caller,
            orders,
            children,
            alarm,
            cmd: None,
            name: String::new(),
            told_lost: false,
            end: End::default(),
            abandoned: None,
            orphaned: false,
            leave_by: None,
        })
    }

    fn run(mut self) -> u8 {
        loop {
            // The deadline first: after a pause nothing else may come before it.
            let wake = self.mind_deadline();
            if let Some(code) = self.carry_out_orders() {
                return code;
            }
            self.mind_supervisor();
            self.mind_children();
            self.hear_wire();
            if self.leave_by.is_some_and(|by| clock::now() >= by) {
                return self.leave(self.code());
            }
            self.wait(wake);
        }
    }

    /// Sleeps until something happens, at the latest at the next time to look.
    fn wait(&mut self, wake: Option<u64>) {
        let times = [wake, self.cmd.as_ref().and_then(Cmd::kill_at), self.leave_by];
        if let Err(error) = self.alarm.set(times.into_iter().flatten().min()) {
            // Without an alarm no deadline can be kept.
            say(format_args!("cannot set an alarm: {error}"));
            self.end_work();
        }
        let mut sources = [
            PollFd::new(&self.children, PollFlags::IN),
            PollFd::new(&self.orders, PollFlags::IN),
            PollFd::new(&self.alarm, PollFlags::IN),
            PollFd::new(&self.seat.supervisor, PollFlags::IN),
            PollFd::new(&self.seat.wire, PollFlags::IN),
        ];
        // The supervisor's end would be reported again and again.
        let awake = match (self.orphaned, self.seat.wire.is_open()) {
            (true, _) => &mut sources[..3],
            (false, false) => &mut sources[..4],
            (false, true) => &mut sources[..],
        };
        // An interrupted wait only means to look again.
        let _ = poll(awake, None);
        self.alarm.hush();
    }

    /// Does what is due; answers when to look again.
    fn mind_deadline(&mut self) -> Option<u64> {
        let now = clock::now();
        let view = self.seat.page.view();
        if self.cmd.as_ref().and_then(Cmd::kill_at).is_some_and(|at| now >= at) {
            self.end_work();
            let killed = if self.end.status.is_some() { " and was killed" } else { "" };
            say(format_args!("CMD did not end within the stop timeout{killed}"));
            return None;
        }
        match rules::due(&view, Side::Keeper, now) {
            Verdict::Rest { until } => until,
            Verdict::Terminate { kill_at } => {
                self.lose();
                match &self.cmd {
                    Some(cmd) if self.seat.page.claim_terminate() => cmd.signal_group(Signal::TERM),
                    Some(_) => {}
                    // Nothing that could use its grace.
                    None => self.end_work(),
                }
                Some(kill_at)
            }
            Verdict::Kill => {
                self.lose();
                self.end_work();
                None
            }
        }
    }

    fn lose(&mut self) {
        self.seat.page.lose();
        if !self.told_lost {
            self.told_lost = true;
            (self.tell)(Event::Lost);
        }
    }

    fn carry_out_orders(&mut self) -> Option<u8> {
        self.orders.take().into_iter().find_map(|order| self.carry_out(order))
    }

    /// Carries out one order; answers the exit code if it was the last.
    fn carry_out(&mut self, order: Order) -> Option<u8> {
        let phase = self.seat.page.view().phase;
        match order {
            Order::Granted { name, token, instance } => self.begin(name, token, instance),
            Order::Lost { cause } => {
                self.mind_deadline();
                say(format_args!("lost `{}`: {cause}", self.name));
            }
            Order::Kill { cause } => {
                self.lose();
                self.end_work();
                say(format_args!("lost `{}`: {cause}", self.name));
            }
            Order::Stop => match &mut self.cmd {
                Some(cmd) => cmd.stop(),
                None => self.end_work(),
            },
            Order::Closed => {
                self.ring();
                let last = self.work.mode == Mode::Once || self.orphaned;
                return last.then(|| self.leave(self.code()));
            }
            Order::Ready => {
                self.seat.page.set_ready();
                self.ring();
            }
            Order::Finish { code } => {
                self.end_work();
                return Some(self.leave(code));
            }
            Order::Gone => {
                let code = match phase {
                    Phase::Waiting => status::INTERNAL,
                    Phase::Granted | Phase::Running => status::LOST,
                    Phase::Ended => self.code(),
                };
                self.end_work();
                return Some(self.leave(code));
            }
        }
        None
    }

    /// Starts the work of a new term.
    fn begin(&mut self, name: String, token: u64, instance: String) {
        self.end = End::default();
        self.told_lost = false;
        // Before CMD runs the supervisor knows by when it must be dead.
        self.ring();
        if self.abandoned.is_some() || self.orphaned || self.seat.page.view().lost {
            self.name = name;
            return self.end_work();
        }
        if self.work.argv.is_empty() {
            self.name = name;
            return (self.tell)(Event::Started { pid: None });
        }
        let env = [
            ("TENURE_NAME", name.clone()),
            ("TENURE_TOKEN", token.to_string()),
            ("TENURE_INSTANCE", instance),
        ];
        self.name = name;
        match self.work.spawn(self.seat.page, env, self.terminal.as_ref()) {
            Ok(pid) => {
                let timeout = self.work.stop_timeout.map(clock::nanos);
                self.cmd = Some(Cmd::new(pid, timeout));
                self.seat.page.started(pid);
                (self.tell)(Event::Started { pid: Some(pid.as_raw_pid()) });
            }
            Err((error, status)) => {
                self.end.status = Some(status);
                self.end_work();
                let program = self.work.argv[0].display();
                say(format_args!("cannot run `{program}`: {error}"));
            }
        }
    }

    /// Kills and reaps everything, and tells the lease side. Without work under way it does nothing.
    fn end_work(&mut self) {
        let view = self.seat.page.view();
        if !matches!(view.phase, Phase::Granted | Phase::Running) {
            return;
        }
        self.seat.page.set_sweeping();
        let cmd = self.cmd.take();
        if let Some(cmd) = &cmd {
            cmd.signal_group(Signal::KILL);
        }
        self.seat.page.forget_cmd();
        let (cmd, spared) = (cmd.map(|cmd| cmd.pid), self.caller.group);
        let late = self.seat.page.view().lost;
        let swept = sweep(cmd, spared, late, &self.children, SWEEP_BOUND);
        let status = swept.watched.or(self.end.status);
        // Read again: the work ended only now.
        let lost = self.seat.page.view().lost;
        self.end = End { status, lost, unproven: !swept.proven };
        if self.work.mode == Mode::Once {
            // From now on this is what the supervisor exits with, whatever happens here.
            self.seat.page.set_exit_code(self.code());
        }
        self.seat.page.ended(status, swept.proven);
        (self.tell)(Event::WorkGone { status, proven: swept.proven, lost });
        self.ring();
        if !swept.proven {
            let why = if swept.refused { "cannot be killed" } else { "did not die in time" };
            say(format_args!(
                "something that CMD started {why}; `{}` waits for its ttl",
                self.name
            ));
        }
    }

    fn leave(&self, code: u8) -> u8 {
        self.seat.page.set_exit_code(code);
        code
    }

    fn code(&self) -> u8 {
        match (self.end, self.abandoned) {
            (End { lost: true, .. }, _) => status::LOST,
            (End { status: Some(status), .. }, _) => status.code(),
            (End { unproven: true, .. }, _) => status::LOST,
            (_, Some(signal)) => status::signalled(signal.as_raw()),
            _ => 0,
        }
    }

    fn mind_supervisor(&mut self) {
        if self.orphaned {
            return;
        }
        let mut life = [PollFd::new(&self.seat.supervisor, PollFlags::IN)];
        let now = rustix::time::Timespec::default();
        if !matches!(poll(&mut life, Some(&now)), Ok(1)) {
            return;
        }
        self.orphaned = true;
        (self.tell)(Event::SupervisorDied);
        self.end_work();
        self.leave_by = Some(clock::now() + clock::nanos(LEAVE_BOUND));
        say(format_args!("the supervisor died; CMD was ended"));
    }

    /// Looks after CMD, and reaps what it orphaned.
    fn mind_children(&mut self) {
        while self.children.take().is_some() {}
        if let Some(cmd) = &mut self.cmd {
            cmd.mind_stops(self.terminal.as_ref(), &self.name);
        }
        let cmd = self.cmd.as_ref().map(|cmd| cmd.pid);
        for _ in 0..REAP_BATCH {
            match kernel::ended_child() {
                Ok(Some(pid)) if Some(pid) == cmd => return self.end_work(),
                Ok(Some(pid)) => {
                    let options = WaitOptions::NOHANG;
                    let _ = kernel::as_ordinary(|| rustix::process::waitpid(Some(pid), options));
                }
                Ok(None) | Err(_) => return,
            }
        }
        // More are there: come back at once.
        if let Err(error) = self.alarm.set(Some(1)) {
            say(format_args!("cannot set an alarm: {error}"));
        }
    }

    /// Hears which signals the supervisor got.
    fn hear_wire(&mut self) {
        for arrival in self.seat.wire.take().into_iter().filter_map(Arrival::from_byte) {
            self.hear(arrival);
        }
    }

    fn hear(&mut self, arrival: Arrival) {
        let relayed = self.cmd.is_some();
        match &mut self.cmd {
            Some(cmd) => cmd.relay(arrival),
            // Nothing is held, or it is about to be given back: there is nothing to stop.
            None if arrival.signal == Signal::TSTP => {}
            None => self.abandoned = Some(arrival.signal),
        }
        if arrival.signal != Signal::TSTP {
            (self.tell)(Event::Signal { number: arrival.signal.as_raw(), relayed });
        }
    }

    /// Has the supervisor look at the page.
    fn ring(&self) {
        self.seat.wire.send(b'!');
    }
}
