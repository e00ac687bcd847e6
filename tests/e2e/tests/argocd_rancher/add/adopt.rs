//! `add` of a cluster that Argo CD already has.

use anyhow::Result;
use serde_json::json;

use crate::fixture::{Fixture, config, text, token};

#[tokio::test(flavor = "multi_thread")]
async fn add_adopts_a_secret_and_changes_only_its_token() -> Result<()> {
    let fixture = Fixture::begin("malmo").await?;
    let old = test_cluster::User::admin().token;
    let login = json!({"bearerToken": old, "futureField": {"kept": true}, "tlsClientConfig": {"insecure": false, "serverName": "127.0.0.1", "caData": fixture.ca_data()}});
    fixture
        .by_hand("mine", &format!("{}/", fixture.server()), &login)
        .await?;

    // Without a terminal there is no confirmation.
    let asked = fixture.run(&["add", fixture.id()]).run().await?.expect(1)?;
    assert!(
        asked.stderr.contains("will be replaced by a new token") || asked.stderr.contains("no terminal"),
        "{asked}"
    );
    assert!(fixture.valid_tokens().await?.is_empty());

    // `add` does not change fields that it does not own, and refuses flags that would.
    for flags in [["--name", "yours"], ["--label", "team=red"], ["--project", "red"]] {
        let args = [&["add", fixture.id(), "--yes"], flags.as_slice()].concat();
        let refused = fixture.run(&args).run().await?.expect(1)?;
        let says = format!("differs from {}", flags[0]);
        assert!(refused.stderr.contains(&says), "{refused}");
    }

    let added = fixture
        .run(&["add", fixture.id(), "--yes", "-l", "team=blue"])
        .run()
        .await?
        .expect(0)?;
    assert!(added.stdout.starts_with("secret/mine adopted"), "{added}");
    // The Secret held the admin's own token. It stays valid, because the plugin did not issue it.
    assert!(
        added.stdout.contains("the previous token token-admin is still valid"),
        "{added}"
    );
    let secret = fixture.secret().await?;
    assert_eq!(json!(secret.metadata.labels)["team"], "blue");
    let annotations = json!(secret.metadata.annotations);
    assert_eq!(annotations["note"], "by hand");
    assert_eq!(text(&secret, "shard")?, "3");
    let mut wanted = login.clone();
    wanted["bearerToken"] = json!(token(&secret)?);
    assert_eq!(config(&secret)?, wanted);
    assert_ne!(token(&secret)?, old);
    assert_eq!(
        json!(fixture.valid_tokens().await?),
        json!([annotations["kubectl-rotation.github.io/token"]])
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_refuses_duplicate_secrets_and_names() -> Result<()> {
    let fixture = Fixture::begin("gent").await?;
    let login = json!({"bearerToken": "token-x:y", "tlsClientConfig": {"insecure": false}});
    for name in ["first", "second"] {
        fixture.by_hand(name, &fixture.server(), &login).await?;
    }
    let refused = fixture.run(&["add", fixture.id(), "--yes"]).run().await?.expect(1)?;
    assert!(refused.stderr.contains("first, second"), "{refused}");
    assert!(fixture.valid_tokens().await?.is_empty());
    let listed = fixture.run(&["list"]).run().await?.expect(0)?;
    assert_eq!(listed.stdout.matches("duplicate").count(), 2, "{listed}");
    fixture.delete("second").await?;

    // Another cluster with the same name.
    fixture
        .by_hand("third", "https://elsewhere.example.com", &login)
        .await?;
    fixture.delete("first").await?;
    let refused = fixture
        .run(&["add", fixture.id(), "--name", "third"])
        .run()
        .await?
        .expect(1)?;
    assert!(
        refused
            .stderr
            .contains("Secret third already has the cluster name \"third\""),
        "{refused}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_refuses_a_secret_without_a_bearer_token() -> Result<()> {
    let fixture = Fixture::begin("lille").await?;
    let login = json!({"execProviderConfig": {"command": "argocd-k8s-auth"}, "tlsClientConfig": {"insecure": false}});
    fixture.by_hand("exec", &fixture.server(), &login).await?;
    let refused = fixture.run(&["add", fixture.id(), "--yes"]).run().await?.expect(1)?;
    assert!(
        refused
            .stderr
            .contains("Argo CD does not authenticate with a bearer token"),
        "{refused}"
    );
    assert_eq!(config(&fixture.secret().await?)?, login);
    Ok(())
}
