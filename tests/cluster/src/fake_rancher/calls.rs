//! The calls to Rancher by the name of their token, from the log of the fake Rancher.

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::FakeRancher;

/// A call to Rancher's API or through its proxy. A watch is one call, logged at its start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// The time of the response, to the millisecond.
    pub at: Timestamp,
    /// `GET`
    pub method: String,
    /// With its query: `/k8s/clusters/c-abcde/api/v1/pods?watch=true`.
    pub path: String,
    /// The HTTP status. 0: the connection was closed without a response.
    pub status: u16,
    /// The name of its API token, valid or not: `token-abcde`.
    pub token: Option<String>,
    /// The user agent of the caller.
    pub user_agent: Option<String>,
}

impl Call {
    /// Whether Rancher or the cluster rejected the call.
    pub fn is_refused(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// Whether the program of this name made it: `kubectl-argocd-rancher`, `argocd-application-controller`.
    pub fn is_by(&self, program: &str) -> bool {
        let agent = self.user_agent.as_deref().unwrap_or_default();
        agent.split('/').next() == Some(program)
    }
}

impl FakeRancher {
    /// The calls with one of these tokens since then, in the order of their responses.
    pub fn calls_with(&self, tokens: &[impl AsRef<str>], since: Timestamp) -> Result<Vec<Call>> {
        let mut calls = Vec::new();
        for line in self.log()? {
            let token = line["token"].as_str();
            if line["kind"] == "request" && tokens.iter().any(|asked| token == Some(asked.as_ref())) {
                let call = serde_json::from_value(line.clone()).with_context(|| format!("understand {line}"))?;
                calls.push(call);
            }
        }
        calls.retain(|call: &Call| call.at >= since);
        Ok(calls)
    }
}
