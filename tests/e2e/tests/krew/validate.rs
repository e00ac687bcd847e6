//! krew's own validator, which the reviewers of its public index run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use release::{PLUGINS, Plugin};

use crate::home::KrewHome;
use crate::release_server::ReleaseServer;

fn committed_file(plugin: &Plugin) -> PathBuf {
    let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../krew/plugins");
    index.join(format!("{}.yaml", plugin.name))
}

/// A plugin's manifest as it is in this repository.
pub(crate) fn committed(plugin: &Plugin) -> Result<String> {
    fs::read_to_string(committed_file(plugin)).with_context(|| format!("read the manifest of {}", plugin.name))
}

fn validate(home: &KrewHome, manifest: &Path, more: &[&str]) -> Result<crate::home::CommandResult> {
    let manifest = manifest.to_str().context("a path that is not UTF-8")?;
    home.run("validate-krew-manifest", &[&["-manifest", manifest], more].concat())
}

#[test]
fn committed_manifests_are_valid() -> Result<()> {
    let home = KrewHome::new()?;
    for plugin in PLUGINS {
        // Before a release, the archives are not on a server.
        validate(&home, &committed_file(plugin), &["-skip-install"])?.success()?;
    }
    Ok(())
}

#[test]
fn a_release_manifest_is_valid_and_installs() -> Result<()> {
    let (home, releases) = (KrewHome::new()?, ReleaseServer::start()?);
    for plugin in PLUGINS {
        let (_, manifest) = releases.publish(plugin, "v1.0.0")?;
        let file = home.path().join(format!("{}.yaml", plugin.name));
        fs::write(&file, manifest)?;
        validate(&home, &file, &[])?.success()?;
    }
    Ok(())
}

#[test]
fn the_validator_rejects_an_invalid_checksum() -> Result<()> {
    let (home, releases) = (KrewHome::new()?, ReleaseServer::start()?);
    let plugin = &PLUGINS[0];
    let (_, manifest) = releases.publish(plugin, "v1.0.0")?;
    let file = home.path().join(format!("{}.yaml", plugin.name));
    fs::write(&file, manifest.replace("sha256: ", "sha256: X"))?;
    validate(&home, &file, &["-skip-install"])?.failure("sha256")
}
