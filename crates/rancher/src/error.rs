//! What can go wrong between this crate and a server, with the server's own answer kept for whoever words it.

use std::fmt;

use client::request;
use kube::core::Status;
use serde::Deserialize;

use crate::cluster_id::ClusterId;

/// What everything here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed look at, or change of, something of Rancher's.
///
/// Which side it was on (management or downstream) is known to the caller, who made the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request that failed: the server did not answer, answered no, or answered something that is not its API's.
    #[error(transparent)]
    Request(request::Error),
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

/// One of several clusters that a name could mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id, which is never ambiguous.
    pub id: ClusterId,
    /// What it is called.
    pub display_name: String,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.display_name)
    }
}

impl Error {
    /// The HTTP status that the API server answered with.
    pub fn code(&self) -> Option<u16> {
        self.request()?.code()
    }

    /// The object has changed since it was observed, or exists already (409): look again.
    pub fn is_conflict(&self) -> bool {
        self.request().is_some_and(request::Error::is_conflict)
    }

    /// A create met an object of that name.
    pub fn is_already_exists(&self) -> bool {
        self.request().is_some_and(request::Error::is_already_exists)
    }

    /// The object is not there, or the server does not serve this kind (404).
    pub fn is_not_found(&self) -> bool {
        self.request().is_some_and(request::Error::is_not_found)
    }

    /// The caller has no right to this (403; Rancher answers with an empty body at times).
    pub fn is_forbidden(&self) -> bool {
        self.request().is_some_and(request::Error::is_forbidden)
    }

    /// Rancher could not pass the call on, because the cluster's agent has no tunnel open. Rancher takes some 30 s to say
    /// so (seen on Rancher 2.15.0 and 2.12.0), and a call a moment later may go through.
    pub fn is_agent_disconnected(&self) -> bool {
        let says = |status: &Status| status.message.contains("cluster agent disconnected");
        self.request().and_then(request::Error::status).is_some_and(says)
    }

    /// In the words of the terminal, with the side that it was on ("the downstream cluster").
    pub fn on(self, side: &str) -> client::error::Error {
        match self {
            Self::Request(error) => error.on(side),
            other => other.into(),
        }
    }

    fn request(&self) -> Option<&request::Error> {
        match self {
            Self::Request(error) => Some(error),
            _ => None,
        }
    }
}

impl From<request::Error> for Error {
    fn from(error: request::Error) -> Self {
        Self::Request(error.read_by(refusal))
    }
}

impl From<Error> for client::error::Error {
    fn from(error: Error) -> Self {
        use client::error::Kind;
        let message = error.to_string();
        match error {
            Error::Request(error) => error.into(),
            Error::NoSuchCluster { .. } => Self::new(Kind::NotFound, message),
            Error::AmbiguousCluster { .. } => Self::usage(message).hint("name the one that is meant by its id"),
            _ => Self::failed(message),
        }
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

/// A refusal in Rancher's own form (seen on Rancher 2.15.0 and 2.12.0):
/// `{"Code":{"Code":"Forbidden","Status":403},"Message":"clusters.management.cattle.io \"c-…\" is forbidden: …"}`.
fn refusal(answer: &str) -> Option<Status> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        code: RefusalCode,
        message: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct RefusalCode {
        code: String,
    }
    let refusal: Refusal = serde_json::from_str(answer).ok()?;
    Some(Status::failure(&refusal.message, &refusal.code.code))
}
