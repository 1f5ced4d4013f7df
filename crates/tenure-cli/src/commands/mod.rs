//! One file a verb; each takes its arguments and answers an exit code.

mod admin;
mod completions;
#[cfg(target_os = "linux")]
mod demo;
#[cfg(target_os = "linux")]
mod elect;
mod force;
#[cfg(target_os = "linux")]
mod grant;
#[cfg(target_os = "linux")]
mod hooks;
mod list;
#[cfg(target_os = "linux")]
mod outer;
#[cfg(target_os = "linux")]
mod release;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod waiting;
mod watch;
mod why;

use std::future::Future;
use std::process::ExitCode;

use crate::args::{Arguments, Command};
use crate::exit::Failure;

/// Carries out an ordinary command.
pub(crate) fn execute(arguments: Arguments) -> ExitCode {
    start_logs();
    let done = match &arguments.command {
        Command::Completions { shell } => completions::print(*shell),
        Command::List(wanted) => block_on(list::list(&arguments, wanted)),
        Command::Status(wanted) => block_on(list::status(&arguments, wanted)),
        Command::Watch(wanted) => block_on(watch::watch(&arguments, wanted)),
        Command::Why(wanted) => block_on(why::why(&arguments, wanted)),
        Command::Release(wanted) => block_on(force::release(&arguments, wanted)),
        Command::Init(wanted) => block_on(admin::init(&arguments, wanted)),
        Command::Doctor => block_on(admin::doctor(&arguments)),
        #[cfg(target_os = "linux")]
        Command::Demo => block_on(demo::demo(&arguments)),
        #[cfg(target_os = "linux")]
        Command::DemoWorker { file } => demo::work(file),
        #[cfg(target_os = "linux")]
        Command::GiveBack => block_on(release::give_back()),
        Command::Run(_) | Command::Elect(_) => Err(Failure::misconfigured(
            "`run` and `elect` need Linux, whose kernel can end and prove the end of everything \
             that was started; elsewhere use the library",
        )),
    };
    done.unwrap_or_else(|failure| failure.exit())
}

/// Carries out `run` or `elect`, in the keeper.
#[cfg(target_os = "linux")]
pub(crate) fn keep(arguments: Arguments, seat: crate::supervise::Seat) -> ExitCode {
    start_logs();
    match &arguments.command {
        Command::Run(run) => run::keep(&arguments, run.clone(), seat),
        Command::Elect(elect) => elect::keep(&arguments, elect.clone(), seat),
        _ => execute(arguments),
    }
}

/// Runs `work` on a runtime of this thread.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(Failure::new(71, format!("the runtime can't be started: {error}"))),
    }
}

/// The library's own log, on stderr, if it was asked for: `TENURE_LOG=debug`.
fn start_logs() {
    let Ok(filter) = std::env::var("TENURE_LOG") else { return };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr);
    // Only a second start could fail, and there is none.
    let _ = logs.try_init();
}
