//! What a server is: where it comes from, how it is started, when it answers, how tests find it.

use std::path::PathBuf;

use super::install::Package;
use super::site::Site;

/// A server that tests ask for by name: one process, or several that belong together.
///
/// To add one, write a file with its `impl` and add it to the list in `mod.rs`.
pub(super) trait Server: Sync {
    /// What `cargo xtask stores up NAME` calls it.
    fn name(&self) -> &'static str;

    /// Where its programs come from.
    fn packages(&self) -> &'static [Package];

    /// How many ports it listens on.
    fn ports(&self) -> usize;

    /// Servers that must answer before this one starts.
    fn needs(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether its programs are built here, which takes minutes once: then it is started only when
    /// it is asked for by its name.
    fn is_built(&self) -> bool {
        false
    }

    /// Prepares what is missing of folders, data and configuration, and says what is to be
    /// started. Runs at every `up`, so it leaves alone what is there.
    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String>;

    /// Whether it answers a client now; an error is the reason why it doesn't yet.
    fn answers(&self, site: &Site) -> Result<(), String>;

    /// The lines of environment by which tests find it.
    fn lines(&self, site: &Site) -> Vec<(&'static str, String)>;
}

/// One process of a server, as it is to be started.
pub(super) struct Process {
    /// The name of its folder in the site.
    pub name: String,
    /// The program, without a wrapper.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// What its environment holds beside ours.
    pub env: Vec<(&'static str, String)>,
    /// Where clients connect.
    pub port: u16,
    /// What must survive a restart.
    pub data: PathBuf,
    /// The account it runs under when we are root: it refuses root itself.
    pub account: Option<&'static str>,
    /// The signal that stops it in order, as `kill` names it.
    pub stop: &'static str,
    /// Whether stopping it in order takes long, so that `down`, which removes its data, kills it.
    pub stops_slowly: bool,
    /// Lines of shell that run in its folder before it, as the process that will be it.
    pub before: &'static str,
    /// A script that kills what the process leaves behind when it is killed itself.
    pub sweep: Option<String>,
}

impl Process {
    /// A process that runs as we do and stops at SIGTERM, its data in `data` within its folder.
    pub(super) fn new(site: &Site, name: &str, program: PathBuf, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            program,
            args: Vec::new(),
            env: Vec::new(),
            port,
            data: site.folder(name).join("data"),
            account: None,
            stop: "TERM",
            stops_slowly: false,
            before: "",
            sweep: None,
        }
    }

    /// The same with these arguments.
    pub(super) fn with_args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}
