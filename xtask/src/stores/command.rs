//! Running a command to its end; a failure names the command and shows what it said.

use std::process::Command;

/// How many of a failed command's last lines are shown.
const LINES_SHOWN: usize = 15;

/// Runs the command, and returns what it wrote to its standard output.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let line = words(command);
    let output = command.output().map_err(|error| format!("`{line}` could not be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let all = said + &String::from_utf8_lossy(&output.stderr);
    Err(format!("`{line}` failed ({}):\n{}", output.status, last_lines(&all)))
}

/// The last lines of a text.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

/// A word as a shell takes it literally.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_=.,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn words(command: &Command) -> String {
    let args = command.get_args();
    let words = std::iter::once(command.get_program()).chain(args);
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        for word in ["plain", "", "two words", "it's", "$HOME `id` \\ \"x\""] {
            let script = format!("printf %s {}", quoted(word));
            assert_eq!(run(Command::new("sh").args(["-c", &script])).unwrap(), word);
        }
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let failure = run(Command::new("sh").args(["-c", "echo no such thing; exit 3"]));
        let failure = failure.unwrap_err();
        assert!(failure.contains("no such thing"), "{failure}");
        assert!(failure.contains("exit 3"), "{failure}");
    }
}
