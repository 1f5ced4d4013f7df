//! The process that the user starts: it outlives the keeper, and sees to it that nothing else does.
//!
//! It has one thread, no store and no runtime. It passes signals on to the keeper, kills everything
//! if the keeper lets a deadline pass, cleans up after it, and gives back what it held.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use super::clock::{self, Alarm};
use super::kernel::{self, BeforeExec};
use super::notify::Notify;
use super::page::Page;
use super::release::release;
use super::rules::{self, Phase, Side, Verdict};
use super::say::say;
use super::seat;
use super::signals::{self, Caller, Inbox};
use super::status::{self, Status};
use super::sweep::{SWEEP_BOUND, Swept, sweep};
use super::terminal::Terminal;
use super::wire::Wire;

/// How long a keeper without work may take to end after a signal.
const LEAVE_BOUND: Duration = Duration::from_secs(10);
/// How many orphans are reaped before anything else is looked at.
const REAP_BATCH: usize = 64;
/// How many signals are passed on before anything else is looked at.
const SIGNAL_BATCH: usize = 64;

/// Supervises this same command line, run once more as the keeper; answers the exit code.
///
/// Call it before any thread exists, and exit with its answer.
pub(crate) fn supervise() -> ExitCode {
    match Supervisor::start() {
        Ok(supervisor) => ExitCode::from(supervisor.run()),
        Err(error) => {
            say(format_args!("cannot start the keeper (is /proc mounted?): {error}"));
            ExitCode::from(status::SYSTEM)
        }
    }
}

struct Supervisor {
    page: Page,
    wire: Wire,
    keeper: Pid,
    keeper_life: OwnedFd,
    requests: Inbox,
    children: Inbox,
    alarm: Alarm,
    caller: Caller,
    notify: Option<Notify>,
    /// The terminal, if we were started in its foreground.
    terminal: Option<Terminal>,
    own_name: OsString,
    /// A signal ended the wait; the keeper is overdue then.
    leaving: Option<(Signal, u64)>,
}

/// Why the supervisor stopped watching.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    KeeperEnded,
    DeadlinePassed,
    KeeperOverdue(Signal),
}

