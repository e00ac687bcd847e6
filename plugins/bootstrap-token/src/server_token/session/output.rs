//! The file that the new token is written to. What it held before is kept beside it, as `FILE.1`, `FILE.2` and so on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use client::error::{Doing as _, Error};
use client::secret::{Fingerprint, Secret};
use supervisor::ServerToken;

use crate::private_file::{self, PrivateFile};

/// The token in the file. `None`: there is none, or others can read it.
pub(crate) fn holds(path: &Path) -> Option<Fingerprint> {
    let text = private_file::read(path).ok()?;
    let token = ServerToken::of_line(&text).ok()?;
    Some(token.password().fingerprint())
}

/// Writes the token, after it has kept the former content under a name that is free.
pub(crate) fn write(path: &Path, token: &Secret) -> Result<(), Error> {
    keep(path).doing(format!("keep the former content of {}", path.display()))?;
    let file = PrivateFile::open(path).doing(format!("write {}", path.display()))?;
    file.write(&format!("{}\n", token.expose()))
}

/// A second name: if the process is killed, the file is still there.
fn keep(path: &Path) -> io::Result<()> {
    for number in 1_u32.. {
        match fs::hard_link(path, numbered(path, number)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
    Err(io::Error::other("no name is free"))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn every_token_that_the_file_has_held_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert_eq!(holds(&path), None);
        for token in ["first", "second", "third"] {
            write(&path, &Secret::new(token)).unwrap();
            assert_eq!(holds(&path), Some(Fingerprint::of(token)));
        }
        for (number, token) in [(1, "first"), (2, "second")] {
            let kept = numbered(&path, number);
            assert_eq!(fs::read_to_string(&kept).unwrap(), format!("{token}\n"));
            assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o7777, 0o600);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_that_others_can_read_holds_nothing_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "first").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(holds(&path), None);
        write(&path, &Secret::new("second")).unwrap();
        assert_eq!(holds(&path), Some(Fingerprint::of("second")));
        assert!(write(&directory.path().join("no/where"), &Secret::new("third")).is_err());
    }
}
