//! What can be said on the command line; every option stands here once.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use tenure::core::timing::Timing;
use tenure::{Level, Name, Namespace};

use crate::duration;
use crate::exit::{USAGE, say};

/// Leases and leader election on the store that you already run.
#[derive(Debug, Parser)]
#[command(name = "tenure", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// The store: its URL, or @FILE for a file that holds it. Else TENURE_STORE, else the file
    /// that TENURE_STORE_FILE names, else an SQLite file of this user on this host
    #[arg(long, global = true, value_name = "URL|@FILE")]
    pub(crate) store: Option<String>,

    /// What stands before every name, so that applications can share a store [default: what the
    /// URL says, else `default`]
    #[arg(long, global = true, value_parser = str::parse::<Namespace>)]
    pub(crate) namespace: Option<Namespace>,

    /// The least that the store must guarantee: best-effort, lease, fenced, fenced-tx
    #[arg(long, global = true, value_name = "LEVEL", value_parser = str::parse::<Level>)]
    pub(crate) require: Option<Level>,

    /// Print one JSON object a line instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say nothing but warnings and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run CMD while holding NAME, once
    #[command(after_help = RUN_CODES)]
    Run(Run),
    /// Campaign for NAME for ever; CMD lives while this instance leads
    #[command(after_help = RUN_CODES)]
    Elect(Elect),
    /// What is held, by whom, and for how much longer
    List(List),
    /// One lease
    Status(Status),
    /// One line each time that a lease changes hands, until it is stopped
    Watch(Watch),
    /// One lease explained, with what happened to it last
    Why(Status),
    /// End another's grant: an operator's order
    Release(ForceRelease),
    /// Create what the store needs; what is there already is left alone
    Init(Init),
    /// Measure what the store promises; 78 if a guarantee doesn't hold
    Doctor,
    /// Three real processes on a fresh file: one is killed, one frozen, one hands over
    #[cfg(target_os = "linux")]
    Demo,
    /// Print completions for a shell
    Completions {
        /// bash, elvish, fish, powershell, zsh
        shell: clap_complete::Shell,
    },
    /// Give back what a ticket on stdin says (used by the supervisor)
    #[cfg(target_os = "linux")]
    #[command(name = crate::supervise::RELEASE_COMMAND, hide = true)]
    GiveBack,
    /// Act until killed (used by the demo)
    #[cfg(target_os = "linux")]
    #[command(name = "__demo-worker", hide = true)]
    DemoWorker {
        /// Where its lines go
        file: PathBuf,
    },
}

const RUN_CODES: &str = "\
Exit codes: CMD's own; 128+n if signal n killed it; 75 not acquired; 76 lease lost; 64 usage; \
65 unreadable record; 69 store unavailable; 77 permission; 78 configuration; 126, 127 CMD can't \
be executed, or isn't found. CMD gets TENURE_NAME, TENURE_TOKEN and TENURE_INSTANCE.";

impl Command {
    /// Whether it runs as supervisor and keeper.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_supervised(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Elect(_))
    }
}

/// How long the lease lasts, and how it ends; `run` and `elect` alike.
#[derive(Clone, Debug, Args)]
pub(crate) struct Tenancy {
    /// What is leased: 1 to 255 bytes, no control characters, not beginning with `@`
    #[arg(value_parser = str::parse::<Name>)]
    pub(crate) name: Name,

    /// How long a grant lasts unless it is renewed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse,
          allow_hyphen_values = true)]
    pub(crate) ttl: Duration,

    /// What CMD gets between TERM and KILL when the lease is lost [default: ttl/6, at most 10s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) grace: Option<Duration>,

    /// How long NAME stays taken at least, even if CMD ends earlier
    #[arg(long, value_name = "TIME", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) min_hold: Option<Duration>,

    /// How long CMD may take to end when it is asked to, before it is killed [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) stop_timeout: Option<Duration>,

    /// This instance's readable name [default: POD_NAME, else the host's name]
    #[arg(long, value_name = "NAME", value_parser = str::parse::<Name>)]
    pub(crate) instance: Option<Name>,

    /// Where to keep what was seen of another's grant, so that the next start on this host goes on
    /// from there; on stores without a clock a dead holder is else watched for a whole ttl
    #[arg(long, value_name = "FILE")]
    pub(crate) observations: Option<PathBuf>,
}

impl Tenancy {
    /// Its timing, checked.
    pub(crate) fn timing(&self) -> Result<Timing, tenure::Error> {
        let timing = Timing::of_ttl(self.ttl)?.with_min_hold(self.min_hold.unwrap_or_default())?;
        self.grace.map_or(Ok(timing), |grace| timing.with_grace(grace))
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) tenancy: Tenancy,

