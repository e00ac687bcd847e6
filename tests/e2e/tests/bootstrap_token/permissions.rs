//! Commands of a user without permissions name the missing rule.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{self, bare, shell};

#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_are_named() -> Result<()> {
    let plane = bare().await?;
    let admin = shell(plane).await?;
    let token = cluster::create(&admin, &[]).await?;
    let shell = cluster::shell_without_permissions(plane).await?;
    for (args, verb) in [
        (vec!["list"], "list"),
        (vec!["create"], "create"),
        (vec!["revoke", &token.id, "--yes"], "get"),
        (vec!["extend", &token.id, "--ttl", "1h"], "get"),
        (vec!["verify", &token.id], "get"),
        (vec!["kubeconfig", &token.id], "get"),
    ] {
        let refused = shell.bootstrap_token(&args).run().await?.expect(1)?;
        let rule = format!("resources: [\"secrets\"], verbs: [\"{verb}\"]");
        ensure!(refused.stdout.is_empty() && refused.stderr.contains(&rule), "{refused}");
    }
    let rbac = shell.bootstrap_token(["rbac", "show"]).run().await?.expect(1)?;
    ensure!(rbac.stderr.contains("clusterrolebindings"), "{rbac}");
    // Verifying a given token needs no permission.
    let verified = shell
        .bootstrap_token(["verify", "--token-stdin", "-o", "json"])
        .stdin(token.text.clone());
    let verified: Value = serde_json::from_str(&verified.run().await?.expect(0)?.stdout)?;
    ensure!(
        verified["accepted"] == "yes" && verified["user"] == json!(format!("system:bootstrap:{}", token.id)),
        "{verified}"
    );
    Ok(())
}
