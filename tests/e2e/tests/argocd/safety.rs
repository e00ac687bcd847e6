//! No cluster is cut off and no wrong token revoked, whoever else writes, calls or has the same names.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Invocation, Running};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testbed::{AnotherWriter, Registration, User};

use crate::bench::{Bench, config, token};

/// A token of the user who runs the commands, for all clusters.
async fn token_of_ours(bench: &Bench, description: &str, cluster: Option<&str>) -> Result<(String, String)> {
    let client = bench.story.rancher.client("", Some(&User::admin()))?;
    let body = json!({"type": "token", "description": description, "ttl": 3_600_000, "clusterId": cluster});
    let request = http::Request::post("/v3/tokens")
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())?;
    let made: Value = serde_json::from_str(&client.request_text(request).await?)?;
    let text = |key: &str| made[key].as_str().map(str::to_owned).context("no token");
    Ok((text("name")?, text("token")?))
}

async fn is_alive(bench: &Bench, name: &str) -> Result<bool> {
    let tokens = bench.story.rancher.tokens().await?;
    Ok(tokens
        .iter()
        .any(|token| token["name"] == name && token["alive"] == true))
}

async fn annotate(bench: &Bench, secret: &str, key: &str, value: &str) -> Result<()> {
    let change = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
    bench.secrets.patch(secret, &PatchParams::default(), &change).await?;
    Ok(())
}

async fn name_of_secret(bench: &Bench) -> Result<String> {
    bench.cluster_secret().await?.metadata.name.context("no name")
}

/// A rotation that waits in the grace time, stopped.
async fn stopped_in_grace(bench: &Bench) -> Result<String> {
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let old = token(&bench.secret().await?)?;
    let run = in_grace(bench).await?;
    let pid = Pid::from_raw(i32::try_from(run.pid()?)?).context("no process")?;
    kill_process(pid, Signal::INT)?;
    run.finish().await?.expect(130)?;
    Ok(old)
}

