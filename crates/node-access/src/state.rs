//! What is read from a node: its configuration, the files of its server, and the state of its service. No secret is in it.

use client::{redact, sanitize};
use supervisor::TokenHash;

use crate::configuration::Configuration;
use crate::error::NodeProblem;
use crate::record::ResultRecord;

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Its host name.
    pub host: String,
    /// Its `/etc/machine-id`, to be compared with the Node's: it shows that the command has reached another machine.
    pub machine_id: Option<String>,
    /// Where tokens are configured.
    pub configuration: Configuration,
    /// The file `server/token`. `None`: it does not exist.
    pub server_token: Option<ServerTokenFile>,
    /// `cred/passwd`, and copies of it beside it.
    pub passwd: Vec<PasswdFile>,
    /// The files of which this run has a backup.
    pub backups: Vec<String>,
    /// The files of the encryption of Secrets.
    pub encryption: Vec<StateFile>,
    /// Its service.
    pub service: ServiceState,
    /// The last errors in its log, redacted; at most three lines.
    pub log: Vec<String>,
}

/// A file of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// Its path.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
    /// When it was written, in seconds since 1970.
    pub modified: i64,
}

/// The file `server/token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTokenFile {
    /// Its SHA-256.
    pub sha256: String,
    /// When it was written, in seconds since 1970.
    pub modified: i64,
    /// The user of the `K10` form.
    pub user: Option<String>,
    /// The fingerprint of its password. `None`: it is empty.
    pub fingerprint: Option<TokenHash>,
}

/// A file `cred/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswdFile {
    /// The file.
    pub file: StateFile,
    /// User and fingerprint of each row. `None`: the row is malformed.
    pub rows: Vec<(String, Option<TokenHash>)>,
}

/// What runs the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceManager {
    /// systemd.
    Systemd,
    /// OpenRC.
    OpenRc,
    /// Neither has such a service.
    #[default]
    Unknown,
}

/// The state of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// What runs it.
    pub manager: ServiceManager,
    /// Its name.
    pub unit: String,
    /// As systemd calls it: `active`, `activating`, `failed`, `inactive`. Empty: not known.
    pub active: String,
    /// More of it: `running`, `auto-restart`.
    pub sub: String,
    /// How often systemd has restarted it by itself.
    pub restarts: Option<u64>,
    /// Why it ended: `success`, `exit-code`.
    pub result: String,
}

impl ServiceState {
    pub(crate) fn of_records(records: &[ResultRecord]) -> Result<Self, NodeProblem> {
        let record = records.iter().find(|record| record.name == "service");
        let record = record.ok_or(NodeProblem::Malformed)?;
        Ok(Self {
            manager: match record.text(0) {
                "systemd" => ServiceManager::Systemd,
                "openrc" => ServiceManager::OpenRc,
                _ => ServiceManager::Unknown,
            },
            unit: record.text(1).to_owned(),
            active: record.text(2).to_owned(),
            sub: record.text(3).to_owned(),
            restarts: record.number(4),
            result: record.text(5).to_owned(),
        })
    }
}

impl NodeState {
    pub(crate) fn of_records(records: &[ResultRecord]) -> Result<Self, NodeProblem> {
        let mut state = Self {
            configuration: Configuration::of_records(records)?,
            service: ServiceState::of_records(records)?,
            ..Self::default()
        };
        for record in records {
            match record.name.as_str() {
                "host" => {
                    state.host = sanitize::line(record.text(0));
                    state.machine_id = record.some(1);
                }
                "token" => {
                    state.server_token = Some(ServerTokenFile {
                        sha256: record.text(0).to_owned(),
                        modified: record.number(1).ok_or(NodeProblem::Malformed)?,
                        user: record.some(2).filter(|user| user != "-"),
                        fingerprint: record.number(3),
                    });
                }
                "passwd" => state.passwd.push(PasswdFile {
                    file: file(record)?,
                    rows: Vec::new(),
                }),
                "row" => {
                    let of = state.passwd.last_mut().ok_or(NodeProblem::Malformed)?;
                    of.rows.push((sanitize::line(record.text(1)), record.number(2)));
                }
                "backup" => state.backups.push(record.text(0).to_owned()),
                "encryption" => state.encryption.push(file(record)?),
                "log" => state.log.push(redact::text(&sanitize::line(record.text(0)))),
                _ => {}
            }
        }
        Ok(state)
    }
}

fn file(record: &ResultRecord) -> Result<StateFile, NodeProblem> {
    Ok(StateFile {
        file: record.text(0).to_owned(),
        sha256: record.text(1).to_owned(),
        modified: record.number(2).ok_or(NodeProblem::Malformed)?,
    })
}
