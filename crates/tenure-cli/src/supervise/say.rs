//! One line on stderr, which may be closed: then nothing is said, and nothing fails.

use std::fmt::Arguments;
use std::io::{self, Write as _};

/// Says `line`. Act first, then speak: a full pipe can block here.
pub(super) fn say(line: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "tenure: {line}");
}
