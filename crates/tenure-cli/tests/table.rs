//! Each behaviour of the command in the table of `tenure-conformance` has a test of its name here.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use std::fs;

#[test]
fn each_command_behaviour_of_the_table_has_a_test() {
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap();
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    let tests: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let missing: Vec<_> = tenure_conformance::command_behaviours()
        .map(|behaviour| behaviour.name)
        .filter(|name| !tests.contains(&format!("#[test]\nfn {name}() {{")))
        .collect();
    assert!(missing.is_empty(), "no test of this name: {missing:?}");
}
