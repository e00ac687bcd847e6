//! A node joins with what was printed, and after `revoke` none does.

use anyhow::{Result, ensure};
use e2e::until;
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::cluster::{self, bare, desk, file, ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_joins_with_what_was_printed_and_none_does_after_revoke() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let group = "system:bootstrappers:joining";
    desk.bootstrap_token(["rbac", "apply", "--group", group])
        .run()
        .await?
        .expect(0)?;
    let token = cluster::create(
        &desk,
        &["--usages", "authentication", "--groups", group, "--ttl", "15m"],
    )
    .await?;
    let printed = desk.bootstrap_token(["kubeconfig", &token.id]).run().await?.expect(0)?;
    let bootstrap = file(&desk, "bootstrap-kubelet.conf", &printed.stdout)?;

    let first = plane.join_node("joined-with-a-token", &bootstrap)?;
    ready(plane, "joined-with-a-token").await?;
    ensure!(first.ended().is_none());

    let revoked = desk
        .bootstrap_token(["revoke", &token.id, "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(revoked.stdout == format!("token {} revoked\n", token.id), "{revoked}");
    ensure!(
        !cluster::is_let_in(plane, &token.text).await?,
        "it is let in after revoke has ended"
    );

    let second = plane.join_node("too-late", &bootstrap)?;
    until("the second kubelet to be refused", async || {
        let log = std::fs::read_to_string(second.log())?;
        // In client-go's words: 401.
        Ok(log
            .contains("the server has asked for the client to provide credentials")
            .then_some(()))
    })
    .await?;
    let nodes: Api<Node> = Api::all(plane.client().await?);
    ensure!(nodes.get_opt("too-late").await?.is_none(), "it has joined");
    // Who has joined has a certificate of its own.
    ensure!(first.ended().is_none());
    ready(plane, "joined-with-a-token").await
}

#[tokio::test(flavor = "multi_thread")]
async fn create_prints_a_bootstrap_kubeconfig_in_one_go() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let group = "system:bootstrappers:in-one-go";
    desk.bootstrap_token(["rbac", "apply", "--group", group])
        .run()
        .await?
        .expect(0)?;
    let create = ["create", "--groups", group, "-o", "kubeconfig"];
    let printed = desk.bootstrap_token(create).run().await?.expect(0)?;
    let bootstrap = file(&desk, "bootstrap-kubelet.conf", &printed.stdout)?;
    let _kubelet = plane.join_node("joined-in-one-go", &bootstrap)?;
    ready(plane, "joined-in-one-go").await
}
