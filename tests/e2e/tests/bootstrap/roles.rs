//! `rbac`: the three bindings, made once, known by what they bind; and an alarm where tokens are given more. And what a user
//! reads who may do nothing.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{self, bare, by_kubeadm, desk};

#[tokio::test(flavor = "multi_thread")]
async fn the_bindings_are_made_once() -> Result<()> {
    let desk = desk(bare().await?).await?;
    let group = "system:bootstrappers:once";
    let show = ["rbac", "show", "--group", group, "-o", "json"];
    let before: Value = serde_json::from_str(&desk.bootstrap_token(show).run().await?.expect(0)?.stdout)?;
    ensure!(before["complete"] == false, "{before}");
    let apply = ["rbac", "apply", "--group", group];
    let dry = desk
        .bootstrap_token(apply.iter().chain(&["--dry-run=server"]))
        .run()
        .await?
        .expect(0)?;
    ensure!(dry.stdout.contains("created (server dry run)"), "{dry}");
    let first = desk.bootstrap_token(apply).run().await?.expect(0)?;
    ensure!(first.stdout.matches(" created\n").count() >= 2, "{first}");
    let second = desk.bootstrap_token(apply).run().await?.expect(0)?;
    ensure!(second.stdout.matches(" unchanged\n").count() == 3, "{second}");
    let after: Value = serde_json::from_str(&desk.bootstrap_token(show).run().await?.expect(0)?.stdout)?;
    ensure!(after["complete"] == true, "{after}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubeadm_has_made_is_recognised_and_is_no_alarm() -> Result<()> {
    let desk = desk(by_kubeadm().await?).await?;
    let shown = desk.bootstrap_token(["rbac", "show"]).run().await?.expect(0)?;
    for binding in [
        "kubeadm:kubelet-bootstrap",
        "kubeadm:node-autoapprove-bootstrap",
        "kubeadm:node-autoapprove-certificate-rotation",
    ] {
        ensure!(shown.stdout.contains(binding), "{shown}");
    }
    ensure!(!shown.stderr.contains("Warning"), "{shown}");
    let applied = desk.bootstrap_token(["rbac", "apply"]).run().await?.expect(0)?;
    ensure!(applied.stdout.matches(" unchanged\n").count() == 3, "{applied}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_has_more_than_it_needs_raises_an_alarm() -> Result<()> {
    let desk = desk(bare().await?).await?;
    let group = "system:bootstrappers:too-much";
    let bind = [
        "create",
        "clusterrolebinding",
        "too-much",
        "--clusterrole=cluster-admin",
        &format!("--group={group}"),
    ];
    desk.kubectl(bind).run().await?.expect(0)?;
    let shown = desk
        .bootstrap_token(["rbac", "show", "--group", "system:bootstrappers:any"])
        .run()
        .await?
        .expect(0)?;
    let alarm = format!(
        "ClusterRoleBinding too-much gives tokens of {group} more than joining needs: ClusterRole cluster-admin"
    );
    ensure!(shown.stderr.contains(&alarm), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_no_node_could_join_with_is_made_with_a_warning() -> Result<()> {
    let desk = desk(bare().await?).await?;
    let made = desk
        .bootstrap_token(["create", "--groups", "system:bootstrappers:unbound"])
        .run()
        .await?
        .expect(0)?;
    ensure!(made.stderr.contains("a node cannot join with it"), "{made}");
    ensure!(
        made.stderr.contains("rbac apply --group system:bootstrappers:unbound"),
        "{made}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_reads_which_rule_is_missing() -> Result<()> {
    let plane = bare().await?;
    let admin = desk(plane).await?;
    let token = cluster::create(&admin, &[]).await?;
    let desk = cluster::desk_without_rights(plane).await?;
    for (args, verb) in [
        (vec!["list"], "list"),
        (vec!["create"], "create"),
        (vec!["revoke", &token.id, "--yes"], "get"),
        (vec!["extend", &token.id, "--ttl", "1h"], "get"),
        (vec!["verify", &token.id], "get"),
        (vec!["kubeconfig", &token.id], "get"),
    ] {
        let refused = desk.bootstrap_token(&args).run().await?.expect(1)?;
        let rule = format!("resources: [\"secrets\"], verbs: [\"{verb}\"]");
        ensure!(refused.stdout.is_empty() && refused.stderr.contains(&rule), "{refused}");
    }
    let rbac = desk.bootstrap_token(["rbac", "show"]).run().await?.expect(1)?;
    ensure!(rbac.stderr.contains("clusterrolebindings"), "{rbac}");
    // Whoever has a token may ask about it, and needs nothing else.
    let verified = desk
        .bootstrap_token(["verify", "--token-stdin", "-o", "json"])
        .stdin(token.text.clone());
    let verified: Value = serde_json::from_str(&verified.run().await?.expect(0)?.stdout)?;
    ensure!(
        verified["accepted"] == "yes" && verified["user"] == json!(format!("system:bootstrap:{}", token.id)),
        "{verified}"
    );
    Ok(())
}
