//! A krew index like `krew/plugins`: add, search, install, upgrade, uninstall.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use release::{PLUGINS, Plugin, archive};

use crate::home::KrewHome;
use crate::release_server::{ReleaseServer, this_platform};

/// A home directory with the index of a project that has released all plugins as v1.0.0.
fn with_index() -> Result<(KrewHome, ReleaseServer)> {
    let (home, releases) = (KrewHome::new()?, ReleaseServer::start()?);
    for plugin in PLUGINS {
        let (_, manifest) = releases.publish(plugin, "v1.0.0")?;
        releases.commit(&home, plugin, &manifest)?;
    }
    home.krew(&["index", "add", "rotation", &releases.index()])?.success()?;
    Ok((home, releases))
}

fn in_index(plugin: &Plugin) -> String {
    format!("rotation/{}", plugin.name)
}

/// The program that kubectl would run.
fn linked(home: &KrewHome, plugin: &Plugin) -> Option<PathBuf> {
    std::fs::read_link(home.path().join("krew/bin").join(plugin.binary())).ok()
}

#[test]
fn plugins_are_found_installed_upgraded_and_uninstalled() -> Result<()> {
    let (home, releases) = with_index()?;
    for plugin in PLUGINS {
        let found = home.krew(&["search", plugin.name])?.success()?;
        ensure!(found.stdout.contains(plugin.short_description), "{found}");
        home.krew(&["install", &in_index(plugin)])?.success()?;
        home.kubectl(&[plugin.name, "--help"])?.success()?;

        let (_, manifest) = releases.publish(plugin, "v1.1.0")?;
        releases.commit(&home, plugin, &manifest)?;
        home.krew(&["upgrade", plugin.name])?.success()?;
        let link = linked(&home, plugin).unwrap_or_default();
        ensure!(
            link.ends_with(format!("{}/v1.1.0/{}", plugin.name, plugin.binary())),
            "{link:?}"
        );
        home.kubectl(&[plugin.name, "--help"])?.success()?;

        home.krew(&["uninstall", plugin.name])?.success()?;
        ensure!(linked(&home, plugin).is_none(), "the link still exists");
        home.kubectl(&[plugin.name, "--help"])?.failure("unknown command")?;
    }
    Ok(())
}

#[test]
fn completion_works_after_an_upgrade() -> Result<()> {
    let (home, releases) = with_index()?;
    for plugin in PLUGINS {
        home.krew(&["install", &in_index(plugin)])?.success()?;
        let shim = home.kubectl(&[plugin.name, "completion"])?.success()?;
        let name = plugin.binary().replacen('-', "_complete-", 1);
        home.save_program(&name, &shim.stdout)?;
        let complete = || home.kubectl(&["__complete", plugin.name, "lis"]);
        let before = complete()?.success()?;
        ensure!(before.stdout.starts_with("list\t"), "{before}");

        let (_, manifest) = releases.publish(plugin, "v1.1.0")?;
        releases.commit(&home, plugin, &manifest)?;
        home.krew(&["upgrade", plugin.name])?.success()?;
        let old = home.path().join("krew/store").join(plugin.name).join("v1.0.0");
        ensure!(!old.exists(), "krew has kept the old version, so this test is void");
        let after = complete()?.success()?;
        ensure!(after.stdout == before.stdout, "{after}");
    }
    Ok(())
}

#[test]
fn an_upgrade_with_a_wrong_checksum_keeps_the_installed_version() -> Result<()> {
    let (home, releases) = with_index()?;
    for plugin in PLUGINS {
        home.krew(&["install", &in_index(plugin)])?.success()?;
        releases.publish(plugin, "v1.1.0")?;
        let other = [(this_platform()?, archive::sum(b"another archive"))];
        releases.commit(&home, plugin, &releases.release("v1.1.0").manifest(plugin, &other)?)?;

        home.krew(&["upgrade", plugin.name])?
            .failure("checksum does not match")?;
        let link = linked(&home, plugin).unwrap_or_default();
        ensure!(
            link.ends_with(format!("{}/v1.0.0/{}", plugin.name, plugin.binary())),
            "{link:?}"
        );
        home.kubectl(&[plugin.name, "--help"])?.success()?;
    }
    Ok(())
}

#[test]
fn this_repository_is_a_krew_index() -> Result<()> {
    let (home, releases) = (KrewHome::new()?, ReleaseServer::start()?);
    for plugin in PLUGINS {
        releases.commit(&home, plugin, &crate::validate::committed(plugin)?)?;
    }
    home.krew(&["index", "add", "rotation", &releases.index()])?.success()?;
    for plugin in PLUGINS {
        let info = home.krew(&["info", &in_index(plugin)])?.success()?;
        ensure!(info.stdout.contains(&plugin.homepage()), "{info}");
    }
    Ok(())
}
