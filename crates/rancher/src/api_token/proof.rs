//! What a token is good for, by calls that are made with it: alone, and through Rancher to its cluster.
//!
//! Rancher's answers must be read, not counted. All seen on Rancher 2.15.0 and 2.12.0, at `/k8s/clusters/<id>`:
//!
//! | answer | what it means |
//! |---|---|
//! | 403 text, `User "system:unauthenticated" cannot get resource "clusters"` | the token is dead, disabled, expired, unknown, or scoped to another cluster (401 before Rancher 2.9, at `local`, and everywhere under `/v3`) |
//! | 403 text, `User "u-abcde" cannot get resource "clusters"` | the token lives; its owner is no member of the cluster |
//! | 403 with an empty body | the same, at `local` |
//! | 403, a `Status` | the downstream cluster's own RBAC |
//! | 404 text, `{"Code":{"Code":"NotFound"…` | no such cluster |
//! | 500 text, `cluster agent disconnected`, after 27 to 38 s | the cluster's agent is offline; nothing is said of the token |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::norman::{self, Answer};
use crate::cluster_id::ClusterId;

/// Longer than Rancher takes to say that an agent is offline.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Who Rancher takes a dead token for.
const NOBODY: &str = "system:unauthenticated";

/// What a call with a token has shown.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Standing {
    /// It was let in.
    Works {
        /// The cluster's Kubernetes, where that was asked: `v1.36.3`.
        kubernetes: Option<String>,
    },
    /// Rancher knows no such token, or none that is valid here.
    Dead,
    /// The token lives, but its owner may not see the cluster.
    NotAMember {
        /// The owner, as Rancher names it.
        user: Option<String>,
    },
    /// The token reaches the cluster, which refuses its owner.
    NoDownstreamRight {
        /// In the words of the cluster's API server.
        message: String,
    },
    /// There is no such cluster.
    ClusterGone,
    /// Rancher redirects a call to a place where the token is not accepted.
    Redirected {
        /// What was called.
        path: String,
        /// Where that leads.
        to: String,
    },
    /// The cluster's agent has no tunnel open. Nothing is known of the token.
    AgentOffline,
    /// No answer came in this time. With a silent agent Rancher needs half a minute to say so.
    NoAnswer {
        /// How long was waited.
        within: Duration,
    },
    /// Rancher, or something before it, cannot answer now.
    Unavailable {
        /// The HTTP status.
        code: u16,
        /// The beginning of what was said.
        message: String,
    },
    /// The call did not get there.
    Unreachable(Arc<kube::Error>),
    /// An answer that Rancher does not give here.
    Odd {
        /// The HTTP status.
        code: u16,
    },
}

impl Standing {
    /// It was let in.
    pub fn works(&self) -> bool {
        matches!(self, Self::Works { .. })
    }

    /// It was refused as a token; other refusals are not about it.
    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Dead)
    }

    /// The token itself is known to be alive, whatever it may or may not do.
    pub fn is_alive(&self) -> bool {
        matches!(
            self,
            Self::Works { .. }
                | Self::NotAMember { .. }
                | Self::NoDownstreamRight { .. }
                | Self::ClusterGone
                | Self::Redirected { .. }
        )
    }

    /// In one word, for machines.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Works { .. } => "works",
            Self::Dead => "dead",
            Self::NotAMember { .. } => "not-a-member",
            Self::NoDownstreamRight { .. } => "no-downstream-right",
            Self::ClusterGone => "cluster-gone",
            Self::Redirected { .. } => "redirected",
            Self::AgentOffline => "agent-offline",
            Self::NoAnswer { .. } => "no-answer",
            Self::Unavailable { .. } => "unavailable",
            Self::Unreachable(_) => "unreachable",
            Self::Odd { .. } => "odd",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works {
                kubernetes: Some(version),
            } => write!(f, "a call with it was answered (Kubernetes {version})"),
            Self::Works { kubernetes: None } => f.write_str("Rancher accepts it"),
            Self::Dead => f.write_str("Rancher refuses it: it is revoked, expired, disabled, or not for this cluster"),
            Self::NotAMember { user: Some(user) } => write!(f, "its owner {user} is not a member of the cluster"),
            Self::NotAMember { user: None } => f.write_str("its owner is not a member of the cluster"),
            Self::NoDownstreamRight { message } => write!(f, "the cluster refuses its owner: {message}"),
            Self::ClusterGone => f.write_str("Rancher has no such cluster"),
            Self::Redirected { path, to } => write!(
                f,
                "Rancher redirects {path} to {to}, where the token is not accepted: Argo CD cannot discover what the cluster serves"
            ),
            Self::AgentOffline => f.write_str("the cluster's agent is not connected to Rancher"),
            Self::NoAnswer { within } => write!(
                f,
                "no answer within {}s; the cluster's agent may be offline",
                within.as_secs()
            ),
            Self::Unavailable { code, message } if message.is_empty() => write!(f, "Rancher answered {code}"),
            Self::Unavailable { code, message } => write!(f, "Rancher answered {code}: {message}"),
            Self::Unreachable(_) => f.write_str("Rancher could not be reached"),
            Self::Odd { code } => write!(f, "the answer, {code}, is none of Rancher's"),
        }
    }
}

