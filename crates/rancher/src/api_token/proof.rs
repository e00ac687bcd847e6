//! Verifies an API token by calls with it: to Rancher alone, and through Rancher to its cluster.
//!
//! The status code alone does not tell the result. All seen on Rancher 2.15.0 and 2.12.0, at `/k8s/clusters/<id>`:
//!
//! | response | meaning |
//! |---|---|
//! | 403 text, `User "system:unauthenticated" cannot get resource "clusters"` | the token is revoked, disabled, expired, or scoped to another cluster (401 before Rancher 2.9, at `local`, and everywhere under `/v3`) |
//! | 403 text, `User "u-abcde" cannot get resource "clusters"` | the token is valid; its owner is not a member of the cluster |
//! | 403 with an empty body | the same, at `local` |
//! | 403, a `Status` | the downstream cluster's own RBAC |
//! | 404 text, `{"Code":{"Code":"NotFound"…` | the cluster does not exist |
//! | 500 text, `cluster agent disconnected`, after 27 to 38 s | the cluster's agent is not connected; whether the token is valid is unknown |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde::Deserialize;

use super::norman::{self, Response};
use crate::cluster_id::ClusterId;

/// Longer than Rancher takes to report that an agent is not connected.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// The user of a request with an invalid token.
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// The result of a call with a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallResult {
    /// The call succeeded.
    Accepted {
        /// The Kubernetes version of the cluster, where that was requested: `v1.36.3`.
        kubernetes: Option<String>,
    },
    /// Rancher rejects the token.
    Rejected,
    /// The token is valid, but its owner is not a member of the cluster.
    NotAMember {
        /// The owner, as Rancher names it.
        user: Option<String>,
    },
    /// The call reached the cluster, where the token's owner lacks the permission.
    NoDownstreamPermission {
        /// The message of the cluster's API server.
        message: String,
    },
    /// The cluster does not exist.
    ClusterGone,
    /// Rancher redirects the call to a path where the token is rejected.
    Redirected {
        /// The path of the call.
        path: String,
        /// The target of the redirect.
        to: String,
    },
    /// The cluster's agent is not connected. Whether the token is valid is unknown.
    AgentOffline,
    /// There was no response in time. If the agent does not answer, Rancher takes half a minute to report it.
    NoAnswer {
        /// The timeout.
        within: Duration,
    },
    /// Rancher, or a proxy in front of it, is unavailable.
    Unavailable {
        /// The HTTP status.
        code: u16,
        /// The beginning of the response.
        message: String,
    },
    /// Rancher could not be reached.
    Unreachable(Arc<kube::Error>),
    /// A response that Rancher does not give here.
    Unexpected {
        /// The HTTP status.
        code: u16,
    },
}

impl CallResult {
    /// Whether the call succeeded.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }

    /// Whether the token itself was rejected.
    pub fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected)
    }

    /// Whether the token itself is known to be valid, whatever its permissions.
    pub fn is_valid(&self) -> bool {
        matches!(
            self,
            Self::Accepted { .. }
                | Self::NotAMember { .. }
                | Self::NoDownstreamPermission { .. }
                | Self::ClusterGone
                | Self::Redirected { .. }
        )
    }

    /// As one word, for machine-readable output.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Rejected => "rejected",
            Self::NotAMember { .. } => "not-a-member",
            Self::NoDownstreamPermission { .. } => "no-downstream-permission",
            Self::ClusterGone => "cluster-gone",
            Self::Redirected { .. } => "redirected",
            Self::AgentOffline => "agent-offline",
            Self::NoAnswer { .. } => "no-answer",
            Self::Unavailable { .. } => "unavailable",
            Self::Unreachable(_) => "unreachable",
            Self::Unexpected { .. } => "unexpected",
        }
    }
}

impl fmt::Display for CallResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted {
                kubernetes: Some(version),
            } => write!(f, "a call with it succeeded (Kubernetes {version})"),
            Self::Accepted { kubernetes: None } => f.write_str("Rancher accepts it"),
            Self::Rejected => {
                f.write_str("Rancher rejects it: it is revoked, expired, disabled, or scoped to another cluster")
            }
            Self::NotAMember { user: Some(user) } => write!(f, "its owner {user} is not a member of the cluster"),
            Self::NotAMember { user: None } => f.write_str("its owner is not a member of the cluster"),
            Self::NoDownstreamPermission { message } => {
                write!(f, "its owner lacks a permission in the cluster: {message}")
            }
            Self::ClusterGone => f.write_str("the cluster does not exist in Rancher"),
            Self::Redirected { path, to } => write!(
                f,
                "Rancher redirects {path} to {to}, where the token is rejected: Argo CD cannot discover the cluster's API"
            ),
            Self::AgentOffline => f.write_str("the cluster's agent is not connected to Rancher"),
            Self::NoAnswer { within } => write!(
                f,
                "no response within {}s; the cluster's agent may not be connected",
                within.as_secs()
            ),
            Self::Unavailable { code, message } if message.is_empty() => write!(f, "Rancher answered {code}"),
            Self::Unavailable { code, message } => write!(f, "Rancher answered {code}: {message}"),
            Self::Unreachable(_) => f.write_str("cannot reach Rancher"),
            Self::Unexpected { code } => write!(f, "unexpected response {code}"),
        }
    }
}

