//! Installation from a manifest and an archive in a directory, as `cargo xtask dist` leaves them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use release::{PLUGINS, Plugin, archive};

use crate::home::KrewHome;
use crate::release_server::{ReleaseServer, this_platform};

/// Runs `kubectl krew install` with a manifest and an archive.
pub(crate) fn install(
    home: &KrewHome,
    plugin: &Plugin,
    manifest: &str,
    archive: &Path,
) -> Result<crate::home::CommandResult> {
    let file = home.path().join(format!("{}.yaml", plugin.name));
    fs::write(&file, manifest)?;
    let flags = [("--manifest", file.as_path()), ("--archive", archive)];
    let [manifest, archive] = flags.map(|(flag, file)| format!("{flag}={}", file.display()));
    home.krew(&["install", &manifest, &archive])
}

#[test]
fn plugins_install_from_a_manifest_and_an_archive() -> Result<()> {
    let (home, releases) = (KrewHome::new()?, ReleaseServer::start()?);
    for plugin in PLUGINS {
        let (archive, manifest) = releases.publish(plugin, "v1.0.0")?;
        let installed = install(&home, plugin, &manifest, &archive)?.success()?;
        let caveats = plugin.caveats();
        let caveat = caveats.lines().next().context("no caveat")?;
        ensure!(
            installed.stderr.contains(caveat),
            "the caveats are not printed: {installed}"
        );
        let help = home.kubectl(&[plugin.name, "--help"])?.success()?;
        let usage = format!("Usage: kubectl {} ", plugin.name);
        ensure!(help.stdout.contains(&usage), "{usage:?} in {help}");
        let store = home.path().join("krew/store").join(plugin.name).join("v1.0.0");
        let license = fs::read(store.join("LICENSE"))?;
        ensure!(license == archive::LICENSE, "the license is not installed");
        let man_page = store.join("man/man1").join(format!("{}.1", plugin.binary()));
        ensure!(man_page.is_file(), "the man pages are not installed");
    }
    Ok(())
}

#[test]
fn krew_rejects_an_archive_with_a_wrong_checksum() -> Result<()> {
    let (home, releases) = (KrewHome::new()?, ReleaseServer::start()?);
    for plugin in PLUGINS {
        let (archive, _) = releases.publish(plugin, "v1.0.0")?;
        let other = [(this_platform()?, archive::sum(b"another archive"))];
        let manifest = releases.release("v1.0.0").manifest(plugin, &other)?;
        install(&home, plugin, &manifest, &archive)?.failure("checksum does not match")?;
        home.kubectl(&[plugin.name, "--help"])?.failure("unknown command")?;
    }
    Ok(())
}