/// Proves a token by itself, at Rancher alone: works while the cluster is offline, and with a token that is scoped to
/// that cluster, since `/v3/clusters/<id>` counts as within its scope (seen on Rancher 2.15.0 and 2.12.0).
///
/// `client` is one of Rancher's own URL that [bears](super::bearing) the token.
pub async fn alone(client: &kube::Client, cluster: &ClusterId, patience: Duration) -> Standing {
    look(client, &format!("/v3/clusters/{cluster}"), patience).await
}

/// Proves a token through Rancher and the agent's tunnel, by the calls with which a client of Kubernetes finds out what a
/// cluster is and serves. It follows redirects: Rancher 2.15.0 answers 307 at `/k8s/clusters/local/api` and `…/apis`, to its
/// own `/api/` and `/apis/`, where a token that is scoped to `local` is refused (rancher/rancher#54278).
pub async fn through_proxy(client: &kube::Client, cluster: &ClusterId, patience: Duration) -> Standing {
    let below = format!("/k8s/clusters/{cluster}");
    let version = look(client, &format!("{below}/version"), patience).await;
    for path in ["api", "apis"].map(|of| format!("{below}/{of}")) {
        if !version.works() {
            break;
        }
        let discovery = look(client, &path, patience).await;
        if !discovery.works() {
            return discovery;
        }
    }
    version
}

/// Whether Rancher redirects what a client asks for first out of what a token for this cluster alone is accepted for.
pub async fn needs_no_scope(client: &kube::Client, cluster: &ClusterId) -> Result<bool, kube::Error> {
    let below = format!("/k8s/clusters/{cluster}/");
    let answer = norman::ask(client, Method::GET, &format!("{below}api"), None).await?;
    Ok(redirect(&answer).is_some_and(|to| !to.starts_with(&below)))
}

async fn look(client: &kube::Client, path: &str, patience: Duration) -> Standing {
    match tokio::time::timeout(patience, followed(client, path)).await {
        Ok(Ok(standing)) => standing,
        Ok(Err(error)) => Standing::Unreachable(Arc::new(error)),
        Err(_) => Standing::NoAnswer { within: patience },
    }
}

/// As Go's HTTP client follows redirects, at most ten. One to another host is not followed: the token is not for it.
async fn followed(client: &kube::Client, path: &str) -> Result<Standing, kube::Error> {
    let mut at = path.to_owned();
    for _ in 0..10 {
        let answer = norman::ask(client, Method::GET, &at, None).await?;
        match redirect(&answer) {
            Some(to) if to.starts_with('/') && !to.starts_with("//") => to.clone_into(&mut at),
            Some(to) => {
                to.clone_into(&mut at);
                break;
            }
            None if at == path => return Ok(classify(answer.code, &answer.body)),
            None if (200..300).contains(&answer.code) => return Ok(Standing::Works { kubernetes: None }),
            None => break,
        }
    }
    let path = path.to_owned();
    Ok(Standing::Redirected { path, to: at })
}

fn redirect(answer: &Answer) -> Option<&str> {
    let is_redirect = matches!(answer.code, 301 | 302 | 303 | 307 | 308);
    answer.location.as_deref().filter(|_| is_redirect)
}

/// An error as Rancher's proxy writes it, in an answer that says it is text.
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

/// What an answer to a call with a token says of it.
pub fn classify(code: u16, body: &[u8]) -> Standing {
    let text = String::from_utf8_lossy(body);
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let by_proxy: Option<ProxyError> = serde_json::from_slice(body).ok();
    match code {
        200..300 => Standing::Works {
            kubernetes: json["gitVersion"].as_str().map(str::to_owned),
        },
        401 => Standing::Dead,
        403 if text.contains(NOBODY) => Standing::Dead,
        403 if json["kind"] == "Status" => Standing::NoDownstreamRight {
            message: norman::beginning(json["message"].as_str().unwrap_or_default().as_bytes()),
        },
        403 if body.is_empty() || by_proxy.is_some() || json["type"] == "error" => Standing::NotAMember {
            user: quoted_user(&text),
        },
        404 if json["type"] == "error" || by_proxy.as_ref().is_some_and(|error| error.code.code == "NotFound") => {
            Standing::ClusterGone
        }
        500 | 503 if is_offline(&text) => Standing::AgentOffline,
        429 | 500..600 => Standing::Unavailable {
            code,
            message: by_proxy.map_or_else(
                || norman::beginning(body),
                |error| norman::beginning(error.message.as_bytes()),
            ),
        },
        _ => Standing::Odd { code },
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
