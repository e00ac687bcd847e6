//! The fake Rancher's view of a cluster, for assertions.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The fake Rancher's view of a cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The time since which an agent tunnel is open (RFC 3339), if one is.
    #[serde(default)]
    pub connected_since: Option<String>,
    /// The open tunnels.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// The intervals without an agent tunnel since the registration.
    #[serde(default)]
    pub disconnected: Vec<Interval>,
    /// The intervals without other things.
    #[serde(default)]
    pub without: Without,
    /// The same for a steve tunnel.
    #[serde(default)]
    pub steve_since: Option<String>,
    /// Fingerprints of the accepted tokens.
    pub accepted: Vec<String>,
    /// `Connected`, `Ready`, `AgentDeployed`: `True`, `False` or absent.
    pub conditions: BTreeMap<String, String>,
    /// The running agents, as the fake Rancher sees them.
    pub agents: Value,
    /// The control-plane machines of a provisioned cluster: `running`, and the fingerprints of the tokens in its `plan`, in the `applied`
    /// one, and in its `file`.
    #[serde(default)]
    pub machines: BTreeMap<String, Value>,
}

impl Report {
    /// The distinct fingerprints of the tokens of open tunnels.
    pub fn fingerprints(&self) -> Vec<&str> {
        let mut all: Vec<_> = self
            .sessions
            .iter()
            .map(|session| session.fingerprint.as_str())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// An open tunnel.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// `agent` or `steve`.
    pub tunnel: String,
    /// The pod that opened it.
    pub pod: String,
    /// The fingerprint of its token.
    pub fingerprint: String,
    /// RFC 3339, milliseconds.
    pub since: String,
}

/// An interval without something.
#[derive(Clone, Debug, Deserialize)]
pub struct Interval {
    /// RFC 3339, milliseconds.
    pub from: String,
    /// Absent while the interval is open.
    pub to: Option<String>,
    /// The duration so far.
    pub ms: u64,
}

/// The intervals in which a cluster was without something.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Without {
    /// No agent tunnel was open.
    pub tunnel: Vec<Interval>,
    /// No steve tunnel was open.
    pub steve: Vec<Interval>,
    /// No running agent held a valid token.
    pub valid_token: Vec<Interval>,
    /// An agent that had started then, from the Secret that the Deployment names, would have been rejected.
    pub restart_safety: Vec<Interval>,
}
