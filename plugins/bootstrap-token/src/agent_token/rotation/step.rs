//! The steps of a rotation.

use std::collections::BTreeSet;
use std::fmt;

use client::secret::Fingerprint;
use engine::plan::Named;

use super::dangerous::{Restart, Save};
use super::record::Record;

/// One step.
///
/// Writes of the backup Secret are conditional on its version, those of configurations on the hash of the file. [`Save`], [`Restart`]
/// and the deletion of the backup Secret are sent only if every server is still as it was observed, which no server checks. The others are harmless whenever they arrive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Draws a new token, or takes that of the run, and writes it to the file of the user. What the file held is kept beside it. With
    /// `--print-token` nothing is written.
    Create {
        /// `None`: it is drawn.
        value: Option<Fingerprint>,
        path: Option<String>,
    },
    /// Writes the backup Secret, and reads it back.
    BackUp(BackUp),
    Print(Fingerprint),
    /// Writes the agent token into the configuration of a server, and keeps a backup of it. A rollback restores the backup where there is
    /// one.
    Configure {
        server: String,
        /// `None`: the configuration has none afterwards.
        value: Option<Fingerprint>,
    },
    /// Writes the token into the configuration of an agent, and keeps a backup of it. Nothing depends on it: where it fails, the agent is
    /// named, and left as it is.
    ConfigureAgent {
        agent: String,
        value: Fingerprint,
    },
    Restart(Restart),
    Save(Save),
    DeleteConfigurationBackups,
    /// Deletes the backup Secret.
    Forget,
}

/// A write of the backup Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackUp {
    /// Its new content. It holds the values of O and N.
    pub record: Record,
    pub change: Change,
}

/// What changes in the backup Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It gets a token.
    Token(Fingerprint),
    /// A PUT begins on a server.
    Saves(String),
    /// A server has saved its files into the datastore.
    Saved(String),
    /// These agents have the old token, and get the new one.
    Agents(BTreeSet<String>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { value, path } => match (value, path) {
                (None, Some(path)) => write!(f, "create a new token, and write it to {path}"),
                (None, None) => f.write_str("create a new token"),
                (Some(value), Some(path)) => write!(f, "write {} to {path}", Named(value)),
                (Some(value), None) => write!(f, "use {} as the new token", Named(value)),
            },
            Self::BackUp(BackUp { change, .. }) => match change {
                Change::Token(value) => write!(f, "back up {} in the backup Secret", Named(value)),
                Change::Saves(server) => {
                    write!(
                        f,
                        "record in the backup Secret that {server} is going to save its files"
                    )
                }
                Change::Saved(server) => write!(f, "record in the backup Secret that {server} has saved its files"),
                Change::Agents(agents) => {
                    let names: Vec<&str> = agents.iter().map(String::as_str).collect();
                    write!(
                        f,
                        "record in the backup Secret which agents get the new token: {}",
                        names.join(", ")
                    )
                }
            },
            Self::Print(value) => write!(f, "print {}", Named(value)),
            Self::Configure { server, value } => configure(f, *value, server),
            Self::ConfigureAgent { agent, value } => {
                write!(f, "put {} into the configuration of agent {agent}", Named(value))
            }
            Self::Restart(restart) => fmt::Display::fmt(restart, f),
            Self::Save(save) => fmt::Display::fmt(save, f),
            Self::DeleteConfigurationBackups => f.write_str("delete the backups of configurations"),
            Self::Forget => f.write_str("delete the backup Secret"),
        }
    }
}

/// Also what an operator is asked to do.
pub(super) fn configure(f: &mut fmt::Formatter<'_>, value: Option<Fingerprint>, server: &str) -> fmt::Result {
    match value {
        Some(value) => write!(
            f,
            "put {} into the configuration of server {server} as agent token",
            Named(&value)
        ),
        None => write!(f, "remove the agent token from the configuration of server {server}"),
    }
}
