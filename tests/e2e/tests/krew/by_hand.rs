//! A manifest and an archive that lie in a directory, as `cargo xtask dist` leaves them: no index, no network.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use release::{PLUGINS, Plugin, archive};

use crate::home::Home;
use crate::shop::{Shop, this_platform};

/// `kubectl krew install` of two files.
pub(crate) fn install(home: &Home, plugin: &Plugin, manifest: &str, archive: &Path) -> Result<crate::home::Ran> {
    let file = home.path().join(format!("{}.yaml", plugin.name));
    fs::write(&file, manifest)?;
    let flags = [("--manifest", file.as_path()), ("--archive", archive)];
    let [manifest, archive] = flags.map(|(flag, file)| format!("{flag}={}", file.display()));
    home.krew(&["install", &manifest, &archive])
}

#[test]
fn each_plugin_is_installed_from_two_files_and_answers_through_kubectl() -> Result<()> {
    let (home, shop) = (Home::new()?, Shop::open()?);
    for plugin in PLUGINS {
        let (archive, manifest) = shop.publish(plugin, "v1.0.0")?;
        let installed = install(&home, plugin, &manifest, &archive)?.well()?;
        let caveats = plugin.caveats();
        let caveat = caveats.lines().next().context("no caveat")?;
        ensure!(installed.stderr.contains(caveat), "the caveats are shown: {installed}");
        let help = home.kubectl(&[plugin.name, "--help"])?.well()?;
        let usage = format!("Usage: kubectl {} ", plugin.name);
        ensure!(help.stdout.contains(&usage), "{usage:?} in {help}");
        let store = home.path().join("krew/store").join(plugin.name).join("v1.0.0");
        let license = fs::read(store.join("LICENSE"))?;
        ensure!(license == archive::LICENSE, "the licence comes with the program");
    }
    Ok(())
}

#[test]
fn an_archive_that_is_not_the_manifest_s_is_refused() -> Result<()> {
    let (home, shop) = (Home::new()?, Shop::open()?);
    for plugin in PLUGINS {
        let (archive, _) = shop.publish(plugin, "v1.0.0")?;
        let other = [(this_platform()?, archive::sum(b"another archive"))];
        let manifest = shop.release("v1.0.0").manifest(plugin, &other)?;
        install(&home, plugin, &manifest, &archive)?.refused("checksum does not match")?;
        home.kubectl(&[plugin.name, "--help"])?.refused("unknown command")?;
    }
    Ok(())
}
