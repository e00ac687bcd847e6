//! Help, version and completion.

use anyhow::{Result, ensure};

use crate::cluster::{self, bare, shell};

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_help_with_examples() -> Result<()> {
    let shell = shell(bare().await?).await?;
    for command in [
        "create",
        "list",
        "generate",
        "revoke",
        "extend",
        "verify",
        "rbac",
        "kubeconfig",
        "server-token",
        "version",
        "completion",
    ] {
        let help = shell
            .kubectl(["bootstrap-token", command, "--help"])
            .run()
            .await?
            .expect(0)?;
        ensure!(
            help.stdout.contains("Examples:\n  #") && help.stdout.contains("kubectl bootstrap-token"),
            "{help}"
        );
    }
    let version = shell.kubectl(["bootstrap-token", "version"]).run().await?.expect(0)?;
    ensure!(version.stdout.contains("Kubernetes Version: v1."), "{version}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_offers_token_ids() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let token = cluster::create(&shell, &["--description", "for completion"]).await?;
    for command in ["revoke", "extend", "verify", "kubeconfig"] {
        let found = shell
            .bootstrap_token(["__complete", command, &token.id[..3]])
            .run()
            .await?
            .expect(0)?;
        ensure!(
            found.stdout.contains(&format!("{}\tfor completion", token.id)),
            "{found}"
        );
    }
    Ok(())
}
