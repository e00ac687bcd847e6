//! What can go wrong between this crate and a server, with the server's own answer kept for whoever words it.

use std::fmt;

use crate::cluster::Candidate;
use crate::era::MixedEra;

/// What everything here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was tried, as one would put it in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read several.
    List,
    /// Make a new one.
    Create,
    /// Change one.
    Patch,
    /// Remove one.
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "read",
            Self::List => "list",
            Self::Create => "create",
            Self::Patch => "change",
            Self::Delete => "delete",
        })
    }
}

/// The object of a request: kind, and as much of namespace and name as the request had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// As in the manifest, e.g. `ClusterRegistrationToken`.
    pub kind: &'static str,
    /// None: cluster-scoped, or all namespaces.
    pub namespace: Option<String>,
    /// None: a list.
    pub name: Option<String>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, "{} {namespace}/{name}", self.kind),
            (None, Some(name)) => write!(f, "{} {name}", self.kind),
            (Some(namespace), None) => write!(f, "{}s in namespace {namespace}", self.kind),
            (None, None) => write!(f, "{}s", self.kind),
        }
    }
}

/// A failed look at, or change of, something of Rancher's.
///
/// Which side it was on (management or downstream) is known to the caller, who made the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server did not answer, or answered no. Credentials in its answer have been replaced by `…`.
    #[error("could not {verb} {object}")]
    Request {
        /// What was tried.
        verb: Verb,
        /// On what.
        object: Box<ObjectName>,
        /// The server's answer or the transport's failure.
        source: Box<kube::Error>,
    },
    /// The answer is not what this API serves. Its text is not repeated, because it may hold a credential.
    #[error("could not {verb} {object}: the server's answer makes no sense at line {line}, column {column}")]
    Unreadable {
        /// What was tried.
        verb: Verb,
        /// On what.
        object: Box<ObjectName>,
        /// Where in the answer, from 1; 0 if it was no text at all.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// No cluster answers to that name.
    #[error(
        "no cluster has the id, display name or provisioning name {asked:?}{}",
        near_names(near)
    )]
    NoSuchCluster {
        /// What the user typed.
        asked: String,
        /// Names that are nearly it, best first.
        near: Vec<String>,
    },
    /// Several clusters share that display name.
    #[error("{} clusters are called {asked:?}: {}", candidates.len(), list_of(candidates))]
    AmbiguousCluster {
        /// What the user typed.
        asked: String,
        /// Each of them.
        candidates: Vec<Candidate>,
    },
    /// The objects of one server belong to both eras.
    #[error(transparent)]
    MixedEra(#[from] MixedEra),
    /// An empty token would let anybody in: Rancher indexes it as it does any other (seen on Rancher 2.12.0: for some
    /// 13 ms `Authorization: Bearer stv-cluster-` was accepted as that cluster).
    #[error("a registration token must not be empty")]
    BlankToken,
    /// A Deployment that is no agent's, or was built by hand in a way that no patch of ours would be right for.
    #[error("the agent's Deployment {namespace}/{name} {what}")]
    StrangeAgent {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What is odd about it.
        what: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system has no randomness to give")]
    NoRandomness(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The HTTP status that the API server answered with.
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// The object has changed since it was observed, or exists already (409): look again.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// A create met an object of that name.
    pub fn is_already_exists(&self) -> bool {
        self.is_conflict() && self.status().is_some_and(|status| status.reason == "AlreadyExists")
    }

    /// The object is not there, or the server does not serve this kind (404).
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The caller has no right to this (403; Rancher answers with an empty body at times).
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Rancher could not pass the call on, because the cluster's agent has no tunnel open. Rancher takes some 30 s to say
    /// so (seen on Rancher 2.15.0 and 2.12.0), and a call a moment later may go through.
    pub fn is_agent_disconnected(&self) -> bool {
        self.status()
            .is_some_and(|status| status.message.contains("cluster agent disconnected"))
    }

    /// In the words of the terminal, with the side that it was on ("the downstream cluster").
    pub fn on(self, side: &str) -> kubectl_core::error::Error {
        self.worded(&format!(" on {side}"))
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    fn worded(self, side: &str) -> kubectl_core::error::Error {
        use kubectl_core::error::{Error, Kind};
        let message = self.to_string();
        match self {
            Self::Request { verb, object, source } => Error::from(*source).doing(format!("{verb} {object}{side}")),
            Self::NoSuchCluster { .. } => Error::new(Kind::NotFound, message),
            Self::AmbiguousCluster { .. } => Error::usage(message).hint("name the one that is meant by its id"),
            _ => Error::failed(message),
        }
    }
}

impl From<Error> for kubectl_core::error::Error {
    fn from(error: Error) -> Self {
        error.worded("")
    }
}

fn near_names(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; is {one:?} meant?"),
        several => format!("; is one of {} meant?", several.join(", ")),
    }
}

fn list_of(candidates: &[Candidate]) -> String {
    candidates
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
