//! `server-token verify`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{OTHER, ServerFixture, TOKEN, file, run};

/// An address where nothing listens.
const NOWHERE: &str = "https://127.0.0.1:1";

/// `(accepted, acceptedAs)` of each server.
fn results(verification: &Value) -> Vec<(&str, &Value)> {
    let servers = verification["servers"].as_array().into_iter().flatten();
    servers
        .map(|server| (server["accepted"].as_str().unwrap_or_default(), &server["acceptedAs"]))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_the_role_in_which_every_server_accepts_the_token() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let as_server = json!(["server", "agent"]);
    let hash = fixture.ca_hash();
    for token in [TOKEN.to_owned(), format!("K10{hash}::server:{TOKEN}\n")] {
        let verified = fixture.json(&["verify"], &token, 0).await?;
        ensure!(results(&verified) == [("yes", &as_server); 3], "{verified}");
        ensure!(
            verified["accepted"] == "yes" && verified["acceptedAs"] == as_server,
            "{verified}"
        );
    }
    let as_agent = fixture
        .json(&["verify"], &format!("K10{hash}::node:{TOKEN}"), 0)
        .await?;
    ensure!(as_agent["acceptedAs"] == json!(["agent"]), "{as_agent}");

    let created = fixture.shell.bootstrap_token(["create"]).run().await?.expect(0)?;
    for token in [created.stdout.clone(), format!("K10{hash}::{}", created.stdout)] {
        let verified = fixture.json(&["verify"], &token, 0).await?;
        ensure!(verified["acceptedAs"] == json!(["bootstrap-token"]), "{verified}");
    }
    let revoked = "abcdef.0123456789abcdef";
    for token in [OTHER, revoked] {
        let rejected = fixture.json(&["verify"], token, 1).await?;
        ensure!(rejected["accepted"] == "no", "{rejected}");
    }
    let page = fixture.run(&["verify"], OTHER).await?.expect(1)?;
    ensure!(page.stdout.contains("not accepted by every server"), "{page}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_sends_no_token_to_a_server_with_another_ca() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let (hash, wrong) = (fixture.ca_hash(), "a".repeat(64));
    // A whole hash looks like a token.
    let (short, short_wrong) = (format!("{hash:.12}…"), format!("{wrong:.12}…"));
    let token = format!("K10{wrong}::server:{TOKEN}");
    let refused = fixture.run(&["verify"], &token).await?.expect(1)?;
    ensure!(
        refused.stdout.contains(&format!("has hash {short}, not {short_wrong}")),
        "{refused}"
    );
    ensure!(refused.stderr.contains("--ca-hash"), "{refused}");
    let flag = format!("--ca-hash={hash}");
    let refused = fixture.run(&["verify", &flag], &token).await?.expect(2)?;
    ensure!(
        refused.stderr.contains(&short_wrong) && refused.stderr.contains(&short),
        "{refused}"
    );
    fixture.run(&["verify", &flag], TOKEN).await?.expect(0)?;
    let flag = format!("--ca-hash={wrong}");
    let refused = fixture.run(&["verify", &flag], TOKEN).await?.expect(1)?;
    ensure!(refused.stdout.contains(&format!("not {short_wrong}")), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_must_be_private_and_hold_one_token() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let verify = async |path: &str| fixture.run(&["verify", "--token-file", path], "").await;
    let private = file(&fixture.shell, "private", &format!("{TOKEN}\n"), 0o600)?;
    verify(&private).await?.expect(0)?;
    let readable = file(&fixture.shell, "readable", TOKEN, 0o644)?;
    let refused = verify(&readable).await?.expect(1)?;
    ensure!(
        refused.stderr.contains(&format!("hint: chmod 600 {readable}")),
        "{refused}"
    );
    let two = file(&fixture.shell, "two", &format!("{TOKEN}\n{OTHER}\n"), 0o600)?;
    let refused = verify(&two).await?.expect(2)?;
    ensure!(refused.stderr.contains("the token has several lines"), "{refused}");
    let none = fixture.run(&["verify"], "").await?.expect(2)?;
    ensure!(
        none.stderr
            .contains("pass the token with --token-file or --token-stdin"),
        "{none}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_works_without_the_kubernetes_api() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let shell = fixture.shell_at("s1", NOWHERE).await?;
    let refused = run(&shell, &["verify"], TOKEN).await?.expect(1)?;
    ensure!(refused.stderr.contains("pass --server-address NODE=HOST"), "{refused}");
    let addresses = fixture.addresses(&["s1", "s2", "s3"])?;
    let args: Vec<&str> = ["verify", "-o", "json"]
        .into_iter()
        .chain(addresses.iter().map(String::as_str))
        .collect();
    let verified = run(&shell, &args, TOKEN).await?.expect(0)?;
    ensure!(
        verified
            .stderr
            .contains("only the servers of --server-address are verified"),
        "{verified}"
    );
    let verified: Value = serde_json::from_str(&verified.stdout)?;
    ensure!(
        results(&verified) == [("yes", &json!(["server", "agent"])); 3],
        "{verified}"
    );
    run(&shell, &args, OTHER).await?.expect(1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn through_rancher_the_token_needs_a_hash_and_goes_to_the_servers_directly() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let shell = fixture
        .shell_at("s1", &format!("{NOWHERE}/k8s/clusters/c-abcde"))
        .await?;
    let address = fixture.addresses(&["s1"])?;
    let args = ["verify", address[0].as_str()];
    let refused = run(&shell, &args, TOKEN).await?.expect(2)?;
    ensure!(
        refused.stderr.contains("the kubeconfig has the CA of Rancher"),
        "{refused}"
    );
    ensure!(refused.stderr.contains("hint: pass --ca-hash HASH"), "{refused}");
    let token = format!("K10{}::server:{TOKEN}", fixture.ca_hash());
    let verified = run(&shell, &args, &token).await?.expect(0)?;
    ensure!(
        verified
            .stderr
            .contains("Rancher's proxy, which does not carry requests to supervisors"),
        "{verified}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_or_does_not_respond_is_unknown() -> Result<()> {
    let fixture = ServerFixture::start_three("server-token-unknown", false).await?;
    fixture.cluster.faults("s2", &json!({ "hold": "login" })).await?;
    fixture.cluster.kill_server("s2").await?;
    let is_held = |state: &Value| state["servers"]["s2"]["phase"] == "login";
    fixture.cluster.wait_for("s2 to check logins", is_held).await?;
    // It accepts the token before it is ready. Agents are still answered 503.
    let starting = fixture.json(&["verify"], TOKEN, 0).await?;
    let both = json!(["server", "agent"]);
    ensure!(
        results(&starting) == [("yes", &both), ("yes", &json!(["server"])), ("yes", &both)],
        "{starting}"
    );
    ensure!(starting["acceptedAs"] == json!(["server"]), "{starting}");
    let as_agent = format!("K10{}::node:{TOKEN}", fixture.ca_hash());
    let starting = fixture.json(&["verify"], &as_agent, 1).await?;
    ensure!(starting["accepted"] == "unknown", "{starting}");
    ensure!(
        starting["servers"][1]["reason"] == "the server is starting",
        "{starting}"
    );
    let status = fixture.json(&["status"], TOKEN, 0).await?;
    ensure!(status["servers"][1]["ready"] == "no", "{status}");
    ensure!(status["servers"][1]["encryption"].is_null(), "{status}");

    fixture.cluster.faults("s2", &json!({ "hold": null })).await?;
    let is_ready = |state: &Value| state["servers"]["s2"]["phase"] == "ready";
    fixture.cluster.wait_for("s2 to be ready", is_ready).await?;
    fixture.cluster.stop_server("s3").await?;
    let down = fixture.json(&["verify"], TOKEN, 1).await?;
    ensure!(
        down["accepted"] == "unknown" && down["servers"][2]["accepted"] == "unknown",
        "{down}"
    );
    // A rejection is one, whatever else is unknown.
    let rejected = fixture.json(&["verify"], OTHER, 1).await?;
    ensure!(rejected["accepted"] == "no", "{rejected}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rke2_has_its_own_port_and_is_recognized_without_the_kubernetes_api() -> Result<()> {
    let cluster = json!({ "distribution": "rke2", "servers": [{ "name": "r1", "pin": "config" }] });
    let fixture = ServerFixture::start("server-token-rke2", cluster).await?;
    let verified = fixture.json(&["verify"], TOKEN, 0).await?;
    let address = format!("{}:9345", fixture.cluster.address("r1")?);
    ensure!(verified["servers"][0]["address"] == json!(address), "{verified}");
    let status = fixture.json(&["status"], TOKEN, 0).await?;
    ensure!(
        status["servers"][0]["accepted"] == "yes" && status["servers"][0]["ready"] == "yes",
        "{status}"
    );

    let shell = fixture.shell_at("r1", NOWHERE).await?;
    let flag = format!("--server-address=r1={address}");
    let verified = run(&shell, &["verify", &flag], TOKEN).await?.expect(0)?;
    ensure!(verified.stdout.contains(&address), "{verified}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_prints_the_token() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let token = format!("K10{}::server:{TOKEN}", fixture.ca_hash());
    let path = file(&fixture.shell, "leaks", &token, 0o600)?;
    for command in ["status", "verify"] {
        for form in [&["-v=9"][..], &["-v=9", "-o", "json"]] {
            let args: Vec<&str> = [command, "--token-file", &path]
                .into_iter()
                .chain(form.iter().copied())
                .collect();
            let output = fixture.run(&args, "").await?.expect(0)?;
            ensure!(
                output.stderr.contains("/v1-k3s/token"),
                "the log has no requests:\n{output}"
            );
            ensure!(!output.to_string().contains(TOKEN), "{args:?} prints it");
        }
    }
    // As a value of the wrong flag.
    let flag = format!("--ca-hash={token}");
    let refused = fixture
        .run(&["verify", &flag, "--token-file", &path], "")
        .await?
        .expect(2)?;
    ensure!(!refused.stderr.contains(TOKEN), "the token is repeated");
    Ok(())
}
