//! A delivery to a file, which is replaced as a whole.
//!
//! A file has no version that a write could be conditional on. So the writer holds its advisory lock (flock(2)) from the first
//! write of a rotation until the process ends, and compares the file with what it read. The lock is on the file itself, so no lock
//! file is left behind. The new file is locked before it replaces the old one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use client::secret::Secret;
use rustix::fs::OFlags;

use super::attributes;

/// The maximum size of a file with a token, in bytes.
const LARGE: u64 = 1 << 20;
/// Attempts to take the lock while other processes replace the file.
const TRIES: usize = 20;

/// One version of the file.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    /// The content.
    pub content: Secret,
    pub(crate) inode: (u64, u64),
}

/// Reads a file. `None`: it does not exist.
pub(crate) fn read(path: &Path) -> io::Result<Option<Revision>> {
    let file = match open(OpenOptions::new().read(true), path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let metadata = file.metadata()?;
    Ok(Some(Revision {
        content: content(file)?,
        inode: (metadata.dev(), metadata.ino()),
    }))
}

/// The content of an open file.
pub(crate) fn content(file: File) -> io::Result<Secret> {
    let mut bytes = Vec::new();
    file.take(LARGE).read_to_end(&mut bytes)?;
    let content = std::str::from_utf8(&bytes).map_err(|_| io::Error::other("it contains bytes that are not UTF-8"))?;
    Ok(Secret::new(content))
}

/// Opens a regular file. `O_NONBLOCK`: the open of a named pipe would wait for its other end, which nothing can interrupt.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LARGE {
        return Err(io::Error::other("not a regular file of less than 1 MiB"));
    }
    Ok(file)
}

/// A locked file. Dropping this releases the lock.
#[derive(Debug)]
pub(crate) struct Locked {
    /// The path without symbolic links.
    path: PathBuf,
    file: File,
}

impl Locked {
    /// Takes the lock. `None`: another process holds it.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let path = fs::canonicalize(path)?;
        for _ in 0..TRIES {
            // Some network file systems lock only files that are open for writing.
            let writable = open(OpenOptions::new().read(true).write(true), &path);
            let file = writable.or_else(|_| open(OpenOptions::new().read(true), &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if inode(&file.metadata()?) == inode(&fs::metadata(&path)?) {
                return Ok(Some(Self { path, file }));
            }
        }
        Ok(None)
    }

    /// Whether the locked file is still at the path: a process that ignores locks may have replaced it.
    pub(crate) fn is_present(&self) -> bool {
        let (present, ours) = (fs::metadata(&self.path), self.file.metadata());
        present.is_ok_and(|present| ours.is_ok_and(|ours| inode(&ours) == inode(&present)))
    }

    pub(crate) fn is(&self, version: &Revision) -> io::Result<bool> {
        let now = read(&self.path)?;
        Ok(now.is_some_and(|now| now.inode == version.inode && now.content == version.content))
    }

    /// Replaces the file atomically. Its owner, permissions and extended attributes stay. `false`: the file has another version and was not replaced.
    pub(crate) fn replace(&mut self, version: &Revision, content: &Secret) -> io::Result<bool> {
        let before = self.file.metadata()?;
        let beside = self.beside()?;
        // A killed process may have left one.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let replaced = self.put(&beside, &before, version, content);
        if !matches!(replaced, Ok(true)) {
            let _ = fs::remove_file(&beside);
        }
        replaced
    }

    fn put(&mut self, beside: &Path, before: &fs::Metadata, version: &Revision, content: &Secret) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(beside)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        attributes::copy(&self.file, &file)?;
        file.set_permissions(before.permissions())?;
        file.write_all(content.expose().as_bytes())?;
        file.sync_all()?;
        file.try_lock().map_err(io::Error::from)?;
        if !self.is(version)? {
            return Ok(false);
        }
        fs::rename(beside, &self.path)?;
        self.file = file;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(true)
    }

    fn beside(&self) -> io::Result<PathBuf> {
        let name = self.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(".kubectl-bootstrap-token");
        Ok(self.path.with_file_name(beside))
    }
}

fn inode(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn replacing_keeps_the_permissions_and_leaves_no_other_file() {
        for mode in [0o600, 0o640] {
            let (directory, path) = file(mode);
            let link = directory.path().join("link");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            let version = read(&link).unwrap().unwrap();
            let mut locked = Locked::take(&link).unwrap().unwrap();
            assert!(locked.replace(&version, &Secret::new("new")).unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn a_file_changed_by_another_process_is_not_replaced() {
        let (_directory, path) = file(0o600);
        let version = read(&path).unwrap().unwrap();
        let mut locked = Locked::take(&path).unwrap().unwrap();
        fs::write(&path, "theirs").unwrap();
        assert!(!locked.replace(&version, &Secret::new("new")).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn the_lock_is_also_held_on_the_new_file() {
        let (_directory, path) = file(0o600);
        let version = read(&path).unwrap().unwrap();
        let mut locked = Locked::take(&path).unwrap().unwrap();
        assert!(Locked::take(&path).unwrap().is_none());
        locked.replace(&version, &Secret::new("new")).unwrap();
        assert!(Locked::take(&path).unwrap().is_none());
        drop(locked);
        assert!(Locked::take(&path).unwrap().is_some());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn replacing_keeps_extended_attributes() {
        let (_directory, path) = file(0o640);
        xattr::set(&path, "user.origin", b"installer").unwrap();
        let version = read(&path).unwrap().unwrap();
        let mut locked = Locked::take(&path).unwrap().unwrap();
        assert!(locked.replace(&version, &Secret::new("new")).unwrap());
        assert_eq!(xattr::get(&path, "user.origin").unwrap(), Some(b"installer".to_vec()));
    }

    #[test]
    fn a_missing_file_is_none_and_a_directory_or_binary_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("binary");
        fs::write(&binary, b"abcdef.ghijklmnopqrstuv \xff").unwrap();
        assert!(read(&binary).unwrap_err().to_string().contains("not UTF-8"));
        assert!(read(&directory.path().join("nothing")).unwrap().is_none());
        assert!(read(directory.path()).is_err());
    }

    #[test]
    fn a_named_pipe_is_refused_without_waiting_for_its_other_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(read(&path).is_err() && Locked::take(&path).is_err());
    }
}
