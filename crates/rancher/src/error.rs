//! What can go wrong between this crate and a server. The server's own response is kept for whatever words it.

use std::fmt;

use client::request;
use kube::core::Status;
use serde::Deserialize;

use crate::cluster_id::ClusterId;

/// What every function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A read or a write that failed.
///
/// The caller, who made the client, knows which cluster it was on (management or downstream).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A failed request: no response, an error, or a response that its API does not give.
    #[error(transparent)]
    Request(request::Error),
    /// No cluster has that name.
    #[error("cluster {asked:?} not found")]
    ClusterNotFound {
        /// What the user typed: an id, a display name or `namespace/name`.
        asked: String,
        /// Similar names, best first.
        similar: Vec<String>,
    },
    /// Several clusters have that display name.
    #[error("{} clusters have the name {asked:?}: {}", candidates.len(), list_of(candidates))]
    AmbiguousCluster {
        /// What the user typed.
        asked: String,
        /// Each of them.
        candidates: Vec<Candidate>,
    },
    /// Rancher indexes an empty token like any other and would accept every agent without one (seen on Rancher 2.12.0: for
    /// some 13 ms `Authorization: Bearer stv-cluster-` was accepted as that cluster).
    #[error("a registration token must not be empty")]
    BlankToken,
    /// A Deployment that is not the agent's, or was changed so that no patch of this crate fits.
    #[error("the agent's Deployment {namespace}/{name} {what}")]
    UnsupportedAgent {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What does not fit.
        what: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("cannot read random bytes from the operating system")]
    RandomBytes(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One of several clusters with the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id, which is never ambiguous.
    pub id: ClusterId,
    /// Its display name.
    pub display_name: String,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.display_name)
    }
}

impl Error {
    /// The HTTP status of the response.
    pub fn code(&self) -> Option<u16> {
        self.request()?.code()
    }

    /// The object has changed since it was observed, or exists already (409): observe again.
    pub fn is_conflict(&self) -> bool {
        self.request().is_some_and(request::Error::is_conflict)
    }

    /// An object of that name exists already.
    pub fn is_already_exists(&self) -> bool {
        self.request().is_some_and(request::Error::is_already_exists)
    }

    /// The object does not exist, or the server does not serve this kind (404).
    pub fn is_not_found(&self) -> bool {
        self.request().is_some_and(request::Error::is_not_found)
    }

    /// The caller lacks a permission (403; Rancher sometimes answers with an empty body).
    pub fn is_forbidden(&self) -> bool {
        self.request().is_some_and(request::Error::is_forbidden)
    }

    /// Rancher could not forward the request, because the cluster's agent has no tunnel open. Rancher takes some 30 s to say
    /// so (seen on Rancher 2.15.0 and 2.12.0), and a request a moment later may succeed.
    pub fn is_agent_disconnected(&self) -> bool {
        let says = |status: &Status| status.message.contains("cluster agent disconnected");
        self.request().and_then(request::Error::status).is_some_and(says)
    }

    /// As the terminal prints it, with the cluster that it was on ("the downstream cluster").
    pub fn on(self, side: &str) -> client::error::Error {
        match self {
            Self::Request(error) => explained(error, |error| error.on(side)),
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
        Self::Request(error.read_by(proxy_error))
    }
}

impl From<Error> for client::error::Error {
    fn from(error: Error) -> Self {
        use client::error::Kind;
        let message = error.to_string();
        match error {
            Error::Request(error) => explained(error, Into::into),
            Error::ClusterNotFound { similar, .. } => {
                let error = Self::new(Kind::NotFound, message);
                let similar: Vec<_> = similar.iter().map(|name| format!("{name:?}")).collect();
                match similar.as_slice() {
                    [] => error,
                    names => error.hint(format!("did you mean {}?", names.join(" or "))),
                }
            }
            Error::AmbiguousCluster { .. } => Self::usage(message).hint("use the id of the cluster"),
            _ => Self::failed(message),
        }
    }
}

/// Rancher's management API answers 403 without a body to a user without a role in cluster `local`, whatever RBAC grants there
/// (seen on Rancher 2.15.0).
fn explained(
    error: request::Error,
    worded: impl FnOnce(request::Error) -> client::error::Error,
) -> client::error::Error {
    let is_bare = |status: &Status| status.code == 403 && status.message.is_empty();
    let is_unexplained = error.status().is_some_and(is_bare);
    let error = worded(error);
    if is_unexplained {
        error.hint(
            "Rancher answers so without a reason where you have no role in cluster local, whatever RBAC grants: ask for \
             cluster-member or cluster-owner of it",
        )
    } else {
        error
    }
}

fn list_of(candidates: &[Candidate]) -> String {
    candidates
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// An error in the form of Rancher's proxy (seen on Rancher 2.15.0 and 2.12.0):
/// `{"Code":{"Code":"Forbidden","Status":403},"Message":"clusters.management.cattle.io \"c-…\" is forbidden: …"}`.
fn proxy_error(body: &str) -> Option<Status> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ProxyError {
        code: ProxyErrorCode,
        message: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ProxyErrorCode {
        code: String,
    }
    let error: ProxyError = serde_json::from_str(body).ok()?;
    Some(Status::failure(&error.message, &error.code.code))
}
