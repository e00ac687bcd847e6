//! Files with a token that only their owner can read.
//!
//! `--write FILE` makes a new one. A shell's `>` makes one that everybody can read. `--token-file FILE` reads one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use client::error::{Doing as _, Error};
use client::sanitize::shell_word;
use client::secret::Secret;
use tempfile::NamedTempFile;

use crate::delivery::file;

/// The permissions of all users but the owner.
const OF_OTHERS: u32 = 0o077;

/// Reads a file with a secret.
///
/// # Errors
/// If other users have any permission on it, or it is not a regular file.
pub(crate) fn read(path: &Path) -> Result<Secret, Error> {
    let reading = || format!("read {}", path.display());
    let file = file::open(OpenOptions::new().read(true), path).doing(reading())?;
    let mode = file.metadata().doing(reading())?.permissions().mode() & 0o7777;
    if mode & OF_OTHERS != 0 {
        let name = path.display().to_string();
        return Err(
            Error::failed(format!("other users have permissions on {name} (mode {mode:04o})"))
                .hint(format!("chmod 600 {}", shell_word(&name))),
        );
    }
    file::content(file).doing(reading())
}

#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct WriteFlags {
    /// Write the output to this file, which only its owner can read (0600)
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Output options")]
    pub write: Option<PathBuf>,
}

impl WriteFlags {
    /// Opens the file, if there is one. Call this before a token is created for it.
    pub(crate) fn open(&self) -> Result<Option<PrivateFile>, Error> {
        let open = |path: &PathBuf| PrivateFile::open(path).doing(format!("write {}", path.display()));
        self.write.as_ref().map(open).transpose()
    }
}

/// A file that is not at its path yet.
pub(crate) struct PrivateFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl PrivateFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(io::Error::other("it exists, and is not a regular file")),
            Err(error) => return Err(error),
        }
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        Ok(Self {
            path: path.to_owned(),
            // Its mode is 0600.
            file: tempfile::Builder::new()
                .prefix(".kubectl-bootstrap-token-")
                .tempfile_in(directory.unwrap_or(Path::new(".")))?,
        })
    }

    /// Writes the file as a whole, puts it at its path, and syncs both to the disk.
    pub(crate) fn write(self, text: &str) -> Result<(), Error> {
        let Self { path, mut file } = self;
        let write = move |path: &Path| {
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
            fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok::<_, io::Error>(())
        };
        write(&path).doing(format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) -> Result<(), Error> {
        let flags = WriteFlags {
            write: Some(path.to_owned()),
        };
        flags.open()?.unwrap().write(text)
    }

    #[test]
    fn only_the_owner_can_read_the_file_also_if_it_replaces_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "secret\n").unwrap();
        for (mode, is_private) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let result = read(&path);
            assert_eq!(result.is_ok(), is_private, "{mode:o}");
            if let Err(error) = result {
                assert!(error.hints[0].starts_with("chmod 600 "), "{error:?}");
            }
        }
        assert!(read(directory.path()).is_err() && read(&directory.path().join("nowhere")).is_err());
    }

    #[test]
    fn a_link_is_not_replaced_and_a_file_that_is_not_written_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (link, path) = (directory.path().join("link"), directory.path().join("token"));
        std::os::unix::fs::symlink("/dev/stdout", &link).unwrap();
        assert!(write(&link, "new").unwrap_err().message.contains("not a regular file"));
        drop(PrivateFile::open(&path).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write(&directory.path().join("no/where"), "new").is_err());
    }
}
