//! Who called what at Rancher, by the name of the token that a call carried: what stories ask the log of the stand-in.

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::FakeRancher;

/// A call to Rancher's API or through its proxy. A watch is one call, noted when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// When it was answered, to the millisecond.
    pub at: Timestamp,
    /// `GET`
    pub method: String,
    /// With its query: `/k8s/clusters/c-abcde/api/v1/pods?watch=true`.
    pub path: String,
    /// The HTTP status; 0: the connection was closed without one.
    pub status: u16,
    /// The name of the API token that it carried, dead or alive: `token-abcde`.
    pub token: Option<String>,
    /// What the caller calls itself.
    pub user_agent: Option<String>,
}

impl Call {
    /// Whether Rancher or the cluster did not let the caller do it.
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
    /// The calls that carried one of these tokens, from a moment on, in the order of their answers.
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
