//! `kubectl argocd-rancher add`

mod adopt;
mod interrupted;

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use test_cluster::User;

use crate::fixture::{Fixture, config, text, token, user};

#[tokio::test(flavor = "multi_thread")]
async fn add_creates_a_cluster_secret_with_a_scoped_token() -> Result<()> {
    let fixture = Fixture::begin("oslo").await?;
    let added = fixture.run(&["add", "oslo", "-l", "env=test"]).run().await?;
    // Another test may have registered a cluster of that name.
    let added = if added.code() == Some(0) {
        added
    } else {
        fixture
            .run(&["add", fixture.id(), "-l", "env=test"])
            .run()
            .await?
            .expect(0)?
    };
    assert!(
        added.stdout.contains(&format!("created for cluster {}", fixture.id())),
        "{added}"
    );
    let secret = fixture.secret().await?;
    let name = secret.metadata.name.clone().unwrap_or_default();
    // The host of the URL, and a hash of the whole URL.
    assert!(name.starts_with("cluster-127.0.0.1-"), "{name}");
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    assert_eq!(
        json!(secret.metadata.labels),
        json!({"argocd.argoproj.io/secret-type": "cluster", "env": "test"})
    );
    let keys: Vec<String> = secret.data.iter().flat_map(|data| data.keys().cloned()).collect();
    assert_eq!(keys, ["config", "name", "server"]);
    assert_eq!(
        (text(&secret, "name")?, text(&secret, "server")?),
        ("oslo".to_owned(), fixture.server())
    );
    let value = token(&secret)?;
    let wanted = format!(
        r#"{{"bearerToken":"{value}","tlsClientConfig":{{"insecure":false,"caData":"{}"}}}}"#,
        fixture.ca_data()
    );
    assert_eq!(text(&secret, "config")?, wanted);
    let annotations = secret.metadata.annotations.unwrap_or_default();
    assert_eq!(annotations["managed-by"], "argocd.argoproj.io");
    let valid_tokens = fixture.valid_tokens().await?;
    assert_eq!(valid_tokens, [annotations["kubectl-rotation.github.io/token"].clone()]);
    assert!(value.starts_with(&format!("{}:", valid_tokens[0])));

    // The token cannot issue, list or revoke tokens, and is valid for no other cluster.
    let bearer = User {
        name: "u-leak".into(),
        token: value,
        groups: Vec::new(),
    };
    for (path, works) in [
        (format!("/k8s/clusters/{}/version", fixture.id()), true),
        ("/v3/tokens".to_owned(), false),
        ("/k8s/clusters/local/version".to_owned(), false),
    ] {
        let client = fixture.base.rancher.client("", Some(&bearer))?;
        let answer = client.request_text(http::Request::get(&path).body(Vec::new())?).await;
        assert_eq!(answer.is_ok(), works, "{path}: {answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_again_changes_nothing() -> Result<()> {
    let fixture = Fixture::begin("turin").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let before = fixture.secret().await?.metadata.resource_version;
    let again = fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    assert!(again.stdout.contains("unchanged for cluster"), "{again}");
    assert_eq!(fixture.secret().await?.metadata.resource_version, before);
    assert_eq!(fixture.valid_tokens().await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_dry_run_issues_no_token() -> Result<()> {
    let fixture = Fixture::begin("pisa").await?;
    let plan = fixture
        .run(&["add", fixture.id(), "--dry-run"])
        .run()
        .await?
        .expect(0)?;
    assert!(plan.stdout.contains("would be created"), "{plan}");
    assert!(fixture.valid_tokens().await?.is_empty());
    assert!(fixture.secret().await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_requests_no_token_for_a_namespace_that_does_not_exist() -> Result<()> {
    let fixture = Fixture::begin("nantes").await?;
    // No other test calls Rancher with this token.
    let owner = User {
        groups: User::admin().groups,
        ..user(&format!("nowhere{}", fixture.id().trim_start_matches("c-")))
    };
    let shell = fixture.shell_of(&owner).await?;
    let nowhere = ["add", fixture.id(), "--rancher-context", "rancher"];
    let nowhere = [&nowhere[..], &["--context", "management", "--namespace", "nowhere"]].concat();
    let refused = shell.argocd_rancher(nowhere).run().await?.expect(1)?;
    ensure!(
        refused
            .stderr
            .contains("namespace nowhere not found in the cluster of Argo CD")
            && refused.stderr.contains("--namespace"),
        "{refused}"
    );
    let name = owner.token.split(':').next().unwrap_or_default();
    let requested = || {
        let calls = fixture.base.rancher.calls_with(&[name], Timestamp::UNIX_EPOCH)?;
        ensure!(!calls.is_empty(), "the log has no call with {name}");
        Ok(calls
            .iter()
            .filter(|call| call.method == "POST" && call.path.starts_with("/v3/tokens"))
            .count())
    };
    ensure!(requested()? == 0, "a token was requested:\n{refused}");
    fixture.run_at(&shell, &["add", fixture.id()]).run().await?.expect(0)?;
    ensure!(requested()? == 1, "the log does not show the request for a token");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_continues_after_an_unknown_cluster() -> Result<()> {
    let fixture = Fixture::begin("rouen").await?;
    let added = fixture
        .run(&["add", "no-such-cluster", fixture.id()])
        .run()
        .await?
        .expect(1)?;
    ensure!(
        added.stdout.contains(&format!("created for cluster {}", fixture.id()))
            && added.stderr.contains("cluster \"no-such-cluster\" not found")
            && added.stderr.contains("1 of 2 clusters were not added"),
        "{added}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_continues_after_a_cluster_that_it_refuses() -> Result<()> {
    let fixture = Fixture::begin("bari").await?;
    let second = fixture.base.rancher.register("bari-two").await?;
    let login = json!({"execProviderConfig": {"command": "x"}, "tlsClientConfig": {"insecure": false}});
    let server = fixture.server().replace(fixture.id(), &second.id);
    fixture.by_hand("second", &server, &login).await?;
    let added = fixture.run(&["add", &second.id, fixture.id()]).run().await?.expect(1)?;
    assert!(
        added.stdout.contains(&format!("created for cluster {}", fixture.id())),
        "{added}"
    );
    assert!(
        added.stderr.contains("does not authenticate with a bearer token")
            && added.stderr.contains("1 of 2 clusters were not added"),
        "{added}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_reports_a_ttl_shortened_by_rancher() -> Result<()> {
    let fixture = Fixture::begin("cork").await?;
    let added = fixture
        .run(&["add", fixture.id(), "--ttl", "365d", "-o", "json"])
        .run()
        .await?
        .expect(0)?;
    assert!(added.stderr.contains("Rancher granted 90d instead of 365d"), "{added}");
    let document: serde_json::Value = serde_json::from_str(&added.stdout)?;
    let item = &document["items"][0];
    let named = (&item["result"], &item["displayName"]);
    assert_eq!(named, (&json!("created"), &json!("cork")), "{document:#}");
    assert!(item["expiresAt"].is_string(), "{document:#}");
    let refused = fixture
        .run(&["add", fixture.id(), "--ttl", "0"])
        .run()
        .await?
        .expect(2)?;
    assert!(
        refused.stderr.contains("must be between 1 second and 100 years"),
        "{refused}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_refuses_a_disconnected_agent_unless_forced() -> Result<()> {
    let fixture = Fixture::begin("genoa").await?;
    let (rancher, cluster) = (fixture.base.rancher, &fixture.base.cluster);
    rancher.offline(cluster, std::time::Duration::from_mins(10)).await?;
    let refused = fixture.run(&["add", fixture.id()]).run().await?.expect(1)?;
    assert!(
        refused
            .stderr
            .contains("the cluster's agent is not connected to Rancher"),
        "{refused}"
    );
    assert!(refused.stderr.contains("--force=offline"), "{refused}");
    let planned = fixture
        .run(&["add", fixture.id(), "--dry-run"])
        .run()
        .await?
        .expect(1)?;
    assert!(planned.stderr.contains("--force=offline"), "{planned}");
    assert!(fixture.valid_tokens().await?.is_empty() && fixture.secret().await.is_err());
    fixture
        .run(&["add", fixture.id(), "--force=offline"])
        .run()
        .await?
        .expect(0)?;
    assert_eq!(fixture.valid_tokens().await?.len(), 1);
    rancher.online(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn add_refuses_an_owner_without_permissions() -> Result<()> {
    let fixture = Fixture::begin("delft").await?;
    let user = user(&format!("small{}", fixture.id().trim_start_matches("c-")));
    let shell = fixture.shell_of(&user).await?;
    // The user is not a member yet and does not see the cluster.
    let unseen = fixture.run_at(&shell, &["add", fixture.id()]).run().await?.expect(1)?;
    assert!(unseen.stderr.contains("not found"), "{unseen}");

    // A member whose role has too few permissions.
    fixture.make_member(&user).await?;
    let refused = e2e::until("the role to count", async || {
        let refused = fixture.run_at(&shell, &["add", fixture.id()]).run().await?.expect(1)?;
        Ok((!refused.stderr.contains("not found")).then_some(refused))
    })
    .await?;
    assert!(refused.stderr.contains("its owner cannot list "), "{refused}");
    assert!(refused.stderr.contains("cluster-owner"), "{refused}");
    let planned = fixture
        .run_at(&shell, &["add", fixture.id(), "--dry-run"])
        .run()
        .await?
        .expect(1)?;
    assert!(planned.stderr.contains("its owner cannot list "), "{planned}");
    assert!(
        fixture.valid_tokens().await?.is_empty() && fixture.secret().await.is_err(),
        "{refused}"
    );
    fixture
        .run_at(&shell, &["add", fixture.id(), "--force=rights"])
        .run()
        .await?
        .expect(0)?;
    assert_eq!(config(&fixture.secret().await?)?["tlsClientConfig"]["insecure"], false);
    Ok(())
}
