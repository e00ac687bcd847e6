//! `server-token rotate`, undisturbed.

use anyhow::{Result, ensure};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::{OTHER, TOKEN, file};
use crate::rotation_fixture::{RotationFixture, hash12};
use crate::snapshots;

const UNPINNED: [&str; 3] = ["nowhere"; 3];

#[tokio::test(flavor = "multi_thread")]
async fn rotate_replaces_the_token_of_three_servers() -> Result<()> {
    let fixture = RotationFixture::start_three("rotate-three", UNPINNED).await?;
    let done = fixture.run("rotate", &["-v=9"]).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    ensure!(done.stdout.contains("server-token rotated"), "{done}");
    ensure!(done.stderr.contains("All 3 servers accepted"), "{done}");
    ensure!(fixture.puts().await? == 3, "one round is three PUTs");
    // The first and the last snapshot of each server are kept.
    let state = fixture.servers.cluster.state().await?;
    let new = hash12(&fixture.new_token()?);
    let snapshots = state["datastore"]["snapshots"].as_array().into_iter().flatten();
    let needed: Vec<&str> = snapshots
        .filter_map(|snapshot| snapshot["tokenHash"].as_str())
        .collect();
    let count = |hash: &str| needed.iter().filter(|needed| **needed == hash).count();
    ensure!((count(&hash12(TOKEN)), count(&new)) == (3, 3), "{state}");
    fixture.is_rotated().await?;

    let verify = async |token: &str| fixture.servers.run(&["verify"], token).await;
    verify(&fixture.new_token()?).await?.expect(0)?;
    verify(TOKEN).await?.expect(1)?;
    let status = fixture.servers.json(&["status"], &fixture.new_token()?, 0).await?;
    ensure!(status["lastResult"] == "rotated", "{status}");
    snapshots::each_snapshot_shows_its_token(&fixture).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_prints_every_step() -> Result<()> {
    let fixture = RotationFixture::start_three("rotate-dry-run", UNPINNED).await?;
    for mode in ["--dry-run", "--dry-run=server"] {
        let plan = fixture.run("rotate", &[mode]).await?.expect(0)?;
        for step in [
            "create a new token, and write it to",
            "take an etcd snapshot on every server, to keep",
            "restart server s1",
            "restart server s2",
            "restart server s3",
            "delete the backup Secret",
        ] {
            ensure!(plan.stdout.contains(step), "{step:?} is missing:\n{plan}");
        }
        ensure!(plan.stdout.contains("Older snapshots still need it"), "{plan}");
    }
    ensure!(fixture.puts().await? == 0, "a dry run has sent a PUT");
    ensure!(
        std::fs::metadata(fixture.new_file()).is_err(),
        "a dry run has written the token"
    );
    let state = fixture.servers.cluster.state().await?;
    ensure!(state["datastore"]["snapshots"] == json!([]), "{state}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_replaces_the_token_of_one_server_with_sqlite() -> Result<()> {
    let cluster = json!({ "datastore": "sqlite", "servers": [{ "name": "s1", "pin": "nowhere" }] });
    let fixture = RotationFixture::start("rotate-sqlite", cluster).await?;
    // Its API server, with the Lease, is away while it restarts.
    let done = fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_second_put_shows_what_cannot_be_seen() -> Result<()> {
    let cluster = json!({ "datastore": "sqlite", "servers": [{ "name": "s1", "pin": "nowhere" }] });
    let fixture = RotationFixture::start("rotate-sqlite-by-hand", cluster).await?;
    let running = fixture.spawn(fixture.shell(), &[]).await?;
    fixture.operate(&running, &["s1"]).await?;
    running.finish().await?.expect(0)?;
    ensure!(fixture.puts().await? == 2, "{}", fixture.puts().await?);
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_has_an_operator_restart_each_server() -> Result<()> {
    let fixture = RotationFixture::start_three("rotate-by-hand", UNPINNED).await?;
    let running = fixture.spawn(fixture.shell(), &[]).await?;
    fixture.operate(&running, &["s1", "s2", "s3"]).await?;
    let done = running.finish().await?.expect(0)?;
    for server in ["s1", "s2", "s3"] {
        ensure!(done.stderr.contains(&format!("On server {server}:")), "{done}");
    }
    ensure!(done.stderr.contains("systemctl --no-block restart k3s"), "{done}");
    fixture.is_rotated().await
}

#[rstest]
#[case::removed("pinned", ["config", "env", "nowhere"], &[])]
#[case::removed_from_files("pinned-in-files", ["config-dir", "token-file", "nowhere"], &[])]
#[case::configured_again("repinned", ["config", "env", "config-dir"], &["--repin"])]
#[tokio::test(flavor = "multi_thread")]
async fn a_configured_token_is_removed_and_on_request_replaced(
    #[case] name: &str,
    #[case] pins: [&str; 3],
    #[case] flags: &[&str],
) -> Result<()> {
    let fixture = RotationFixture::start_three(&format!("rotate-{name}"), pins).await?;
    fixture.run("rotate", flags).await?.expect(0)?;
    let state = fixture.servers.cluster.state().await?;
    let expected = if flags.is_empty() {
        Value::Null
    } else {
        json!(hash12(&fixture.new_token()?))
    };
    for server in ["s1", "s2", "s3"] {
        ensure!(state["servers"][server]["configured"] == expected, "{server}: {state}");
    }
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rke2_has_its_own_names() -> Result<()> {
    let servers = ["r1", "r2", "r3"].map(|name| json!({ "name": name, "pin": "config" }));
    let cluster = json!({ "distribution": "rke2", "servers": servers });
    let fixture = RotationFixture::start("rotate-rke2", cluster).await?;
    let plan = fixture
        .run("rotate", &["--force=unmeasured", "--dry-run"])
        .await?
        .expect(0)?;
    ensure!(plan.stdout.contains("unmeasured: RKE2"), "{plan}");
    fixture.run("rotate", &["--force=unmeasured"]).await?.expect(0)?;
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_separate_agent_token_stays_as_it_is() -> Result<()> {
    let servers = ["s1", "s2", "s3"].map(|name| json!({ "name": name, "pin": "nowhere" }));
    let cluster = json!({ "agentToken": OTHER, "servers": servers });
    let fixture = RotationFixture::start("rotate-agent-token", cluster).await?;
    fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.is_rotated().await?;
    let as_agent = format!("K10{}::node:{OTHER}", fixture.servers.ca_hash());
    fixture.servers.run(&["verify"], &as_agent).await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_secrets_do_not_stand_in_the_way() -> Result<()> {
    let servers = ["s1", "s2", "s3"].map(|name| json!({ "name": name, "pin": "nowhere" }));
    let fixture = RotationFixture::start("rotate-encrypted", json!({ "encryption": true, "servers": servers })).await?;
    fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_token_is_printed_before_any_server_has_it() -> Result<()> {
    let fixture = RotationFixture::start_three("rotate-print", UNPINNED).await?;
    let old = file(fixture.shell(), "given-old", TOKEN, 0o600)?;
    let exec = fixture.node_exec()?;
    let args = [
        "server-token",
        "rotate",
        "--yes",
        "--token-file",
        &old,
        "--print-token",
        &exec,
    ];
    let done = fixture.shell().bootstrap_token(args).run().await?.expect(0)?;
    let prefix = format!("K10{}::server:", fixture.servers.ca_hash());
    let printed: Vec<&str> = done
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .collect();
    ensure!(printed.len() == 1, "it is printed once: {}", done.stdout);
    fixture.servers.run(&["verify"], printed[0]).await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_token_is_used_and_an_unsafe_one_refused() -> Result<()> {
    let fixture = RotationFixture::start_three("rotate-given", UNPINNED).await?;
    for (text, reason) in [
        ("short\n", "at least 16 characters"),
        ("abcdef.0123456789abcdef\n", "bootstrap token"),
    ] {
        let path = file(fixture.shell(), "unsafe", text, 0o600)?;
        let refused = fixture.run("rotate", &["--new-token-file", &path]).await?.expect(2)?;
        ensure!(refused.stderr.contains(reason), "{refused}");
    }
    let given = "a-token-of-the-user.2026";
    let path = file(fixture.shell(), "given", &format!("{given}\n"), 0o600)?;
    fixture.run("rotate", &["--new-token-file", &path]).await?.expect(0)?;
    ensure!(fixture.new_token()? == given, "another token is used");
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_restarts_one_server_and_the_same_command_finishes() -> Result<()> {
    let fixture = RotationFixture::start_three("rotate-only", UNPINNED).await?;
    let refused = fixture.run("rotate", &["--only", "s9"]).await?.expect(2)?;
    ensure!(
        refused.stderr.contains("server \"s9\" of --only not found"),
        "{refused}"
    );
    let stopped = fixture.run("rotate", &["--only", "s2"]).await?.expect(4)?;
    ensure!(stopped.stderr.contains("is still accepted by s1, s3"), "{stopped}");
    ensure!(stopped.stderr.contains("join no server"), "{stopped}");
    fixture.prints_no_token(&stopped)?;
    let is_place = |line: &str| line.starts_with("place ") && line.contains("waiting for server");
    ensure!(
        !stopped.stderr.lines().any(is_place),
        "a restart is not of phase place:\n{stopped}"
    );
    let status = fixture.servers.run(&["status"], TOKEN).await?.expect(0)?;
    for line in [
        "Rotation in progress",
        "phase     prove",
        "server-token rotate",
        "server-token rollback",
    ] {
        ensure!(status.stdout.contains(line), "{line:?} is missing:\n{status}");
    }
    // Nothing waits for a server.
    ensure!(!status.stdout.contains("deadline"), "{status}");
    let state = fixture.servers.cluster.state().await?;
    let new = json!(hash12(&fixture.new_token()?));
    let live = |server: &str| &state["servers"][server]["live"]["server"];
    ensure!(
        *live("s2") == new && *live("s1") != new && *live("s3") != new,
        "{state}"
    );
    fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rotation_can_be_resumed_with_either_token() -> Result<()> {
    let fixture = RotationFixture::start_three("rotate-interrupted", UNPINNED).await?;
    // No one restarts the servers.
    let running = fixture.spawn(fixture.shell(), &[]).await?;
    let cluster = &fixture.servers.cluster;
    let is_placed = |state: &Value| state["servers"]["s3"]["files"]["token"]["fingerprint"] != json!(hash12(TOKEN));
    cluster.wait_for("the round", is_placed).await?;
    running.signal(Signal::INT)?;
    let stopped = running.finish().await?.expect(130)?;
    ensure!(stopped.stderr.contains("server-token rotate"), "{stopped}");
    let exec = fixture.node_exec()?;
    let args = fixture.args_with("rotate", fixture.new_file(), &[&exec]);
    let done = fixture.shell().bootstrap_token(args).run().await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    fixture.is_rotated().await
}

/// They were close when the rotation began, and it is resumed later.
#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_rotation_sends_nothing_while_the_clocks_differ() -> Result<()> {
    let fixture = RotationFixture::start_three("rotate-clocks", ["config"; 3]).await?;
    // It asks an operator to remove the token of s1, before the round.
    let running = fixture.spawn(fixture.shell(), &[]).await?;
    let asks = |text: &str| text.contains("On server s1:").then_some(());
    running.until_stderr("an instruction for an operator", asks).await?;
    running.signal(Signal::INT)?;
    running.finish().await?.expect(130)?;
    let cluster = &fixture.servers.cluster;
    cluster.faults("s1", &json!({ "ahead": 5.0 })).await?;
    let stopped = fixture.run("rotate", &[]).await?.expect(4)?;
    let reason = "the clocks of the servers differ by 2 s or more";
    ensure!(stopped.stderr.contains(reason), "{stopped}");
    ensure!(fixture.puts().await? == 0, "a PUT was sent:\n{stopped}");
    cluster.faults("s1", &json!({ "ahead": 0.0 })).await?;
    fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.is_rotated().await
}