async fn in_grace(bench: &Bench) -> Result<Running> {
    let rotate = ["rotate", bench.id(), "--grace", "10m", "--yes"];
    let run = bench.run(&rotate).start().await?;
    bench.comes_to("prove").await?;
    Ok(run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_journal_revokes_nothing_else() -> Result<()> {
    let bench = Bench::begin("skien").await?;
    let old = stopped_in_grace(&bench).await?;
    let (victim, _) = token_of_ours(&bench, "of somebody", None).await?;
    let name = name_of_secret(&bench).await?;
    let leases: Api<Lease> = Api::namespaced(bench.story.management.client().await?, &bench.namespace);
    let key = "kubectl-rotation.github.io/journal";
    let lease = leases.get(&name).await?;
    let text = lease.metadata.annotations.and_then(|mut all| all.remove(key));
    let mut journal: Value = serde_json::from_str(&text.context("no journal")?)?;
    journal["phase"] = json!("retire");
    journal["deadlines"] = json!({"grace": "2020-01-01T00:00:00Z"});
    journal["notes"]["old"]["name"] = json!(victim);
    let change = json!({"metadata": {"annotations": {key: journal.to_string()}}});
    leases
        .patch(&name, &PatchParams::default(), &Patch::Merge(change))
        .await?;

    let resumed = ["rotate", bench.id(), "--grace", "2s", "--yes"];
    bench.run(&resumed).run().await?.expect(0)?;
    ensure!(
        is_alive(&bench, &victim).await?,
        "a token was revoked that only the Lease names"
    );
    bench.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_that_the_command_logs_in_with_is_not_revoked() -> Result<()> {
    let bench = Bench::begin("rjukan").await?;
    let (name, value) = token_of_ours(&bench, "by hand", None).await?;
    let login = json!({"bearerToken": value, "tlsClientConfig": {"insecure": false, "caData": bench.ca_data()}});
    bench.by_hand("own", &bench.server(), &login).await?;
    let (ca, file) = (
        bench.story.desk.home().join("ca.crt"),
        bench.story.desk.home().join("token"),
    );
    std::fs::write(&ca, bench.story.rancher.ca_pem())?;
    std::fs::write(&file, &value)?;
    let (ca, file) = (ca.to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
    let as_itself = |args: &[&str]| -> Invocation {
        let url = ["--rancher-url", bench.story.rancher.url()];
        let with = ["--rancher-token-file", &file, "--rancher-certificate-authority", &ca];
        bench.bare(&[args, url.as_slice(), with.as_slice()].concat())
    };
    let refused = as_itself(&["rotate", "own", "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("itself logs in to Rancher with"), "{refused}");
    let removed = as_itself(&["remove", "own", "--yes", "--force=foreign-token"])
        .run()
        .await?;
    ensure!(removed.stderr.contains("itself logs in to Rancher with"), "{removed}");
    ensure!(is_alive(&bench, &name).await?, "it was revoked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_use_by_others_is_not_taken_for_argocds() -> Result<()> {
    let bench = Bench::begin("narvik-use").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    bench.application().await?;
    let old = token(&bench.secret().await?)?;
    // Nothing tells of Argo CD's use here.
    let rotate = ["rotate", bench.id(), "--grace", "1s", "--yes"];
    let refused = bench.run(&rotate).run().await?.expect(1)?;
    ensure!(
        refused
            .stderr
            .contains("Argo CD's use of the new token could not be told")
            && refused.stderr.contains("--force=use"),
        "{refused}"
    );
    let forced = bench
        .run(&[&rotate[..], &["--force=use"]].concat())
        .run()
        .await?
        .expect(0)?;
    ensure!(!forced.stderr.contains("Argo CD to call with"), "{forced}");
    bench.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_and_list_do_not_call_with_a_token_that_is_being_rotated() -> Result<()> {
    let bench = Bench::begin("lillesand").await?;
    stopped_in_grace(&bench).await?;
    let verified = bench.run(&["verify", bench.id()]).run().await?.expect(1)?;
    ensure!(
        verified.stdout.contains("not called: it is being rotated") && verified.stdout.contains("not proven"),
        "{verified}"
    );
    let listed = bench.run(&["list", "--probe", "-o", "json"]).run().await?.expect(0)?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    ensure!(listed["items"][0]["probed"].is_null(), "{listed:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_who_does_not_stop_turns_the_rotation_back() -> Result<()> {
    let bench = Bench::begin("arendal").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let before = bench.secret().await?;
    let client = bench.story.management.client().await?;
    let writer = AnotherWriter::of(client, &before)?.replace_data().watching().start();
    let rotate = ["rotate", bench.id(), "--grace", "5s", "--yes"];
    let back = bench.run(&rotate).run().await?.expect(1)?;
    ensure!(
        back.stderr
            .contains("manager \"kustomize-controller\" keeps writing the old state back"),
        "{back}"
    );
    writer.stop().await?;
    bench.is_restored(&token(&before)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_an_application_is_left_to_its_owner() -> Result<()> {
    let bench = Bench::begin("grimstad").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let (name, old) = (name_of_secret(&bench).await?, token(&bench.secret().await?)?);
    let id = format!("clusters:/Secret:{}/{name}", bench.namespace);
    annotate(&bench, &name, "argocd.argoproj.io/tracking-id", &id).await?;
    for command in ["rotate", "remove"] {
        let refused = bench.run(&[command, bench.id(), "--yes"]).run().await?.expect(1)?;
        ensure!(
            refused.stderr.contains("belongs to Argo CD application \"clusters\"")
                && refused.stderr.contains("--force=owner"),
            "{refused}"
        );
    }
    let listed = bench.run(&["list", "-o", "json"]).run().await?.expect(0)?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    ensure!(
        listed["items"][0]["managedBy"] == "Argo CD application \"clusters\"",
        "{listed:#}"
    );
    let rotate = ["rotate", bench.id(), "--grace", "1s", "--yes", "--force=owner"];
    bench.run(&rotate).run().await?.expect(0)?;
    bench.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_another_argocd_with_the_same_names_is_left_alone() -> Result<()> {
    let bench = Bench::begin("mandal").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let (secret, own) = (name_of_secret(&bench).await?, bench.living().await?.remove(0));
    let mark = format!(
        "kubectl-argocd-rancher run=zzzzz for={}/{secret} in=0000",
        bench.namespace
    );
    let (other, _) = token_of_ours(&bench, &mark, Some(bench.id())).await?;
    let listed = bench.run(&["list"]).run().await?.expect(0)?;
    ensure!(!listed.stderr.contains(&other), "{listed}");
    bench.delete(&secret).await?;
    // Its own one was used a moment ago.
    let remove = ["remove", bench.id(), "--yes"];
    let refused = bench.run(&remove).run().await?.expect(1)?;
    ensure!(
        refused.stderr.contains("--force=in-use") && !refused.stderr.contains(&other),
        "{refused}"
    );
    let forced = [&remove[..], &["--force=in-use"]].concat();
    bench.run(&forced).run().await?.expect(0)?;
    ensure!(!is_alive(&bench, &own).await?, "it is left");
    ensure!(is_alive(&bench, &other).await?, "another Argo CD's token was revoked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ranchers_own_cluster_gets_a_token_without_a_scope_or_none() -> Result<()> {
    let bench = Bench::begin("farsund").await?;
    let mut local = Registration::imported("local").kind("local");
    local.id = Some("local".to_owned());
    // Another test may have registered it: there is one in a Rancher.
    let _ = bench.story.rancher.register_as(&local).await;
    let refused = bench.run(&["add", "local"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("--unscoped"), "{refused}");
    let needless = bench.run(&["add", bench.id(), "--unscoped"]).run().await?.expect(1)?;
    ensure!(
        needless.stderr.contains("does not need a token without a scope"),
        "{needless}"
    );
    let added = bench.run(&["add", "local", "--unscoped"]).run().await?.expect(0)?;
    ensure!(
        added.stderr.contains("works for every cluster that its owner sees"),
        "{added}"
    );
    bench.bare(&["verify", "local"]).run().await?.expect(0)?;
    let refused = bench.run(&["rotate", "local", "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("--unscoped"), "{refused}");
    let rotate = ["rotate", "local", "--unscoped", "--grace", "1s", "--yes"];
    bench.run(&rotate).run().await?.expect(0)?;
    bench.bare(&["verify", "local"]).run().await?.expect(0)?;
    // One that was made by hand with a scope is not called proven.
    let (_, scoped) = token_of_ours(&bench, "by hand", Some("local")).await?;
    let secret = bench.secret().await?;
    let mut login = config(&secret)?;
    login["bearerToken"] = json!(scoped);
    bench.overwrite(&secret, &login).await?;
    let verified = bench.bare(&["verify", "local"]).run().await?.expect(1)?;
    ensure!(
        verified.stdout.contains("redirects /k8s/clusters/local/api"),
        "{verified}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_argocd_cannot_use_is_named_alike_everywhere() -> Result<()> {
    let bench = Bench::begin("sogndal").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let secret = bench.secret().await?;
    let name = name_of_secret(&bench).await?;
    let blank = json!({"stringData": {"server": format!("{}\n", bench.server())}});
    bench
        .secrets
        .patch(&name, &PatchParams::default(), &Patch::Merge(blank))
        .await?;
    for command in ["add", "rotate", "verify"] {
        let refused = bench.run(&[command, bench.id()]).run().await?.expect(1)?;
        let text = refused.to_string();
        ensure!(text.contains("has a space or a line break"), "{refused}");
        ensure!(command == "verify" || text.contains("kubectl edit secret"), "{refused}");
    }
    let right = json!({"stringData": {"server": bench.server()}});
    bench
        .secrets
        .patch(&name, &PatchParams::default(), &Patch::Merge(right))
        .await?;
    let mut login = config(&secret)?;
    login["username"] = json!("argo");
    bench.overwrite(&secret, &login).await?;
    for command in ["add", "rotate"] {
        let refused = bench.run(&[command, bench.id()]).run().await?.expect(1)?;
        ensure!(
            refused.stderr.contains("both a bearer token and a user name")
                && refused.stderr.contains("kubectl edit secret"),
            "{refused}"
        );
    }
    // The name that the certificate must be for counts in the proof.
    let mut login = config(&secret)?;
    login["tlsClientConfig"]["serverName"] = json!("elsewhere.example.com");
    bench.overwrite(&secret, &login).await?;
    bench.run(&["verify", bench.id()]).run().await?.expect(1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_not_resumed_at_another_rancher() -> Result<()> {
    let bench = Bench::begin("kragero").await?;
    let old = stopped_in_grace(&bench).await?;
    let name = name_of_secret(&bench).await?;
    let right = bench.server();
    let wrong = right
        .replace("https://", "https://elsewhere-")
        .replace("127.0.0.1", "x.invalid");
    let serve = async |server: &str| {
        let change = Patch::Merge(json!({"stringData": {"server": server}}));
        bench.secrets.patch(&name, &PatchParams::default(), &change).await
    };
    serve(&wrong).await?;
    for command in ["rotate", "rollback"] {
        let refused = bench.run(&[command, &name, "--grace", "1s", "--yes"]).run().await?;
        ensure!(
            refused.code() != Some(0)
                && refused
                    .stderr
                    .contains("does not lead through the Rancher that was given"),
            "{refused}"
        );
    }
    serve(&right).await?;
    let undo = ["rollback", bench.id(), "--grace", "1s", "--yes"];
    bench.run(&undo).run().await?.expect(0)?;
    tokio::time::timeout(Duration::from_secs(30), bench.is_restored(&old)).await?
}
