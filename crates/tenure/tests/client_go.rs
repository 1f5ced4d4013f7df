//! A session and client-go's own leader election compete for one Lease: never two that act.
//!
//! `cargo xtask conformance kubernetes` plays 100 changes of leader; the ordinary test plays a few.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tenure::{Lease, Session};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How many changes of leader the ordinary test plays, unless this variable says otherwise.
const CHANGES: usize = 12;
const CHANGES_VARIABLE: &str = "TENURE_TEST_CHANGES";
/// The same where the whole suite is asked for.
const CHANGES_WHOLE: usize = 100;
const WHOLE: &str = "TENURE_TEST_WHOLE";
/// How long a grant lasts on either side.
const TTL: Duration = Duration::from_secs(3);
/// How long most terms last, and some that must be renewed meanwhile.
const TERM: Duration = Duration::from_millis(150);
const LONG_TERM: Duration = Duration::from_secs(4);
/// How long a change may take: it lasts a ttl where a leader died.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// How often a leader acts.
const ACT_EVERY: Duration = Duration::from_millis(2);

/// From its first act to its last, in nanoseconds of the machine's one monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Term {
    who: &'static str,
    first: i64,
    last: i64,
}

/// How a term ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    GivenBack,
    /// Its process is killed, or acts and renews no more.
    Death,
}

fn monotonic() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `cargo xtask stores up kubernetes`, and set what it prints")
    })
}

/// A replica in Go, in a process of its own.
struct Go {
    process: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Go {
    fn start(lease: &str, number: usize) -> Self {
        let url = variable("TENURE_TEST_KUBERNETES");
        let kubeconfig = url.split_once("kubeconfig=").unwrap().1;
        let mut process = Command::new(variable("TENURE_TEST_KUBERNETES_PEER"))
            .args(["-kubeconfig", kubeconfig, "-lease", lease])
            .args(["-identity", &format!("go-{number}")])
            .args(["-lease-duration", "3s", "-renew-deadline", "2s", "-retry-period", "300ms"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (tell, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        let commands = process.stdin.take().unwrap();
        Self { process, commands, lines }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Waits for its first act.
    fn leads(&mut self) -> i64 {
        let begun = Instant::now();
        loop {
            let left = CHANGE_MAX.saturating_sub(begun.elapsed());
            let line = self.lines.recv_timeout(left).expect("client-go's replica never led");
            if let Some(at) = act(&line) {
                return at;
            }
        }
    }

    /// Its last act, once it has ended its term or been killed.
    fn ended(&mut self, first: i64, end: End) -> i64 {
        match end {
            End::GivenBack => self.tell("resign"),
            End::Death => {
                self.process.kill().unwrap();
                self.process.wait().unwrap();
            }
        }
        let mut last = first;
        while let Ok(line) = self.lines.recv_timeout(CHANGE_MAX) {
            match act(&line) {
                Some(at) => last = at,
                None if line == "ended" => break,
                None => {}
            }
        }
        last
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn act(line: &str) -> Option<i64> {
    line.strip_prefix("act ")?.parse().ok()
}

/// Acts as long as it may and shall, and gives the Lease back after the last act, or never.
async fn lead(lease: &Lease, term: Duration) -> Term {
    let first = monotonic();
    let begun = Instant::now();
    let mut last = first;
    while begun.elapsed() < term {
        assert!(lease.check().is_ok(), "lost a Lease that was renewed: {:?}", lease.check());
        last = monotonic();
        tokio::time::sleep(ACT_EVERY).await;
    }
    Term { who: "rust", first, last }
}

fn changes() -> usize {
    match std::env::var(CHANGES_VARIABLE) {
        Ok(count) => count.parse().expect("it is a number of changes"),
        Err(_) if std::env::var_os(WHOLE).is_some() => CHANGES_WHOLE,
        Err(_) => CHANGES,
    }
}

/// In ten terms two end by death, one of each side, and two last longer than a ttl.
fn plan(number: usize) -> (Duration, End) {
    match number % 10 {
        3 | 6 => (TERM, End::Death),
        8 | 9 => (LONG_TERM, End::GivenBack),
        _ => (TERM, End::GivenBack),
    }
}

#[test]
fn client_go_and_a_session_never_act_at_once() {
    let runtime = Runtime::new().unwrap();
    let url = variable("TENURE_TEST_KUBERNETES");
    let name = format!("election-{}", std::process::id());
    let begun = Instant::now();
    let session = runtime.block_on(Session::open(url)).unwrap();
    let campaign = || -> JoinHandle<Lease> {
        let acquiring = session.lease(&name).ttl(TTL).acquire();
        runtime.spawn(async { acquiring.await.unwrap() })
    };
    let mut terms = Vec::new();
    let mut go = Go::start(&name, 0);
    go.tell("lead");
    for number in 0..=changes() {
        let (length, end) = plan(number);
        if number % 2 == 0 {
            let first = go.leads();
            // From now on the other side contends, through the whole term.
            let rust = campaign();
            std::thread::sleep(length);
            let last = go.ended(first, end);
            terms.push(Term { who: "go", first, last });
            if end == End::Death {
                go = Go::start(&name, number);
            }
            let lease = runtime.block_on(async { tokio::time::timeout(CHANGE_MAX, rust).await });
            let lease = lease.expect("the session never led").unwrap();
            go.tell("lead");
            let (length, end) = plan(number + 1);
            terms.push(runtime.block_on(lead(&lease, length)));
            match end {
                End::GivenBack => runtime.block_on(lease.release()).unwrap(),
                End::Death => lease.leave_to_ttl(),
            }
        }
    }
    go.leads();
    for pair in terms.windows(2) {
        assert!(pair[0].who != pair[1].who, "{pair:?} are no change of leader");
        assert!(pair[0].last < pair[1].first, "two acted at once: {pair:?}");
    }
    let changes = terms.len() - 1;
    println!("{changes} changes of leader, none acted beside another, in {:.1?}", begun.elapsed());
    assert!(changes >= self::changes(), "{changes} changes are too few");
    runtime.block_on(session.close()).unwrap();
}
