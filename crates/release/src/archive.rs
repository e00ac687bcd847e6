//! Reproducible archives for krew.
//!
//! krew v0.5.0 rejects an archive with anything but regular files and directories (internal/download/downloader.go),
//! and uses the file modes of the archive.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::Result;
pub use flate2::Compression;
use flate2::GzBuilder;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::Plugin;

/// The modification time of every file, 2000-01-01, since some programs warn about 1970.
const TIME: u64 = 946_684_800;
/// "Unknown", for the operating system field of gzip.
const ANY_SYSTEM: u8 = 255;

/// The licence, which every archive contains.
pub const LICENSE: &[u8] = include_bytes!("../../../LICENSE");

/// A man page: its file name and its text.
pub type ManPage = (String, Vec<u8>);

/// A `.tar.gz` with the plugin's program, under the name that kubectl looks for, the licence, and the man pages, in the order of
/// names.
pub fn pack(plugin: &Plugin, program: &[u8], man_pages: &[ManPage], compression: Compression) -> Result<Vec<u8>> {
    let gzip = GzBuilder::new()
        .operating_system(ANY_SYSTEM)
        .write(Vec::new(), compression);
    let mut tar = tar::Builder::new(gzip);
    append(&mut tar, "LICENSE", 0o644, LICENSE)?;
    append(&mut tar, &plugin.binary(), 0o755, program)?;
    let sorted: BTreeMap<_, _> = man_pages.iter().map(|(name, text)| (name, text)).collect();
    for (name, text) in sorted {
        append(&mut tar, &format!("man/man1/{name}"), 0o644, text)?;
    }
    let mut gzip = tar.into_inner()?;
    gzip.flush()?;
    Ok(gzip.finish()?)
}

fn append(tar: &mut tar::Builder<impl std::io::Write>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_mtime(TIME);
    header.set_uid(0);
    header.set_gid(0);
    Ok(tar.append_data(&mut header, name, bytes)?)
}

/// The SHA-256 checksum in lower-case hexadecimal, as krew requires.
pub fn sum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;
    use crate::PLUGINS;

    fn man_pages() -> [ManPage; 2] {
        ["kubectl-crt.1", "kubectl-crt-list.1"].map(|name| (name.to_owned(), b".TH".to_vec()))
    }

    #[test]
    fn packing_twice_gives_the_same_bytes() {
        let program: Vec<u8> = (0_u32..1 << 16).flat_map(u32::to_le_bytes).collect();
        let packed = || pack(&PLUGINS[0], &program, &[], Compression::best()).unwrap();
        assert_eq!(sum(&packed()), sum(&packed()));
    }

    #[test]
    fn the_archive_has_the_program_the_licence_and_man_pages_without_owner() {
        let packed = pack(&PLUGINS[0], b"program", &man_pages(), Compression::best()).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(header.entry_type(), EntryType::Regular);
            assert_eq!(
                (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                (0, 0, TIME)
            );
            assert_eq!(
                (header.username().unwrap(), header.groupname().unwrap()),
                (Some(""), Some(""))
            );
            found.push((entry.path().unwrap().display().to_string(), header.mode().unwrap()));
        }
        assert_eq!(
            found,
            [
                ("LICENSE".to_owned(), 0o644),
                ("kubectl-crt".to_owned(), 0o755),
                ("man/man1/kubectl-crt-list.1".to_owned(), 0o644),
                ("man/man1/kubectl-crt.1".to_owned(), 0o644),
            ]
        );
    }

    #[test]
    fn tar_unpacks_what_was_packed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("packed.tar.gz");
        fs::write(
            &file,
            pack(&PLUGINS[0], b"program", &man_pages(), Compression::best()).unwrap(),
        )
        .unwrap();
        let mut tar = Command::new("tar");
        let status = tar.arg("-xzf").arg(&file).arg("-C").arg(dir.path()).status().unwrap();
        assert!(status.success());
        let program = dir.path().join("kubectl-crt");
        assert_eq!(fs::read_to_string(&program).unwrap(), "program");
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn the_sum_is_as_sha256sum_prints_it() {
        assert_eq!(
            sum(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
