//! A process in its folder: started, found again by process id and start time, stopped.
//!
//! A folder holds `facts` (what is so for good), `run` (starts the process in the foreground, with
//! the same ports and data), `pid` (written by `run`), `log` and `data`. Tests may stop or kill
//! the process and call `run` again; what they start is found here like what we started.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::command::{quoted, run};
use super::server::Process;
use super::site::{Site, write_program};

/// How long a process may take to end in order before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone.
const KILL_MAX: Duration = Duration::from_secs(5);
/// How often we look whether something has come true.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Part of `run`: takes the place of whoever was there, or says that it still runs. One that has
/// just been killed gets a second to be gone. Field 3 of a process's stat is its state, field 22
/// its start time.
const REFUSE_A_SECOND: &str = r#"started() { cut -d ' ' -f "$2" "/proc/$1/stat" 2>/dev/null; }
runs() {
    case "$(started "$1" 3,22)" in
    [ZX]*) false ;;
    *" $2") true ;;
    *) false ;;
    esac
}
if read -r id start 2>/dev/null <pid; then
    for _ in $(seq 50); do runs "$id" "$start" && sleep .02 || break; done
    runs "$id" "$start" && echo "$PWD: process $id runs already" >&2 && exit 1
fi
echo "$$ $(started $$ 22)" >pid
"#;

/// A process that lives, as the kernel names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pid {
    id: u32,
    /// In clock ticks since the machine started: tells it from a later process of the same id.
    started: u64,
}

impl Pid {
    /// The process that was last started in this folder, if it still lives.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("pid")).ok()?;
        let (id, started) = text.trim().split_once(' ')?;
        let pid = Self { id: id.parse().ok()?, started: started.parse().ok()? };
        pid.lives().then_some(pid)
    }

    /// Its number.
    pub(super) fn id(self) -> u32 {
        self.id
    }

    /// Whether it was stopped by a signal, as tests do.
    pub(super) fn is_paused(self) -> bool {
        self.state() == Some('T')
    }

    /// Lets it go on after a pause.
    pub(super) fn resume(self) -> Result<(), String> {
        self.signal("CONT")
    }

    fn lives(self) -> bool {
        !matches!(self.state(), None | Some('Z' | 'X'))
    }

    fn state(self) -> Option<char> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.id)).ok()?;
        let (state, started) = state_and_start(&text)?;
        (started == self.started).then_some(state)
    }

    fn signal(self, name: &str) -> Result<(), String> {
        let sent = run(Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id)]));
        // Whoever ended in the meantime doesn't need the signal.
        if self.lives() { sent.map(|_| ()) } else { Ok(()) }
    }

    fn ends_within(self, most: Duration) -> bool {
        let begun = Instant::now();
        while self.lives() {
            if begun.elapsed() > most {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
        true
    }
}

/// Writes `facts` and `run` of a process.
pub(super) fn describe(site: &Site, server: &str, process: &Process) -> Result<(), String> {
    let folder = site.folder(&process.name);
    let version = run(Command::new(&process.program).arg("--version"))?;
    let version = version.lines().next().unwrap_or_default();
    let mut words = Vec::new();
    if let Some(account) = process.account.filter(|_| site.is_root()) {
        let switch = ["setpriv", "--init-groups"].map(str::to_owned);
        words.extend(switch);
        words.extend([format!("--reuid={account}"), format!("--regid={account}")]);
    }
    words.push(process.program.display().to_string());
    words.extend(process.args.iter().cloned());
    let command = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    let place = folder.display();
    let facts = format!(
        "name={}\nserver={server}\nversion={version}\nport={}\nstop={}\ndown={}\ncommand={command}\n\
         data={}\nrun={place}/run\npid={place}/pid\nlog={place}/log\n",
        process.name,
        process.port,
        process.stop,
        if process.stops_slowly { "KILL" } else { process.stop },
        process.data.display(),
    );
    let mut script = format!(
        "#!/bin/sh\n\
         # Starts {} in the foreground, as `cargo xtask stores up` does; `pid` then holds its\n\
         # process id and its start time.\n\
         cd {} || exit\n",
        process.name,
        quoted(&place.to_string()),
    );
    script.push_str(REFUSE_A_SECOND);
    script.push_str("exec >>log 2>&1 </dev/null\n");
    if let Some(sweep) = &process.sweep {
        write_program(&folder.join("sweep"), sweep)?;
        script.push_str("./sweep\n");
    }
    for (variable, value) in &process.env {
        script.push_str(&format!("export {variable}={}\n", quoted(value)));
    }
    script.push_str(process.before);
    script.push_str(&format!("exec {command}\n"));
    write_program(&folder.join("run"), &script)?;
    fs::write(folder.join("facts"), facts).map_err(|error| format!("{place}/facts: {error}"))
}

/// Starts the process of a folder in a session of its own, so that it outlives our terminal.
pub(super) fn start(folder: &Path) -> Result<Child, String> {
    let run = folder.join("run");
    let mut command = Command::new("setsid");
    command.arg(&run).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("`setsid {}` could not be run: {error}", run.display()))
}

/// Asks the processes of these folders to end, and kills whichever doesn't. Returns the names of
/// those that ran.
pub(super) fn stop(folders: &[&Path]) -> Result<Vec<String>, String> {
    let mut running = Vec::new();
    for folder in folders {
        if let Some(pid) = Pid::of(folder) {
            pid.signal(&fact(folder, "down").unwrap_or_else(|| "TERM".to_owned()))?;
            // A paused process takes the signal only when it goes on.
            pid.resume()?;
            running.push((fact(folder, "name").unwrap_or_default(), pid));
        }
    }
    for (name, pid) in &running {
        if !pid.ends_within(STOP_MAX) {
            eprintln!("== {name}: still there after {} s; killed", STOP_MAX.as_secs());
            pid.signal("KILL")?;
            if !pid.ends_within(KILL_MAX) {
                return Err(format!("{name}: process {} can't be killed", pid.id()));
            }
        }
    }
    for sweep in folders.iter().map(|folder| folder.join("sweep")).filter(|sweep| sweep.exists()) {
        run(&mut Command::new(sweep))?;
    }
    Ok(running.into_iter().map(|(name, _)| name).collect())
}

/// One of the facts of a process.
pub(super) fn fact(folder: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(folder.join("facts")).ok()?;
    let mut facts = text.lines().filter_map(|line| line.split_once('='));
    facts.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
}

/// State and start time from `/proc/PID/stat`. The command's name may hold blanks and brackets,
/// so fields count from the last bracket.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22 of all; the state was field 3.
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_s_name_can_t_mislead() {
        let stat = "7 (a) b (c) T 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 2 3";
        assert_eq!(state_and_start(stat), Some(('T', 4711)));
    }

    #[test]
    fn an_ended_process_and_its_number_s_next_bearer_are_not_taken_for_it() {
        let me = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, started) = state_and_start(&me).unwrap();
        let id = std::process::id();
        assert!(Pid { id, started }.lives());
        assert!(!Pid { id, started: started + 1 }.lives());
    }
}
