//! `kubectl argocd-rancher verify`: the meaning of Rancher's responses to calls as Argo CD makes them.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{CommandOutput, mask_output};
use insta::assert_snapshot;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::fixture::{Fixture, config, token, user};
use crate::tokens::{interrupted_in_grace, issue_token, name_of_secret};

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
    + sync    its owner can create, patch and delete everything
    proven: Argo CD can use cluster c-id123 with Secret <secret>
    ");
    assert!(!seen.to_string().contains(&token(&secret)?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_continues_after_an_unknown_cluster() -> Result<()> {
    let fixture = Fixture::begin("wels").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let seen = fixture
        .bare(&["verify", "nowhere", fixture.id()])
        .run()
        .await?
        .expect(1)?;
    ensure!(
        seen.stdout
            .contains(&format!("proven: Argo CD can use cluster {}", fixture.id()))
            && seen.stderr.contains("cluster \"nowhere\" not found")
            && seen.stderr.contains("1 of 2 clusters were not verified"),
        "{seen}"
    );
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
    let named = fixture.run(&["verify", fixture.id()]).run().await?.expect(1)?;
    assert!(
        named.stdout.contains("x rancher Rancher rejects it: it is disabled\n"),
        "{named}"
    );
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
async fn verify_names_the_cause_and_the_next_command() -> Result<()> {
    let fixture = Fixture::begin("jena").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let secret = fixture.secret().await?;
    let (good, valid) = (config(&secret)?, token(&secret)?);
    let replace = format!("kubectl argocd-rancher add {}", fixture.id());
    let causes = async |value: &str| -> Result<CommandOutput> {
        let mut login = good.clone();
        login["bearerToken"] = json!(value);
        fixture.overwrite(&secret, &login).await?;
        let seen = fixture.run(&["verify", fixture.id()]).run().await?.expect(1)?;
        ensure!(seen.stderr.contains(&replace), "{seen}");
        ensure!(
            seen.stdout.matches("\nx ").count() + usize::from(seen.stdout.starts_with("x ")) == 1,
            "{seen}"
        );
        ensure!(
            !seen.to_string().contains(valid.split(':').nth(1).unwrap_or_default()),
            "a token was printed"
        );
        Ok(seen)
    };
    for (value, cause) in [
        (format!("Bearer {valid}"), "begins with \"Bearer \""),
        (format!("{valid}\n"), "has a bearer token with a space or a line break"),
        (
            "eyJhbGciOiJSUzI1NiJ9.e30.c2ln".to_owned(),
            "it is the token of a ServiceAccount",
        ),
        (
            valid.replace(':', ""),
            "it is not a Rancher API token, which has a name before a colon",
        ),
        (
            format!("{valid}x"),
            "it is revoked, expired, disabled, or scoped to another cluster",
        ),
    ] {
        let seen = causes(&value).await?;
        ensure!(seen.stdout.contains(cause), "{seen}");
    }
    let name = fixture.valid_tokens().await?.remove(0);
    let rancher = fixture.base.rancher;
    rancher.change_token(&name, &json!({"expired": true})).await?;
    let expired = causes(&valid).await?;
    ensure!(
        expired.stdout.contains("Rancher rejects it: it expired at "),
        "{expired}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_the_missing_prefix_of_an_ext_token() -> Result<()> {
    let fixture = Fixture::begin("gera").await?;
    let (name, value) = issue_token(&fixture, "by hand", Some(fixture.id())).await?;
    fixture.base.rancher.change_token(&name, &json!({"ext": true})).await?;
    let login = json!({"bearerToken": value, "tlsClientConfig": {"insecure": false, "caData": fixture.ca_data()}});
    fixture.by_hand("ext", &fixture.server(), &login).await?;
    let seen = verify(&fixture, 1).await?;
    ensure!(seen.stdout.contains("ext.cattle.io without its prefix ext/"), "{seen}");
    let login = json!({"bearerToken": format!("ext/{value}"), "tlsClientConfig": {"insecure": false, "caData": fixture.ca_data()}});
    fixture.overwrite(&fixture.secret().await?, &login).await?;
    verify(&fixture, 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_continues_after_a_bad_secret() -> Result<()> {
    let fixture = Fixture::begin("suhl").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    // Not a certificate.
    let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "no certificate");
    let login = json!({"bearerToken": "token-x:y", "tlsClientConfig": {"insecure": false, "caData": ca}});
    let server = fixture.server().replace(fixture.id(), "c-zzzzz");
    fixture.by_hand("bad", &server, &login).await?;
    let seen = fixture.bare(&["verify", "bad", fixture.id()]).run().await?.expect(1)?;
    ensure!(
        seen.stdout
            .contains("not proven: see the failed checks of cluster c-zzzzz")
            && seen
                .stdout
                .contains(&format!("proven: Argo CD can use cluster {}", fixture.id())),
        "{seen}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_and_verify_tell_a_role_that_can_only_watch() -> Result<()> {
    let fixture = Fixture::begin("apolda").await?;
    let user = user(&format!("watch{}", fixture.id().trim_start_matches("c-")));
    let shell = fixture.shell_of(&user).await?;
    fixture.make_member(&user).await?;
    fixture.let_watch(&user).await?;
    let added = e2e::until("the roles to count", async || {
        let added = fixture
            .run_at(&shell, &["add", fixture.id(), "-o", "json"])
            .run()
            .await?;
        Ok((added.code() == Some(0)).then_some(added))
    })
    .await?;
    ensure!(added.stderr.contains("but cannot sync to it"), "{added}");
    let document: Value = serde_json::from_str(&added.stdout)?;
    ensure!(document["items"][0]["sync"] == "nothing", "{document:#}");
    let seen = verify(&fixture, 0).await?;
    ensure!(
        seen.stdout.contains("x sync    its owner can create nothing")
            && seen.stdout.contains("proven for watching only: Argo CD cannot sync"),
        "{seen}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_found_by_every_spelling_of_its_url() -> Result<()> {
    let fixture = Fixture::begin("weimar").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let (id, name) = (fixture.id(), name_of_secret(&fixture).await?);
    let serve = async |server: String| {
        let change = Patch::Merge(json!({"stringData": {"server": server}}));
        fixture.secrets.patch(&name, &PatchParams::default(), &change).await
    };
    serve(fixture.server().replace("/k8s", "//k8s")).await?;
    verify(&fixture, 0).await?;
    let refused = fixture.run(&["add", id, "--yes"]).run().await?.expect(1)?;
    ensure!(
        refused.stderr.contains("has other Secrets for the same URL already"),
        "{refused}"
    );
    serve(format!("{}?__uid=7", fixture.server())).await?;
    verify(&fixture, 0).await?;
    let again = fixture.run(&["add", id]).run().await?.expect(0)?;
    ensure!(again.stdout.contains("unchanged for cluster"), "{again}");
    let old = token(&fixture.secret().await?)?;
    let rotate = ["rotate", "--all", "--grace", "0s", "--yes"];
    fixture.run(&rotate).run().await?.expect(0)?;
    fixture.is_rotated(&old).await?;
    fixture.run(&["remove", id, "--yes"]).run().await?.expect(0)?;
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
