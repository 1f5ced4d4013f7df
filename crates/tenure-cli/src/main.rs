//! The `tenure` command: run a program while holding a lease, and see who holds what.

mod args;
mod commands;
mod duration;
mod exit;
mod holder;
mod output;
mod secret;
mod store;
#[cfg(target_os = "linux")]
mod supervise;
mod view;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    // First of all: a keeper must know its supervisor before any thread exists.
    let Ok(seat) = supervise::seat() else { return ExitCode::from(supervise::INTERNAL) };
    let args = match args::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match (args.command.is_supervised(), seat) {
        // Before a runtime, and before any other thread.
        (true, None) => supervise::supervise(),
        (true, Some(seat)) => commands::keep(args, seat),
        (false, _) => commands::execute(args),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    match args::parse() {
        Ok(args) => commands::execute(args),
        Err(code) => code,
    }
}
