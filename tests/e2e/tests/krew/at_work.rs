//! What krew has installed does its work: a verb of each plugin that asks a real API server, through the real kubectl.

use anyhow::{Result, ensure};
use release::PLUGINS;
use testbed::{Bed, Era, Registration};

use crate::by_hand::install;
use crate::home::Home;
use crate::shop::Shop;

/// Where Argo CD would be.
const ARGO_CD: &str = "argocd-by-krew";

#[tokio::test(flavor = "multi_thread")]
async fn each_plugin_works_on_a_cluster_once_it_is_installed() -> Result<()> {
    let (home, shop) = (Home::new()?, Shop::open()?);
    for plugin in PLUGINS {
        let (archive, manifest) = shop.publish(plugin, "v1.0.0")?;
        install(&home, plugin, &manifest, &archive)?.well()?;
    }
    let rancher = Bed::shared().await?.rancher(Era::Secret).await?;
    let cluster = rancher.register_as(&Registration::imported("by-krew").quick()).await?;
    home.save_kubeconfig(&rancher.kubeconfig())?;

    let listed = home
        .kubectl(&["crt", "list", &cluster.id, "--context", "rancher"])?
        .well()?;
    ensure!(listed.stdout.contains("by-krew"), "{listed}");

    let made = home
        .kubectl(&["bootstrap-token", "create", "--context", "management"])?
        .well()?;
    let (id, _) = made.stdout.split_once('.').unwrap_or_default();
    let tokens = home
        .kubectl(&["bootstrap-token", "list", "--context", "management"])?
        .well()?;
    ensure!(tokens.stdout.contains(id) && !id.is_empty(), "{tokens}");

    let management = ["--context", "management"];
    home.kubectl(&[&["create", "namespace", ARGO_CD], &management[..]].concat())?
        .well()?;
    let sides = [&management[..], &["-n", ARGO_CD, "--rancher-context", "rancher"]].concat();
    home.kubectl(&[&["argocd-rancher", "add", &cluster.id], &sides[..]].concat())?
        .well()?;
    let clusters = home
        .kubectl(&[&["argocd-rancher", "list"], &sides[..]].concat())?
        .well()?;
    ensure!(clusters.stdout.contains("by-krew"), "{clusters}");
    Ok(())
}