impl Supervisor {
    fn start() -> io::Result<Self> {
        let caller = Caller::read();
        kernel::notice_children();
        kernel::block(signals::blocked());
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))?;
        let (page, file) = Page::create()?;
        page.set_supervisor(own);
        page.set_caller(&caller);
        let (wire, keepers_wire) = Wire::pair()?;
        let requests = Inbox::of_requests(&caller)?;
        let children = Inbox::of_children()?;
        let alarm = Alarm::new()?;
        let terminal = Terminal::open(caller.group).filter(Terminal::is_ours);

        let mut arguments = env::args_os();
        let own_name = arguments.next().unwrap_or_else(|| "tenure".into());
        let mut command = Command::new("/proc/self/exe");
        command.arg0(&own_name).args(arguments);
        command.env(seat::VARIABLE, seat::describe(&file, &keepers_wire, own));
        let steps = BeforeExec {
            keep: [Some(file.as_raw_fd()), Some(keepers_wire.as_raw_fd())],
            parent: None,
            terminal: None,
            mask: signals::blocked() | caller.mask,
            ignored: None,
            nice: caller.nice,
        };
        kernel::before_exec(&mut command, steps);
        let keeper = Pid::from_child(&command.spawn()?);
        let keeper_life = rustix::process::pidfd_open(keeper, PidfdFlags::empty())?;
        kernel::take_fifo();
        Ok(Self {
            page,
            wire,
            keeper,
            keeper_life,
            requests,
            children,
            alarm,
            caller,
            notify: Notify::from_environment(),
            terminal,
            own_name,
            leaving: None,
        })
    }

    fn run(mut self) -> u8 {
        let why = self.watch();
        self.conclude(why)
    }

    /// Watches until the keeper has ended or must be ended.
    fn watch(&mut self) -> Why {
        loop {
            // The deadline first: after a pause nothing else may come before it.
            let now = clock::now();
            let wake = match rules::due(&self.page.view(), Side::Supervisor, now) {
                Verdict::Rest { until } => until,
                Verdict::Terminate { kill_at } => {
                    self.terminate();
                    Some(kill_at)
                }
                Verdict::Kill => return Why::DeadlinePassed,
            };
            let wake = [wake, self.notify.as_mut().and_then(|notify| notify.tell(self.page, now))]
                .into_iter()
                .chain([self.leaving.map(|(_, by)| by)]);
            if let Some((signal, by)) = self.leaving {
                if self.page.view().phase != Phase::Waiting {
                    self.leaving = None;
                } else if now >= by {
                    return Why::KeeperOverdue(signal);
                }
            }
            if self.alarm.set(wake.flatten().min()).is_err() {
                // Without an alarm no deadline can be kept.
                return Why::DeadlinePassed;
            }
            let keeper_ended = self.wait();
            if keeper_ended {
                return Why::KeeperEnded;
            }
            self.pass_signals_on();
            self.reap_orphans();
        }
    }

    /// Sleeps until something happens; true if the keeper has ended.
    fn wait(&mut self) -> bool {
        let mut sources = [
            PollFd::new(&self.keeper_life, PollFlags::IN),
            PollFd::new(&self.requests, PollFlags::IN),
            PollFd::new(&self.children, PollFlags::IN),
            PollFd::new(&self.alarm, PollFlags::IN),
            PollFd::new(&self.wire, PollFlags::IN),
        ];
        let awake = if self.wire.is_open() { &mut sources[..] } else { &mut sources[..4] };
        // An interrupted wait only means to look again.
        let _ = poll(awake, None);
        let ended = !sources[0].revents().is_empty();
        self.alarm.hush();
        // The bytes say nothing but "look at the page".
        self.wire.take();
        ended
    }

    /// Sends the TERM of a lost term, unless the keeper has.
    fn terminate(&self) {
        self.page.lose();
        if self.page.claim_terminate() {
            self.signal_cmd(Signal::TERM);
        }
    }

    /// Signals CMD's group, if CMD surely has not been reaped.
    fn signal_cmd(&self, signal: Signal) {
        let Some(cmd) = self.page.cmd() else { return };
        // The keeper forgets the number before it reaps. If it still stands, the pidfd is CMD's,
        // and the number was its own at that moment.
        let life = rustix::process::pidfd_open(cmd, PidfdFlags::empty());
        if life.is_ok() && self.page.cmd() == Some(cmd) {
            // It may have ended in between: then there is nobody to be signalled.
            let _ = rustix::process::kill_process_group(cmd, signal);
        }
    }

    fn pass_signals_on(&mut self) {
        for _ in 0..SIGNAL_BATCH {
            let Some(arrival) = self.requests.take() else { return };
            self.wire.send(arrival.to_byte());
            let waiting = self.page.view().phase == Phase::Waiting;
            if waiting && arrival.signal != Signal::TSTP && self.leaving.is_none() {
                let by = clock::now() + clock::nanos(LEAVE_BOUND);
                self.leaving = Some((arrival.signal, by));
            }
        }
    }

    /// Reaps what else became our child: as pid 1, every orphan of the container.
    fn reap_orphans(&mut self) {
        while self.children.take().is_some() {}
        for _ in 0..REAP_BATCH {
            match kernel::ended_child() {
                Ok(Some(pid)) if pid != self.keeper => {
                    let options = WaitOptions::NOHANG;
                    let _ = kernel::as_ordinary(|| rustix::process::waitpid(Some(pid), options));
                }
                _ => return,
            }
        }
        // More are there: come back at once. A failure is met again by the loop.
        let _ = self.alarm.set(Some(1));
    }

    /// Ends everything, proves it, gives back what is held, and answers the exit code.
    fn conclude(&mut self, why: Why) -> u8 {
        if why != Why::KeeperEnded {
            self.page.lose();
            // The keeper first: it must start nothing, and CMD dies with it.
            let _ = rustix::process::pidfd_send_signal(&self.keeper_life, Signal::KILL);
            self.signal_cmd(Signal::KILL);
        }
        let view = self.page.view();
        // Also if the keeper's death was noticed first, after a pause.
        let late = view.lost || rules::due(&view, Side::Supervisor, clock::now()) == Verdict::Kill;
        let spared = self.caller.group;
        let swept = sweep(Some(self.keeper), spared, late, &self.children, SWEEP_BOUND);
        let given_back = self.give_back(swept);
        if let Some(terminal) = &self.terminal {
            terminal.take_back();
        }
        self.explain(why, swept, given_back);
        self.code(why, swept)
    }

    /// Gives back what the keeper held; `None` if it held nothing.
    fn give_back(&self, swept: Swept) -> Option<bool> {
        let ticket = self.page.ticket()?;
        Some(swept.proven && release(&ticket, &self.own_name))
    }

    fn explain(&self, why: Why, swept: Swept, given_back: Option<bool>) {
        let what = match why {
            Why::DeadlinePassed => "the lease's deadline passed and the keeper did not act",
            Why::KeeperOverdue(_) => "the keeper did not end",
            Why::KeeperEnded if self.page.exit_code().is_some() => "",
            Why::KeeperEnded => match swept.watched {
                Some(Status::Killed(signal)) => {
                    return say(format_args!(
                        "the keeper was killed by signal {signal}{}",
                        outcome(swept, given_back)
                    ));
                }
                _ if given_back.is_some() => "the keeper failed",
                _ => "",
            },
        };
        if !what.is_empty() || !swept.proven || given_back == Some(false) {
            let what = if what.is_empty() { "tenure ends" } else { what };
            say(format_args!("{what}{}", outcome(swept, given_back)));
        }
    }

    fn code(&self, why: Why, swept: Swept) -> u8 {
        if let Some(code) = self.page.exit_code() {
            return code;
        }
        match (self.page.view().phase, why, swept.watched) {
            (Phase::Ended, ..) => self.page.status().map_or(status::LOST, Status::code),
            (Phase::Granted | Phase::Running, ..) => status::LOST,
            (Phase::Waiting, Why::KeeperOverdue(signal), _) => status::signalled(signal.as_raw()),
            // It ended before it began to wait: bad usage, or `--help`.
            (Phase::Waiting, _, Some(Status::Exited(code))) => code,
            (Phase::Waiting, ..) => status::INTERNAL,
        }
    }
}

/// The second half of the sentence about an end.
fn outcome(swept: Swept, given_back: Option<bool>) -> &'static str {
    match (swept.proven, given_back) {
        (true, None) => "; nothing is left of it",
        (true, Some(true)) => "; everything it started was ended and the name given back",
        (true, Some(false)) => {
            "; everything it started was ended, but the name could not be given back and waits \
             for its ttl"
        }
        (false, _) if swept.refused => {
            "; something it started cannot be killed, so the name waits for its ttl"
        }
        (false, _) => "; something it started did not die in time, so the name waits for its ttl",
    }
}
