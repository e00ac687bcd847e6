//! Installed plugins work: one command of each plugin against a real API server, through the real kubectl.

use anyhow::{Result, ensure};
use release::PLUGINS;
use test_cluster::{Registration, TestEnvironment, TokenStorage};

use crate::home::KrewHome;
use crate::local_files::install;
use crate::release_server::ReleaseServer;

/// The namespace that stands for Argo CD's.
const ARGO_CD: &str = "argocd-by-krew";

#[tokio::test(flavor = "multi_thread")]
async fn installed_plugins_work_on_a_cluster() -> Result<()> {
    let (home, releases) = (KrewHome::new()?, ReleaseServer::start()?);
    for plugin in PLUGINS {
        let (archive, manifest) = releases.publish(plugin, "v1.0.0")?;
        install(&home, plugin, &manifest, &archive)?.success()?;
    }
    let rancher = TestEnvironment::shared().await?.rancher(TokenStorage::Secret).await?;
    let cluster = rancher.register_as(&Registration::imported("by-krew").quick()).await?;
    home.save_kubeconfig(&rancher.kubeconfig())?;

    let listed = home
        .kubectl(&["crt", "list", &cluster.id, "--context", "rancher"])?
        .success()?;
    ensure!(listed.stdout.contains("by-krew"), "{listed}");

    let made = home
        .kubectl(&["bootstrap-token", "create", "--context", "management"])?
        .success()?;
    let (id, _) = made.stdout.split_once('.').unwrap_or_default();
    let tokens = home
        .kubectl(&["bootstrap-token", "list", "--context", "management"])?
        .success()?;
    ensure!(tokens.stdout.contains(id) && !id.is_empty(), "{tokens}");

    let management = ["--context", "management"];
    home.kubectl(&[&["create", "namespace", ARGO_CD], &management[..]].concat())?
        .success()?;
    let sides = [&management[..], &["-n", ARGO_CD, "--rancher-context", "rancher"]].concat();
    home.kubectl(&[&["argocd-rancher", "add", &cluster.id], &sides[..]].concat())?
        .success()?;
    let clusters = home
        .kubectl(&[&["argocd-rancher", "list"], &sides[..]].concat())?
        .success()?;
    ensure!(clusters.stdout.contains("by-krew"), "{clusters}");
    Ok(())
}
