//! Programs that are built from Go modules: whole programs of others, and small ones of our own around
//! others' libraries.
//!
//! What is built is pinned by the module's own `go.mod` and `go.sum`, which lie in this repository. The
//! cache keeps a program under its version and a checksum of these, so a change of either builds anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::command::run;
use super::site::checksum;

/// A program to build.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GoProgram {
    /// What the program is called.
    pub name: &'static str,
    /// The version that it says it has.
    pub version: &'static str,
    /// The package to build, as Go names it.
    pub package: &'static str,
    /// Text variables that the linker sets, as `NAME=VALUE`.
    pub set: &'static [&'static str],
    /// The module's files: their names, and what is in them.
    pub files: &'static [(&'static str, &'static str)],
}

impl GoProgram {
    /// Where it is once it was built.
    pub(super) fn path(&self, cache: &Path) -> PathBuf {
        self.folder(cache).join(self.name)
    }

    fn folder(&self, cache: &Path) -> PathBuf {
        let mut all = String::new();
        for (name, text) in self.files {
            all.push_str(name);
            all.push_str(text);
        }
        cache.join(format!("{}-{}-{:08x}", self.name, self.version, checksum(all.as_bytes())))
    }

    /// Builds it: minutes for a big one, once.
    pub(super) fn build(&self, cache: &Path) -> Result<(), String> {
        let folder = self.folder(cache);
        let part = cache.join(format!("{}-{}.part", self.name, self.version));
        // What an interrupted run may have left.
        for leftover in [&part, &folder] {
            let _ = fs::remove_dir_all(leftover);
        }
        let begun = Instant::now();
        eprintln!("== building {} {} from its Go module", self.name, self.version);
        let told = |error: std::io::Error| format!("{}: {error}", part.display());
        fs::create_dir_all(&part).map_err(told)?;
        for (name, text) in self.files {
            fs::write(part.join(name), text).map_err(told)?;
        }
        let set: String = self.set.iter().map(|variable| format!(" -X {variable}")).collect();
        let mut build = Command::new("go");
        build.current_dir(&part).args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly"]);
        build.args(["-ldflags", &format!("-s -w{set}"), "-o", self.name, self.package]);
        build.env("CGO_ENABLED", "0").env("GOFLAGS", "").env("GOWORK", "off");
        run(&mut build).map_err(|error| {
            format!("no {} without this (it takes Go 1.25 or newer):\n{error}", self.name)
        })?;
        fs::rename(&part, &folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        eprintln!("== built {} in {:.0} s", self.name, begun.elapsed().as_secs_f64());
        Ok(())
    }
}
