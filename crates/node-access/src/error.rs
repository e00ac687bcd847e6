//! The errors of this crate. None of them contains a secret.

use std::time::Duration;

use client::duration;
use client::error::{Error as UserError, Kind};
use client::redact::{self, Sent};
use client::sanitize;
use client::secret::Secret;

use crate::pod::NodePod;
use crate::record::ResultRecord;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, on which node and by which way.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} on node {node} ({way}): {problem}")]
pub struct Error {
    /// The name of the Node.
    pub node: String,
    /// `--node-exec` or `--via pod`.
    pub way: &'static str,
    /// `read the configuration`, `edit /etc/rancher/k3s/config.yaml`.
    pub doing: String,
    /// Why.
    pub problem: NodeProblem,
}

/// Why an operation on a node failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeProblem {
    /// The command of `--node-exec` cannot be started.
    #[error("cannot start {program}: {reason}")]
    Start {
        /// Its first word.
        program: String,
        /// The reason of the system.
        reason: String,
    },
    /// There was no result in time. Whether the operation was carried out is unknown.
    #[error("no result within {}", duration::format(*.0))]
    TimedOut(Duration),
    /// The node printed more than is read.
    #[error("more than {} KiB of output", .0 >> 10)]
    TooMuchOutput(usize),
    /// The command failed before the script had a result.
    #[error("the command ended with {status}{}", message.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Exit {
        /// `exit code 255`, `a signal`.
        status: String,
        /// The end of its standard error, redacted.
        message: Option<String>,
    },
    /// The result has no end. Whether the operation was carried out is unknown.
    #[error("the result is incomplete")]
    Incomplete,
    /// The result is not one.
    #[error("the result is malformed")]
    Malformed,
    /// Another program has changed the file since it was read. Nothing was changed.
    #[error("{file} has changed since it was read")]
    Changed {
        /// The file.
        file: String,
    },
    /// Another run holds the lock of the node. Nothing was changed.
    #[error("another run is changing files")]
    Locked,
    /// A file, a backup or a service does not exist.
    #[error("{0}")]
    Missing(String),
    /// It cannot be done safely.
    #[error("{0}")]
    Refused(String),
    /// A place that is not of a form that can be edited safely.
    #[error("{reason}")]
    Blocked {
        /// Why.
        reason: String,
        /// What to do by hand.
        by_hand: String,
    },
    /// A command of the node failed.
    #[error("{0}")]
    Failed(String),
    /// This way cannot return a secret.
    #[error("a pod does not return secrets")]
    NoSecret,
    /// A request to the Kubernetes API failed.
    #[error("{what}: {}", source.message)]
    Api {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Box<UserError>,
    },
    /// No pod was created, so nothing was changed.
    #[error("{0}")]
    NoPod(String),
    /// The pod did not run to its end.
    #[error("{0}")]
    Pod(String),
}

impl NodeProblem {
    /// That of a record `error`: kind, sentence, file.
    pub(crate) fn of_record(record: &ResultRecord) -> Self {
        let text = redact::text(&sanitize::line(record.text(1)));
        let file = sanitize::line(record.text(2));
        let sentence = if file.is_empty() {
            text
        } else {
            format!("{file}: {text}")
        };
        match record.text(0) {
            "changed" => Self::Changed { file },
            "locked" => Self::Locked,
            "missing" => Self::Missing(sentence),
            "refused" => Self::Refused(sentence),
            _ => Self::Failed(sentence),
        }
    }

    /// That of a command without a result.
    pub(crate) fn of_exit(code: Option<i32>, stderr: &str, secrets: &[Secret]) -> Self {
        let status = code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        let last: String = last.chars().take(500).collect();
        let sent = Sent::with(&http::HeaderMap::new());
        let message = sent.message(&secrets.iter().collect::<Vec<_>>(), &last);
        Self::Exit {
            status,
            message: message.filter(|text| !text.is_empty()),
        }
    }

    /// Whether nothing was changed for certain, so that the operation may be repeated.
    pub fn is_harmless(&self) -> bool {
        !matches!(
            self,
            Self::TimedOut(_)
                | Self::TooMuchOutput(_)
                | Self::Exit { .. }
                | Self::Incomplete
                | Self::Malformed
                | Self::Failed(_)
                | Self::Api { .. }
                | Self::Pod(_)
        )
    }

    fn hint(&self, way: &str) -> Option<&'static str> {
        Some(match self {
            Self::Start { .. } => {
                "pass a command that runs sh on the node as root, such as --node-exec 'ssh root@{address}'"
            }
            Self::Pod(text) | Self::NoPod(text) if !text.to_lowercase().contains("image") => {
                "make sure that the node can run pods, or use --node-exec"
            }
            Self::Exit { .. } | Self::Incomplete | Self::Pod(_) | Self::NoPod(_) if way == NodePod::WAY => {
                "pass an image with sh and nsenter with --image, or use --node-exec"
            }
            Self::Exit { .. } | Self::Incomplete => {
                "run the command of --node-exec by hand; it has to run sh on the node as root, without a password prompt"
            }
            Self::Api { source, .. } if source.message.contains("violates PodSecurity") => {
                "allow privileged pods in namespace kube-system, or use --node-exec"
            }
            Self::TimedOut(_) => "raise --node-timeout, and read the state of the node before you repeat the command",
            Self::Changed { .. } => "pause configuration management, and repeat the command",
            Self::Locked => "wait for the other run to end, and repeat the command",
            Self::NoSecret => "pass the token in a file (--token-file), or use --node-exec",
            Self::Failed(text) if text.contains("do not run as root") => {
                "add sudo: --node-exec 'ssh admin@{address} sudo -n'"
            }
            Self::Missing(text) if text.contains("service") => "pass the name of the service with --unit",
            Self::Refused(text) if text.contains("services") => "pass the name of the service with --unit",
            Self::Refused(text) if text.contains("pod") => "use --node-exec",
            Self::Refused(text) if text.contains("OpenRC has") || text.contains("service is not known") => {
                "pass --restart-command, --stop-command and --start-command"
            }
            _ => return None,
        })
    }
}

impl From<Error> for UserError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let kind = match &error.problem {
            NodeProblem::Locked => Kind::Held,
            NodeProblem::Changed { .. } => Kind::Conflict,
            NodeProblem::TimedOut(_) => Kind::TimedOut,
            NodeProblem::Api { source, .. } => source.kind,
            _ => Kind::Failed,
        };
        let hint = error.problem.hint(error.way);
        let hints = match error.problem {
            NodeProblem::Api { source, .. } => source.hints,
            NodeProblem::Blocked { by_hand, .. } => vec![by_hand],
            _ => Vec::new(),
        };
        let first = Self::new(kind, message);
        hints.into_iter().chain(hint.map(str::to_owned)).fold(first, Self::hint)
    }
}
