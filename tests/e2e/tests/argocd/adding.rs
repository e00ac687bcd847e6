//! `add`: what Argo CD is told, and what it is not told.

use anyhow::Result;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use testbed::User;

use crate::bench::{Bench, config, text, token, user};

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_gets_the_secret_that_it_would_write_with_a_token_for_that_cluster_alone() -> Result<()> {
    let bench = Bench::begin("oslo").await?;
    let added = bench.run(&["add", "oslo", "-l", "env=test"]).run().await?;
    // Other stories may have a cluster of that name.
    let added = if added.code() == Some(0) {
        added
    } else {
        bench
            .run(&["add", bench.id(), "-l", "env=test"])
            .run()
            .await?
            .expect(0)?
    };
    assert!(
        added.stdout.contains(&format!("created for cluster {}", bench.id())),
        "{added}"
    );
    let secret = bench.secret().await?;
    let name = secret.metadata.name.clone().unwrap_or_default();
    // 127.0.0.1 with the hash of the whole address.
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
        ("oslo".to_owned(), bench.server())
    );
    let value = token(&secret)?;
    let wanted = format!(
        r#"{{"bearerToken":"{value}","tlsClientConfig":{{"insecure":false,"caData":"{}"}}}}"#,
        bench.ca_data()
    );
    assert_eq!(text(&secret, "config")?, wanted);
    let annotations = secret.metadata.annotations.unwrap_or_default();
    assert_eq!(annotations["managed-by"], "argocd.argoproj.io");
    let living = bench.living().await?;
    assert_eq!(living, [annotations["kubectl-rotation.github.io/token"].clone()]);
    assert!(value.starts_with(&format!("{}:", living[0])));

    // It cannot mint, list or end tokens, and works for no other cluster.
    let stranger = User {
        name: "u-leak".into(),
        token: value,
        groups: Vec::new(),
    };
    for (path, works) in [
        (format!("/k8s/clusters/{}/version", bench.id()), true),
        ("/v3/tokens".to_owned(), false),
        ("/k8s/clusters/local/version".to_owned(), false),
    ] {
        let client = bench.story.rancher.client("", Some(&stranger))?;
        let answer = client.request_text(http::Request::get(&path).body(Vec::new())?).await;
        assert_eq!(answer.is_ok(), works, "{path}: {answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_time_nothing_is_minted_and_nothing_written() -> Result<()> {
    let bench = Bench::begin("turin").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let before = bench.secret().await?.metadata.resource_version;
    let again = bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    assert!(again.stdout.contains("unchanged for cluster"), "{again}");
    assert_eq!(bench.secret().await?.metadata.resource_version, before);
    assert_eq!(bench.living().await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_mints_nothing() -> Result<()> {
    let bench = Bench::begin("pisa").await?;
    let plan = bench.run(&["add", bench.id(), "--dry-run"]).run().await?.expect(0)?;
    assert!(plan.stdout.contains("would be created"), "{plan}");
    assert!(bench.living().await?.is_empty());
    assert!(bench.secret().await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_that_rancher_cuts_short_is_said() -> Result<()> {
    let bench = Bench::begin("cork").await?;
    let added = bench
        .run(&["add", bench.id(), "--ttl", "365d", "-o", "json"])
        .run()
        .await?
        .expect(0)?;
    assert!(
        added.stderr.contains("Rancher has granted 90d instead of 365d"),
        "{added}"
    );
    let document: serde_json::Value = serde_json::from_str(&added.stdout)?;
    let item = &document["items"][0];
    let named = (&item["result"], &item["displayName"]);
    assert_eq!(named, (&json!("created"), &json!("cork")), "{document:#}");
    assert!(item["expiresAt"].is_string(), "{document:#}");
    let refused = bench.run(&["add", bench.id(), "--ttl", "0"]).run().await?.expect(2)?;
    assert!(refused.stderr.contains("must live for at least a second"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_agent_is_named_and_the_token_ended_unless_it_shall_be_so() -> Result<()> {
    let bench = Bench::begin("genoa").await?;
    let (rancher, cluster) = (bench.story.rancher, &bench.story.cluster);
    rancher.offline(cluster, std::time::Duration::from_mins(10)).await?;
    let refused = bench.run(&["add", bench.id()]).run().await?.expect(1)?;
    assert!(
        refused
            .stderr
            .contains("the cluster's agent is not connected to Rancher"),
        "{refused}"
    );
    assert!(refused.stderr.contains("--force=offline"), "{refused}");
    assert!(bench.living().await?.is_empty() && bench.secret().await.is_err());
    bench
        .run(&["add", bench.id(), "--force=offline"])
        .run()
        .await?
        .expect(0)?;
    assert_eq!(bench.living().await?.len(), 1);
    rancher.online(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_see_everything_is_refused_with_the_role_that_is_needed() -> Result<()> {
    let bench = Bench::begin("delft").await?;
    let user = user(&format!("small{}", bench.id().trim_start_matches("c-")));
    let desk = bench.desk_of(&user).await?;
    // Nobody yet: the cluster is not there for this user.
    let unseen = bench.run_at(&desk, &["add", bench.id()]).run().await?.expect(1)?;
    assert!(unseen.stderr.contains("no cluster has the id"), "{unseen}");

    // A member with a role that is too small.
    let client = bench.story.management.client().await?;
    let name = format!("member-{}", bench.id());
    let role: ClusterRole = serde_json::from_value(json!({
        "metadata": {"name": name}, "rules": [{
            "apiGroups": ["management.cattle.io"], "resources": ["clusters"], "resourceNames": [bench.id()], "verbs": ["get"],
        }],
    }))?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user.name}],
    }))?;
    Api::all(client.clone()).create(&PostParams::default(), &role).await?;
    Api::all(client).create(&PostParams::default(), &binding).await?;
    let refused = e2e::until("the role to count", async || {
        let refused = bench.run_at(&desk, &["add", bench.id()]).run().await?.expect(1)?;
        Ok((!refused.stderr.contains("no cluster has the id")).then_some(refused))
    })
    .await?;
    assert!(refused.stderr.contains("its owner may not list "), "{refused}");
    assert!(refused.stderr.contains("cluster-owner"), "{refused}");
    assert!(
        bench.living().await?.is_empty() && bench.secret().await.is_err(),
        "{refused}"
    );
    bench
        .run_at(&desk, &["add", bench.id(), "--force=rights"])
        .run()
        .await?
        .expect(0)?;
    assert_eq!(config(&bench.secret().await?)?["tlsClientConfig"]["insecure"], false);
    Ok(())
}
