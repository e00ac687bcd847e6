//! The table, and what it prints for machines; help, version and completion.

use anyhow::{Result, ensure};

use crate::cluster::{self, bare, desk};

#[tokio::test(flavor = "multi_thread")]
async fn the_table_has_its_columns_and_every_form_prints() -> Result<()> {
    let desk = desk(bare().await?).await?;
    let token = cluster::create(&desk, &["--ttl", "5h", "--description", "a\tb", "-l", "story=table"]).await?;
    cluster::create(&desk, &[]).await?;
    let only = ["list", "-l", "story=table"];
    let list = async |more: &[&str]| desk.bootstrap_token(only.iter().chain(more)).run().await?.expect(0);
    let table = list(&[]).await?.stdout;
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(
        header == ["ID", "TTL", "EXPIRES", "USAGES", "GROUPS", "DESCRIPTION", "STATE"],
        "{table}"
    );
    ensure!(
        table.contains("authentication,signing") && table.contains("active"),
        "{table}"
    );
    let wide = list(&["-o", "wide", "--no-headers"]).await?.stdout;
    ensure!(
        wide.lines().count() == 1 && wide.contains(&format!("kube-system/bootstrap-token-{}", token.id)),
        "{wide}"
    );
    let path = list(&["-o", "jsonpath={.items[*].id}"]).await?.stdout;
    ensure!(path == token.id, "{path}");
    let columns = list(&["-o", "custom-columns=ID:.id,STATE:.state"]).await?.stdout;
    ensure!(
        columns == format!("ID       STATE\n{}   active\n", token.id),
        "{columns}"
    );
    let yaml = list(&["-o", "yaml"]).await?.stdout;
    ensure!(yaml.contains("kind: BootstrapTokenList"), "{yaml}");
    let by_age = [
        "list",
        "--sort-by",
        "{.metadata.creationTimestamp}",
        "-o",
        "jsonpath={.items[*].metadata.creationTimestamp}",
    ];
    let sorted = desk.bootstrap_token(by_age).run().await?.expect(0)?.stdout;
    let times: Vec<&str> = sorted.split(' ').collect();
    ensure!(times.len() > 1 && times.is_sorted(), "{sorted}");
    let none = desk
        .bootstrap_token(["list", "-l", "story=none"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        none.stdout.is_empty() && none.stderr == "No bootstrap tokens found.\n",
        "{none}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_has_help_with_examples_and_kubectl_finds_the_plugin() -> Result<()> {
    let desk = desk(bare().await?).await?;
    for verb in [
        "create",
        "list",
        "generate",
        "revoke",
        "extend",
        "verify",
        "rbac",
        "kubeconfig",
        "version",
        "completion",
    ] {
        let help = desk
            .kubectl(["bootstrap-token", verb, "--help"])
            .run()
            .await?
            .expect(0)?;
        ensure!(
            help.stdout.contains("Examples:\n  #") && help.stdout.contains("kubectl bootstrap-token"),
            "{help}"
        );
    }
    let version = desk.kubectl(["bootstrap-token", "version"]).run().await?.expect(0)?;
    ensure!(version.stdout.contains("Kubernetes Version: v1."), "{version}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_completed() -> Result<()> {
    let desk = desk(bare().await?).await?;
    let token = cluster::create(&desk, &["--description", "for completion"]).await?;
    for verb in ["revoke", "extend", "verify", "kubeconfig"] {
        let found = desk
            .bootstrap_token(["__complete", verb, &token.id[..3]])
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
