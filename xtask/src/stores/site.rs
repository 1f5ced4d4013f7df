//! The folder in which servers run, with a folder for each process; the cache outside it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::ports::{self, Ports};

/// The variable that names the folder, for us and for tests.
pub(super) const FOLDER_VARIABLE: &str = "TENURE_TEST_STORES";

/// One checkout's folder of running servers.
pub(super) struct Site {
    root: PathBuf,
    cache: PathBuf,
    uid: u32,
    ports: Ports,
}

impl Site {
    /// The site of this checkout, whether or not anything runs there. Nothing is written.
    pub(super) fn of(checkout: &Path) -> Result<Self, String> {
        let uid = fs::metadata("/proc/self").map_err(|error| format!("/proc: {error}"))?.uid();
        let root = std::env::var_os(FOLDER_VARIABLE).map_or_else(
            || {
                let mark = checksum(checkout.as_os_str().as_encoded_bytes());
                std::env::temp_dir().join(format!("tenure-stores-{uid}-{mark:08x}"))
            },
            PathBuf::from,
        );
        if !root.is_absolute() {
            return Err(format!("{FOLDER_VARIABLE}={} is not an absolute path", root.display()));
        }
        let cache = cache()?;
        let ports = ports::read(&root.join("ports"));
        Ok(Self { root, cache, uid, ports })
    }

    /// Makes the folder, and gives so many ports to each server that has none.
    pub(super) fn prepare<'s>(
        &mut self,
        servers: impl Iterator<Item = (&'s str, usize)>,
    ) -> Result<(), String> {
        // Passable for all: servers under another account have their folders in it.
        let made = DirBuilder::new().recursive(true).mode(0o711).create(&self.root);
        let owner = made.and_then(|()| fs::metadata(&self.root)).map(|data| data.uid());
        match owner {
            Err(error) => return Err(format!("{}: {error}", self.root.display())),
            Ok(owner) if owner != self.uid => {
                return Err(format!(
                    "{} belongs to another account; name another folder in {FOLDER_VARIABLE}",
                    self.root.display()
                ));
            }
            Ok(_) => {}
        }
        let seed = checksum(self.root.as_os_str().as_encoded_bytes());
        for (server, count) in servers {
            ports::assign(&mut self.ports, server, count, seed)?;
        }
        ports::write(&self.root.join("ports"), &self.ports)
    }

    /// The folder itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where programs are kept, for all checkouts of this account.
    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Whether we are root, whom PostgreSQL and PgBouncer refuse.
    pub(super) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// The folder of one process.
    pub(super) fn folder(&self, process: &str) -> PathBuf {
        self.root.join(process)
    }

    /// Makes a folder, with those above it.
    pub(super) fn make(&self, folder: &Path) -> Result<(), String> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
    }

    /// A server's port number `index`.
    pub(super) fn port(&self, server: &str, index: usize) -> u16 {
        self.ports[server][index]
    }

    /// `127.0.0.1:PORT` of a server's port number `index`.
    pub(super) fn address(&self, server: &str, index: usize) -> String {
        format!("127.0.0.1:{}", self.port(server, index))
    }

    /// The folders of all processes that were ever started here, in the order of their names.
    pub(super) fn processes(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        let mut folders: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|folder| folder.join("facts").exists())
            .collect();
        folders.sort();
        folders
    }

    /// Waits until no other `cargo xtask stores` of this account installs, starts or stops.
    pub(super) fn lock(&self) -> Result<File, String> {
        self.make(&self.cache)?;
        let path = self.cache.join("lock");
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(told)?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => eprintln!("== waiting for another `stores` to end"),
            Err(TryLockError::Error(error)) => return Err(told(error)),
        }
        file.lock().map_err(told)?;
        Ok(file)
    }
}

/// Writes a file that can be run.
pub(super) fn write_program(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn cache() -> Result<PathBuf, String> {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    base.map(PathBuf::from)
        .or_else(home)
        .map(|base| base.join("tenure").join("servers"))
        .ok_or_else(|| "no place for programs: set XDG_CACHE_HOME or HOME".to_owned())
}

/// FNV-1a: the same in every build, unlike std's hashers.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
