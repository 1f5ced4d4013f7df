//! `tenure run` on a pseudo-terminal, and as pid 1: as if it weren't there.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use common::{Scene, kill, wait};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const TENURE: &str = env!("CARGO_BIN_EXE_tenure");

/// A program in the foreground of a terminal of its own.
struct Seated {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Seated {
    fn start(scene: &Scene, argv: &[&str]) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let terminal = || File::options().read(true).write(true).open(&name).unwrap();
        let mut command: Command = scene.marked("setsid");
        command.env("TENURE_STORE", scene.store()).env("PS1", "$ ").env("TERM", "dumb");
        command.arg("--ctty").args(argv);
        command.stdin(terminal()).stdout(terminal()).stderr(terminal());
        let child = command.spawn().unwrap();
        let keyboard = File::from(master);
        let mut shown = keyboard.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let printed = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = shown.read(&mut bytes) {
                printed.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { child, keyboard, screen }
    }

    fn types(&mut self, keys: &str) {
        self.screen.lock().unwrap().clear();
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    fn shows(&self, words: &str) -> String {
        wait(&format!("{words:?} on the screen"), || self.screen.lock().unwrap().contains(words));
        // What belongs to it may still be on its way.
        sleep(Duration::from_millis(50));
        self.screen.lock().unwrap().clone()
    }

    /// As `shows`, for a program that takes its time to get ready for the next keys.
    #[track_caller]
    fn asks(&self, prompt: &str) {
        self.shows(prompt);
        sleep(Duration::from_millis(100));
    }

    fn end(mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let started = std::time::Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            let screen = self.screen.lock().unwrap().clone();
            assert!(started.elapsed() < common::PATIENCE, "it doesn't end; it shows {screen}");
            sleep(Duration::from_millis(5));
        };
        status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0))
    }
}

#[test]
fn cat_works_on_a_terminal_and_ends_with_it() {
    let scene = Scene::new("cat");
    for (keys, code) in [("\x04", 0), ("\x03", 130)] {
        let mut seated = Seated::start(&scene, &[TENURE, "run", "x", "--", "cat"]);
        seated.asks("running as");
        seated.types("hello\n");
        seated.shows("hello\r\nhello\r\n");
        seated.types(keys);
        assert_eq!(seated.end(), code, "{keys:?}");
    }
    scene.assert_empty();
}

#[test]
fn an_interactive_shell_works_under_it() {
    let scene = Scene::new("shell");
    let shell = ["bash", "--norc", "--noediting", "-i"];
    let argv = [&[TENURE, "run", "x", "--"], &shell[..]].concat();
    let mut seated = Seated::start(&scene, &argv);
    seated.asks("$ ");
    seated.types("echo $((6*7))\n");
    let screen = seated.shows("\n42\r");
    assert!(!screen.contains("no job control"), "{screen}");
    seated.types("sleep 50\n");
    sleep(Duration::from_millis(300));
    seated.types("\x03");
    seated.asks("$ ");
    seated.types("echo rc=$?\n");
    seated.shows("rc=130");
    seated.types("sleep 50\n");
    sleep(Duration::from_millis(300));
    seated.types("\x1a");
    seated.shows("Stopped");
    // Said twice, it means it, whatever has become of its job.
    seated.types("kill -9 %1\nexit 5\n");
    sleep(Duration::from_millis(300));
    seated.types("exit 5\n");
    assert_eq!(seated.end(), 5);
}

fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

#[test]
fn ctrl_z_stops_the_child_only() {
    let scene = Scene::new("ctrl-z");
    let mut seated = Seated::start(&scene, &["bash", "--norc", "--noediting", "-i"]);
    seated.asks("$ ");
    seated.types(&format!("{TENURE} run x -- cat\n"));
    seated.asks("running as");
    seated.types("abc\n");
    seated.shows("abc\r\nabc\r\n");
    seated.types("\x1a");
    seated.shows("still holds `x`");
    // The name is still held: only the child has stopped.
    assert_eq!(scene.run("run x --no-wait", &["true"]).code, 75);
    let supervisor = common::children(seated.child.id() as i32)[0];
    let cat = common::children(common::children(supervisor)[0])[0];
    assert!(is_stopped(cat));
    // Pressed again, if it is overlooked once: seen once in hundreds of runs, beside a full CI.
    let mut pressed = std::time::Instant::now() - Duration::from_secs(10);
    wait("the child goes on", || {
        if is_stopped(cat) && pressed.elapsed() > Duration::from_secs(3) {
            pressed = std::time::Instant::now();
            seated.types("\x1a");
        }
        !is_stopped(cat)
    });
    seated.types("def\n");
    seated.shows("def\r\ndef\r\n");
    seated.types("\x1a");
    seated.shows("ends it");
    seated.types("\x03");
    seated.asks("$ ");
    seated.types("echo rc=$?\n");
    seated.shows("rc=130");
    seated.types("exit\n");
    assert_eq!(seated.end(), 0);
    scene.assert_empty();
}

