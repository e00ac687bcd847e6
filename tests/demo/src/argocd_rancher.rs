//! The job of `kubectl argocd-rancher`: clusters of Rancher are given to Argo CD, each with a token of its own, which is
//! proven, and then changed.

use anyhow::Result;

use crate::show::Presenter;

pub(crate) async fn play(show: &mut Presenter<'_>) -> Result<()> {
    Presenter::title("kubectl argocd-rancher: the tokens that Argo CD reaches Rancher's clusters by");
    show.kubectl(
        "It is about the cluster where Argo CD runs:",
        "config use-context management",
    )
    .await?;
    show.kubectl(
        "Argo CD itself is not here: all that counts are Secrets in its namespace.",
        "create namespace argocd",
    )
    .await?;
    show.kubectl(
        "Two clusters, each with a token for that cluster alone:",
        "argocd-rancher add prod-eu prod-us --rancher-context rancher",
    )
    .await?;
    show.kubectl("What Argo CD has now:", "argocd-rancher list --rancher-context rancher")
        .await?;
    show.kubectl(
        "Would Argo CD get through with it, and may it do what Argo CD does?",
        "argocd-rancher verify prod-eu",
    )
    .await?;
    show.kubectl(
        "Another token takes its place. Here the Secret is watched for 2 s; in earnest for a minute, because Argo CD may \
         write an old copy of it back, and a sync goes on with the token that it began with:",
        "argocd-rancher rotate prod-eu --grace 2s --yes --rancher-context rancher",
    )
    .await?;
    show.kubectl("Afterwards:", "argocd-rancher list --rancher-context rancher")
        .await
}
