//! What the user says about the service of the nodes.

use supervisor::SupervisorKind;

/// Whether a node is a server or an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// A server.
    Server,
    /// An agent.
    Agent,
}

/// The service of the nodes. The commands are command lines for the `sh` of the node; they replace systemd and OpenRC.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// K3s or RKE2.
    pub kind: SupervisorKind,
    /// What the nodes are.
    pub role: NodeRole,
    /// `--unit`. `None`: the names that installers use.
    pub unit: Option<UnitName>,
    /// `--restart-command`. It may return before the service is ready.
    pub restart_command: Option<String>,
    /// `--stop-command`. It returns when the service has stopped.
    pub stop_command: Option<String>,
    /// `--start-command`. It may return before the service is ready. It should not start the service again if it fails.
    pub start_command: Option<String>,
    /// `--log-command`. It prints the last lines of the log.
    pub log_command: Option<String>,
    /// The path of `config.yaml`, where the service does not show it.
    pub config_file: Option<String>,
    /// The data directory, where the configuration does not show it.
    pub data_dir: Option<String>,
}

impl ServiceOptions {
    /// Without anything that the user says.
    pub fn of(kind: SupervisorKind, role: NodeRole) -> Self {
        Self {
            kind,
            role,
            unit: None,
            restart_command: None,
            stop_command: None,
            start_command: None,
            log_command: None,
            config_file: None,
            data_dir: None,
        }
    }

    /// The names of the service, without `.service`.
    pub(crate) fn units(&self) -> &str {
        match (&self.unit, self.kind, self.role) {
            (Some(unit), ..) => &unit.0,
            (None, SupervisorKind::K3s, NodeRole::Server) => "k3s k3s-server",
            (None, kind, NodeRole::Server) => kind.server_unit(),
            (None, kind, NodeRole::Agent) => kind.agent_unit(),
        }
    }
}

/// The name of a service, without `.service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitName(String);

/// A text that is not the name of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a service")]
pub struct InvalidUnitName(String);

impl UnitName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for UnitName {
    type Err = InvalidUnitName;

    fn from_str(text: &str) -> Result<Self, InvalidUnitName> {
        let name = text.strip_suffix(".service").unwrap_or(text);
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"@._:-".contains(&c);
        if name.is_empty() || name.starts_with(['-', '.']) || !name.bytes().all(is_plain) {
            return Err(InvalidUnitName(text.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}
