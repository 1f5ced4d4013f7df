//! What the compiler doesn't check: each file says what it is for, and has one subject.

use std::fs;
use std::path::Path;

/// The longest line of code.
const LINE_MAX: usize = 120;
/// The longest file, its unit tests not counted.
const FILE_MAX: usize = 560;

/// Words that have a better one in the glossary, where they would name a thing of ours.
const WORDS: [(&str, &str); 4] = [
    ("fencing epoch", "token"),
    ("step down_", "resign"),
    ("TODO", "an issue, or CONTRIBUTING.md"),
    ("FIXME", "an issue, or CONTRIBUTING.md"),
];

/// Checks every Rust file of the workspace.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut faults = Vec::new();
    let mut files = 0;
    for folder in ["crates", "xtask", "examples", "benches"] {
        visit(&root.join(folder), &mut |path, text| {
            files += 1;
            let name = path.strip_prefix(root).unwrap_or(path).display();
            faults.extend(faults_of(text).into_iter().map(|fault| format!("{name}: {fault}")));
        });
    }
    if faults.is_empty() {
        println!("== tidy: {files} files");
        return Ok(());
    }
    Err(faults.join("\n"))
}

fn faults_of(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//! ") {
        faults.push("its first line doesn't say what it is for (`//! …`)".to_owned());
    }
    let code = text.split("\n#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().count();
    if lines > FILE_MAX {
        faults.push(format!("{lines} lines are more than {FILE_MAX}: what else lives there?"));
    }
    for (number, line) in text.lines().enumerate() {
        if line.chars().count() > LINE_MAX {
            faults.push(format!("line {} is longer than {LINE_MAX} characters", number + 1));
        }
        for (word, better) in WORDS {
            if line.contains(word) && !line.contains("(\"") {
                faults.push(format!("line {} says `{word}`; say {better}", number + 1));
            }
        }
    }
    faults
}

fn visit(folder: &Path, found: &mut impl FnMut(&Path, &str)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                visit(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && let Ok(text) = fs::read_to_string(&path)
        {
            found(&path, &text);
        }
    }
}
