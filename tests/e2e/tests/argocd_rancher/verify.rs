//! `kubectl argocd-rancher verify`: the meaning of Rancher's responses to calls as Argo CD makes them.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{CommandOutput, mask_output};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::fixture::{Fixture, token};
use crate::tokens::interrupted_in_grace;

async fn verify(fixture: &Fixture, code: i32) -> Result<CommandOutput> {
    fixture.bare(&["verify", fixture.id()]).run().await?.expect(code)
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_succeeds_without_access_to_rancher() -> Result<()> {
    let fixture = Fixture::begin("graz").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let seen = verify(&fixture, 0).await?;
    let secret = fixture.secret().await?;
    let name = secret.metadata.name.clone().unwrap_or_default();
    let plain = seen
        .stdout
        .replace(&name, "<secret>")
        .replace(&fixture.valid_tokens().await?[0], "<token>");
    let text = mask_output(&plain);
    assert_snapshot!(text, @r"
    + secret  Secret <secret> holds <token>
    + rancher Rancher accepts it
    + proxy   a call with it succeeded (Kubernetes <version>)
    + rights  its owner can list and watch everything that Argo CD watches
    proven: Argo CD can use cluster c-id123 with Secret <secret>
    ");
    assert!(!seen.to_string().contains(&token(&secret)?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_a_disconnected_agent_and_a_disabled_token() -> Result<()> {
    let fixture = Fixture::begin("linz").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let name = fixture.valid_tokens().await?.remove(0);
    let (rancher, cluster) = (fixture.base.rancher, &fixture.base.cluster);

    rancher.offline(cluster, Duration::from_mins(10)).await?;
    let offline = verify(&fixture, 1).await?;
    assert!(
        offline.stdout.contains("+ rancher")
            && offline
                .stdout
                .contains("x proxy   the cluster's agent is not connected"),
        "{offline}"
    );
    rancher.online(cluster).await?;
    e2e::until("the agent to reconnect", async || {
        Ok((fixture.bare(&["verify", fixture.id()]).run().await?.code() == Some(0)).then_some(()))
    })
    .await?;

    rancher.change_token(&name, &json!({"enabled": false})).await?;
    let rejected = verify(&fixture, 1).await?;
    assert!(
        rejected
            .stdout
            .contains("x rancher Rancher rejects it: it is revoked, expired, disabled"),
        "{rejected}"
    );
    assert!(!rejected.stdout.contains("proxy"), "{rejected}");
    rancher.change_token(&name, &json!({"enabled": true})).await?;
    verify(&fixture, 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_a_missing_membership_and_an_unusable_config() -> Result<()> {
    let fixture = Fixture::begin("brno").await?;
    let outsider = test_cluster::User::viewer();
    let login =
        json!({"bearerToken": outsider.token, "tlsClientConfig": {"insecure": false, "caData": fixture.ca_data()}});
    fixture.by_hand("outsider", &fixture.server(), &login).await?;
    let seen = verify(&fixture, 1).await?;
    assert!(
        seen.stdout
            .contains("its owner u-viewer is not a member of the cluster"),
        "{seen}"
    );
    fixture.delete("outsider").await?;

    let login = json!({"bearerToken": "", "tlsClientConfig": {"insecure": true, "caData": fixture.ca_data()}});
    fixture.by_hand("broken", &fixture.server(), &login).await?;
    let seen = verify(&fixture, 1).await?;
    assert!(seen.stdout.contains("has both caData and insecure: true"), "{seen}");
    assert!(seen.stdout.contains("has no credential"), "{seen}");
    let unread = fixture.bare(&["verify", fixture.id()]).run_with_closed_output().await?;
    unread.expect(1)?;

    let unknown = fixture.bare(&["verify", "nowhere"]).run().await?.expect(1)?;
    assert!(unknown.stderr.contains("cluster \"nowhere\" not found"), "{unknown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_and_list_do_not_use_a_token_during_its_rotation() -> Result<()> {
    let fixture = Fixture::begin("lillesand").await?;
    interrupted_in_grace(&fixture).await?;
    let verified = fixture.run(&["verify", fixture.id()]).run().await?.expect(1)?;
    ensure!(
        verified.stdout.contains("not called: it is being rotated") && verified.stdout.contains("not proven"),
        "{verified}"
    );
    let listed = fixture.run(&["list", "--probe", "-o", "json"]).run().await?.expect(0)?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    ensure!(listed["items"][0]["probed"].is_null(), "{listed:#}");
    Ok(())
}
