//! The demo of `kubectl bootstrap-token`: a node joins with a token, which is then rotated in the file that holds it,
//! and revoked.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::presenter::Presenter;

const GROUP: &str = "system:bootstrappers:racks";
const NODE: &str = "rack-7";
const FILE: &str = "bootstrap-kubelet.conf";

pub(crate) async fn play(show: &mut Presenter<'_>) -> Result<()> {
    Presenter::title("kubectl bootstrap-token: the tokens that nodes join a cluster with");
    show.kubectl(
        "Select the cluster that the nodes join:",
        "config use-context management",
    )
    .await?;
    show.kubectl(
        "Grant the group of these tokens the permissions for joining:",
        &format!("bootstrap-token rbac apply --group {GROUP}"),
    )
    .await?;
    let create = format!(
        "bootstrap-token create --ttl 20m --usages authentication --groups {GROUP} --description racks -o kubeconfig"
    );
    let file = show
        .kubectl_into(
            "Create a token, and write it to the bootstrap kubeconfig of a kubelet:",
            &create,
            FILE,
        )
        .await?;
    show.kubectl(
        "List the tokens and their state, without their secrets:",
        "bootstrap-token list",
    )
    .await?;

    Presenter::say(&format!(
        "Start a real kubelet with this file: kubelet --bootstrap-kubeconfig {FILE} --hostname-override {NODE}"
    ));
    let kubelet = show.environment().management().await?.join_node(NODE, &file)?;
    let wait = |condition: &str| format!("wait --for={condition} node/{NODE} --timeout=2m");
    show.kubectl("The kubelet requests a certificate, and joins:", &wait("create"))
        .await?;
    show.kubectl("", &wait("condition=Ready")).await?;
    change(show, &file).await?;
    show.kubectl("The node stays in the cluster:", "get nodes").await?;
    kubelet.end().await;
    Ok(())
}

/// Rotates the token in the file, and revokes it.
async fn change(show: &mut Presenter<'_>, file: &Path) -> Result<()> {
    let old = id_in(file)?;
    show.kubectl(
        "Rotate the token, in the file too. (In production, keep an overlap, for machines that have already read the old \
         token.)",
        &format!("bootstrap-token rotate {old} --deliver file:{FILE} --overlap 0s --yes"),
    )
    .await?;
    let new = id_in(file)?;
    ensure!(old != new, "the file still holds token {old}");
    show.kubectl("Only the new token is left:", "bootstrap-token list")
        .await?;
    show.kubectl(
        "Verify it with a request to the API server:",
        &format!("bootstrap-token verify {new}"),
    )
    .await?;
    show.kubectl(
        "Revoke it. The command ends when the API server rejects the token:",
        &format!("bootstrap-token revoke {new} --yes"),
    )
    .await
}

/// The id of the token in a kubeconfig: `token: abcdef.…`
fn id_in(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let token = text.lines().find_map(|line| line.trim().strip_prefix("token: "));
    let (id, _) = token
        .and_then(|token| token.trim_matches('"').split_once('.'))
        .with_context(|| format!("{} holds no token", file.display()))?;
    Ok(id.to_owned())
}
