//! The extended attributes of a file, for the file that replaces it. A POSIX ACL is one of them.
//!
//! Without its ACL, a file has other permissions: the mode of the group is then the mask of the ACL, and gives the group rights that it
//! did not have. What cannot be kept is an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;

use client::error::io_words;
use rustix::io::Errno;
use xattr::FileExt as _;

const ACL: &str = "system.posix_acl_access";
/// The kernel calculates them from the content.
const OF_THE_CONTENT: [&str; 2] = ["security.ima", "security.evm"];

/// Gives a new file the attributes of another one. Call this before the mode is set, and before there is a secret in the file.
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    let (wanted, inherited) = (read(from)?, read(to)?);
    // A default ACL of the directory.
    if !wanted.keys().any(|name| name == ACL) && inherited.keys().any(|name| name == ACL) {
        to.remove_xattr(ACL)?;
    }
    for (name, value) in wanted {
        if inherited.get(&name) == Some(&value) {
            continue;
        }
        to.set_xattr(&name, &value).map_err(|error| {
            let (name, error) = (name.display(), io_words(&error));
            io::Error::other(format!("its extended attribute {name} would be lost: {error}"))
        })?;
    }
    Ok(())
}

fn read(file: &File) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let names = match file.list_xattr() {
        // The file system has none.
        Err(error) if error.raw_os_error() == Some(Errno::NOTSUP.raw_os_error()) => return Ok(BTreeMap::new()),
        other => other?,
    };
    let names = names.filter(|name| !OF_THE_CONTENT.iter().any(|one| name == one));
    let pairs = names.map(|name| {
        let value = file.get_xattr(&name)?;
        Ok(value.map(|value| (name, value)))
    });
    pairs.filter_map(Result::transpose).collect()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// `user::rw-,user:1000:r--,group::---,mask::r--,other::---`, as Linux stores it: a version, then tag, permissions and id of each.
    fn acl() -> Vec<u8> {
        const NO_ID: u32 = u32::MAX;
        let entries: [(u16, u16, u32); 5] = [
            (0x01, 6, NO_ID),
            (0x02, 4, 1000),
            (0x04, 0, NO_ID),
            (0x10, 4, NO_ID),
            (0x20, 0, NO_ID),
        ];
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn an_acl_and_other_attributes_are_kept() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_xattr(ACL, &acl()).unwrap();
        from.set_xattr("user.origin", b"installer").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(to.get_xattr(ACL).unwrap(), Some(acl()));
        assert_eq!(to.get_xattr("user.origin").unwrap(), Some(b"installer".to_vec()));
        // The group has no rights: these are those of the mask.
        assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn an_acl_that_the_file_did_not_have_is_removed() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        to.set_xattr(ACL, &acl()).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(to.get_xattr(ACL).unwrap(), None);
    }
}
