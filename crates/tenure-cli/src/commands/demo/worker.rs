//! The demo's work: one line every few milliseconds, each saying who acts, and under which token.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tenure::core::clock::Clock as _;

use crate::exit::Failure;

/// Between two acts.
const PACE: Duration = Duration::from_millis(2);

/// Acts until it is killed.
pub(crate) fn work(file: &Path) -> Result<ExitCode, Failure> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| Failure::usage("the demo's worker is started by `demo`"))
    };
    let (token, instance) = (variable("TENURE_TOKEN")?, variable("TENURE_INSTANCE")?);
    let instance = instance.split('#').next().unwrap_or_default().to_owned();
    let mut log = OpenOptions::new().append(true).open(file).map_err(|error| {
        Failure::usage(format!("`{}` can't be opened: {error}", file.display()))
    })?;
    loop {
        let at = tenure::SystemClock.now().elapsed.as_nanos();
        // One write, so that the lines of two workers can't mix.
        let line = format!("{at} {token} {instance} .\n");
        log.write_all(line.as_bytes())
            .map_err(|error| Failure::new(74, format!("the demo's log: {error}")))?;
        std::thread::sleep(PACE);
    }
}
