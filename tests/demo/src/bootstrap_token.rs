//! The job of `kubectl bootstrap-token`: a machine joins with a token, which is then changed where it is kept, and
//! revoked.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::show::Presenter;

const GROUP: &str = "system:bootstrappers:racks";
const NODE: &str = "rack-7";
const FILE: &str = "bootstrap-kubelet.conf";

pub(crate) async fn play(show: &mut Presenter<'_>) -> Result<()> {
    Presenter::title("kubectl bootstrap-token: the tokens that machines join a cluster with");
    show.kubectl(
        "It is about the cluster that the machines join:",
        "config use-context management",
    )
    .await?;
    show.kubectl(
        "What a machine may do with its token, for machines in racks:",
        &format!("bootstrap-token rbac apply --group {GROUP}"),
    )
    .await?;
    let create = format!(
        "bootstrap-token create --ttl 20m --usages authentication --groups {GROUP} --description racks -o kubeconfig"
    );
    let file = show
        .kubectl_into("A token, in the file that a kubelet starts from:", &create, FILE)
        .await?;
    show.kubectl(
        "Every token, never its secret, and whether it works:",
        "bootstrap-token list",
    )
    .await?;

    Presenter::say(&format!(
        "A real kubelet starts with nothing but that: kubelet --bootstrap-kubeconfig {FILE} --hostname-override {NODE}"
    ));
    let kubelet = show.environment().management().await?.join_node(NODE, &file)?;
    let wait = |condition: &str| format!("wait --for={condition} node/{NODE} --timeout=2m");
    show.kubectl("It asks for a certificate, gets it, and joins:", &wait("create"))
        .await?;
    show.kubectl("", &wait("condition=Ready")).await?;
    change(show, &file).await?;
    show.kubectl("The machine that has joined stays:", "get nodes").await?;
    kubelet.end().await;
    Ok(())
}

/// The token is rotated where it stands, and then revoked.
async fn change(show: &mut Presenter<'_>, file: &Path) -> Result<()> {
    let old = id_in(file)?;
    show.kubectl(
        "Another token takes its place, in the file too. Here the old one ends at once; in earnest it overlaps, for \
         machines that have read it:",
        &format!("bootstrap-token rotate {old} --deliver file:{FILE} --overlap 0s --yes"),
    )
    .await?;
    let new = id_in(file)?;
    ensure!(old != new, "the file still holds token {old}");
    show.kubectl("Only the new one is left:", "bootstrap-token list")
        .await?;
    show.kubectl(
        "The API server is asked with the token itself:",
        &format!("bootstrap-token verify {new}"),
    )
    .await?;
    show.kubectl(
        "No machine shall join any more. It ends when the API server really refuses the token:",
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
