//! Where the file lies and which clock this is: what must be so before SQLite may be trusted.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags};
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::from_io;

/// Which file lies at a path: its device and its inode.
///
/// **Invariant:** a database file is looked at by `stat` alone. To open and close it beside
/// SQLite would drop the POSIX locks that SQLite holds on it in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of an open or a looked-at file.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Of whatever lies at `path` now.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.device, self.inode)
    }
}

/// A place that SQLite can be trusted at.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The file itself, links resolved: what SQLite names its side files after.
    pub(crate) file: PathBuf,
    /// Where tenure's own side files lie.
    pub(crate) side: PathBuf,
    /// The file system, for people.
    pub(crate) file_system: &'static str,
}

impl Place {
    /// Looks at `path`, which must be absolute.
    ///
    /// # Errors
    /// - `Misconfigured`: its directory doesn't exist, it is no file that may be used, or it lies
    ///   on a file system that SQLite isn't known to be safe on.
    /// - `Denied`: this user can't write there.
    pub(crate) fn look(path: &Path) -> Result<Self, Error> {
        let file = resolved(path)?;
        let directory = file.parent().unwrap_or(Path::new("/"));
        if let Ok(metadata) = fs::metadata(&file) {
            check_file(&file, directory, &metadata)?;
        }
        let file_system = file_system(directory)?;
        check_access(directory)?;
        let mut side = file.clone().into_os_string();
        side.push("-tenure");
        Ok(Self { side: side.into(), file, file_system })
    }
}

fn misconfigured(message: String) -> Error {
    Error::new(ErrorKind::Misconfigured, Operation::Open, message)
}

fn resolved(path: &Path) -> Result<PathBuf, Error> {
    match fs::canonicalize(path) {
        Ok(file) => return Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(misconfigured(format!(
                "a part of the path `{}` is no directory; name another path",
                path.display()
            )));
        }
        Err(error) => return Err(from_io(path, "looking at", error)),
    }
    if fs::symlink_metadata(path).is_ok() {
        // Another process may have created the file between the two looks.
        return fs::canonicalize(path).map_err(|_| {
            misconfigured(format!(
                "`{}` is a symbolic link to a file that doesn't exist; create that one, or \
                 remove the link",
                path.display()
            ))
        });
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(misconfigured(format!("`{}` names no file", path.display())));
    };
    match fs::canonicalize(directory) {
        Ok(directory) => Ok(directory.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(misconfigured(format!(
            "the directory `{0}` doesn't exist; create it with `mkdir -p {0}`",
            directory.display()
        ))),
        Err(error) => Err(from_io(directory, "looking at", error)),
    }
}

fn check_file(file: &Path, directory: &Path, metadata: &Metadata) -> Result<(), Error> {
    let at = file.display();
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(misconfigured(format!(
            "`{at}` is a directory; name a file in it, for instance `{at}/tenure.db`"
        )));
    }
    if !kind.is_file() {
        let what = if kind.is_socket() {
            "a socket"
        } else if kind.is_fifo() {
            "a pipe"
        } else {
            "a device"
        };
        return Err(misconfigured(format!("`{at}` is {what}; name a file")));
    }
    // SQLite's log lies beside the name that a file was opened by: under two names there would
    // be two logs for one file.
    if metadata.nlink() > 1 {
        return Err(misconfigured(format!(
            "`{at}` has {} hard links, and each would get a log of its own; leave one",
            metadata.nlink()
        )));
    }
    if is_mount_point(file, directory) {
        return Err(misconfigured(format!(
            "`{at}` is mounted as a single file, and its log would stay outside; mount its \
             directory"
        )));
    }
    rustix::fs::accessat(
        rustix::fs::CWD,
        file,
        Access::READ_OK | Access::WRITE_OK,
        AtFlags::EACCESS,
    )
    .map_err(|errno| from_io(file, "writing to", errno.into()))
}

