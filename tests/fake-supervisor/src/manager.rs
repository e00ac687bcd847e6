//! The process that brings a cluster up and keeps its units, like systemd on every node.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::config::{Config, Pin, ServerConfig};
use crate::datastore::Datastore;
use crate::files::ServerFiles;
use crate::node::Node;
use crate::pki::Authority;
use crate::settings::Settings;
use crate::unit::{Active, UnitHandle};
use crate::{control, kubelet, kubernetes, upstream};

/// Everything is this much older than the first write of a test.
const AGE: Duration = Duration::from_hours(1);
/// Seconds without a process until its Node is lost.
const LOST: f64 = 40.0;

pub(crate) struct Manager {
    pub(crate) dir: PathBuf,
    authority: Authority,
    units: Mutex<BTreeMap<String, Arc<UnitHandle>>>,
    agents: Mutex<BTreeMap<String, Arc<UnitHandle>>>,
    pub(crate) kube: Option<kube::Client>,
}

impl Manager {
    pub(crate) fn unit(&self, name: &str) -> Option<Arc<UnitHandle>> {
        let find = |units: &Mutex<BTreeMap<String, Arc<UnitHandle>>>| {
            let units = units.lock().unwrap_or_else(PoisonError::into_inner);
            let by_address = || units.values().find(|unit| unit.node.server.address.to_string() == name);
            units.get(name).or_else(by_address).cloned()
        };
        find(&self.units).or_else(|| find(&self.agents))
    }

    /// The servers.
    pub(crate) fn units(&self) -> Vec<Arc<UnitHandle>> {
        let units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        units.values().cloned().collect()
    }

    pub(crate) fn config(&self) -> Result<Config> {
        Config::read(&self.dir.join("cluster.json"))
    }

    fn write_config(&self, config: &Config) -> Result<()> {
        Ok(std::fs::write(
            self.dir.join("cluster.json"),
            serde_json::to_string_pretty(config)?,
        )?)
    }

    /// Makes the node of a server and its unit, and starts it. Returns whether it is ready.
    async fn bring_up(self: &Arc<Self>, name: &str, token: Option<&str>) -> Result<bool> {
        let node = Node::open(&self.dir, name)?;
        let pin = node.server.pin;
        // Without any token it could not join.
        let first = if pin == Pin::Nowhere { Pin::Config } else { pin };
        node.configure(first, token)?;
        self.authority.write_server(&node)?;
        write_programs(&node)?;
        let unit = Arc::new(UnitHandle::load(&node)?);
        if node.config.kubelet {
            kubelet::serve_logs(Arc::clone(&unit)).await?;
        }
        self.units
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), Arc::clone(&unit));
        tokio::spawn(mark_lost(Arc::clone(self), Arc::clone(&unit)));
        if !unit.start(true).await {
            return Ok(false);
        }
        if pin == Pin::Nowhere {
            node.configure(pin, None)?;
            return Ok(unit.restart(true).await);
        }
        Ok(true)
    }

    /// Makes the node of an agent that has joined before.
    async fn add_agent(&self, agent: &ServerConfig) -> Result<()> {
        let node = Node::open(&self.dir, &agent.name)?;
        node.configure(agent.pin, agent.token.as_deref())?;
        self.authority.write_server(&node)?;
        write_programs(&node)?;
        let unit = Arc::new(UnitHandle::load(&node)?);
        if node.config.kubelet {
            kubelet::serve_logs(Arc::clone(&unit)).await?;
        }
        if let Some(client) = &self.kube {
            kubernetes::write_configured_agent(client, &node, &Settings::of(&node)?).await?;
            tokio::spawn(kubernetes::keep_ready(client.clone(), node));
        }
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.insert(agent.name.clone(), unit);
        Ok(())
    }

    /// Adds a server, which joins with this token. Returns whether it is ready after its first start.
    pub(crate) async fn add(self: &Arc<Self>, server: ServerConfig, token: Option<&str>) -> Result<bool> {
        let mut config = self.config()?;
        let name = server.name.clone();
        if config.servers.iter().any(|other| other.name == name) {
            bail!("server {name:?} exists");
        }
        config.servers.push(server);
        self.write_config(&config)?;
        self.bring_up(&name, token).await
    }

    /// Makes the files of all servers, and the times in the datastore, older.
    pub(crate) fn age(&self, by: Duration) -> Result<()> {
        let nodes: Vec<Node> = self.units().iter().map(|unit| unit.node.clone()).collect();
        let Some(first) = nodes.first() else { return Ok(()) };
        Datastore::of(first).age(&nodes, by)?;
        for node in &nodes {
            files(node)?.age(by)?;
        }
        Ok(())
    }
}

