//! What the process tests share: a scene of its own for each, and ways to look at processes.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

pub mod schema;
pub mod timeline;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tenure::FencingToken;
use tenure::guard::HighWaterFile;

/// How long anything is waited for that is expected to happen soon.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Marks every process of a scene.
const SCENE: &str = "TENURE_TEST_SCENE";

/// A directory with a store in it; whatever runs in the scene carries its mark.
pub struct Scene {
    directory: PathBuf,
}

impl Scene {
    pub fn new(test: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "{test}-{}-{}",
            std::process::id(),
            now()
        ));
        fs::create_dir_all(&directory).unwrap();
        Self { directory }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    pub fn store(&self) -> String {
        format!("sqlite:{}", self.path("leases.db").display())
    }

    /// The command, with this scene's store and nothing else of the caller's that it reads.
    pub fn tenure(&self) -> Command {
        let mut command = self.without_store();
        command.env("TENURE_STORE", self.store());
        command
    }

    pub fn without_store(&self) -> Command {
        self.marked(env!("CARGO_BIN_EXE_tenure"))
    }

    /// Any program, in this scene.
    pub fn marked(&self, program: impl AsRef<OsStr>) -> Command {
        // Whoever runs the tests in the background of a shell, or by nohup, ignores some of these, and
        // children inherit it.
        let mut command = Command::new("env");
        command.arg("--default-signal=HUP,INT,QUIT").arg(program.as_ref());
        command.current_dir(&self.directory).env(SCENE, &self.directory);
        command.env("ACTOR", std::env::current_exe().unwrap());
        for name in [
            "TENURE_STORE",
            "TENURE_STORE_FILE",
            "TENURE_NAME",
            "TENURE_INSTANCE",
            "TENURE_OUTER",
            "TENURE_LOG",
            "KUBERNETES_SERVICE_HOST",
            "POD_NAME",
            "NOTIFY_SOCKET",
        ] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Starts `tenure LINE -- CMD`, its stderr in a file: what CMD leaves behind holds no pipe.
    pub fn start(&self, line: &str, cmd: &[&str]) -> Running<'_> {
        let mut command = self.tenure();
        command.args(line.split_ascii_whitespace());
        if !cmd.is_empty() {
            command.arg("--").args(cmd);
        }
        self.spawn(command)
    }

    pub fn spawn(&self, command: Command) -> Running<'_> {
        let out = File::options().create(true).append(true).open(self.path("out")).unwrap();
        self.spawn_to(command, out)
    }

    /// As `spawn`, with a stdout of its own.
    pub fn spawn_to(&self, mut command: Command, stdout: File) -> Running<'_> {
        let stderr = self.path(&format!("stderr-{}", now()));
        command.stderr(File::create(&stderr).unwrap()).stdout(stdout);
        Running { child: command.spawn().unwrap(), stderr, scene: self }
    }

    /// Runs `tenure LINE -- CMD` to its end.
    pub fn run(&self, line: &str, cmd: &[&str]) -> Ended {
        self.start(line, cmd).end()
    }

    /// What was printed so far.
    pub fn out(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    /// Waits until a file exists.
    pub fn wait_for(&self, file: &str) {
        wait(file, || self.path(file).exists());
    }

    /// When the actor of this file acted last.
    pub fn last_act(&self, file: &str) -> Duration {
        let text = fs::read_to_string(self.path(file)).unwrap();
        Duration::from_nanos(text.trim().parse().unwrap())
    }

    /// Waits until that actor acts.
    pub fn wait_for_act(&self, file: &str) {
        wait(file, || fs::read(self.path(file)).is_ok_and(|bytes| bytes.len() == ACT_BYTES));
    }

    /// All live processes of this scene.
    pub fn processes(&self) -> Vec<i32> {
        let mark = format!("{SCENE}={}\0", self.directory.display());
        numbered("/proc")
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let found = environment.windows(mark.len()).any(|part| part == mark.as_bytes());
                found && is_alive(*pid)
            })
            .collect()
    }

    /// Asserts that nothing is left of this scene.
    pub fn assert_empty(&self) {
        let left: Vec<String> = self
            .processes()
            .into_iter()
            .map(|pid| {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                format!("{pid}: {}", line.replace('\0', " "))
            })
            .collect();
        assert!(left.is_empty(), "still there: {left:?}");
    }

    /// Cuts the store off from everybody: a writer that goes on and on.
    pub fn cut_off(&self) -> tenure::sqlite::rusqlite::Connection {
        let store = tenure::sqlite::rusqlite::Connection::open(self.path("leases.db")).unwrap();
        store.busy_timeout(Duration::from_secs(5)).unwrap();
        store.execute_batch("BEGIN IMMEDIATE").unwrap();
        store
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid, Signal::KILL);
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A command that was started.
pub struct Running<'a> {
    pub child: Child,
    stderr: PathBuf,
    scene: &'a Scene,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// As a shell sees it.
    pub code: i32,
    pub stderr: String,
}

