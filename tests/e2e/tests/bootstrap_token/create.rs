//! `kubectl bootstrap-token create`

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Shell;
use k8s_openapi::jiff::Timestamp;
use rstest::rstest;
use serde_json::json;
use test_cluster::{Fault, FaultProxy, Kubeconfig, On, TestEnvironment, Upstream};

use crate::cluster::{self, KUBEADM_GROUP, bare, data_of, file, ready, shell};

pub(crate) fn seconds_left(expiration: &str) -> Result<i64> {
    Ok(expiration.parse::<Timestamp>()?.as_second() - Timestamp::now().as_second())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_sets_ttl_groups_description_and_labels() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let flags = [
        "--ttl",
        "2h",
        "--groups",
        "system:bootstrappers:a,system:bootstrappers:b:c",
        "--description",
        "für Knoten 7",
        "-l",
        "rack=7,row=b",
    ];
    let token = cluster::create(&shell, &flags).await?;
    let data = data_of(plane, &token.id).await?;
    ensure!(data["auth-extra-groups"] == "system:bootstrappers:a,system:bootstrappers:b:c");
    ensure!(data["description"] == "für Knoten 7");
    ensure!(data["usage-bootstrap-authentication"] == "true" && data["usage-bootstrap-signing"] == "true");
    ensure!(
        (7190..=7200).contains(&seconds_left(&data["expiration"])?),
        "{}",
        data["expiration"]
    );
    let by_label = shell
        .bootstrap_token(["list", "-l", "rack=7,row=b", "-o", "name"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        by_label.stdout == format!("secret/bootstrap-token-{}\n", token.id),
        "{by_label}"
    );
    let verified = shell.bootstrap_token(["verify", &token.id]).run().await?.expect(0)?;
    ensure!(
        verified.stdout.contains(&format!("system:bootstrap:{}", token.id)),
        "{verified}"
    );
    ensure!(verified.stdout.contains("system:bootstrappers:b:c"), "{verified}");
    ensure!(cluster::is_accepted(plane, &token.text).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_defaults_to_one_hour_and_the_kubeadm_group() -> Result<()> {
    let plane = bare().await?;
    let token = cluster::create(&shell(plane).await?, &[]).await?;
    let data = data_of(plane, &token.id).await?;
    ensure!(data["auth-extra-groups"] == KUBEADM_GROUP);
    ensure!(
        (3590..=3600).contains(&seconds_left(&data["expiration"])?),
        "{}",
        data["expiration"]
    );
    Ok(())
}

#[rstest]
#[case::zero(&["--ttl", "0"], "--never-expires")]
#[case::negative(&["--ttl", "-1h"], "--never-expires")]
#[case::long(&["--ttl", "25h"], "--allow-long")]
#[case::masters(&["--groups", "system:masters"], "does not begin with system:bootstrappers:")]
#[case::space(&["--groups", "system:bootstrappers:a, system:bootstrappers:b"], "contains a space")]
#[case::comma(&["--groups", "system:bootstrappers:a,"], "a comma too many")]
#[case::usage(&["--usages", "everything"], "authentication or signing")]
#[case::groups_of_a_signer(&["--usages", "signing", "--groups", "system:bootstrappers:a"], "needs the usage authentication")]
#[case::written_document(&["--write", "token", "-o", "json"], "--write takes the token itself")]
#[case::written_dry_run(&["--write", "token", "--dry-run"], "--write takes the token itself")]
#[case::token_of_a_dry_run(&["--dry-run", "-o", "json", "--show-token"], "creates no token")]
#[tokio::test(flavor = "multi_thread")]
async fn create_rejects_invalid_flags_before_any_request(#[case] flags: &[&str], #[case] message: &str) -> Result<()> {
    let shell = shell(bare().await?).await?;
    // No server listens on this port.
    let args = ["create", "--server", "https://127.0.0.1:1"].iter().chain(flags);
    let refused = shell.bootstrap_token(args).run().await?.expect(2)?;
    ensure!(
        refused.stdout.is_empty() && refused.stderr.contains(message),
        "{refused}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_requires_flags_for_long_and_unlimited_ttls() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let long = cluster::create(&shell, &["--ttl", "25h", "--allow-long"]).await?;
    ensure!(seconds_left(&data_of(plane, &long.id).await?["expiration"])? > 24 * 3600);
    let unlimited = cluster::create(&shell, &["--never-expires"]).await?;
    ensure!(!data_of(plane, &unlimited.id).await?.contains_key("expiration"));
    ensure!(cluster::row(&shell, &unlimited.id).await?["expiresAt"].is_null());
    Ok(())
}

/// A proxy in front of the cluster, and a shell whose kubeconfig leads through it.
pub(crate) async fn behind_proxy() -> Result<(FaultProxy, Shell)> {
    let plane = bare().await?;
    let proxy = FaultProxy::start([Upstream::admin_of(plane)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(plane.kubeconfig())?);
    Ok((proxy, Shell::new(TestEnvironment::shared().await?, &kubeconfig)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn create_retries_with_another_id_if_the_id_exists() -> Result<()> {
    let (proxy, shell) = behind_proxy().await?;
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "AlreadyExists", "code": 409,
        "message": "secrets \"bootstrap-token-xxxxxx\" already exists",
    });
    let taken = Fault::Say {
        status: 409,
        body: body.to_string(),
    };
    proxy.plan(On::write().path("*/namespaces/kube-system/secrets").times(3), taken);
    let token = cluster::create(&shell, &[]).await?;
    let posts: Vec<_> = proxy
        .writes()
        .into_iter()
        .filter(|write| write.path.ends_with("/secrets"))
        .collect();
    ensure!(posts.len() == 4, "{}", proxy.transcript());
    data_of(bare().await?, &token.id).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_does_not_create_twice_when_the_response_is_lost() -> Result<()> {
    let (proxy, shell) = behind_proxy().await?;
    proxy.plan(On::write().path("*/namespaces/kube-system/secrets"), Fault::LoseAnswer);
    let token = cluster::create(&shell, &["-l", "test=unanswered"]).await?;
    let listed = shell
        .bootstrap_token(["list", "-l", "test=unanswered", "-o", "name"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        listed.stdout == format!("secret/bootstrap-token-{}\n", token.id),
        "{listed}"
    );
    Ok(())
}

/// The Secret cannot be read either, so it is unknown whether it was created.
#[tokio::test(flavor = "multi_thread")]
async fn create_names_the_command_that_revokes_a_token_without_a_response() -> Result<()> {
    let (proxy, proxied) = behind_proxy().await?;
    proxy.plan(On::write().path("*/namespaces/kube-system/secrets"), Fault::LoseAnswer);
    let forbidden = Fault::Answer {
        status: 403,
        retry_after: None,
    };
    let read = On::read().method(http::Method::GET).path("*/secrets/bootstrap-token-*");
    proxy.plan(read.always(), forbidden);
    let label = "test=unknown";
    let failed = proxied
        .bootstrap_token(["create", "-l", label])
        .run()
        .await?
        .expect(1)?;
    ensure!(failed.stderr.contains("it may have been created"), "{failed}");
    // With the certificate of the proxy, any token would be accepted.
    let shell = shell(bare().await?).await?;
    let list = ["list", "-l", label, "-o", "name"];
    let left = shell.bootstrap_token(list).run().await?.expect(0)?;
    ensure!(left.stdout.lines().count() == 1, "{left}");
    let revoke = "kubectl bootstrap-token revoke";
    shell.follow(&failed, revoke, &["--yes"]).await?.expect(0)?;
    let left = shell.bootstrap_token(list).run().await?.expect(0)?;
    ensure!(left.stdout.is_empty(), "{left}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_list_and_extend_use_the_clock_of_the_api_server() -> Result<()> {
    let (proxy, shell) = behind_proxy().await?;
    // To the client, its own clock seems to be ten minutes slow.
    proxy.clock_ahead(Duration::from_mins(10));
    let token = cluster::create(&shell, &["--ttl", "1h"]).await?;
    let left = seconds_left(&data_of(bare().await?, &token.id).await?["expiration"])?;
    ensure!((4190..=4201).contains(&left), "{left}");
    let listed = shell.bootstrap_token(["list"]).run().await?.expect(0)?;
    let line = listed
        .stdout
        .lines()
        .find(|line| line.starts_with(&token.id))
        .context("not listed")?;
    ensure!(line.contains("   59m   ") || line.contains("   60m   "), "{line}");
    let extended = shell
        .bootstrap_token(["extend", &token.id, "--ttl", "2h"])
        .run()
        .await?
        .expect(0)?;
    ensure!(extended.stdout.contains("extended"), "{extended}");
    let left = seconds_left(&data_of(bare().await?, &token.id).await?["expiration"])?;
    ensure!((7790..=7801).contains(&left), "{left}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_warns_when_nodes_cannot_join_with_the_token() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let created = shell
        .bootstrap_token([
            "create",
            "--groups",
            "system:bootstrappers:unbound",
            "--context",
            "bare",
        ])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        created
            .stderr
            .contains("Warning: kubelet bootstrap: no, because no binding allows it to request a certificate"),
        "{created}"
    );
    let hint = "kubectl bootstrap-token rbac apply --context bare --group system:bootstrappers:unbound";
    shell.follow(&created, hint, &[]).await?.expect(0)?;
    let args = ["create", "--groups", "system:bootstrappers:unbound"];
    let bound = shell.bootstrap_token(args).run().await?.expect(0)?;
    ensure!(!bound.stderr.contains("kubelet bootstrap"), "{bound}");
    Ok(())
}

#[rstest]
#[case::token(&[])]
#[case::kubeconfig(&["-o", "kubeconfig"])]
#[tokio::test(flavor = "multi_thread")]
async fn create_writes_a_file_that_only_its_owner_can_read(#[case] flags: &[&str]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let args = ["create", "--write", "token", "-l", "test=written"].iter().chain(flags);
    let created = shell.bootstrap_token(args).run().await?.expect(0)?;
    ensure!(created.stdout.is_empty(), "{}", created.stdout.len());
    let path = shell.home().join("token");
    ensure!(std::fs::metadata(&path)?.permissions().mode() & 0o7777 == 0o600);
    let text = std::fs::read_to_string(&path)?;
    let text = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "))
        .unwrap_or(text.trim());
    let token = cluster::Printed::read(&format!("{text}\n"))?;
    let kubeconfig = ["kubeconfig", &token.id, "--write", "again"];
    shell.bootstrap_token(kubeconfig).run().await?.expect(0)?;
    let again = shell.home().join("again");
    ensure!(std::fs::metadata(&again)?.permissions().mode() & 0o7777 == 0o600);
    ensure!(
        std::fs::read_to_string(&again)?.contains(&token.text),
        "it has another token"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_creates_nothing_if_it_cannot_write_the_file() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let args = ["create", "--write", "no/such/directory", "-l", "test=unwritten"];
    let refused = shell.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("cannot write no/such/directory"), "{refused}");
    let list = ["list", "-l", "test=unwritten", "-o", "name"];
    let listed = shell.bootstrap_token(list).run().await?.expect(0)?;
    ensure!(listed.stdout.is_empty(), "{listed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_prints_a_kubeconfig_that_a_kubelet_joins_with() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let group = "system:bootstrappers:in-one-go";
    shell
        .bootstrap_token(["rbac", "apply", "--group", group])
        .run()
        .await?
        .expect(0)?;
    let create = ["create", "--groups", group, "-o", "kubeconfig"];
    let printed = shell.bootstrap_token(create).run().await?.expect(0)?;
    let bootstrap = file(&shell, "bootstrap-kubelet.conf", &printed.stdout)?;
    let _kubelet = plane.join_node("joined-in-one-go", &bootstrap)?;
    ready(plane, "joined-in-one-go").await
}
