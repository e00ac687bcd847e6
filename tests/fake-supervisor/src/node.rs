//! The place of one server, or of one agent, on disk: a directory that stands for the root of its file system, and its clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::config::{Backend, Config, Distribution, Pin, Role, ServerConfig};
use crate::faults::Faults;

/// A server of the cluster, running or not.
#[derive(Clone)]
pub(crate) struct Node {
    /// The directory of the whole cluster.
    pub(crate) cluster: PathBuf,
    pub(crate) config: Arc<Config>,
    pub(crate) server: ServerConfig,
}

impl Node {
    pub(crate) fn open(cluster: &Path, name: &str) -> Result<Self> {
        let config = Config::read(&cluster.join("cluster.json"))?;
        let server = config.find(|server| server.name == name);
        Ok(Self {
            cluster: cluster.to_owned(),
            config: Arc::new(config),
            server: server.with_context(|| format!("server {name:?} not found"))?,
        })
    }

    pub(crate) fn distribution(&self) -> Distribution {
        self.config.distribution
    }

    pub(crate) fn program(&self) -> &'static str {
        self.distribution().program()
    }

    /// Its systemd unit without the suffix.
    pub(crate) fn unit(&self) -> &'static str {
        self.distribution().unit(self.server.role)
    }

    /// The command of its program.
    pub(crate) fn command(&self) -> &'static str {
        if self.is_agent() { "agent" } else { "server" }
    }

    pub(crate) fn is_agent(&self) -> bool {
        self.server.role == Role::Agent
    }

    /// Its directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.cluster.join("nodes").join(&self.server.name)
    }

    /// `config.yaml`, unless the unit names another one.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.root().join("etc/rancher").join(self.program()).join("config.yaml")
    }

    /// The file that a pin of [`Pin::TokenFile`] names.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.config_file().with_file_name("server-token")
    }

    pub(crate) fn unit_file(&self) -> PathBuf {
        self.root()
            .join("etc/systemd/system")
            .join(format!("{}.service", self.unit()))
    }

    /// What systemd adds to the unit until the next boot.
    pub(crate) fn drop_ins(&self) -> Vec<PathBuf> {
        let dir = format!("systemd/system/{}.service.d", self.unit());
        let entries = std::fs::read_dir(self.run_dir().join(dir));
        let files = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()));
        files
            .filter(|file| file.extension().is_some_and(|extension| extension == "conf"))
            .collect()
    }

    pub(crate) fn environment_file(&self) -> PathBuf {
        self.root()
            .join("etc/systemd/system")
            .join(format!("{}.service.env", self.unit()))
    }

    pub(crate) fn default_data_dir(&self) -> PathBuf {
        self.root().join("var/lib/rancher").join(self.program())
    }

    /// What `journalctl` prints.
    pub(crate) fn log(&self) -> PathBuf {
        self.root().join("log").join(format!("{}.log", self.program()))
    }

    /// The requests that it served.
    pub(crate) fn requests(&self) -> PathBuf {
        self.root().join("log/requests.jsonl")
    }

    /// Files between the server, the manager and the tests, which a real node does not have.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.root().join("run")
    }

    pub(crate) fn faults(&self) -> Faults {
        Faults::read(self)
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.config.datastore == Backend::Sqlite
    }

    pub(crate) fn is_control_plane_only(&self) -> bool {
        self.server.role == Role::ControlPlane
    }

    /// The supervisor's port.
    pub(crate) fn port(&self) -> u16 {
        self.server.port.unwrap_or(match self.distribution() {
            Distribution::K3s => 6443,
            Distribution::Rke2 => 9345,
        })
    }

    pub(crate) fn api_port(&self) -> u16 {
        self.server.api_port.unwrap_or(match self.distribution() {
            Distribution::K3s => self.port(),
            Distribution::Rke2 => 6443,
        })
    }

    /// The URL of its supervisor.
    pub(crate) fn url(&self) -> String {
        format!("https://{}:{}", self.server.address, self.port())
    }

    /// The name of the server that its `server:` line names.
    pub(crate) fn joins(&self) -> Option<&str> {
        let first = self.config.servers.first().map(|server| server.name.as_str());
        match &self.server.join {
            Some(join) => Some(join),
            None if first == Some(self.server.name.as_str()) => None,
            None => first,
        }
    }

    /// All servers of the cluster, with those that were added after this one started.
    pub(crate) fn all(&self) -> Vec<Self> {
        let config = Config::read(&self.cluster.join("cluster.json")).map_or_else(|_| self.config.clone(), Arc::new);
        let with = |server: &ServerConfig| Self {
            cluster: self.cluster.clone(),
            config: Arc::clone(&config),
            server: server.clone(),
        };
        config.servers.iter().map(with).collect()
    }

    /// The time of day on this node.
    pub(crate) fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        match self.faults().ahead {
            ahead if ahead < 0.0 => now - Duration::from_secs_f64(-ahead),
            ahead => now + Duration::from_secs_f64(ahead),
        }
    }

    /// Writes the unit and the configuration with the token in `pin`. Everything else about tokens is removed.
    pub(crate) fn configure(&self, pin: Pin, token: Option<&str>) -> Result<()> {
        let (config, data) = (self.config_file(), self.default_data_dir());
        let drop_in = config.with_file_name("config.yaml.d");
        for dir in [
            &drop_in,
            &self.root().join("etc/systemd/system"),
            &self.root().join("log"),
            &self.run_dir(),
        ] {
            std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let mut yaml = format!("node-name: {}\n", self.server.name);
        match self.joins() {
            None if self.is_sqlite() => {}
            None => yaml.push_str("cluster-init: true\n"),
            Some(name) => {
                let join = self.all().into_iter().find(|node| node.server.name == name);
                let join = join.with_context(|| format!("server {name:?} not found"))?;
                yaml.extend(["server: ", &join.url(), "\n"]);
            }
        }
        if self.is_control_plane_only() {
            yaml.push_str("disable-etcd: true\n");
        }
        if self.config.encryption && !self.is_agent() {
            yaml.push_str("secrets-encryption: true\n");
        }
        let line = |key: &str, value: &str| format!("{key}: {}\n", serde_json::Value::from(value));
        if let Some(agent) = self.config.agent_token.as_ref().filter(|_| !self.is_agent()) {
            yaml.push_str(&line("agent-token", agent));
        }
        let (mut flags, mut environment, mut extra) = (String::new(), String::new(), String::new());
        match (pin, token) {
            (Pin::Nowhere, _) | (_, None) => {}
            (Pin::Config, Some(token)) => yaml.push_str(&line("token", token)),
            (Pin::ConfigDir, Some(token)) => extra = line("token", token),
            (Pin::Env, Some(token)) => {
                environment = format!("{}_TOKEN='{token}'\n", self.distribution().environment());
            }
            // As the installer writes it, where it can be edited.
            (Pin::Flag, Some(token)) if self.is_agent() => {
                flags = format!(" \\\n    '--token' \\\n    '{token}' \\\n");
            }
            (Pin::Flag, Some(token)) => flags = format!(" \\\n    '--token' \\\n    '{token}'"),
            (Pin::TokenFile, Some(token)) => {
                let file = self.token_file();
                std::fs::write(&file, format!("{token}\n"))?;
                yaml.push_str(&line("token-file", &file.display().to_string()));
            }
        }
        std::fs::write(&config, yaml)?;
        let drop_in = drop_in.join("50-token.yaml");
        if extra.is_empty() {
            let _ = std::fs::remove_file(&drop_in);
        } else {
            std::fs::write(drop_in, extra)?;
        }
        std::fs::write(self.environment_file(), environment)?;
        let unit = format!(
            "[Unit]\nDescription=Lightweight Kubernetes\n\n[Service]\nType=notify\nEnvironmentFile=-{env}\nKillMode=process\n\
             Restart=always\nRestartSec=5s\nExecStart={bin} \\\n    {command} \\\n    '--config' \\\n    '{config}' \\\n    \
             '--data-dir' \\\n    '{data}'{flags}\n",
            env = self.environment_file().display(),
            bin = self.root().join("usr/local/bin").join(self.program()).display(),
            command = self.command(),
            config = config.display(),
            data = data.display(),
        );
        std::fs::write(self.unit_file(), unit)?;
        Ok(())
    }
}

/// Whole seconds since the epoch, which is how K3s compares file times.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64),
    }
}

/// The other way round.
pub(crate) fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
}