impl Running<'_> {
    pub fn supervisor(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn keeper(&self) -> i32 {
        only_child(self.supervisor())
    }

    pub fn cmd(&self) -> i32 {
        only_child(self.keeper())
    }

    /// The keeper and CMD of a holder; none if it ends before both are seen.
    pub fn keeper_and_cmd(&mut self) -> Option<(i32, i32)> {
        let mut seen = None;
        wait("a child of the keeper", || {
            let keeper = children(self.supervisor()).first().copied();
            seen = keeper.and_then(|keeper| Some((keeper, *children(keeper).first()?)));
            seen.is_some() || self.has_ended()
        });
        seen
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.supervisor(), signal);
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits until stderr says something.
    pub fn wait_for_words(&self, words: &str) {
        wait(words, || self.stderr().contains(words));
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        use std::os::unix::process::ExitStatusExt as _;
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let code = status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0));
                return Ended { code, stderr: self.stderr() };
            }
            assert!(started.elapsed() < PATIENCE, "it doesn't end; it said {}", self.stderr());
            sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // What it started is ended with its scene.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.scene;
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(2));
    }
}

/// Says that a test could not be tried here, on the real stderr: the harness would keep what is
/// printed to itself, and the test would seem to have passed.
pub fn not_tried(test: &str, why: &str) {
    use std::io::Write as _;
    let line = format!("NOT TRIED: {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// CLOCK_BOOTTIME in nanoseconds.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// CLOCK_BOOTTIME.
pub fn clock() -> Duration {
    Duration::from_nanos(now())
}

pub fn kill(pid: i32, signal: Signal) {
    // It may have ended already.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// Neither gone nor a zombie.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').map_or("X", |(_, rest)| rest.trim_start());
    !state.starts_with(['Z', 'X'])
}

fn numbered(directory: &str) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(directory).unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

pub fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn only_child(pid: i32) -> i32 {
    let mut found = 0;
    wait("a child", || {
        found = children(pid).first().copied().unwrap_or(0);
        found > 0
    });
    found
}

/// How long a time of the last act is when it is written.
const ACT_BYTES: usize = 24;

/// How to run the actor below from a shell; it acts into the file `$1` names, as the holder of
/// `$TENURE_TOKEN`.
pub const ACT: &str =
    r#"ACT="$1" exec "$ACTOR" --exact actor --ignored --nocapture --test-threads 1 >/dev/null"#;

/// A CMD that ignores whatever asks it to end, and acts every two milliseconds.
pub fn stubborn_actor(file: &str) -> Vec<String> {
    let script = format!("trap '' TERM INT HUP QUIT; {ACT}");
    ["sh", "-c", &script, "sh", file].map(str::to_owned).to_vec()
}

/// A CMD that starts `count` actors with a double fork, half of them in sessions of their own,
/// all of them deaf to TERM; then it does `then`.
pub fn daemons(count: usize, then: &str) -> Vec<String> {
    let script = format!(
        r#"trap '' TERM INT HUP QUIT
        for i in $(seq {count}); do
            if [ $((i % 2)) = 0 ]; then (setsid sh -c '{ACT}' sh "act$i" &)
            else (sh -c '{ACT}' sh "act$i" &) fi
        done
        for i in $(seq {count}); do while [ ! -s "act$i" ]; do sleep 0.01; done; done
        : > up
        {then}"#
    );
    ["sh", "-c", &script].map(str::to_owned).to_vec()
}

pub fn words(argv: &[String]) -> Vec<&str> {
    argv.iter().map(String::as_str).collect()
}

/// The actor: writes the time into the file `$ACT` for ever, or appends it with its token to the
/// file `$ACT_LOG`; and, where a high-water guard lets its token through, to `$ACT_LOG.guarded`.
pub fn act() {
    let log = std::env::var("ACT_LOG").ok();
    let guarded = log.as_ref().map(|log| (HighWaterFile::new(format!("{log}.mark")), log.clone()));
    let token = std::env::var("TENURE_TOKEN").unwrap_or_default();
    let log = log.map(|log| File::options().create(true).append(true).open(log).unwrap());
    let file = std::env::var("ACT").ok().map(|file| File::create(file).unwrap());
    while log.is_some() || file.is_some() {
        if let Some(file) = &file {
            let text = format!("{:<1$}\n", now(), ACT_BYTES - 1);
            file.write_all_at(text.as_bytes(), 0).unwrap();
        }
        if let Some(mut log) = log.as_ref() {
            let text = format!("{token} {}\n", now());
            std::io::Write::write_all(&mut log, text.as_bytes()).unwrap();
        }
        if let Some((guard, log)) = &guarded {
            let number = FencingToken::new(token.parse().unwrap()).unwrap();
            // A token that is too old is refused, and that act doesn't happen.
            let _ = guard.guard(number, || {
                let log = format!("{log}.guarded");
                let mut log = File::options().create(true).append(true).open(log).unwrap();
                let text = format!("{token} {}\n", now());
                std::io::Write::write_all(&mut log, text.as_bytes()).unwrap();
            });
        }
        sleep(Duration::from_millis(2));
    }
}
