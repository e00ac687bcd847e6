//! `kubectl argocd-rancher list`

use anyhow::Result;
use expectrl::Expect as _;
use serde_json::{Value, json};

use crate::fixture::{Fixture, token};

async fn single_row(fixture: &Fixture, args: &[&str]) -> Result<Value> {
    let listed = fixture
        .run(&[&["list", "-o", "json"], args].concat())
        .run()
        .await?
        .expect(0)?;
    let document: Value = serde_json::from_str(&listed.stdout)?;
    assert_eq!(document["items"].as_array().map(Vec::len), Some(1), "{document:#}");
    Ok(document["items"][0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_cluster_scope_owner_expiry_and_last_use() -> Result<()> {
    let fixture = Fixture::begin("kiel").await?;
    let empty = fixture.run(&["list"]).run().await?.expect(0)?;
    assert_eq!(empty.stdout, "");
    assert!(empty.stderr.contains("No clusters of Rancher found"), "{empty}");
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    // A cluster that is not behind Rancher is not listed.
    let login = json!({"bearerToken": "x", "tlsClientConfig": {"insecure": false}});
    fixture.by_hand("elsewhere", "https://10.0.0.1:6443", &login).await?;

    let row = single_row(&fixture, &[]).await?;
    let valid_tokens = fixture.valid_tokens().await?;
    assert_eq!(row["cluster"], fixture.id());
    assert_eq!(
        (&row["scope"], &row["state"]),
        (&json!(fixture.id()), &json!("current")),
        "{row:#}"
    );
    assert_eq!(row["token"], json!(valid_tokens[0]));
    assert_eq!(row["owner"], "user-admin");
    // The check of `add` has used the token.
    assert!(row["expiresAt"].is_string() && row["lastUsedAt"].is_string(), "{row:#}");
    let table = fixture.run(&["list"]).run().await?.expect(0)?;
    assert!(table.stdout.starts_with("SECRET "), "{table}");
    assert!(
        table.stdout.contains(" 89d ") || table.stdout.contains(" 90d "),
        "{table}"
    );
    // Without a connection to Rancher, the annotations of the Secret are shown.
    let offline = fixture.bare(&["list", "-o", "json"]).run().await?.expect(0)?;
    let offline: Value = serde_json::from_str(&offline.stdout)?;
    assert_eq!(
        (&offline["items"][0]["owner"], &offline["items"][0]["scope"]),
        (&json!("user-admin"), &Value::Null)
    );
    assert_eq!(offline["items"][0]["expiresAt"], row["expiresAt"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_distinguishes_disabled_expired_and_revoked_tokens() -> Result<()> {
    let fixture = Fixture::begin("bonn").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let name = fixture.valid_tokens().await?.remove(0);
    let rancher = fixture.base.rancher;

    rancher.change_token(&name, &json!({"enabled": false})).await?;
    assert_eq!(single_row(&fixture, &[]).await?["state"], "disabled");
    let table = fixture.run(&["list"]).run().await?.expect(0)?;
    assert!(table.stderr.contains("-o wide prints the reasons"), "{table}");
    let wide = fixture.run(&["list", "-o", "wide"]).run().await?.expect(0)?;
    assert!(
        wide.stdout.contains("it is disabled") && !wide.stderr.contains("-o wide"),
        "{wide}"
    );
    assert_eq!(single_row(&fixture, &["--probe"]).await?["state"], "rejected");
    rancher.change_token(&name, &json!({"enabled": true})).await?;
    assert_eq!(single_row(&fixture, &["--probe"]).await?["probed"], "accepted");

    rancher.change_token(&name, &json!({"expired": true})).await?;
    assert_eq!(single_row(&fixture, &[]).await?["state"], "expired");

    // Its owner deletes it in Rancher.
    let admin = rancher.client("", Some(&test_cluster::User::admin()))?;
    let delete = http::Request::delete(format!("/v3/tokens/{name}")).body(Vec::new())?;
    admin.request_text(delete).await?;
    assert_eq!(single_row(&fixture, &[]).await?["state"], "revoked");

    // `add` replaces it.
    let added = fixture.run(&["add", fixture.id(), "--yes"]).run().await?.expect(0)?;
    assert!(added.stdout.contains("adopted"), "{added}");
    assert_eq!(single_row(&fixture, &["--probe"]).await?["state"], "current");
    assert!(token(&fixture.secret().await?)?.starts_with(&fixture.valid_tokens().await?[0]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_probe_reports_a_disconnected_agent() -> Result<()> {
    let fixture = Fixture::begin("emden").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let (rancher, cluster) = (fixture.base.rancher, &fixture.base.cluster);
    rancher.offline(cluster, std::time::Duration::from_mins(10)).await?;
    let row = single_row(&fixture, &["--probe"]).await?;
    assert_eq!(
        (&row["state"], &row["probed"]),
        (&json!("failing"), &json!("agent-offline")),
        "{row:#}"
    );
    rancher.online(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cluster_there_is_a_list_to_select_from() -> Result<()> {
    let fixture = Fixture::begin("skien").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    for command in ["status", "verify"] {
        let mut terminal = fixture.run(&[command]).on_terminal()?;
        let several = if command == "verify" { " " } else { "" };
        let shown = tokio::task::block_in_place(|| -> Result<String> {
            terminal.expect(format!("Select what to {command}"))?;
            terminal.expect("SECRET")?;
            terminal.expect("skien")?;
            terminal.send(format!("{several}\r"))?;
            let rest = terminal.expect(expectrl::Eof)?;
            Ok(String::from_utf8_lossy(rest.as_bytes()).into_owned())
        })?;
        assert!(shown.contains(fixture.id()), "{command}: {shown}");
        let piped = fixture.run(&[command]).run().await?.expect(2)?;
        assert!(piped.stderr.contains("<CLUSTER>"), "{piped}");
    }
    Ok(())
}