    /// Wait for NAME: this long, or for ever, which is the default
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          conflicts_with = "no_wait", value_parser = duration::parse)]
    #[expect(clippy::option_option, reason = "absent, for ever, or this long")]
    pub(crate) wait: Option<Option<Duration>>,

    /// Ask once, and end with 75 if another holds NAME
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// The exit code if NAME was not acquired, instead of 75
    #[arg(long, value_name = "N", default_value_t = crate::exit::NOT_ACQUIRED)]
    pub(crate) exit_not_acquired: u8,

    /// The program and its arguments; no shell is involved
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Elect {
    #[command(flatten)]
    pub(crate) tenancy: Tenancy,

    /// Where the leader is reached: shown to followers and operators
    #[arg(long, value_name = "URL")]
    pub(crate) advertise: Option<String>,

    /// Run by `sh -c` when a term begins; CMD starts when it has succeeded
    #[arg(long, value_name = "SHELL")]
    pub(crate) on_lead: Option<String>,

    /// Run by `sh -c` when another leads: at first, and after each term, before NAME is given back
    #[arg(long, value_name = "SHELL")]
    pub(crate) on_follow: Option<String>,

    /// End after the first term, with CMD's exit code
    #[arg(long)]
    pub(crate) once: bool,

    /// The program that lives while this instance leads; no shell is involved
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct List {
    /// Only names that begin with this
    pub(crate) prefix: Option<String>,

    /// Also what isn't held any more
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Status {
    /// The lease
    #[arg(value_parser = str::parse::<Name>)]
    pub(crate) name: Name,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Watch {
    /// The lease; all of them, if none is named
    #[arg(value_parser = str::parse::<Name>)]
    pub(crate) name: Option<Name>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ForceRelease {
    /// The lease
    #[arg(value_parser = str::parse::<Name>)]
    pub(crate) name: Name,

    /// Yes, end what somebody else holds
    #[arg(long, required = true)]
    pub(crate) force: bool,

    /// Why: it stands in the lease's history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,

    /// Don't wait until the holder has stopped: only guards protect what it still does
    #[arg(long)]
    pub(crate) now: bool,
}

/// Whose clock decides expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ClockChoice {
    /// The store's own
    Store,
    /// Each contender's, which watches a record that doesn't change
    Observed,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Init {
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) print: bool,

    /// A mark that `?cluster=` is compared with, so that two fleets don't share a store unawares
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// Whose clock decides when a grant has expired, for as long as the store exists: the
    /// store's own, or each contender's, for a store that fails over between hosts
    #[arg(long, value_enum, default_value_t = ClockChoice::Store)]
    pub(crate) clock: ClockChoice,
}

/// Reads the command line.
///
/// # Errors
/// The exit code: bad usage (said in one line), or help was asked for (and printed).
pub(crate) fn parse() -> Result<Arguments, ExitCode> {
    let arguments = Arguments::try_parse().map_err(refuse)?;
    arguments.check().map_err(|error| {
        say(&error.to_string());
        ExitCode::from(USAGE)
    })?;
    Ok(arguments)
}

impl Arguments {
    /// Whether `ps` shows a password. Only the option is looked at: the variables aren't shown.
    pub(crate) fn has_password_on_command_line(&self) -> bool {
        let url = self.common.store.as_deref().filter(|store| !store.starts_with('@'));
        url.is_some_and(crate::secret::has_password)
    }

    /// What depends on more than one option.
    fn check(&self) -> Result<(), tenure::Error> {
        match &self.command {
            Command::Run(run) => run.tenancy.timing().map(drop),
            Command::Elect(elect) => elect.tenancy.timing().map(drop),
            _ => Ok(()),
        }
    }
}

/// Bad usage in one line; help and version as clap prints them.
fn refuse(error: clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever closed stdout doesn't want to read it.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
        kind => {
            let mut line = one_line(&error.render().to_string());
            if kind == ErrorKind::UnknownArgument && !line.contains("argument '-") {
                line.push_str(", and write CMD after `--`");
            }
            say(&line);
            ExitCode::from(USAGE)
        }
    }
}

/// Clap's message without its paragraphs on usage.
fn one_line(rendered: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut ask = "tenure --help".to_owned();
    let mut usage = false;
    for line in rendered.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(line) = line.strip_prefix("Usage: ") {
            usage = true;
            let verb: Vec<&str> =
                line.split(' ').take_while(|w| !w.starts_with(['-', '<', '['])).collect();
            ask = format!("{} --help", verb.join(" "));
        } else if !usage && !line.starts_with("For more information") {
            words.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    format!("{}; see `{ask}`", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn refusal(line: &str) -> String {
        let words = line.split(' ').filter(|word| !word.is_empty());
        let matches = Arguments::command().try_get_matches_from(words);
        one_line(&matches.unwrap_err().render().to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn bad_usage_is_one_line_with_its_cure() {
        for (line, why) in [
            ("tenure run", "<NAME>"),
            ("tenure run x", "<CMD>"),
            ("tenure run x --", "<CMD>"),
            ("tenure run x --ttl 30 -- true", "has no unit"),
            ("tenure run x --ttl -5s -- true", "whole number"),
            ("tenure run x --ttl 5s --ttl 6s -- true", "cannot be used multiple times"),
            ("tenure run x --wait=1y -- true", "no unit"),
            ("tenure run x --no-wait --wait -- true", "cannot be used with"),
            ("tenure run @x -- true", "reserved"),
            ("tenure run x --exit-not-acquired 256 -- true", "256"),
            ("tenure run x --require much -- true", "not a level"),
            ("tenure fly", "unrecognized subcommand"),
        ] {
            let refusal = refusal(line);
            assert!(refusal.contains(why), "{line}: {refusal}");
            assert!(!refusal.contains('\n') && refusal.contains("--help`"), "{refusal}");
        }
    }

    #[test]
    fn options_that_belong_together_are_checked_together() {
        for (line, good) in [
            ("tenure run x --ttl 0s -- true", false),
            ("tenure run x --ttl 365d -- true", false),
            ("tenure run x --ttl 30s --grace 29s -- true", false),
            ("tenure run x --ttl 6s --grace 1s --min-hold 1m -- true", true),
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.check().is_ok(), good, "{line}");
        }
    }
}
