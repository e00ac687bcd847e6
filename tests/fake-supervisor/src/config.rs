//! The configuration of the fake cluster: one JSON file, `cluster.json` in its directory.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The product whose names are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Distribution {
    #[default]
    K3s,
    Rke2,
}

impl Distribution {
    /// `k3s`: the program, and the prefix of its annotations and paths.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// The systemd unit of a node without its suffix.
    pub(crate) fn unit(self, role: Role) -> &'static str {
        match (self, role) {
            (Self::K3s, Role::Agent) => "k3s-agent",
            (Self::K3s, _) => "k3s",
            (Self::Rke2, Role::Agent) => "rke2-agent",
            (Self::Rke2, _) => "rke2-server",
        }
    }

    /// The prefix of its environment variables.
    pub(crate) fn environment(self) -> &'static str {
        match self {
            Self::K3s => "K3S",
            Self::Rke2 => "RKE2",
        }
    }
}

/// The releases that are imitated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Line {
    /// Accepts a new token in the form of a bootstrap token, and fails afterwards (k3s-io/k3s #12982).
    #[serde(rename = "1.33")]
    Before,
    /// Checks a new token before the first write.
    #[default]
    #[serde(rename = "1.36")]
    Current,
}

impl Line {
    pub(crate) fn version(self, distribution: Distribution) -> String {
        let version = match self {
            Self::Before => "v1.33.3",
            Self::Current => "v1.36.3",
        };
        match distribution {
            Distribution::K3s => format!("{version}+k3s1"),
            Distribution::Rke2 => format!("{version}+rke2r1"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    #[default]
    Etcd,
    /// One server only.
    Sqlite,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CaShape {
    /// `/cacerts` is one self-signed certificate.
    #[default]
    Single,
    /// `/cacerts` is an intermediate CA and its root.
    Bundle,
}

/// Where a server's token is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pin {
    /// Only the file `server/token`, which the server itself writes.
    Nowhere,
    #[default]
    Config,
    /// `config.yaml.d/50-token.yaml`.
    ConfigDir,
    /// `K3S_TOKEN` in the unit's environment file.
    Env,
    /// `--token` in the unit.
    Flag,
    /// `token-file:` in `config.yaml`.
    TokenFile,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    #[default]
    Full,
    /// `disable-etcd: true`.
    ControlPlane,
    /// It has joined before, and only its files matter: it has no process.
    Agent,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ServerConfig {
    /// The name of the Node.
    pub(crate) name: String,
    /// The Node's InternalIP, which is one of 127.0.0.0/8.
    pub(crate) address: IpAddr,
    /// What its Node shows instead, as where nodes have a network of their own.
    #[serde(default)]
    pub(crate) node_address: Option<IpAddr>,
    /// The supervisor: 6443 (K3s) or 9345 (RKE2).
    #[serde(default)]
    pub(crate) port: Option<u16>,
    /// The API server: 6443.
    #[serde(default)]
    pub(crate) api_port: Option<u16>,
    #[serde(default)]
    pub(crate) role: Role,
    #[serde(default)]
    pub(crate) pin: Pin,
    /// The server that `server:` names. The first server of the file has no such line, any other joins the first.
    #[serde(default)]
    pub(crate) join: Option<String>,
    /// The token that an agent has configured. A server joins with that of the cluster.
    #[serde(default)]
    pub(crate) token: Option<String>,
}

/// How long things take.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Timing {
    /// The duration of everything, as a part of that of real servers: a restart takes 8 s with 1. File times and the
    /// 3 s of the start-up check are never scaled.
    pub(crate) scale: f64,
    /// Each write of a file is at least this many seconds later than the one before, as if every step were slow. With
    /// 0, files have the real time.
    pub(crate) write_gap: u64,
    /// The order of the rows in `cred/passwd`.
    pub(crate) rows: Rows,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            scale: 1.0 / 16.0,
            write_gap: 0,
            rows: Rows::default(),
        }
    }
}

impl Timing {
    pub(crate) fn scaled(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.scale)
    }
}

/// K3s writes the rows in random order (seen on v1.36.3+k3s1: changed in 7 of 48 writes), so that files with the same
/// passwords can differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rows {
    /// The worst case: no two writes give the same bytes. Two rows have two orders only, so blank lines follow them.
    #[default]
    Distinct,
    /// As K3s does.
    Random,
}

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) distribution: Distribution,
    #[serde(default)]
    pub(crate) line: Line,
    #[serde(default)]
    pub(crate) datastore: Backend,
    /// The initial server token; without it, a random one.
    #[serde(default)]
    pub(crate) token: Option<String>,
    /// A separate agent token in every `config.yaml`.
    #[serde(default)]
    pub(crate) agent_token: Option<String>,
    pub(crate) servers: Vec<ServerConfig>,
    /// Nodes that have joined as agents, with their configuration.
    #[serde(default)]
    pub(crate) agents: Vec<ServerConfig>,
    /// Admin kubeconfig of the real API server. Without it there are no Nodes, bootstrap tokens and API ports.
    #[serde(default)]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[serde(default)]
    pub(crate) ca: CaShape,
    /// Secrets-encryption.
    #[serde(default)]
    pub(crate) encryption: bool,
    /// The nodes have a kubelet, and an image.
    #[serde(default)]
    pub(crate) kubelet: bool,
    #[serde(default)]
    pub(crate) timing: Timing,
}

impl Config {
    /// A server or an agent.
    pub(crate) fn find(&self, is_it: impl Fn(&ServerConfig) -> bool) -> Option<ServerConfig> {
        let agents = self.agents.iter().map(|agent| ServerConfig {
            role: Role::Agent,
            ..agent.clone()
        });
        self.servers.iter().cloned().chain(agents).find(is_it)
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
    }
}