/// The files of a server where its configuration says they are.
pub(crate) fn files(node: &Node) -> Result<ServerFiles> {
    Ok(ServerFiles::new(node, &Settings::of(node)?.data_dir))
}

/// What a shell on the node finds in its PATH.
fn write_programs(node: &Node) -> Result<()> {
    let (program, dir) = (std::env::current_exe()?, node.root().join("bin"));
    std::fs::create_dir_all(&dir)?;
    let asks_us = |name: &str| {
        let (program, cluster, node) = (program.display(), node.cluster.display(), &node.server.name);
        format!("#!/bin/sh\nexec '{program}' {name} --dir '{cluster}' --node '{node}' -- \"$@\"\n")
    };
    let log = node.log();
    let programs = [
        ("systemctl", asks_us("systemctl")),
        ("systemd-run", asks_us("systemd-run")),
        // A pod enters process 1. That of this machine is not the node's, and the container is already there.
        (
            "nsenter",
            "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"\n".to_owned(),
        ),
        // Its arguments are ignored: there is one unit.
        ("journalctl", format!("#!/bin/sh\nexec cat '{}'\n", log.display())),
    ];
    for (name, text) in programs {
        let path = dir.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Marks the Node when its server has been down for long.
async fn mark_lost(manager: Arc<Manager>, unit: Arc<UnitHandle>) {
    let Some(client) = manager.kube.clone() else { return };
    let (mut down, limit) = (Duration::ZERO, unit.node.config.timing.scaled(LOST));
    let step = Duration::from_millis(100);
    loop {
        tokio::time::sleep(step).await;
        let gone = unit.state().active != Active::Active || unit.node.faults().cut;
        let before = down;
        down = if gone { down + step } else { Duration::ZERO };
        if before < limit && down >= limit {
            // The server itself writes the next state. An error shows as a Node that stays Ready.
            let _ = kubernetes::write_lost(&client, &unit.node.server.name).await;
        }
    }
}

/// Brings the cluster up, says where the control interface is, and runs until it is asked to end.
pub(crate) async fn run(dir: &Path) -> Result<()> {
    let dir = std::fs::canonicalize(dir)?;
    let mut config = Config::read(&dir.join("cluster.json"))?;
    config.token.get_or_insert_with(crate::random_hex);
    let first = config.servers.first().context("no servers")?.name.clone();
    let authority = Authority::new(config.ca, config.distribution.program())?;
    authority.write(&dir)?;
    std::fs::write(dir.join("cluster.json"), serde_json::to_string_pretty(&config)?)?;
    let node = Node::open(&dir, &first)?;
    Datastore::create(&node)?;
    let kube = upstream::connect(&node).await?.map(|(_, kube)| kube);
    if let Some(client) = &kube {
        kubernetes::install(client)
            .await
            .context("install the kind of snapshots")?;
    }
    let manager = Arc::new(Manager {
        dir,
        authority,
        units: Mutex::default(),
        agents: Mutex::default(),
        kube,
    });
    tokio::select! {
        result = serve(&manager, &config, &node) => result,
        result = crate::asked_to_end() => result.map(drop),
    }
}

async fn serve(manager: &Arc<Manager>, config: &Config, node: &Node) -> Result<()> {
    let (listener, url) = control::bind().await?;
    std::fs::write(manager.dir.join("control.url"), &url)?;
    tokio::spawn(control::serve(listener, Arc::clone(manager)));
    for server in &config.servers {
        if !manager.bring_up(&server.name, config.token.as_deref()).await? {
            let log = Node::open(&manager.dir, &server.name)?.log();
            bail!("server {} did not start; its log is {}", server.name, log.display());
        }
    }
    for agent in &config.agents {
        manager.add_agent(agent).await?;
    }
    manager.age(AGE)?;
    if let Some(client) = manager.kube.clone() {
        if config.kubelet {
            tokio::spawn(kubelet::run(Arc::clone(manager), client.clone()));
        }
        let (store, node) = (Datastore::of(node), node.clone());
        tokio::spawn(async move {
            let remove = |name: &str| {
                // An error leaves the member, which the test sees.
                let _ = store.change(&node.all(), None, |contents| contents.members.remove(name));
            };
            kubernetes::follow_deletions(client, remove).await;
        });
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", json!({"url": url})).and_then(|()| stdout.flush())?;
    drop(stdout);
    std::future::pending().await
}