#[test]
fn a_suspended_hold_that_is_killed_leaves_nothing_and_frees_the_name() {
    let scene = Scene::new("suspended");
    let mut seated = Seated::start(&scene, &["bash", "--norc", "--noediting", "-i"]);
    seated.asks("$ ");
    for who in ["supervisor", "keeper"] {
        seated.types(&format!("{TENURE} run x -- cat\n"));
        seated.asks("running as");
        let supervisor = common::children(seated.child.id() as i32)[0];
        let keeper = common::children(supervisor)[0];
        let cat = common::children(keeper)[0];
        seated.types("\x1a");
        seated.shows("still holds `x`");
        wait("the child stops", || is_stopped(cat));
        kill(if who == "keeper" { keeper } else { supervisor }, Signal::KILL);
        let next = scene.run("run x --wait=15s", &["true"]);
        assert_eq!(next.code, 0, "{who}: {}", next.stderr);
        assert!(!common::is_alive(cat), "{who}: the next one ran beside a stopped child");
        seated.asks("$ ");
    }
    seated.types("exit 4\n");
    assert_eq!(seated.end(), 4);
    scene.assert_empty();
}

/// As a shell without job control does it, or an operator: no terminal is involved.
#[test]
fn a_stopped_child_ends_with_its_command() {
    let scene = Scene::new("stopped");
    for (way, code) in [("TERM", 143), ("KILL", 1009), ("keeper", 76)] {
        // Not a loop of short programs: a shell whose vfork'ed child is stopped before its exec
        // sleeps in the kernel and is itself no stopped process.
        let script = ": > up; exec sleep 1000";
        let running = scene.start("run x", &["sh", "-c", script]);
        scene.wait_for("up");
        std::fs::remove_file(scene.path("up")).unwrap();
        let (keeper, cmd) = (running.keeper(), running.cmd());
        running.signal(Signal::TSTP);
        wait("the child stops", || is_stopped(cmd));
        match way {
            "TERM" => running.signal(Signal::TERM),
            "KILL" => running.signal(Signal::KILL),
            _ => kill(keeper, Signal::KILL),
        }
        let ended = running.end();
        assert_eq!(ended.code, code, "{way}: {}", ended.stderr);
        let next = scene.run("run x --wait=15s", &["true"]);
        assert_eq!(next.code, 0, "{way}: {}", next.stderr);
        assert!(!common::is_alive(cmd), "{way}");
        scene.assert_empty();
    }
}

#[test]
fn the_shell_has_its_terminal_back_after_a_loss_and_after_a_kill() {
    let scene = Scene::new("back");
    let mut seated = Seated::start(&scene, &["bash", "--norc", "--noediting", "-i"]);
    seated.asks("$ ");
    for who in ["keeper", "supervisor"] {
        seated.types(&format!("{TENURE} run {who} -- cat\n"));
        seated.asks("running as");
        let shell = seated.child.id() as i32;
        let supervisor = common::children(shell)[0];
        let victim = if who == "keeper" { common::children(supervisor)[0] } else { supervisor };
        kill(victim, Signal::KILL);
        sleep(Duration::from_millis(400));
        seated.types("\necho back $((20+2))\n");
        seated.shows("back 22");
    }
    seated.types("exit 3\n");
    assert_eq!(seated.end(), 3);
    scene.assert_empty();
}

#[test]
fn works_as_pid_1_and_reaps() {
    let scene = Scene::new("pid-1");
    let inside = ["--pid", "--fork", "--mount-proc"];
    if !scene.marked("unshare").args(inside).arg("true").status().is_ok_and(|ran| ran.success()) {
        common::not_tried("pid 1", "PID namespaces are not permitted here");
        return;
    }
    for (script, options, code) in [
        ("(setsid sleep 77 &); exit 9", "run x", 9),
        (
            "for i in 1 2 3; do (sleep 0.01 &); done; sleep 0.2; ls /proc | grep -c '^[0-9]*$' >&2",
            "run x",
            0,
        ),
        (
            "trap '' TERM; (setsid sleep 77 &); kill -TERM 1; sleep 77",
            "run x --stop-timeout 200ms",
            137,
        ),
    ] {
        let mut command = scene.marked("unshare");
        command.args(inside).arg(TENURE).env("TENURE_STORE", scene.store());
        command.args(options.split(' ')).args(["--", "sh", "-c", script]);
        let ended = scene.spawn(command).end();
        assert_eq!(ended.code, code, "{script}: {}", ended.stderr);
        if code == 0 {
            // Supervisor, keeper, sh, ls, grep: no zombies.
            assert!(ended.stderr.ends_with("\n5\n"), "{}", ended.stderr);
        }
    }
    scene.assert_empty();
}
