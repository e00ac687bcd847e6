//! `kubectl bootstrap-token rbac`

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::cluster::{bare, by_kubeadm, shell};

#[tokio::test(flavor = "multi_thread")]
async fn rbac_apply_creates_bindings_once() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let group = "system:bootstrappers:once";
    let show = ["rbac", "show", "--group", group, "-o", "json"];
    let before: Value = serde_json::from_str(&shell.bootstrap_token(show).run().await?.expect(0)?.stdout)?;
    ensure!(before["complete"] == false, "{before}");
    let shown = shell.bootstrap_token(&show[..4]).run().await?.expect(0)?;
    let hinted = shell
        .follow(&shown, "kubectl bootstrap-token rbac apply", &["--dry-run=server"])
        .await?;
    let hinted = hinted.expect(0)?;
    ensure!(hinted.stdout.contains("created (server dry run)"), "{hinted}");
    let apply = ["rbac", "apply", "--group", group];
    let dry = shell
        .bootstrap_token(apply.iter().chain(&["--dry-run=server"]))
        .run()
        .await?
        .expect(0)?;
    ensure!(dry.stdout.contains("created (server dry run)"), "{dry}");
    let first = shell.bootstrap_token(apply).run().await?.expect(0)?;
    ensure!(first.stdout.matches(" created\n").count() >= 2, "{first}");
    let second = shell.bootstrap_token(apply).run().await?.expect(0)?;
    ensure!(second.stdout.matches(" unchanged\n").count() == 3, "{second}");
    let after: Value = serde_json::from_str(&shell.bootstrap_token(show).run().await?.expect(0)?.stdout)?;
    ensure!(after["complete"] == true, "{after}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rbac_recognizes_bindings_made_by_kubeadm() -> Result<()> {
    let shell = shell(by_kubeadm().await?).await?;
    let output = shell.bootstrap_token(["rbac", "show"]).run().await?.expect(0)?;
    for binding in [
        "kubeadm:kubelet-bootstrap",
        "kubeadm:node-autoapprove-bootstrap",
        "kubeadm:node-autoapprove-certificate-rotation",
    ] {
        ensure!(output.stdout.contains(binding), "{output}");
    }
    ensure!(!output.stderr.contains("Warning"), "{output}");
    let applied = shell.bootstrap_token(["rbac", "apply"]).run().await?.expect(0)?;
    ensure!(applied.stdout.matches(" unchanged\n").count() == 3, "{applied}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rbac_show_warns_about_excessive_permissions() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let group = "system:bootstrappers:too-much";
    let bind = [
        "create",
        "clusterrolebinding",
        "too-much",
        "--clusterrole=cluster-admin",
        &format!("--group={group}"),
    ];
    shell.kubectl(bind).run().await?.expect(0)?;
    let output = shell
        .bootstrap_token(["rbac", "show", "--group", "system:bootstrappers:any"])
        .run()
        .await?
        .expect(0)?;
    let warning = format!(
        "ClusterRoleBinding too-much grants tokens in {group} more than joining needs: ClusterRole cluster-admin"
    );
    ensure!(output.stderr.contains(&warning), "{output}");
    Ok(())
}
