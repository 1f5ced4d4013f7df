//! A contender: a process of its own that holds, acts while it may, and does as it is told.

use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tenure::guard::HighWaterFile;
use tenure::{Lease, Session, Successor};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::clock;

/// What all contend for.
const NAME: &str = "leader";
/// How often the holder acts.
const ACT_EVERY: Duration = Duration::from_millis(2);
/// How long it waits before it tries again to open a session.
const OPEN_AGAIN: Duration = Duration::from_millis(100);

/// How long a signal to stop may take until this very thread stands.
const STOPS_WITHIN: Duration = Duration::from_millis(50);

/// How a contender is started: variables of its environment.
pub(crate) const URL: &str = "TENURE_FAULTS_URL";
pub(crate) const WHO: &str = "TENURE_FAULTS_WHO";
pub(crate) const FOLDER: &str = "TENURE_FAULTS_FOLDER";
pub(crate) const TTL_MS: &str = "TENURE_FAULTS_TTL_MS";

/// What a contender is told, one a line.
enum Told {
    /// Release, and stay away for so long.
    Release(Duration),
    Transfer(Successor),
    /// Pause this process after the next check that passes, before its effect.
    Pause,
    /// Drop the session without closing it, and open another.
    Drop,
}

struct Contender {
    who: String,
    ttl: Duration,
    acts: File,
    guarded: File,
    guard: HighWaterFile,
    told: UnboundedReceiver<Told>,
}

/// Contends until this process is killed, or whoever started it has gone.
pub(crate) fn contend() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let folder = variable(FOLDER);
    let folder = Path::new(&folder);
    let appended =
        |file: &str| File::options().create(true).append(true).open(folder.join(file)).unwrap();
    let (tell, told) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let _ = tell.send(parse(&line));
        }
        std::process::exit(0);
    });
    let mut contender = Contender {
        who: variable(WHO),
        ttl: Duration::from_millis(variable(TTL_MS).parse().unwrap()),
        acts: appended("acts"),
        guarded: appended("guarded"),
        guard: HighWaterFile::new(folder.join("mark")),
        told,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        loop {
            let session = contender.open(&variable(URL)).await;
            contender.write(&format!("open {} {}\n", contender.who, clock()));
            contender.serve(session).await;
        }
    });
}

fn parse(line: &str) -> Told {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("release", rest) => Told::Release(Duration::from_millis(rest.parse().unwrap())),
        ("transfer", to) => Told::Transfer(to.parse().unwrap()),
        ("pause", "") => Told::Pause,
        ("drop", "") => Told::Drop,
        _ => panic!("`{line}` is nothing that a contender can be told"),
    }
}

impl Contender {
    async fn open(&self, url: &str) -> Session {
        loop {
            let name = format!("c{}", self.who).parse().unwrap();
            match Session::builder().url(url).instance(name).open().await {
                Ok(session) => return session,
                Err(error) if error.kind().is_transient() => tokio::time::sleep(OPEN_AGAIN).await,
                Err(error) => panic!("c{} can't open its store: {error}", self.who),
            }
        }
    }

    /// Contends and acts, until it is told to drop the session.
    async fn serve(&mut self, session: Session) {
        loop {
            let lease = {
                let acquiring = session.lease(NAME).ttl(self.ttl).acquire();
                tokio::pin!(acquiring);
                loop {
                    tokio::select! {
                        lease = &mut acquiring => break lease,
                        told = self.told.recv() => if matches!(told, Some(Told::Drop)) { return },
                    }
                }
            };
            let lease = lease.unwrap_or_else(|error| panic!("c{} gave up: {error}", self.who));
            self.write(&format!("grant {} {} {}\n", self.who, lease.token(), clock()));
            let rests = match self.act(&lease).await {
                Ok(Told::Drop | Told::Pause) => {
                    self.end(&lease, "its session is dropped");
                    return;
                }
                Ok(Told::Release(rests)) => {
                    self.end(&lease, "it releases");
                    // What can't be told to the store ends with the ttl.
                    let _ = lease.release().await;
                    rests
                }
                Ok(Told::Transfer(to)) => {
                    self.end(&lease, &format!("it hands over to {to}"));
                    let _ = lease.transfer_to(to).await;
                    Duration::ZERO
                }
                Err(lost) => {
                    self.end(&lease, &format!("lost: {}", lost.cause));
                    Duration::ZERO
                }
            };
            tokio::time::sleep(rests).await;
        }
    }

    /// Acts while it may, until it is told otherwise.
    async fn act(&mut self, lease: &Lease) -> Result<Told, tenure::Lost> {
        let mut pauses = false;
        loop {
            let before = clock();
            lease.check()?;
            let after = clock();
            if std::mem::take(&mut pauses) {
                kill_process(getpid(), Signal::STOP).unwrap();
                // Another thread may be the first that the signal stops.
                std::thread::sleep(STOPS_WITHIN);
            }
            let token = lease.token();
            self.write(&format!("act {} {token} {before} {after}\n", self.who));
            let mut guarded = &self.guarded;
            let line = format!("{} {token}\n", self.who);
            // A token that is too old is refused, and that act doesn't happen.
            let _ = self.guard.guard(token, || guarded.write_all(line.as_bytes()).unwrap());
            match self.told.try_recv() {
                Ok(Told::Pause) => pauses = true,
                Ok(told) => return Ok(told),
                Err(_) => {}
            }
            tokio::time::sleep(ACT_EVERY).await;
        }
    }

    fn end(&mut self, lease: &Lease, why: &str) {
        self.write(&format!("end {} {} {} {why}\n", self.who, lease.token(), clock()));
    }

    fn write(&mut self, line: &str) {
        self.acts.write_all(line.as_bytes()).unwrap();
    }
}
