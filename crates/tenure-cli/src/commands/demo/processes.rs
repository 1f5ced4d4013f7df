//! The demo's three candidates: real processes, each with all that it started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::timeline::{Term, acts, terms};
use super::{LOOK, NAME};
use crate::exit::Failure;

const INSTANCES: [&str; 3] = ["a", "b", "c"];
/// How long ended processes are waited for.
const END_MAX: Duration = Duration::from_secs(5);

/// Three candidates on one file, in a directory that goes away with them.
pub(super) struct Candidates {
    directory: PathBuf,
    ttl: &'static str,
    children: Vec<(&'static str, Child)>,
}

impl Candidates {
    pub(super) fn start(ttl: &'static str) -> Result<Self, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::new(71, format!("the demo can't start: {what}: {error}"))
        };
        let directory = std::env::temp_dir().join(format!("tenure-demo-{}", std::process::id()));
        fs::create_dir_all(&directory)
            .map_err(|error| failed("its directory can't be made", error))?;
        let mut candidates = Self { directory, ttl, children: Vec::new() };
        fs::write(candidates.log(), "").map_err(|error| failed("its log can't be made", error))?;
        for instance in INSTANCES {
            let child = candidates.spawn(instance)?;
            candidates.children.push((instance, child));
        }
        Ok(candidates)
    }

    fn spawn(&self, instance: &str) -> Result<Child, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(71, format!("candidate `{instance}` can't be started: {error}"))
        };
        let program = std::env::current_exe().map_err(failed)?;
        Command::new(&program)
            .args(["--quiet", "--store", &self.url(), "elect", NAME, "--ttl", self.ttl])
            .args(["--instance", instance, "--"])
            .arg(&program)
            .arg("__demo-worker")
            .arg(self.log())
            .env_remove("TENURE_STORE")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)
    }

    /// Starts an instance again if it has ended within `patience`, as whoever runs services does.
    pub(super) async fn restart_if_ended(
        &mut self,
        instance: &str,
        patience: Duration,
    ) -> Result<Option<i32>, Failure> {
        let started = Instant::now();
        while started.elapsed() < patience {
            let ended = self
                .children
                .iter_mut()
                .find(|(name, _)| *name == instance)
                .and_then(|(_, child)| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                let fresh = self.spawn(instance)?;
                if let Some((_, child)) = self.children.iter_mut().find(|(n, _)| *n == instance) {
                    *child = fresh;
                }
                return Ok(Some(status.code().unwrap_or_default()));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(None)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.join("leases.db")
    }

    pub(super) fn url(&self) -> String {
        format!("sqlite:{}", self.file().display())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("acts")
    }

    pub(super) fn describe(&self) -> String {
        let described: Vec<String> = self
            .children
            .iter()
            .map(|(instance, child)| format!("{instance} (pid {})", child.id()))
            .collect();
        described.join(", ")
    }

    /// What the workers' lines say.
    pub(super) fn terms(&self) -> Result<Vec<Term>, Failure> {
        let text = fs::read_to_string(self.log())
            .map_err(|error| Failure::new(74, format!("the demo's log can't be read: {error}")))?;
        Ok(terms(&acts(&text)))
    }

    /// Waits for the first act under a token above `token`.
    pub(super) async fn leader_after(
        &self,
        token: u64,
        patience: Duration,
    ) -> Result<Term, Failure> {
        let started = Instant::now();
        loop {
            if let Some(term) = self.terms()?.into_iter().find(|term| term.token > token) {
                return Ok(term);
            }
            if started.elapsed() > patience {
                return Err(Failure::new(70, format!("nobody has led for {patience:?}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn pid(&self, instance: &str) -> Result<Pid, Failure> {
        self.children
            .iter()
            .find(|(name, _)| *name == instance)
            .map(|(_, child)| Pid::from_child(child))
            .ok_or_else(|| Failure::new(70, format!("`{instance}` is none of the demo's")))
    }

    /// Kills the process that was started, and no other.
    pub(super) fn kill(&self, instance: &str) -> Result<(), Failure> {
        signal(self.pid(instance)?, Signal::KILL);
        Ok(())
    }

    /// Stops an instance and all its descendants; says which, for [`thaw`](Self::thaw).
    pub(super) fn freeze(&self, instance: &str) -> Result<Vec<Pid>, Failure> {
        let mut family = vec![self.pid(instance)?];
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            signal(parent, Signal::STOP);
            family.extend(children(parent));
            next += 1;
        }
        Ok(family)
    }

    /// Continues what was frozen, the youngest last: whoever can kill it goes first.
    pub(super) fn thaw(&self, family: &[Pid]) {
        family.iter().for_each(|pid| signal(*pid, Signal::CONT));
    }

    /// Ends all that still run, and waits for it.
    pub(super) fn end(&mut self) {
        for (_, child) in &self.children {
            signal(Pid::from_child(child), Signal::TERM);
        }
        let started = Instant::now();
        for (_, child) in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) && started.elapsed() < END_MAX {
                std::thread::sleep(LOOK);
            }
            // It may have ended just now; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Candidates {
    fn drop(&mut self) {
        self.end();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn signal(pid: Pid, signal: Signal) {
    // It may be gone already.
    let _ = kill_process(pid, signal);
}

/// The children of all threads of a process.
fn children(parent: Pid) -> Vec<Pid> {
    let tasks = PathBuf::from(format!("/proc/{}/task", parent.as_raw_pid()));
    let Ok(entries) = fs::read_dir(tasks) else { return Vec::new() };
    entries.flatten().flat_map(|task| children_of_task(&task.path())).collect()
}

fn children_of_task(task: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(task.join("children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