fn check_access(directory: &Path) -> Result<(), Error> {
    rustix::fs::accessat(
        rustix::fs::CWD,
        directory,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(|errno| from_io(directory, "creating files in", errno.into()))
}

#[cfg(target_os = "linux")]
fn is_mount_point(file: &Path, directory: &Path) -> bool {
    use rustix::fs::{CWD, StatxFlags, statx};
    let mount = |path: &Path| {
        let answer = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
        (answer.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(answer.stx_mnt_id)
    };
    matches!((mount(file), mount(directory)), (Some(one), Some(other)) if one != other)
}

#[cfg(not(target_os = "linux"))]
fn is_mount_point(_file: &Path, _directory: &Path) -> bool {
    false
}

/// File systems on which SQLite's locks and its shared memory are known to work, by their magic
/// numbers in linux/magic.h. Overlay lies on one of the others.
#[cfg(target_os = "linux")]
const SAFE: &[(u64, &str)] = &[
    (0xEF53, "ext2/3/4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0x2FC1_2FC1, "zfs"),
    (0xF2F5_2010, "f2fs"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlay"),
];

/// Others that people try, by name.
#[cfg(target_os = "linux")]
const REFUSED: &[(u64, &str)] = &[
    (0x6969, "nfs"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x517B, "smb"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0x00C3_6400, "ceph"),
    (0x0BD0_0BD0, "lustre"),
    (0x0116_1970, "gfs2"),
    (0x7461_636F, "ocfs2"),
    (0x4244, "hfs"),
    (0x4D44, "fat"),
    (0x2011_BAB0, "exfat"),
    (0x5346_544E, "ntfs"),
    (0x786F_4256, "vboxsf"),
];

#[cfg(target_os = "linux")]
fn file_system(directory: &Path) -> Result<&'static str, Error> {
    let stat = rustix::fs::statfs(directory)
        .map_err(|errno| from_io(directory, "asking for the file system of", errno.into()))?;
    // The kernel's numbers have 32 bits; the field's type differs between architectures.
    named(directory, stat.f_type as u64 & 0xFFFF_FFFF)
}

#[cfg(target_os = "linux")]
fn named(directory: &Path, magic: u64) -> Result<&'static str, Error> {
    let name = |list: &[(u64, &'static str)]| {
        list.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
    };
    if let Some(safe) = name(SAFE) {
        return Ok(safe);
    }
    let found = name(REFUSED).map_or_else(|| format!("unknown ({magic:#x})"), str::to_owned);
    Err(misconfigured(format!(
        "`{}` lies on a file system of type {found}, where SQLite's locks aren't known to be safe; \
         choose a path on ext4, xfs, btrfs, zfs, f2fs, tmpfs or overlay, or a store that is made \
         for several hosts",
        directory.display()
    )))
}

#[cfg(target_os = "macos")]
fn file_system(directory: &Path) -> Result<&'static str, Error> {
    let stat = rustix::fs::statfs(directory)
        .map_err(|errno| from_io(directory, "asking for the file system of", errno.into()))?;
    let found: Vec<u8> =
        stat.f_fstypename.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
    if found == b"apfs" {
        return Ok("apfs");
    }
    Err(misconfigured(format!(
        "`{}` lies on a file system of type {}, where SQLite's locks aren't known to be safe; \
         choose a path on apfs",
        directory.display(),
        String::from_utf8_lossy(&found)
    )))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn file_system(_directory: &Path) -> Result<&'static str, Error> {
    Ok("unchecked")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_are_not_known_to_be_safe_are_refused_by_name() {
        let directory = Path::new("/mnt/share");
        assert_eq!(named(directory, 0xEF53).unwrap(), "ext2/3/4");
        for (magic, name) in [(0x6969, "nfs"), (0x0102_1997, "9p"), (0x1234, "unknown (0x1234)")] {
            let error = named(directory, magic).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            let text = error.to_string();
            assert!(text.contains("/mnt/share") && text.contains(name), "{text}");
        }
    }

    #[test]
    fn proc_is_refused_as_it_is_no_place_for_files() {
        let error = Place::look(Path::new("/proc/tenure.db")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    }
}
