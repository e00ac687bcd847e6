//! krew's own checker, which the reviewers of its public index run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use release::{PLUGINS, Plugin};

use crate::home::Home;
use crate::shop::Shop;

fn committed_file(plugin: &Plugin) -> PathBuf {
    let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../krew/plugins");
    index.join(format!("{}.yaml", plugin.name))
}

/// A plugin's manifest as it is in this repository.
pub(crate) fn committed(plugin: &Plugin) -> Result<String> {
    fs::read_to_string(committed_file(plugin)).with_context(|| format!("read the manifest of {}", plugin.name))
}

fn validate(home: &Home, manifest: &Path, more: &[&str]) -> Result<crate::home::Ran> {
    let manifest = manifest.to_str().context("a path that is not UTF-8")?;
    home.run("validate-krew-manifest", &[&["-manifest", manifest], more].concat())
}

#[test]
fn the_manifests_of_this_repository_pass() -> Result<()> {
    let home = Home::new()?;
    for plugin in PLUGINS {
        // Its archives are on no server before their version is released.
        validate(&home, &committed_file(plugin), &["-skip-install"])?.well()?;
    }
    Ok(())
}

#[test]
fn a_release_passes_with_its_installation() -> Result<()> {
    let (home, shop) = (Home::new()?, Shop::open()?);
    for plugin in PLUGINS {
        let (_, manifest) = shop.publish(plugin, "v1.0.0")?;
        let file = home.path().join(format!("{}.yaml", plugin.name));
        fs::write(&file, manifest)?;
        validate(&home, &file, &[])?.well()?;
    }
    Ok(())
}

#[test]
fn the_checker_finds_a_sum_that_is_none() -> Result<()> {
    let (home, shop) = (Home::new()?, Shop::open()?);
    let plugin = &PLUGINS[0];
    let (_, manifest) = shop.publish(plugin, "v1.0.0")?;
    let file = home.path().join(format!("{}.yaml", plugin.name));
    fs::write(&file, manifest.replace("sha256: ", "sha256: X"))?;
    validate(&home, &file, &["-skip-install"])?.refused("sha256")
}
