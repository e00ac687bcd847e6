//! Servers that are not reached at the InternalIP of their Node, and a slow network.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Shell, until};
use rustix::process::Signal;
use serde_json::json;
use test_cluster::Tunnel;

use crate::rotation_fixture::RotationFixture;

/// An address at which nothing answers.
const NOWHERE: &str = "127.255.255.254";
/// 100 ms each way.
const SLOW: Duration = Duration::from_millis(100);

async fn tunnel(fixture: &RotationFixture, server: &str, each_way: Duration) -> Result<Tunnel> {
    let address = fixture.servers.cluster.address(server)?;
    Tunnel::start(format!("{address}:6443").parse()?, each_way).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_reached_at_another_address_than_its_internal_ip() -> Result<()> {
    let servers = json!([
        { "name": "s1", "pin": "nowhere" },
        { "name": "s2", "pin": "config", "nodeAddress": NOWHERE },
        { "name": "s3", "pin": "nowhere" },
    ]);
    let fixture = RotationFixture::start("address", json!({ "servers": servers })).await?;
    // So the nodes are reached by their names.
    let exec = fixture.node_exec()?.replace("{address}", "{node}");
    let run = async |more: &[&str]| {
        let more: Vec<&str> = [exec.as_str()].into_iter().chain(more.iter().copied()).collect();
        fixture
            .shell()
            .bootstrap_token(fixture.args("rotate", &more))
            .run()
            .await
    };
    let refused = run(&[]).await?.expect(1)?;
    ensure!(refused.stderr.contains("server s2"), "{refused}");
    ensure!(refused.stderr.contains(NOWHERE), "the address is not named:\n{refused}");
    ensure!(fixture.puts().await? == 0, "a PUT was sent");

    let [supervisor, api] = [
        tunnel(&fixture, "s2", Duration::ZERO).await?,
        tunnel(&fixture, "s2", Duration::ZERO).await?,
    ];
    let address = format!("--server-address=s2=localhost:{},{}", supervisor.port(), api.port());
    let stopped = run(&[&address, "--only", "s2"]).await?.expect(4)?;
    // The command in the hint has the address too.
    ensure!(stopped.stderr.contains(&address.replacen('=', " ", 1)), "{stopped}");
    let done = run(&[&address]).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    fixture.is_rotated().await
}

/// Everything is 100 ms away, each way: the API servers, the supervisors, and the nodes.
struct SlowNetwork {
    fixture: RotationFixture,
    shell: Shell,
    flags: Vec<String>,
    _tunnels: Vec<Tunnel>,
}

impl SlowNetwork {
    async fn start(name: &str) -> Result<Self> {
        let fixture = RotationFixture::start_three(name, ["config", "nowhere", "nowhere"]).await?;
        let exec = fixture.node_exec()?;
        let exec = exec.trim_start_matches("--node-exec=");
        let mut flags = vec![format!(
            r#"--node-exec=/bin/sh -c '/bin/sleep 0.2; exec "$@"' - {exec}"#
        )];
        let mut tunnels = Vec::new();
        for server in ["s1", "s2", "s3"] {
            let tunnel = tunnel(&fixture, server, SLOW).await?;
            let port = tunnel.port();
            flags.push(format!("--server-address={server}=localhost:{port},{port}"));
            tunnels.push(tunnel);
        }
        let shell = fixture
            .servers
            .shell_at("s1", &format!("https://localhost:{}", tunnels[0].port()))
            .await?;
        Ok(Self {
            fixture,
            shell,
            flags,
            _tunnels: tunnels,
        })
    }

    fn rotate(&self) -> Vec<String> {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.fixture.args("rotate", &flags)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_changes_nothing() -> Result<()> {
    let slow = SlowNetwork::start("slow").await?;
    let done = slow.shell.bootstrap_token(slow.rotate()).run().await?.expect(0)?;
    println!("{:?}", done.took);
    ensure!(slow.fixture.puts().await? == 3, "another round was sent:\n{done}");
    slow.fixture.prints_no_token(&done)?;
    slow.fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_on_a_slow_network_is_resumed() -> Result<()> {
    let slow = SlowNetwork::start("slow-killed").await?;
    let running = slow.shell.bootstrap_token(slow.rotate()).start().await?;
    let fixture = &slow.fixture;
    until("the first PUT", async || Ok((fixture.puts().await? > 0).then_some(()))).await?;
    running.signal(Signal::KILL)?;
    running.finish().await?.expect_killed()?;
    let done = slow.shell.bootstrap_token(slow.rotate()).run().await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    fixture.is_rotated().await
}
