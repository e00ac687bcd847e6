//! The steps of a rotation.

use std::fmt;

use client::secret::Fingerprint;

use engine::plan::Named;

use super::dangerous::{Heal, Restart, Round};
use super::record::Record;

/// One step.
///
/// Writes of the backup Secret are conditional on its version. [`Round`], [`Heal`] and [`Restart`] cannot be conditional: they are
/// sent only if every server is still as it was observed. The others are harmless whenever they arrive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Draws a new token, or takes one of the run, and writes it to the file of the user. What the file held is kept beside it. With
    /// `--print-token` nothing is written.
    Create {
        /// `None`: it is drawn.
        value: Option<Fingerprint>,
        path: Option<String>,
    },
    /// Writes the backup Secret, and reads it back.
    BackUp(BackUp),
    Print(Fingerprint),
    /// Takes an on-demand snapshot on every server.
    Snapshot(SnapshotKind),
    /// Removes the token from the configuration of a server, and keeps a backup of it. Only if `server/token` exists and has the token
    /// that the datastore has.
    Unpin {
        server: String,
    },
    Round(Round),
    Heal(Heal),
    Restart(Restart),
    /// Puts a token into the configuration of a node, where the run has removed one or an agent has another.
    Repin {
        node: String,
        value: Fingerprint,
    },
    DeleteConfigurationBackups,
    DeleteSnapshots,
    /// Deletes the backup Secret.
    Forget,
}

/// A write of the backup Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackUp {
    /// Its new content. It holds the values of these tokens.
    pub record: Record,
    pub change: Change,
}

/// What changes in the backup Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It gets a token.
    Token(Fingerprint),
    /// A round begins.
    RoundBegins(Fingerprint),
    /// A round is complete.
    RoundEnds(Fingerprint),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// Before any change. It is kept.
    First,
    /// To see what the servers have in their files. It is deleted at the end.
    Checking,
    /// After the last change. It is kept.
    Last,
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
                Change::RoundBegins(value) => write!(
                    f,
                    "record in the backup Secret that a round with {} begins",
                    Named(value)
                ),
                Change::RoundEnds(value) => {
                    write!(f, "record in the backup Secret that every server has {}", Named(value))
                }
            },
            Self::Print(value) => write!(f, "print {}", Named(value)),
            Self::Snapshot(SnapshotKind::First) => f.write_str("take an etcd snapshot on every server, to keep"),
            Self::Snapshot(SnapshotKind::Checking) => {
                f.write_str("take an etcd snapshot on every server, to check its files")
            }
            Self::Snapshot(SnapshotKind::Last) => f.write_str("take the last etcd snapshot on every server"),
            Self::Unpin { server } => write!(f, "remove the token from the configuration of server {server}"),
            Self::Round(round) => fmt::Display::fmt(round, f),
            Self::Heal(heal) => fmt::Display::fmt(heal, f),
            Self::Restart(restart) => fmt::Display::fmt(restart, f),
            Self::Repin { node, value } => write!(f, "put {} into the configuration of {node}", Named(value)),
            Self::DeleteConfigurationBackups => f.write_str("delete the backups of configurations"),
            Self::DeleteSnapshots => f.write_str("delete the etcd snapshots that were taken to check files"),
            Self::Forget => f.write_str("delete the backup Secret"),
        }
    }
}
