//! `completions`: prints what a shell needs to complete this command.

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::args::Arguments;
use crate::exit::Failure;

pub(super) fn print(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let all = Arguments::command();
    // The supervisor's own command is nobody else's.
    let shown = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    let mut command = clap::Command::new("tenure").args(all.get_arguments()).subcommands(shown);
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "tenure", &mut text);
    let mut out = std::io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).map_err(|error| Failure::stdout(&error))?;
    Ok(ExitCode::SUCCESS)
}