/// Verifies a token by a call to Rancher alone, which succeeds while the cluster is offline. A token that is scoped to the cluster is
/// accepted too, since `/v3/clusters/<id>` is within its scope (seen on Rancher 2.15.0 and 2.12.0).
///
/// `client` is a client of Rancher's own URL with the token ([`bearing`](super::bearing)).
pub async fn alone(client: &kube::Client, cluster: &ClusterId, patience: Duration) -> CallResult {
    call(client, &format!("/v3/clusters/{cluster}"), patience).await
}

/// Verifies a token by calls through Rancher and the agent's tunnel: those with which a client of Kubernetes discovers an API. It
/// follows redirects: Rancher 2.15.0 answers 307 at `/k8s/clusters/local/api` and `…/apis`, to its own `/api/` and `/apis/`,
/// where a token that is scoped to `local` is rejected (rancher/rancher#54278).
pub async fn through_proxy(client: &kube::Client, cluster: &ClusterId, patience: Duration) -> CallResult {
    let prefix = format!("/k8s/clusters/{cluster}");
    let version = call(client, &format!("{prefix}/version"), patience).await;
    for path in ["api", "apis"].map(|of| format!("{prefix}/{of}")) {
        if !version.is_accepted() {
            break;
        }
        let discovery = call(client, &path, patience).await;
        if !discovery.is_accepted() {
            return discovery;
        }
    }
    version
}

/// Whether Rancher redirects the first discovery request out of the scope of a token for this cluster.
pub async fn needs_no_scope(client: &kube::Client, cluster: &ClusterId) -> Result<bool, kube::Error> {
    let prefix = format!("/k8s/clusters/{cluster}/");
    let response = norman::request(client, Method::GET, &format!("{prefix}api"), None).await?;
    Ok(redirect(&response).is_some_and(|to| !to.starts_with(&prefix)))
}

async fn call(client: &kube::Client, path: &str, patience: Duration) -> CallResult {
    match tokio::time::timeout(patience, followed(client, path)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => CallResult::Unreachable(Arc::new(error)),
        Err(_) => CallResult::NoAnswer { within: patience },
    }
}

/// Follows at most ten redirects, as Go's HTTP client. One to another host is not followed, since the token is not meant for it.
async fn followed(client: &kube::Client, path: &str) -> Result<CallResult, kube::Error> {
    let mut at = path.to_owned();
    for _ in 0..10 {
        let response = norman::request(client, Method::GET, &at, None).await?;
        match redirect(&response) {
            Some(to) if to.starts_with('/') && !to.starts_with("//") => to.clone_into(&mut at),
            Some(to) => {
                to.clone_into(&mut at);
                break;
            }
            None if at == path => return Ok(classify(response.code, &response.body)),
            None if (200..300).contains(&response.code) => return Ok(CallResult::Accepted { kubernetes: None }),
            None => break,
        }
    }
    let path = path.to_owned();
    Ok(CallResult::Redirected { path, to: at })
}

fn redirect(response: &Response) -> Option<&str> {
    let is_redirect = matches!(response.code, 301 | 302 | 303 | 307 | 308);
    response.location.as_deref().filter(|_| is_redirect)
}

/// An error of Rancher's proxy, whose content type is plain text.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProxyError {
    code: ProxyCode,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProxyCode {
    code: String,
}

/// What Kubernetes or Rancher responds, as far as it matters here. It is not parsed into a `Value`, which can take a hundred
/// times the memory of the text.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    kind: Option<String>,
    r#type: Option<String>,
    message: Option<String>,
    git_version: Option<String>,
}

/// The result of a call, by its response.
pub fn classify(code: u16, body: &[u8]) -> CallResult {
    let text = String::from_utf8_lossy(body);
    let json: Body = serde_json::from_slice(body).unwrap_or_default();
    let is_by_rancher = json.r#type.as_deref() == Some("error");
    let by_proxy: Option<ProxyError> = serde_json::from_slice(body).ok();
    match code {
        200..300 => CallResult::Accepted {
            kubernetes: json.git_version,
        },
        401 => CallResult::Rejected,
        403 if text.contains(UNAUTHENTICATED) => CallResult::Rejected,
        403 if json.kind.as_deref() == Some("Status") => CallResult::NoDownstreamPermission {
            message: norman::beginning(json.message.unwrap_or_default().as_bytes()),
        },
        403 if body.is_empty() || by_proxy.is_some() || is_by_rancher => CallResult::NotAMember {
            user: quoted_user(&text),
        },
        404 if is_by_rancher || by_proxy.as_ref().is_some_and(|error| error.code.code == "NotFound") => {
            CallResult::ClusterGone
        }
        500 | 503 if is_offline(&text) => CallResult::AgentOffline,
        429 | 500..600 => CallResult::Unavailable {
            code,
            message: by_proxy.map_or_else(
                || norman::beginning(body),
                |error| norman::beginning(error.message.as_bytes()),
            ),
        },
        _ => CallResult::Unexpected { code },
    }
}

/// `cluster agent disconnected` (seen on Rancher 2.15.0 and 2.12.0), or the code `ClusterUnavailable`
/// (`pkg/clusterrouter/proxy/proxy_server.go` of Rancher 2.15.0).
fn is_offline(text: &str) -> bool {
    text.contains("cluster agent disconnected") || text.contains("ClusterUnavailable")
}

/// `… is forbidden: User \"u-abcde\" cannot get …`, escaped or not.
fn quoted_user(text: &str) -> Option<String> {
    let rest = text.split("User ").nth(1)?;
    let name = rest.trim_start_matches(['\\', '"']).split(['\\', '"']).next()?;
    Some(name.to_owned()).filter(|name| !name.is_empty())
}
