//! How the kernel tells that a holder's process is dead: a lock on a side file of its own.
//!
//! Each session that wants it owns one file in the directory beside the database, named by a
//! random id that also stands in it, and keeps it locked (`flock`, which belongs to the open
//! file and is dropped by the kernel when the last process that has it is gone). The grants of
//! the session name the file: id, device and inode. Whoever finds the lock free, in that very
//! file before and after the look, has the kernel's word that the process is dead.
//!
//! Why one file each, where ranges of a single file would do: the holder can *unlink* its file
//! before it lets the lock go. A session that is closed or dropped while its process lives on
//! thus leaves no free lock behind; only death does.
//!
//! **Invariant:** everything that can go wrong here (a file that was replaced, copied, deleted,
//! a lock that can't be tried, another boot) proves nothing: the grant then ends with its ttl.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tenure_core::chance::Chance;

use crate::place::FileId;

const PREFIX: &str = "holder-";
/// How often a fresh name is tried when a cleaner got hold of the file first.
const TRIES_MAX: usize = 8;
/// How many files of dead sessions one opening looks at.
const SWEEP_MAX: usize = 1024;

/// What a grant says of its holder's process: which file is locked as long as that lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    id: u128,
    file: FileId,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}:{}", self.id, self.file)
    }
}

/// This session's locked file.
pub(crate) struct Presence {
    mark: Mark,
    path: PathBuf,
    /// Carries the lock; open until the file is unlinked.
    locked: Option<File>,
    process: u32,
}

impl Presence {
    /// Creates and locks a file in `side`.
    pub(crate) fn begin(side: &Path, chance: &mut Chance) -> io::Result<Self> {
        for _ in 0..TRIES_MAX {
            let id = chance.next_u128();
            let path = side.join(format!("{PREFIX}{id:032x}"));
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path)?;
            let locked = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => {
                    let _ = fs::remove_file(&path);
                    return Err(error);
                }
            };
            let written = file.write_all(text_of(id).as_bytes());
            let file_id = FileId::of(&file.metadata()?);
            // A cleaner that looked between the creation and the lock has taken it for a
            // dead one's.
            if locked && written.is_ok() && FileId::at(&path).is_ok_and(|at| at == file_id) {
                let mark = Mark { id, file: file_id };
                let locked = Some(file);
                return Ok(Self { mark, path, locked, process: std::process::id() });
            }
            let _ = fs::remove_file(&path);
            written?;
        }
        Err(io::Error::other("a new side file was taken away each time"))
    }

    /// What the grants of this session say, as long as the file is where others look for it.
    pub(crate) fn mark(&self) -> Option<&Mark> {
        let there = FileId::at(&self.path).is_ok_and(|at| at == self.mark.file);
        there.then_some(&self.mark)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // A forked copy of the process leaves all of it to its owner.
        let owned = self.process == std::process::id() && self.mark().is_some();
        // Unlinked first, unlocked after: nobody finds this lock free while we live.
        let unlinked = owned && fs::remove_file(&self.path).is_ok();
        if !unlinked {
            // Somebody has moved it, and may move it back: it stays locked until the process ends.
            std::mem::forget(self.locked.take());
        }
    }
}

fn text_of(id: u128) -> String {
    format!("{id:032x}\n")
}

/// Whether the process that `mark` (as a grant says it) speaks of is proven dead.
pub(crate) fn is_gone(side: &Path, mark: &str) -> bool {
    parse(mark).is_some_and(|mark| probe(side, &mark).unwrap_or(false))
}

/// The id and the rest as the holder wrote it, which is compared as text.
fn parse(mark: &str) -> Option<(u128, &str)> {
    let (id, file) = mark.split_once(':')?;
    Some((u128::from_str_radix(id, 16).ok()?, file))
}

fn probe(side: &Path, (id, file_id): &(u128, &str)) -> io::Result<bool> {
    let path = side.join(format!("{PREFIX}{id:032x}"));
    let file = open_to_look(&path)?;
    if FileId::of(&file.metadata()?).to_string() != *file_id || !says(&file, *id)? {
        return Ok(false);
    }
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    unlocked(&file);
    // The very file, still: an owner that lives unlinks it before it unlocks it.
    let metadata = fs::symlink_metadata(&path)?;
    Ok(metadata.is_file() && FileId::of(&metadata).to_string() == *file_id)
}

/// Drops a lock that was only tried. To close the file isn't enough: a process that was forked
/// meanwhile has it, too, until it executes another program.
fn unlocked(file: &File) {
    let _ = file.unlock();
}

fn open_to_look(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)
}

fn says(mut file: &File, id: u128) -> io::Result<bool> {
    let expected = text_of(id);
    let mut found = Vec::new();
    (&mut file).take(expected.len() as u64 + 1).read_to_end(&mut found)?;
    Ok(found == expected.as_bytes())
}

