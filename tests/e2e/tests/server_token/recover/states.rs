//! The states that were seen on real servers after a change of the token, each through `recover`.

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};

use super::{MINUTE, PINNED, THREE, UNPINNED, args, breaks, is_recovered, recover, recover_at, rotated_by_hand};
use crate::cluster::{OTHER, TOKEN};
use crate::rotation_fixture::{RotationFixture, hash12};

/// A token that the servers get after the others.
const THIRD: &str = "00112233445566778899aabbccddeeff";

#[tokio::test(flavor = "multi_thread")]
async fn an_unpinned_server_that_restarted_before_it_had_the_token_comes_back() -> Result<()> {
    let fixture = rotated_by_hand("recover-unplaced", UNPINNED).await?;
    breaks(&fixture, "s2").await?;
    let done = recover(&fixture, &[OTHER, TOKEN], &[]).await?.expect(0)?;
    ensure!(is_recovered(&fixture, &done).await? == hash12(OTHER), "{done}");
    Ok(())
}

#[rstest]
#[case::joined_pinned("s2", "config")]
#[case::joined_unpinned("s2", "nowhere")]
#[case::first_pinned("s1", "config")]
#[case::first_unpinned("s1", "nowhere")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_down_during_the_rotation_comes_back(#[case] away: &str, #[case] pin: &str) -> Result<()> {
    let fixture = RotationFixture::start_three(&format!("recover-away-{away}-{pin}"), UNPINNED).await?;
    let cluster = &fixture.servers.cluster;
    cluster.stop_server(away).await?;
    cluster.pin(away, pin, Some(TOKEN)).await?;
    cluster.time_passes(MINUTE).await?;
    let others = THREE.iter().filter(|server| **server != away);
    for server in others.clone() {
        fixture.servers.put(server, TOKEN, OTHER).await?;
    }
    for server in others {
        ensure!(cluster.restart_server(server).await?, "{server} does not start");
    }
    breaks(&fixture, away).await?;
    let done = recover_at(&fixture, &THREE, &[OTHER, TOKEN]).await?.expect(0)?;
    ensure!(is_recovered(&fixture, &done).await? == hash12(OTHER), "{done}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_missed_an_undo_comes_back() -> Result<()> {
    let fixture = rotated_by_hand("recover-undone", UNPINNED).await?;
    // Its own copy has the new token, and its file the old one.
    breaks(&fixture, "s2").await?;
    for server in ["s1", "s3"] {
        fixture.servers.put(server, TOKEN, TOKEN).await?;
    }
    let done = recover(&fixture, &[OTHER, TOKEN], &[]).await?.expect(0)?;
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[rstest]
#[case::running("running")]
#[case::dead("dead")]
#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_was_turned_half_way_is_mended(#[case] first: &str) -> Result<()> {
    let fixture = rotated_by_hand(&format!("recover-turned-{first}"), UNPINNED).await?;
    for server in THREE {
        fixture.servers.put(server, TOKEN, TOKEN).await?;
    }
    fixture.servers.cluster.time_passes(MINUTE).await?;
    if first == "dead" {
        breaks(&fixture, "s1").await?;
        let log = fixture.servers.cluster.log("s1")?;
        ensure!(log.contains("cred/passwd newer than datastore"), "{log}");
    }
    let done = recover_at(&fixture, &THREE, &[OTHER, TOKEN]).await?.expect(0)?;
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_got_a_token_while_it_was_starting_is_healed() -> Result<()> {
    let fixture = rotated_by_hand("recover-starting", UNPINNED).await?;
    let cluster = &fixture.servers.cluster;
    for server in ["s2", "s3"] {
        fixture.servers.put(server, TOKEN, OTHER).await?;
    }
    cluster.faults("s2", &json!({ "hold": "login" })).await?;
    cluster.kill_server("s2").await?;
    let accepts = |state: &Value| state["servers"]["s2"]["phase"] == "login";
    cluster.wait_for("s2 to check logins", accepts).await?;
    ensure!(
        fixture.servers.put("s2", OTHER, THIRD).await.is_err(),
        "it was accepted"
    );
    cluster.faults("s2", &json!({ "hold": null })).await?;
    let is_ready = |state: &Value| state["servers"]["s2"]["phase"] == "ready";
    cluster.wait_for("s2 to be ready", is_ready).await?;
    cluster.time_passes(MINUTE).await?;
    let done = recover(&fixture, &[OTHER, TOKEN], &[]).await?.expect(0)?;
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_joined_with_the_old_token_comes_back() -> Result<()> {
    let mut fixture = rotated_by_hand("recover-joined", PINNED).await?;
    ensure!(
        !fixture.servers.cluster.add_server("s4", TOKEN).await?,
        "s4 has joined with the old token"
    );
    let done = recover(&fixture, &[OTHER, TOKEN], &[]).await?.expect(0)?;
    let is_sent = "Set token";
    let (before, _) = done.stderr.split_once(is_sent).context("no round")?;
    ensure!(
        before.contains("s4: it accepts"),
        "a round was sent before s4 was back:\n{done}"
    );
    ensure!(is_recovered(&fixture, &done).await? == hash12(OTHER), "{done}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_white_space_at_its_end_is_replaced_by_the_same_without_it() -> Result<()> {
    let fixture = with_white_space("recover-newline").await?;
    // Its value is in server/token of the first server.
    let done = recover(&fixture, &[TOKEN], &[]).await?.expect(0)?;
    ensure!(is_recovered(&fixture, &done).await? == hash12(OTHER), "{done}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datastore_with_an_unknown_token_is_for_an_operator() -> Result<()> {
    let fixture = with_white_space("recover-stuck").await?;
    let args = args(&fixture, &[TOKEN], &[])?;
    for _ in 0..2 {
        // A repeated command does not take the token in the files for that of the datastore.
        let stopped = fixture.shell().bootstrap_token(&args).run().await?.expect(4)?;
        for text in [
            "On server s1:",
            "do not restart any server",
            "/var/lib/rancher/k3s/server/cred/passwd",
        ] {
            ensure!(stopped.stderr.contains(text), "{text:?} is missing:\n{stopped}");
        }
    }
    let rows = format!("{OTHER},node,node,k3s:agent\n{OTHER},server,server,k3s:server\n");
    std::fs::write(fixture.servers.server_dir("s1").join("cred/passwd"), rows)?;
    let done = recover(&fixture, &[TOKEN], &[]).await?.expect(0)?;
    is_recovered(&fixture, &done).await?;
    Ok(())
}

/// Three servers after a change to a token that ends with a line break: the datastore has it without.
async fn with_white_space(name: &str) -> Result<RotationFixture> {
    let fixture = RotationFixture::start_three(name, UNPINNED).await?;
    fixture.servers.cluster.time_passes(MINUTE).await?;
    let text = format!("{OTHER}\n");
    ensure!(
        fixture.servers.put("s1", TOKEN, &text).await.is_err(),
        "it was accepted"
    );
    fixture.servers.cluster.time_passes(MINUTE).await?;
    Ok(fixture)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_etcd_is_reported_with_what_an_operator_does_there() -> Result<()> {
    let server = |name: &str, role: &str| json!({ "name": name, "pin": "config", "role": role });
    let servers = [("s1", "full"), ("s2", "full"), ("s3", "full"), ("s4", "control-plane")];
    let servers = servers.map(|(name, role)| server(name, role));
    let fixture = RotationFixture::start("recover-control-plane", json!({ "servers": servers })).await?;
    fixture.servers.put("s1", TOKEN, OTHER).await?;
    let refused = recover(&fixture, &[OTHER, TOKEN], &[]).await?.expect(1)?;
    for text in ["server s4 runs only a control plane", "cred/passwd"] {
        ensure!(refused.stderr.contains(text), "{text:?} is missing:\n{refused}");
    }
    ensure!(fixture.puts().await? == 1, "a PUT was sent:\n{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_token_that_was_changed_in_the_configuration_alone_is_reported() -> Result<()> {
    let servers = THREE.map(|name| json!({ "name": name, "pin": "nowhere" }));
    let cluster = json!({ "agentToken": "former-agent-token-0123", "servers": servers });
    let fixture = RotationFixture::start("recover-agent-token", cluster).await?;
    let cluster = &fixture.servers.cluster;
    for server in THREE {
        let config = cluster.root(server).join("etc/rancher/k3s/config.yaml");
        let text = std::fs::read_to_string(&config)?.replace("former-agent-token-0123", "later-agent-token-4567");
        std::fs::write(&config, text)?;
    }
    // Its first start writes cred/passwd, and its second one is the trap.
    ensure!(cluster.restart_server("s1").await?, "s1 does not start");
    cluster.kill_server("s1").await?;
    let fails = |state: &Value| state["servers"]["s1"]["unit"]["restarts"].as_u64() > Some(1);
    cluster.wait_for("failed starts", fails).await?;
    let reported = recover_at(&fixture, &THREE, &[TOKEN]).await?.expect(1)?;
    ensure!(reported.stderr.contains("agent token"), "{reported}");
    // What it says is done: s1 is up again, and its PUT saves its files.
    fixture.servers.put("s1", TOKEN, TOKEN).await?;
    for server in ["s2", "s3"] {
        ensure!(cluster.restart_server(server).await?, "{server} does not start");
    }
    let done = recover(&fixture, &[TOKEN], &[]).await?.expect(0)?;
    is_recovered(&fixture, &done).await?;
    Ok(())
}
