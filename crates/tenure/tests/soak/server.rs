//! The processes of a store's servers: killed, stopped in order, paused, and started again.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{kill, wait};

/// How long a server may take to answer what it is asked.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How long a server may take to stop in order.
const STOPS_WITHIN: Duration = Duration::from_secs(3);

/// The servers of a place. What is down or paused when this is dropped goes on.
pub(crate) struct Servers {
    folders: Vec<PathBuf>,
    /// What we started, so that it can be reaped.
    started: Vec<Child>,
    paused: Vec<i32>,
}

impl Servers {
    pub(crate) fn of(folders: Vec<PathBuf>) -> Self {
        for folder in &folders {
            let says = folder.display();
            assert!(pid(folder).is_some(), "no server runs in {says}; run `cargo xtask stores up`");
        }
        Self { folders, started: Vec::new(), paused: Vec::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.folders.len()
    }

    /// Kills one, with no time to say or write anything.
    pub(crate) fn kill(&mut self, index: usize) {
        self.end(index, Signal::KILL);
    }

    /// Stops one in order, as its operator would; and kills it if it takes long. PostgreSQL waits
    /// for clients that connected and say nothing, as a proxy has them do.
    pub(crate) fn stop(&mut self, index: usize) {
        let signal = match fact(&self.folders[index], "stop").as_str() {
            "INT" => Signal::INT,
            "TERM" => Signal::TERM,
            other => panic!("SIG{other} stops no server here"),
        };
        self.end(index, signal);
    }

    fn end(&mut self, index: usize, signal: Signal) {
        let folder = &self.folders[index];
        let (ending, begun) = (pid(folder).expect("it runs"), Instant::now());
        kill(ending, signal);
        wait("the server's end", || {
            if begun.elapsed() > STOPS_WITHIN {
                kill(ending, Signal::KILL);
            }
            // It is ours to reap if we started it.
            self.started.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
            pid(folder) != Some(ending)
        });
    }

    /// Starts one again, on its port and its data.
    pub(crate) fn start(&mut self, index: usize) {
        let folder = &self.folders[index];
        self.started.push(run(folder));
        wait("the server's start", || pid(folder).is_some());
    }

    /// Pauses one, with all processes that it started, and waits until they stand.
    pub(crate) fn pause(&mut self, index: usize) {
        let root = pid(&self.folders[index]).expect("it runs");
        let mut all = vec![root];
        let mut next = 0;
        while let Some(process) = all.get(next).copied() {
            kill(process, Signal::STOP);
            wait("the pause", || !matches!(state(process), Some(state) if state != 'T'));
            all.extend(children(process));
            next += 1;
        }
        self.paused.extend(all);
    }

    /// Lets all that was paused go on.
    pub(crate) fn resume(&mut self) {
        for process in self.paused.drain(..).rev() {
            kill(process, Signal::CONT);
        }
    }

    /// The leader of an etcd cluster, by its own word.
    pub(crate) fn leader(&self) -> Option<usize> {
        let is_leader = |folder: &PathBuf| {
            let address = format!("127.0.0.1:{}", fact(folder, "port"));
            let question = "POST /v3/maintenance/status HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}";
            let status = ask(&address, question).unwrap_or_default();
            let value = |key: &str| {
                let (_, rest) = status.split_once(&format!("\"{key}\":\""))?;
                rest.split('"').next().map(str::to_owned)
            };
            value("leader").is_some_and(|leader| Some(leader) == value("member_id"))
        };
        self.folders.iter().position(is_leader)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.resume();
        // They outlive us, so nobody here reaps them.
        let down = self.folders.iter().filter(|folder| pid(folder).is_none());
        self.started.extend(down.map(|folder| run(folder)));
    }
}

/// Starts what a folder's `run` starts, in a session of its own.
fn run(folder: &Path) -> Child {
    let mut command = Command::new("setsid");
    command.arg(folder.join("run")).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().unwrap()
}

/// Sends text to an address, and reads until the other side closes.
pub(crate) fn ask(address: &str, question: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The process in a folder, if it lives.
fn pid(folder: &Path) -> Option<i32> {
    let text = fs::read_to_string(folder.join("pid")).ok()?;
    let (id, started) = text.trim().split_once(' ')?;
    let id: i32 = id.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    // Field 3 of all is the state, field 22 the start time.
    (!fields[0].starts_with(['Z', 'X']) && fields[19] == started).then_some(id)
}

/// A process's state, as `ps` has it.
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    (!matches!(state, 'Z' | 'X')).then_some(state)
}

fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn fact(folder: &Path, key: &str) -> String {
    let text = fs::read_to_string(folder.join("facts")).unwrap();
    let mut facts = text.lines().filter_map(|line| line.split_once('='));
    let found = facts.find(|(name, _)| *name == key);
    found.unwrap_or_else(|| panic!("{} has no fact {key}", folder.display())).1.to_owned()
}
