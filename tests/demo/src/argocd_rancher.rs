//! The demo of `kubectl argocd-rancher`: it adds clusters of Rancher to Argo CD, verifies a token, and rotates it.

use anyhow::Result;

use crate::presenter::Presenter;

pub(crate) async fn play(show: &mut Presenter<'_>) -> Result<()> {
    Presenter::title("kubectl argocd-rancher: the Rancher API tokens that Argo CD uses");
    show.kubectl(
        "Select the cluster where Argo CD runs:",
        "config use-context management",
    )
    .await?;
    show.kubectl(
        "The demo does not run Argo CD itself. The plugin only needs the Secrets in its namespace.",
        "create namespace argocd",
    )
    .await?;
    show.kubectl(
        "Add two clusters to Argo CD, each with a token for that cluster only:",
        "argocd-rancher add prod-eu prod-us --rancher-context rancher",
    )
    .await?;
    show.kubectl(
        "List the clusters and their tokens:",
        "argocd-rancher list --rancher-context rancher",
    )
    .await?;
    show.kubectl(
        "Check that a token works, and has the permissions that Argo CD needs:",
        "argocd-rancher verify prod-eu",
    )
    .await?;
    show.kubectl(
        "Rotate the token. (In production, keep the default `--grace` of one minute: Argo CD may write back a stale copy of \
         the Secret, and a sync keeps the token that it started with.)",
        "argocd-rancher rotate prod-eu --grace 2s --yes --rancher-context rancher",
    )
    .await?;
    show.kubectl("List them again:", "argocd-rancher list --rancher-context rancher")
        .await
}
