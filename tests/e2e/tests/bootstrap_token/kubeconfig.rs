//! `kubectl bootstrap-token kubeconfig`, and real kubelets that join with what it prints.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::until;
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::cluster::{self, bare, by_kubeadm, file, ready, shell};

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_joins_with_the_printed_kubeconfig_until_revoke() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let group = "system:bootstrappers:joining";
    shell
        .bootstrap_token(["rbac", "apply", "--group", group])
        .run()
        .await?
        .expect(0)?;
    let token = cluster::create(
        &shell,
        &["--usages", "authentication", "--groups", group, "--ttl", "15m"],
    )
    .await?;
    let printed = shell
        .bootstrap_token(["kubeconfig", &token.id])
        .run()
        .await?
        .expect(0)?;
    let bootstrap = file(&shell, "bootstrap-kubelet.conf", &printed.stdout)?;

    let first = plane.join_node("joined-with-a-token", &bootstrap)?;
    ready(plane, "joined-with-a-token").await?;
    ensure!(first.ended().is_none());

    let revoked = shell
        .bootstrap_token(["revoke", &token.id, "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(revoked.stdout == format!("token {} revoked\n", token.id), "{revoked}");
    ensure!(
        !cluster::is_accepted(plane, &token.text).await?,
        "the token is accepted after revoke has ended"
    );

    let second = plane.join_node("too-late", &bootstrap)?;
    until("the second kubelet to be rejected", async || {
        let log = std::fs::read_to_string(second.log())?;
        // The message of client-go for 401.
        Ok(log
            .contains("the server has asked for the client to provide credentials")
            .then_some(()))
    })
    .await?;
    let nodes: Api<Node> = Api::all(plane.client().await?);
    ensure!(nodes.get_opt("too-late").await?.is_none(), "the node has joined");
    // A node that has joined has its own certificate.
    ensure!(first.ended().is_none());
    ready(plane, "joined-with-a-token").await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconfig_requires_a_choice_when_cluster_info_and_kubeconfig_differ() -> Result<()> {
    let plane = by_kubeadm().await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &[]).await?;
    let agreed = shell
        .bootstrap_token(["kubeconfig", &token.id])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        agreed.stdout.contains(&format!("server: {}", plane.url())),
        "the address differs"
    );
    ensure!(
        agreed.stdout.contains(&STANDARD.encode(plane.authority().ca_pem())),
        "the authority differs"
    );
    ensure!(agreed.stdout.contains(&token.text), "no token");

    // The same server under another name.
    let other = plane.url().replace("127.0.0.1", "localhost");
    let by_name = ["kubeconfig", &token.id, "--server", &other];
    let refused = shell.bootstrap_token(by_name).run().await?.expect(1)?;
    ensure!(
        refused.stdout.is_empty() && refused.stderr.contains("kubeconfig in use differ"),
        "{refused}"
    );
    cluster::prints_nothing_of(&refused, token.secret())?;
    for (source, server) in [("cluster-info", plane.url()), ("kubeconfig", other.as_str())] {
        let args = by_name.iter().copied().chain(["--endpoint-from", source]);
        let chosen = shell.bootstrap_token(args).run().await?.expect(0)?;
        ensure!(
            chosen.stdout.contains(&format!("server: {server}")),
            "{source}: the address differs"
        );
    }
    Ok(())
}
