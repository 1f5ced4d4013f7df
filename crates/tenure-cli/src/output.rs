//! What goes to stdout: tables for people, one JSON object a line for programs.
//!
//! A JSON object carries its schema's name and version as `schema`; within a version fields are only
//! added. Each has its table in docs/json.md, which the tests hold it to. Messages of the command's
//! own go to stderr, so that stdout is data alone.

use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Human,
    Json,
}

impl Form {
    pub(crate) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Human }
    }
}

/// Prints one JSON object on a line of its own.
///
/// # Errors
/// Stdout can't be written to.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Prints a line for people.
///
/// # Errors
/// Stdout can't be written to.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints a table: without borders, its columns as wide as they need to be.
///
/// # Errors
/// Stdout can't be written to.
pub(crate) fn table(
    headers: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.iter().map(|header| header.to_uppercase()));
    table.add_rows(rows);
    let mut out = anstream::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim())?;
    }
    out.flush()
}
