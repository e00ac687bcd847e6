//! What the stand-in knows of a cluster, for tests to assert on.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What the stand-in knows of one cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Since when an agent tunnel is open (RFC 3339), if one is.
    #[serde(default)]
    pub connected_since: Option<String>,
    /// The tunnels that are open.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// When no agent tunnel was open, since the registration was done.
    #[serde(default)]
    pub disconnected: Vec<Interval>,
    /// When something else was missing.
    #[serde(default)]
    pub without: Without,
    /// The same for a steve tunnel.
    #[serde(default)]
    pub steve_since: Option<String>,
    /// Fingerprints of the tokens that would be let in now.
    pub accepted: Vec<String>,
    /// `Connected`, `Ready`, `AgentDeployed`: `True`, `False` or nothing.
    pub conditions: BTreeMap<String, String>,
    /// The agents that run, as the stand-in sees them.
    pub agents: Value,
}

impl Report {
    /// The fingerprints of the tokens that tunnels are open with, each once.
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

/// One open tunnel.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// `agent` or `steve`.
    pub tunnel: String,
    /// The pod that opened it.
    pub pod: String,
    /// Of the token that it was opened with.
    pub fingerprint: String,
    /// RFC 3339, milliseconds.
    pub since: String,
}

/// From when to when something was missing.
#[derive(Clone, Debug, Deserialize)]
pub struct Interval {
    /// RFC 3339, milliseconds.
    pub from: String,
    /// Nothing while it still is.
    pub to: Option<String>,
    /// So far.
    pub ms: u64,
}

/// What a cluster was without, and when.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Without {
    /// No agent tunnel was open.
    pub tunnel: Vec<Interval>,
    /// No steve tunnel was open.
    pub steve: Vec<Interval>,
    /// No running agent held a token that would have been let in.
    pub way_back: Vec<Interval>,
    /// An agent that had started then, from the Secret that the Deployment named, would not have been let in.
    pub restart_safety: Vec<Interval>,
}
