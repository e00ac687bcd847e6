//! `server-token recover`: from each state of the servers to one token that all accept and start with.

mod interrupted;
mod states;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, Shell, until};
use rstest::rstest;
use serde_json::{Value, json};

use crate::cluster::{OTHER, TOKEN, file};
use crate::rotation_fixture::{RotationFixture, hash12};

/// Longer than the times of files may differ.
const MINUTE: Duration = Duration::from_mins(1);
const PINNED: [&str; 3] = ["config"; 3];
const UNPINNED: [&str; 3] = ["nowhere"; 3];
const THREE: [&str; 3] = ["s1", "s2", "s3"];

/// `recover` with these tokens, in this shell.
async fn recover_in(fixture: &RotationFixture, shell: &Shell, tokens: &[&str], more: &[&str]) -> Result<CommandOutput> {
    shell.bootstrap_token(args(fixture, tokens, more)?).run().await
}

fn args(fixture: &RotationFixture, tokens: &[&str], more: &[&str]) -> Result<Vec<String>> {
    let mut args = ["server-token", "recover", "--yes", "--write-token", fixture.new_file()]
        .map(str::to_owned)
        .to_vec();
    for (number, token) in tokens.iter().enumerate() {
        let text = format!("K10{}::server:{token}\n", fixture.servers.ca_hash());
        let path = file(fixture.shell(), &format!("token-{number}"), &text, 0o600)?;
        args.extend(["--token-file".to_owned(), path]);
    }
    args.extend(more.iter().map(|word| (*word).to_owned()));
    Ok(args)
}

/// With access to nodes.
async fn recover(fixture: &RotationFixture, tokens: &[&str], more: &[&str]) -> Result<CommandOutput> {
    let exec = fixture.node_exec()?;
    let more: Vec<&str> = [exec.as_str()].into_iter().chain(more.iter().copied()).collect();
    recover_in(fixture, fixture.shell(), tokens, &more).await
}

/// With access to nodes, and the addresses of these servers: the kubeconfig leads to the first one, which may be down.
async fn recover_at(fixture: &RotationFixture, servers: &[&str], tokens: &[&str]) -> Result<CommandOutput> {
    let addresses = fixture.servers.addresses(servers)?;
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    recover(fixture, tokens, &addresses).await
}

/// Three servers that are configured with the old token, after `k3s token rotate` on the first.
async fn rotated_by_hand(name: &str, pins: [&str; 3]) -> Result<RotationFixture> {
    let fixture = RotationFixture::start_three(name, pins).await?;
    fixture.servers.cluster.time_passes(MINUTE).await?;
    fixture.servers.put("s1", TOKEN, OTHER).await?;
    fixture.servers.cluster.time_passes(MINUTE).await?;
    Ok(fixture)
}

/// Every server accepts the same token, has it in its files and starts with it, and neither token is in the output.
async fn is_recovered(fixture: &RotationFixture, done: &CommandOutput) -> Result<String> {
    let text = done.to_string();
    for token in [TOKEN, OTHER] {
        ensure!(!text.contains(token), "a token is printed:\n{text}");
    }
    let state = fixture.servers.cluster.state().await?;
    let live = state["servers"]["s1"]["live"]["server"].as_str();
    let live = live.with_context(|| format!("{state}"))?.to_owned();
    let used = fixture.all_accept(&live).await;
    used.with_context(|| text)?;
    Ok(live)
}

/// Restarts a server, which does not start any more, until its service starts it again and again.
async fn breaks(fixture: &RotationFixture, server: &str) -> Result<()> {
    let cluster = &fixture.servers.cluster;
    ensure!(!cluster.restart_server(server).await?, "{server} starts");
    let fails = |state: &Value| {
        let unit = &state["servers"][server]["unit"];
        unit["restarts"].as_u64() > Some(1) || unit["active"] == "failed"
    };
    cluster.wait_for("failed starts", fails).await?;
    Ok(())
}

