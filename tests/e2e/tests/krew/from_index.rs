//! An index of our own, as `krew/plugins` is one: added, searched, installed from, upgraded by, and left again.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use release::{PLUGINS, Plugin, archive};

use crate::home::Home;
use crate::shop::{Shop, this_platform};

/// Somebody who has added the index of a project with all plugins at v1.0.0.
fn with_index() -> Result<(Home, Shop)> {
    let (home, shop) = (Home::new()?, Shop::open()?);
    for plugin in PLUGINS {
        let (_, manifest) = shop.publish(plugin, "v1.0.0")?;
        shop.commit(&home, plugin, &manifest)?;
    }
    home.krew(&["index", "add", "rotation", &shop.index()])?.well()?;
    Ok((home, shop))
}

fn in_index(plugin: &Plugin) -> String {
    format!("rotation/{}", plugin.name)
}

/// What kubectl would run.
fn linked(home: &Home, plugin: &Plugin) -> Option<PathBuf> {
    std::fs::read_link(home.path().join("krew/bin").join(plugin.binary())).ok()
}

#[test]
fn each_plugin_is_found_installed_upgraded_and_uninstalled() -> Result<()> {
    let (home, shop) = with_index()?;
    for plugin in PLUGINS {
        let found = home.krew(&["search", plugin.name])?.well()?;
        ensure!(found.stdout.contains(plugin.short_description), "{found}");
        home.krew(&["install", &in_index(plugin)])?.well()?;
        home.kubectl(&[plugin.name, "--help"])?.well()?;

        let (_, manifest) = shop.publish(plugin, "v1.1.0")?;
        shop.commit(&home, plugin, &manifest)?;
        home.krew(&["upgrade", plugin.name])?.well()?;
        let link = linked(&home, plugin).unwrap_or_default();
        ensure!(
            link.ends_with(format!("{}/v1.1.0/{}", plugin.name, plugin.binary())),
            "{link:?}"
        );
        home.kubectl(&[plugin.name, "--help"])?.well()?;

        home.krew(&["uninstall", plugin.name])?.well()?;
        ensure!(linked(&home, plugin).is_none(), "the link is gone");
        home.kubectl(&[plugin.name, "--help"])?.refused("unknown command")?;
    }
    Ok(())
}

#[test]
fn completion_that_was_set_up_once_goes_on_after_an_upgrade() -> Result<()> {
    let (home, shop) = with_index()?;
    for plugin in PLUGINS {
        home.krew(&["install", &in_index(plugin)])?.well()?;
        let shim = home.kubectl(&[plugin.name, "completion"])?.well()?;
        let name = plugin.binary().replacen('-', "_complete-", 1);
        home.save_program(&name, &shim.stdout)?;
        let complete = || home.kubectl(&["__complete", plugin.name, "lis"]);
        let before = complete()?.well()?;
        ensure!(before.stdout.starts_with("list\t"), "{before}");

        let (_, manifest) = shop.publish(plugin, "v1.1.0")?;
        shop.commit(&home, plugin, &manifest)?;
        home.krew(&["upgrade", plugin.name])?.well()?;
        let old = home.path().join("krew/store").join(plugin.name).join("v1.0.0");
        ensure!(!old.exists(), "krew has kept the old version, so this proves nothing");
        let after = complete()?.well()?;
        ensure!(after.stdout == before.stdout, "{after}");
    }
    Ok(())
}

#[test]
fn an_upgrade_with_a_wrong_sum_leaves_the_installed_version() -> Result<()> {
    let (home, shop) = with_index()?;
    for plugin in PLUGINS {
        home.krew(&["install", &in_index(plugin)])?.well()?;
        shop.publish(plugin, "v1.1.0")?;
        let other = [(this_platform()?, archive::sum(b"another archive"))];
        shop.commit(&home, plugin, &shop.release("v1.1.0").manifest(plugin, &other)?)?;

        home.krew(&["upgrade", plugin.name])?
            .refused("checksum does not match")?;
        let link = linked(&home, plugin).unwrap_or_default();
        ensure!(
            link.ends_with(format!("{}/v1.0.0/{}", plugin.name, plugin.binary())),
            "{link:?}"
        );
        home.kubectl(&[plugin.name, "--help"])?.well()?;
    }
    Ok(())
}

#[test]
fn this_repository_is_an_index() -> Result<()> {
    let (home, shop) = (Home::new()?, Shop::open()?);
    for plugin in PLUGINS {
        shop.commit(&home, plugin, &crate::validate::committed(plugin)?)?;
    }
    home.krew(&["index", "add", "rotation", &shop.index()])?.well()?;
    for plugin in PLUGINS {
        let info = home.krew(&["info", &in_index(plugin)])?.well()?;
        ensure!(info.stdout.contains(&plugin.homepage()), "{info}");
    }
    Ok(())
}