/// Deletes the files of dead sessions that no grant names any more.
///
/// To delete one too many would be safe: it proves nothing then, and its grants end by their ttl.
pub(crate) fn sweep(side: &Path, is_named: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(side) else { return };
    let owned = entries.take(SWEEP_MAX).flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let id = u128::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()?;
        Some((entry.path(), id))
    });
    for (path, id) in owned {
        let Ok(file) = open_to_look(&path) else { continue };
        let Ok(metadata) = file.metadata() else { continue };
        let mark = Mark { id, file: FileId::of(&metadata) };
        // Shared, as probes are, so that those who look at the same time see it as free.
        if file.try_lock_shared().is_ok() {
            if metadata.nlink() == 1 && !is_named(&mark.to_string()) {
                let _ = fs::remove_file(&path);
            }
            unlocked(&file);
        }
    }
}

/// Creates the directory of side files, open to whom the database is open to.
pub(crate) fn create_side(side: &Path, database: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    match fs::DirBuilder::new().mode(0o755).create(side) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    if let Ok(of) = fs::metadata(database) {
        // Who may read may enter; and what root creates for another user's file is that user's.
        let mode = (of.mode() & 0o666) | ((of.mode() & 0o444) >> 2);
        let _ = fs::set_permissions(side, fs::Permissions::from_mode(mode));
        hand_to(side, of.uid(), of.gid());
    }
    Ok(())
}

/// Gives a side file the owner of the database, where this user may: others would be locked out.
pub(crate) fn hand_to(path: &Path, uid: u32, gid: u32) {
    if rustix::process::geteuid().is_root() {
        let _ = std::os::unix::fs::chown(path, Some(uid), Some(gid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn begun(scratch: &Scratch, seed: u64) -> Presence {
        Presence::begin(&scratch.path, &mut Chance::seeded(seed)).unwrap()
    }

    /// As the kernel leaves it behind when the process dies: still there, but not locked.
    fn dead(presence: Presence) -> (String, PathBuf) {
        presence.locked.as_ref().unwrap().unlock().unwrap();
        let left = (presence.mark.to_string(), presence.path.clone());
        std::mem::forget(presence);
        left
    }

    #[test]
    fn a_held_lock_proves_nothing_and_a_free_one_proves_death() {
        let scratch = Scratch::new("presence");
        let presence = begun(&scratch, 1);
        assert!(!is_gone(&scratch.path, &presence.mark.to_string()));
        let (mark, _) = dead(presence);
        assert!(is_gone(&scratch.path, &mark));
    }

    #[test]
    fn a_file_that_was_moved_away_stays_locked_until_the_process_ends() {
        let scratch = Scratch::new("presence-moved");
        let presence = begun(&scratch, 1);
        let (mark, path) = (presence.mark.to_string(), presence.path.clone());
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        drop(presence);
        fs::rename(&aside, &path).unwrap();
        assert!(!is_gone(&scratch.path, &mark), "the session was closed, its process lives");
    }

    #[test]
    fn a_session_that_was_closed_leaves_no_proof() {
        let scratch = Scratch::new("presence-closed");
        let presence = begun(&scratch, 1);
        let mark = presence.mark.to_string();
        drop(presence);
        assert!(!is_gone(&scratch.path, &mark));
        assert_eq!(fs::read_dir(&scratch.path).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_in_the_place_of_the_file_proves_nothing() {
        let scratch = Scratch::new("presence-copy");
        let presence = begun(&scratch, 1);
        let mark = presence.mark.to_string();
        let copy = presence.path.with_extension("copy");
        fs::copy(&presence.path, &copy).unwrap();
        fs::rename(&copy, &presence.path).unwrap();
        assert!(!is_gone(&scratch.path, &mark), "the holder lives, its file was replaced");
        assert_eq!(presence.mark(), None, "and it notices at its next beat");
        let path = presence.path.clone();
        drop(presence);
        assert!(path.exists(), "what isn't its own it leaves alone");
    }

    #[test]
    fn another_id_inside_proves_nothing() {
        let scratch = Scratch::new("presence-inside");
        let (mark, path) = dead(begun(&scratch, 1));
        fs::write(&path, text_of(7)).unwrap();
        assert!(!is_gone(&scratch.path, &mark));
        for garbage in ["", "x", ":", "zz:1:2", "../../etc:1:2"] {
            assert!(!is_gone(&scratch.path, garbage), "{garbage}");
        }
    }

    #[test]
    fn a_symbolic_link_proves_nothing() {
        let scratch = Scratch::new("presence-link");
        let (mark, path) = dead(begun(&scratch, 1));
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        assert!(!is_gone(&scratch.path, &mark));
    }

    #[test]
    fn sweeping_deletes_what_is_dead_and_unnamed() {
        let scratch = Scratch::new("presence-sweep");
        let living = begun(&scratch, 1);
        let (named, named_path) = dead(begun(&scratch, 2));
        let (_, unnamed_path) = dead(begun(&scratch, 3));
        sweep(&scratch.path, |mark| mark == named);
        assert!(living.mark().is_some() && named_path.exists() && !unnamed_path.exists());
    }
}