/// An operator writes the token of a dead server, and starts it.
async fn starts_with(fixture: &RotationFixture, server: &str, token: &str) -> Result<()> {
    let cluster = &fixture.servers.cluster;
    cluster.stop_server(server).await?;
    let file = cluster.root(server).join("var/lib/rancher/k3s/server/token");
    std::fs::write(&file, format!("K10{}::server:{token}\n", fixture.servers.ca_hash()))?;
    ensure!(cluster.start_server(server).await?, "{server} does not start");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_by_hand_the_round_is_finished_with_its_token() -> Result<()> {
    let fixture = rotated_by_hand("recover-by-hand", PINNED).await?;
    let planned = recover(&fixture, &[OTHER, TOKEN], &["--dry-run"]).await?.expect(0)?;
    for text in ["s2", "Next: remove the token from the configuration of s2."] {
        ensure!(planned.stdout.contains(text), "{text:?} is missing:\n{planned}");
    }
    ensure!(fixture.puts().await? == 1, "a dry run has sent a PUT");
    let done = recover(&fixture, &[OTHER, TOKEN], &["-v=9"]).await?.expect(0)?;
    ensure!(is_recovered(&fixture, &done).await? == hash12(OTHER), "{done}");
    ensure!(std::fs::metadata(fixture.new_file()).is_err(), "a new token was drawn");
    let again = recover(&fixture, &[OTHER], &[]).await?.expect(0)?;
    ensure!(again.stderr.contains("There is nothing to recover"), "{again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_not_given_is_read_from_the_server_that_has_it() -> Result<()> {
    let fixture = rotated_by_hand("recover-read", PINNED).await?;
    let done = recover(&fixture, &[], &[]).await?.expect(0)?;
    ensure!(is_recovered(&fixture, &done).await? == hash12(OTHER), "{done}");
    Ok(())
}

#[rstest]
#[case::known("known", &[OTHER, TOKEN])]
#[case::unknown("unknown", &[TOKEN])]
#[tokio::test(flavor = "multi_thread")]
async fn without_node_access_an_operator_unpins_and_restarts(
    #[case] name: &str,
    #[case] tokens: &[&str],
) -> Result<()> {
    let fixture = rotated_by_hand(&format!("recover-operator-{name}"), PINNED).await?;
    let args = args(&fixture, tokens, &["--restart-timeout", "20s"])?;
    let running = fixture.shell().bootstrap_token(args).start().await?;
    fixture.operate(&running, &THREE).await?;
    let done = running.finish().await?.expect(0)?;
    ensure!(done.stderr.contains("On server s1:"), "{done}");
    ensure!(done.stderr.contains("remove `token:`"), "{done}");
    let token = is_recovered(&fixture, &done).await?;
    let is_given = tokens.iter().any(|given| hash12(given) == token);
    ensure!(is_given == tokens.contains(&OTHER), "{done}");
    ensure!(is_given || hash12(&fixture.new_token()?) == token, "{done}");
    Ok(())
}

#[rstest]
#[case::first("first", &["s1"], PINNED)]
#[case::joined("joined", &["s2"], PINNED)]
#[case::two("two", &["s2", "s3"], PINNED)]
#[case::two_and_the_first("two-and-first", &["s1", "s3"], PINNED)]
#[case::two_unpinned("two-unpinned", &["s2", "s3"], UNPINNED)]
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_were_restarted_and_are_dead_come_back(
    #[case] name: &str,
    #[case] dead: &[&str],
    #[case] pins: [&str; 3],
) -> Result<()> {
    let fixture = rotated_by_hand(&format!("recover-dead-{name}"), pins).await?;
    for server in dead {
        breaks(&fixture, server).await?;
    }
    let done = recover_at(&fixture, &THREE, &[OTHER, TOKEN]).await?.expect(0)?;
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[rstest]
#[case::pinned("pinned", PINNED)]
#[case::unpinned("unpinned", UNPINNED)]
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_without_its_two_members_comes_back(
    #[case] name: &str,
    #[case] pins: [&str; 3],
) -> Result<()> {
    let fixture = rotated_by_hand(&format!("recover-leader-{name}"), pins).await?;
    let cluster = &fixture.servers.cluster;
    // It is not started again: its state does not depend on the moment of the command.
    cluster
        .faults("s1", &json!({ "leads": true, "staysDown": true }))
        .await?;
    for server in ["s2", "s3"] {
        breaks(&fixture, server).await?;
    }
    let has_ended = |state: &Value| state["servers"]["s1"]["unit"]["active"] == "failed";
    cluster.wait_for("the end of the leader", has_ended).await?;
    cluster.faults("s1", &json!({ "staysDown": false })).await?;
    let done = recover_at(&fixture, &THREE, &[OTHER, TOKEN]).await?.expect(0)?;
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_api_server_three_dead_servers_come_back() -> Result<()> {
    let fixture = rotated_by_hand("recover-all-dead", PINNED).await?;
    for server in ["s3", "s2", "s1"] {
        breaks(&fixture, server).await?;
    }
    let refused = recover(&fixture, &[OTHER, TOKEN], &[]).await?.expect(1)?;
    ensure!(refused.stderr.contains("pass --server-address NODE=HOST"), "{refused}");
    let done = recover_at(&fixture, &THREE, &[OTHER, TOKEN]).await?.expect(0)?;
    ensure!(done.stderr.contains("holds no lock"), "{done}");
    is_recovered(&fixture, &done).await?;
    Ok(())
}

/// `dead`: servers that were restarted after `rke2 token rotate` by hand on the first.
#[rstest]
#[case::running("running", &[])]
#[case::one("one", &["s2"])]
#[case::all("all", &["s3", "s2", "s1"])]
#[tokio::test(flavor = "multi_thread")]
async fn rke2_has_its_own_port_files_and_service(#[case] name: &str, #[case] dead: &[&str]) -> Result<()> {
    let servers = THREE.map(|name| json!({ "name": name, "pin": "config" }));
    let cluster = json!({ "distribution": "rke2", "servers": servers });
    let fixture = RotationFixture::start(&format!("recover-rke2-{name}"), cluster).await?;
    fixture.servers.cluster.time_passes(MINUTE).await?;
    fixture.servers.put("s1", TOKEN, OTHER).await?;
    fixture.servers.cluster.time_passes(MINUTE).await?;
    for server in dead {
        breaks(&fixture, server).await?;
    }
    // Without a server that answers, only the nodes show that it is RKE2.
    let done = recover_at(&fixture, &THREE, &[OTHER, TOKEN]).await?.expect(0)?;
    ensure!(!done.stderr.contains("k3s"), "{done}");
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[rstest]
#[case::sqlite("sqlite")]
#[case::etcd("etcd")]
#[tokio::test(flavor = "multi_thread")]
async fn one_server_comes_back(#[case] datastore: &str) -> Result<()> {
    let cluster = json!({ "datastore": datastore, "servers": [{ "name": "s1", "pin": "config" }] });
    let fixture = RotationFixture::start(&format!("recover-one-{datastore}"), cluster).await?;
    fixture.servers.put("s1", TOKEN, OTHER).await?;
    breaks(&fixture, "s1").await?;
    let done = recover_at(&fixture, &["s1"], &[OTHER, TOKEN]).await?.expect(0)?;
    ensure!(is_recovered(&fixture, &done).await? == hash12(OTHER), "{done}");
    Ok(())
}

#[rstest]
#[case("after-passwd")]
#[case("in-token")]
#[case("after-token")]
#[case("after-key")]
#[case("after-save")]
#[case("after-answer")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_in_a_put_comes_back(#[case] moment: &str) -> Result<()> {
    let fixture = RotationFixture::start_three(&format!("recover-{moment}"), UNPINNED).await?;
    let cluster = &fixture.servers.cluster;
    cluster.time_passes(MINUTE).await?;
    cluster.faults("s1", &json!({ "kill": moment })).await?;
    // It has no answer, but for the last moment.
    let _ = fixture.servers.put("s1", TOKEN, OTHER).await;
    let is_over = |state: &Value| {
        let unit = &state["servers"]["s1"]["unit"];
        unit["failures"].as_u64() > Some(2) || unit["failures"].as_u64() > Some(0) && unit["succeeded"] == true
    };
    cluster.wait_for("the starts after the kill", is_over).await?;
    cluster.time_passes(MINUTE).await?;
    let done = recover_at(&fixture, &THREE, &[OTHER, TOKEN]).await?.expect(0)?;
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_server_is_healed() -> Result<()> {
    let fixture = rotated_by_hand("recover-poisoned", UNPINNED).await?;
    let poison = "00112233445566778899aabbccddeeff";
    ensure!(
        fixture.servers.put("s2", TOKEN, poison).await.is_err(),
        "it was accepted"
    );
    fixture.servers.cluster.time_passes(MINUTE).await?;
    let done = recover(&fixture, &[OTHER, TOKEN], &[]).await?.expect(0)?;
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_that_names_another_file_is_reported_and_nothing_is_removed() -> Result<()> {
    let servers = ["s1", "s2", "s3"].map(|name| json!({ "name": name, "pin": "nowhere" }));
    let fixture =
        RotationFixture::start("recover-encrypted", json!({ "encryption": true, "servers": servers })).await?;
    let cluster = &fixture.servers.cluster;
    cluster.time_passes(MINUTE).await?;
    cluster.encryption("s1", "prepare").await?;
    for server in ["s1", "s2", "s3"] {
        fixture.servers.put(server, TOKEN, OTHER).await?;
    }
    breaks(&fixture, "s1").await?;
    let before = cluster.state().await?["servers"]["s1"]["files"].clone();
    let refused = recover_at(&fixture, &THREE, &[OTHER, TOKEN]).await?.expect(1)?;
    ensure!(refused.stderr.contains("encryption-config.json"), "{refused}");
    ensure!(refused.stderr.contains("remove none of them"), "{refused}");
    let after = cluster.state().await?["servers"]["s1"]["files"].clone();
    ensure!(before == after, "{before} {after}");
    ensure!(fixture.puts().await? == 3, "a PUT was sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_no_server_accepts_are_refused() -> Result<()> {
    let fixture = RotationFixture::start_three("recover-wrong", UNPINNED).await?;
    let refused = recover_in(&fixture, fixture.shell(), &[OTHER], &[]).await?.expect(1)?;
    ensure!(refused.stderr.contains("accepts none of the known tokens"), "{refused}");
    ensure!(refused.stderr.contains("--token-file"), "{refused}");
    ensure!(fixture.puts().await? == 0, "a PUT was sent");
    let none = recover_in(&fixture, fixture.shell(), &[], &[]).await?.expect(2)?;
    ensure!(none.stderr.contains("--token-file or --token-stdin"), "{none}");
    Ok(())
}

/// Where there is no systemd: what replaces it, and where the files of the node are.
fn without_systemd(fixture: &RotationFixture) -> Result<Vec<String>> {
    let cluster = &fixture.servers.cluster;
    let root = cluster.root("s1");
    let nodes = root.parent().context("a node without a directory")?;
    let script = r#"rm -rf /run/systemd; exec "$@""#;
    let exec = cluster.node_exec()?;
    let exec = format!(
        "{exec} sh -c '{script}' sh env 'KUBECTL_ROTATION_ROOT={}/{{node}}'",
        nodes.display()
    );
    let flags = [
        ("--node-exec", exec.as_str()),
        ("--stop-command", "systemctl stop k3s"),
        ("--start-command", "systemctl --no-block start k3s"),
        ("--restart-command", "systemctl --no-block restart k3s"),
        ("--log-command", "journalctl -u k3s"),
    ];
    Ok(flags.iter().map(|(flag, value)| format!("{flag}={value}")).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_systemd_the_commands_of_the_user_stop_and_start_the_service() -> Result<()> {
    let fixture = rotated_by_hand("recover-commands", PINNED).await?;
    for server in THREE {
        // The command starts it once.
        fixture
            .servers
            .cluster
            .faults(server, &json!({ "staysDown": true }))
            .await?;
    }
    breaks(&fixture, "s2").await?;
    let flags = without_systemd(&fixture)?;
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let done = recover_in(&fixture, fixture.shell(), &[OTHER, TOKEN], &flags)
        .await?
        .expect(0)?;
    ensure!(done.stderr.contains("Start the service on s2 once"), "{done}");
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_without_node_access_is_for_an_operator() -> Result<()> {
    let fixture = rotated_by_hand("recover-operator-dead", UNPINNED).await?;
    let cluster = &fixture.servers.cluster;
    breaks(&fixture, "s2").await?;
    let running = fixture
        .shell()
        .bootstrap_token(args(&fixture, &[OTHER, TOKEN], &[])?)
        .start()
        .await?;
    let operator = async {
        let lease = ["-n", "kube-system", "get", "lease", "server-token", "-o", "name"];
        until("the lock", async || {
            Ok(fixture
                .shell()
                .kubectl(lease)
                .run()
                .await?
                .code()
                .filter(|code| *code == 0))
        })
        .await?;
        // What it prints is followed.
        starts_with(&fixture, "s2", OTHER).await?;
        let is_placed = |state: &Value| {
            let key = &state["datastore"]["keys"][0];
            THREE
                .iter()
                .all(|server| state["servers"][*server]["files"]["token"]["fingerprint"] == *key)
        };
        cluster.wait_for("the round", is_placed).await?;
        for server in THREE {
            ensure!(cluster.restart_server(server).await?, "{server} does not start");
        }
        anyhow::Ok(())
    };
    let (done, operated) = tokio::join!(running.finish(), operator);
    let done = done?.expect(0)?;
    operated?;
    ensure!(done.stderr.contains("On server s2:"), "{done}");
    ensure!(done.stderr.contains("server/token, with mode 0600"), "{done}");
    is_recovered(&fixture, &done).await?;
    Ok(())
}

/// The kubelet of a dead server is dead too, so that server is for an operator, and the others are restarted by pods.
#[tokio::test(flavor = "multi_thread")]
async fn by_pods_the_servers_are_restarted_once_an_operator_has_started_the_dead_one() -> Result<()> {
    let fixture = RotationFixture::start_with_pods("recover-pods", UNPINNED).await?;
    let cluster = &fixture.servers.cluster;
    cluster.time_passes(MINUTE).await?;
    fixture.servers.put("s1", TOKEN, OTHER).await?;
    cluster.time_passes(MINUTE).await?;
    breaks(&fixture, "s2").await?;
    // Until then, a pod would wait for its kubelet.
    let ready = r#"-o=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    until("node s2 to be lost", async || {
        let ready = fixture
            .shell()
            .kubectl(["get", "node", "s2", ready])
            .run()
            .await?
            .expect(0)?;
        Ok((ready.stdout != "True").then_some(()))
    })
    .await?;
    let args = args(&fixture, &[OTHER, TOKEN], &["--via", "pod", "-v=6"])?;
    let running = fixture.shell().bootstrap_token(args).start().await?;
    let is_asked = |text: &str| text.contains("On server s2:").then_some(());
    running.until_stderr("an instruction for an operator", is_asked).await?;
    // The recovery outlasts a pod that fails on a server that is ready.
    cluster.faults("s3", &json!({ "podEvicted": true })).await?;
    let has_failed = |text: &str| {
        text.contains("the pod ended before its script did: Evicted")
            .then_some(())
    };
    running.until_stderr("a pod to fail", has_failed).await?;
    cluster.faults("s3", &json!({ "podEvicted": false })).await?;
    starts_with(&fixture, "s2", OTHER).await?;
    let done = running.finish().await?.expect(0)?;
    ensure!(!done.stderr.contains("On server s1:"), "{done}");
    ensure!(!cluster.pods("s1")?.is_empty(), "no pod has run on s1");
    is_recovered(&fixture, &done).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_diagnosis_is_a_document_too() -> Result<()> {
    let fixture = rotated_by_hand("recover-json", PINNED).await?;
    let planned = recover(&fixture, &[OTHER, TOKEN], &["--dry-run", "-o", "json"])
        .await?
        .expect(0)?;
    let document: Value = serde_json::from_str(&planned.stdout)?;
    ensure!(document["outcome"] == "planned", "{document}");
    ensure!(
        document["servers"]["s2"]["state"] == "half-finished-round",
        "{document}"
    );
    ensure!(
        document["next"] == "remove the token from the configuration of s2",
        "{document}"
    );
    let nowhere = ["server-token", "recover", "--yes", "--token-file"];
    let token = file(fixture.shell(), "given", TOKEN, 0o600)?;
    let args = nowhere.iter().copied().chain([token.as_str()]);
    let refused = fixture.shell().bootstrap_token(args).run().await?.expect(2)?;
    ensure!(
        refused.stderr.contains("--write-token FILE or --print-token"),
        "{refused}"
    );
    ensure!(fixture.puts().await? == 1, "a PUT was sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_refused_names_the_command_that_recovers() -> Result<()> {
    let fixture = rotated_by_hand("recover-refused", UNPINNED).await?;
    let refused = fixture.run("rotate", &[]).await?;
    ensure!(refused.code() != Some(0), "{refused}");
    let command = "kubectl bootstrap-token server-token recover --token-file";
    let done = fixture.shell().follow(&refused, command, &["--yes"]).await?.expect(0)?;
    ensure!(is_recovered(&fixture, &done).await? == hash12(OTHER), "{done}");
    Ok(())
}
