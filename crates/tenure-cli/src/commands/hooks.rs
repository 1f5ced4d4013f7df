//! What `elect` runs at the turns of its role.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::args::Elect;
use crate::duration::show;
use crate::exit::say;

/// How often a hook is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long `--on-follow` may take, unless `--stop-timeout` says otherwise.
const FOLLOW_MAX: Duration = Duration::from_secs(60);

/// What a term runs: `--on-lead`, and when that has succeeded CMD, as one process. So the hook,
/// too, is ended by the deadline, and proven gone before the name is given back.
pub(super) fn work(elect: &Elect) -> Vec<OsString> {
    const THEN: &str = r#"sh -c "$1" || exit; shift; exec "$@""#;
    /// A leader without a CMD leads until it is told to end: as long as `sleep` counts.
    const FOR_EVER: [&str; 2] = ["sleep", "2147483647"];
    let Some(script) = &elect.on_lead else { return elect.command.clone() };
    let mut argv: Vec<OsString> =
        ["sh", "-c", THEN, "on-lead", script].into_iter().map(OsString::from).collect();
    if elect.command.is_empty() {
        argv.extend(FOR_EVER.map(OsString::from));
    }
    argv.extend(elect.command.iter().cloned());
    argv
}

/// Runs `--on-follow`, if there is one, and waits for its end within a bound.
///
/// # Cancel safety
/// Dropping the future kills it.
pub(super) async fn follow(elect: &Elect, leader: Option<&str>) {
    let Some(script) = &elect.on_follow else { return };
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).stdin(Stdio::null()).process_group(0);
    command.env("TENURE_NAME", elect.tenancy.name.as_str());
    if let Some(leader) = leader {
        command.env("TENURE_LEADER", leader);
    }
    match command.spawn() {
        Ok(child) => watch(child, elect.tenancy.stop_timeout.unwrap_or(FOLLOW_MAX)).await,
        Err(error) => say(&format!("--on-follow can't be run: {error}")),
    }
}

async fn watch(child: Child, limit: Duration) {
    let mut hook = Hook(child);
    let ended = tokio::time::timeout(limit, async {
        loop {
            match hook.0.try_wait() {
                Ok(None) => tokio::time::sleep(LOOK).await,
                ended => return ended,
            }
        }
    });
    match ended.await {
        Ok(Ok(Some(status))) if !status.success() => say(&format!("--on-follow failed: {status}")),
        Ok(_) => {}
        Err(_) => say(&format!("--on-follow took longer than {} and is killed", show(limit))),
    }
}

/// A hook that is killed when nobody waits for it any more.
struct Hook(Child);

impl Drop for Hook {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Not reaped yet, so its number is its own, and so is that of its group.
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Command as Verb};
    use clap::Parser as _;

    fn elect(line: &[&str]) -> Elect {
        match Arguments::try_parse_from(line).unwrap().command {
            Verb::Elect(elect) => elect,
            _ => panic!("another verb"),
        }
    }

    #[test]
    fn on_lead_runs_before_cmd_and_a_failure_ends_the_term() {
        for (hook, out, code) in
            [("echo hook", "hook\ncmd $x\n", 5), ("echo no; exit 3", "no\n", 3)]
        {
            let elect = elect(&[
                "tenure",
                "elect",
                "x",
                "--on-lead",
                hook,
                "--",
                "sh",
                "-c",
                "echo 'cmd $x'; exit 5",
            ]);
            let argv = work(&elect);
            let ran = Command::new(&argv[0]).args(&argv[1..]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&ran.stdout), out);
            assert_eq!(ran.status.code(), Some(code));
        }
    }

    #[test]
    fn without_a_hook_cmd_is_run_as_it_is() {
        assert_eq!(work(&elect(&["tenure", "elect", "x", "--", "a b", "c"])), ["a b", "c"]);
        assert!(work(&elect(&["tenure", "elect", "x"])).is_empty());
    }
}
