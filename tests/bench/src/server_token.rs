//! The cost of rotating the server token of three servers, compared with the same procedure by hand as a shell script.
//!
//! A restart takes as long as on real servers. Wall is compared with the time that servers were away: nothing can be faster than that.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use test_cluster::{ControlPlane, FakeSupervisor, FakeSupervisorOptions, Shape, TestEnvironment};
use tokio::sync::oneshot;

use crate::cost::{Cost, MeasuredCommand};
use crate::figures::{ratio, table};

const SERVERS: [&str; 3] = ["s1", "s2", "s3"];
/// The tokens, one after the other.
const TOKENS: [&str; 2] = ["0f1e2d3c4b5a69788796a5b4c3d2e1f0", "5d41402abc4b2a76b9719d911017c592"];
const SCRIPT: &str = include_str!("rotate-server-token.sh");

/// Rotates once with the script, and once with the plugin.
pub(crate) async fn run(environment: &TestEnvironment, plugin: &Path, kubectl: &Path) -> Result<()> {
    let fixture = Fixture::start(environment, kubectl).await?;
    let script = fixture.measure(&fixture.script()?).await?;
    let rotate = fixture.measure(&fixture.plugin(plugin)?).await?;
    let mut rows = table(&[
        "three servers",
        "wall",
        "servers away",
        "wall / away",
        "requests to a server",
        "to Kubernetes",
        "CPU",
    ]);
    for (name, measured) in [
        ("a script with curl and kubectl", &script),
        ("server-token rotate", &rotate),
    ] {
        let (wall, away) = (measured.cost.wall_ms / 1e3, measured.away.as_secs_f64());
        rows.add_row([
            name.to_owned(),
            format!("{wall:.1} s"),
            format!("{away:.1} s"),
            ratio(wall, away),
            format!("{:.1}", measured.to_supervisors as f64 / SERVERS.len() as f64),
            measured.to_kubernetes.to_string(),
            format!("{:.0} ms", measured.cost.cpu_ms),
        ]);
    }
    anstream::println!("\n{rows}");
    fixture.cluster.process().end().await;
    fixture.plane.stop().await;
    Ok(())
}

/// What one rotation has cost.
struct Measured {
    cost: Cost,
    /// The sum over all servers.
    away: Duration,
    to_supervisors: usize,
    to_kubernetes: usize,
}

struct Fixture {
    plane: ControlPlane,
    cluster: Arc<FakeSupervisor>,
    dir: PathBuf,
    kubeconfig: PathBuf,
}

impl Fixture {
    async fn start(environment: &TestEnvironment, kubectl: &Path) -> Result<Self> {
        let dir = environment.dir().join("server-token");
        let plane = ControlPlane::start(environment.programs(), &dir, "server-token", Shape::WithoutNodes).await?;
        let servers = SERVERS.map(|name| json!({"name": name, "pin": "nowhere"}));
        let cluster = FakeSupervisor::start(FakeSupervisorOptions {
            plane: &plane,
            dir: &dir.join("servers"),
            cluster: json!({"token": TOKENS[0], "servers": servers}),
        })
        .await?;
        cluster.slow_down(1.0)?;
        let dir = dir.join("user");
        std::fs::create_dir(&dir)?;
        std::os::unix::fs::symlink(std::path::absolute(kubectl)?, dir.join("kubectl"))?;
        std::fs::write(dir.join("rotate-server-token.sh"), SCRIPT)?;
        std::fs::write(dir.join("ca.pem"), cluster.ca_pem())?;
        for (name, token) in ["first", "second"].iter().zip(TOKENS) {
            let file = dir.join(name);
            std::fs::write(&file, token)?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        }
        let kubeconfig = cluster.kubeconfig().write(dir.join("kubeconfig"))?;
        Ok(Self {
            plane,
            cluster: Arc::new(cluster),
            dir,
            kubeconfig,
        })
    }

    /// From the first token to the second one.
    fn script(&self) -> Result<MeasuredCommand> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(self.dir.clone()).chain(std::env::split_paths(&path)))?;
        let file = self.dir.join("rotate-server-token.sh").display().to_string();
        let mut args = vec![file];
        for name in SERVERS {
            args.push(format!("{name}={}", self.cluster.address(name)?));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Ok(MeasuredCommand::new("the script", Path::new("sh"), &args)
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.dir.join("cache"))
            .env("CA", self.dir.join("ca.pem"))
            .env("NODE_EXEC", self.cluster.node_exec()?)
            .env("OLD", self.dir.join("first"))
            .env("NEW", self.dir.join("second")))
    }

    /// From the second token to another one.
    fn plugin(&self, plugin: &Path) -> Result<MeasuredCommand> {
        let [old, new] = ["second", "third"].map(|name| self.dir.join(name).display().to_string());
        let exec = self.cluster.node_exec()?;
        let args = [
            "server-token",
            "rotate",
            "--yes",
            "--token-file",
            &old,
            "--write-token",
            &new,
            "--node-exec",
            &exec,
        ];
        let command = MeasuredCommand::new("server-token rotate", plugin, &args);
        Ok(command.env("KUBECONFIG", &self.kubeconfig))
    }

    async fn measure(&self, command: &MeasuredCommand) -> Result<Measured> {
        let before = self.cluster.requests().await?.len();
        let (done, until) = oneshot::channel();
        let cluster = Arc::clone(&self.cluster);
        let watching = tokio::spawn(async move { cluster.watch_restarts(until).await });
        let cost = tokio::task::block_in_place(|| command.once())?;
        drop(done);
        let away = watching.await?.with_context(|| command.name.clone())?;
        let state = self.cluster.state().await?;
        let keys = state["datastore"]["keys"].as_array().context("no datastore")?;
        let servers = state["servers"].as_object().context("no servers")?;
        let has_loaded = |server: &Value| keys.len() == 1 && server["live"]["server"] == keys[0];
        ensure!(
            servers.values().all(has_loaded),
            "{} has not rotated: {state}",
            command.name
        );
        let requests = self.cluster.requests().await?.split_off(before);
        let by_us = |request: &&Value| {
            let agent = request["userAgent"].as_str().unwrap_or_default();
            // The plugin asks supervisors as a browser, which get short messages.
            agent.contains("kubectl") || agent.starts_with("curl")
        };
        let is_supervisor = |request: &&Value| {
            let path = request["path"].as_str().unwrap_or_default();
            ["/v1-k3s/", "/db/", "/cacerts", "/ping"]
                .iter()
                .any(|start| path.starts_with(start))
        };
        let (to_supervisors, to_kubernetes): (Vec<&Value>, Vec<&Value>) =
            requests.iter().filter(by_us).partition(is_supervisor);
        Ok(Measured {
            cost,
            away,
            to_supervisors: to_supervisors.len(),
            to_kubernetes: to_kubernetes.len(),
        })
    }
}
