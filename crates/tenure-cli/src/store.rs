//! Which store: the one that is named, or a file of this user on this host.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tenure::{Session, SessionBuilder};

use crate::args::{Arguments, Common, Tenancy};
use crate::exit::{Failure, say};

/// A store that was chosen, not yet opened.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) url: String,
    common: Common,
}

/// Whether a command may do with a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    Allowed,
    /// Its replicas must share a store, so one must be named.
    Refused,
}

/// Chooses the store, and says which file it is if none was named.
///
/// # Errors
/// None was named where one must be, or a file that names it can't be read.
pub(crate) fn choose(arguments: &Arguments, default: Default) -> Result<Chosen, Failure> {
    let common = arguments.common.clone();
    let named = Named::from_environment(common.store.clone())?;
    let url = match named {
        Some(url) => {
            if arguments.has_password_on_command_line() {
                say("warning: `ps` shows the password in --store to everybody on this host; use \
                     --store @FILE, TENURE_STORE or TENURE_STORE_FILE");
            }
            url
        }
        None => own_file(default, common.quiet)?,
    };
    Ok(Chosen { url, common })
}

impl Chosen {
    /// Opens a session that only looks, or gives orders.
    ///
    /// # Errors
    /// As [`tenure::SessionBuilder::open`].
    pub(crate) async fn open(&self) -> Result<Session, Failure> {
        Ok(self.builder().open().await?)
    }

    /// Opens a session for work that is more than this process.
    ///
    /// # Errors
    /// As [`tenure::SessionBuilder::open`].
    pub(crate) async fn open_for(&self, tenancy: &Tenancy) -> Result<Session, Failure> {
        let mut builder = self.builder();
        if let Some(instance) = &tenancy.instance {
            builder = builder.instance(instance.clone());
        }
        if let Some(file) = &tenancy.observations {
            builder = builder.observations(file);
        }
        Ok(builder.open().await?)
    }

    fn builder(&self) -> SessionBuilder {
        let mut builder = Session::builder().url(self.url.clone()).work_outlives_process();
        if let Some(namespace) = &self.common.namespace {
            builder = builder.namespace(namespace.clone());
        }
        if let Some(level) = self.common.require {
            builder = builder.require(level);
        }
        builder
    }
}

struct Named;

impl Named {
    fn from_environment(option: Option<String>) -> Result<Option<String>, Failure> {
        if let Some(text) = option {
            return match text.strip_prefix('@') {
                Some(file) => Self::in_file(Path::new(file), "--store").map(Some),
                None => Ok(Some(text)),
            };
        }
        if let Some(url) = variable("TENURE_STORE") {
            let text = url
                .into_string()
                .map_err(|_| Failure::usage("TENURE_STORE is not UTF-8; give the store's URL"))?;
            return Ok(Some(text));
        }
        match variable("TENURE_STORE_FILE") {
            Some(file) => Self::in_file(Path::new(&file), "TENURE_STORE_FILE").map(Some),
            None => Ok(None),
        }
    }

    fn in_file(file: &Path, named_by: &str) -> Result<String, Failure> {
        let shown = file.display();
        let text = fs::read_to_string(file).map_err(|error| {
            Failure::misconfigured(format!(
                "{named_by} names `{shown}`, which can't be read: {error}"
            ))
        })?;
        match text.lines().map(str::trim).find(|line| !line.is_empty()) {
            Some(url) => Ok(url.to_owned()),
            None => Err(Failure::misconfigured(format!(
                "{named_by} names `{shown}`, which is empty; write the store's URL into it"
            ))),
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The user's own file, where one is enough.
fn own_file(default: Default, quiet: bool) -> Result<String, Failure> {
    const HOW: &str = "name it with --store or TENURE_STORE";
    if default == Default::Refused {
        return Err(Failure::misconfigured(format!(
            "an election needs a store that its candidates share, and none was named; {HOW}"
        )));
    }
    if variable("KUBERNETES_SERVICE_HOST").is_some() {
        return Err(Failure::misconfigured(format!(
            "in Kubernetes each replica would have a file of its own, and every one would hold the \
             lease; the replicas need a store that they share: {HOW}"
        )));
    }
    let user = User {
        root: is_root(),
        state: variable("XDG_STATE_HOME").map(PathBuf::from),
        home: variable("HOME").map(PathBuf::from),
    };
    let directory = user.directory()?;
    create(&directory)?;
    let file = directory.join("leases.db");
    if in_container() {
        say(&format!(
            "warning: no store was named, so {} is used: it spans this container alone, and \
             another replica would hold the lease, too; {HOW}",
            file.display()
        ));
    } else if !quiet {
        say(&format!(
            "no store was named, so {} is used: it spans this host and this user only",
            file.display()
        ));
    }
    match file.to_str() {
        Some(path) if !path.contains('?') => Ok(format!("sqlite:{path}")),
        _ => Err(Failure::misconfigured(format!(
            "the path `{}` can't be written as a URL; {HOW}",
            file.display()
        ))),
    }
}

struct User {
    root: bool,
    state: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl User {
    /// Where this user's state lies. Never the working directory, and never `/tmp`.
    fn directory(&self) -> Result<PathBuf, Failure> {
        if self.root {
            return Ok(PathBuf::from("/var/lib/tenure"));
        }
        // A relative one is to be ignored, says the XDG specification.
        if let Some(state) = self.state.as_ref().filter(|path| path.is_absolute()) {
            return Ok(state.join("tenure"));
        }
        match self.home.as_ref().filter(|path| path.is_absolute()) {
            Some(home) => Ok(home.join(".local/state/tenure")),
            None => Err(Failure::misconfigured(
                "no store was named, and without HOME there is no place for one; set HOME, or name \
                 a store with --store or TENURE_STORE",
            )),
        }
    }
}

#[cfg(target_os = "linux")]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(target_os = "linux"))]
fn is_root() -> bool {
    false
}

fn create(directory: &Path) -> Result<(), Failure> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(|error| {
        Failure::misconfigured(format!(
            "the directory `{}` for the leases of this user can't be created: {error}; name a \
             store with --store or TENURE_STORE",
            directory.display()
        ))
    })
}

/// Whether this looks like a container. A hint: it only changes what is said.
fn in_container() -> bool {
    if ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists()) {
        return true;
    }
    if variable("container").is_some() {
        return true;
    }
    fs::read_to_string("/proc/1/cgroup").is_ok_and(|groups| names_container(&groups))
}

fn names_container(groups: &str) -> bool {
    ["docker", "kubepods", "containerd", "libpod", "lxc"].iter().any(|word| groups.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(root: bool, state: Option<&str>, home: Option<&str>) -> User {
        User { root, state: state.map(PathBuf::from), home: home.map(PathBuf::from) }
    }

    #[test]
    fn state_lies_where_the_user_keeps_it() {
        for (user, directory) in [
            (user(true, Some("/s"), Some("/root")), "/var/lib/tenure"),
            (user(false, Some("/s"), Some("/h")), "/s/tenure"),
            (user(false, Some("relative"), Some("/h")), "/h/.local/state/tenure"),
            (user(false, None, Some("/h")), "/h/.local/state/tenure"),
        ] {
            assert_eq!(user.directory().unwrap(), Path::new(directory));
        }
        for nowhere in [user(false, None, None), user(false, Some("s"), Some("."))] {
            assert_eq!(nowhere.directory().unwrap_err().code, 78);
        }
    }

    #[test]
    fn containers_are_known_by_their_groups() {
        assert!(names_container("0::/kubepods/besteffort/pod1\n"));
        assert!(!names_container("0::/init.scope\n"));
    }
}
