//! argocd-server's own API: the connection state of clusters, and cache invalidation.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{ArgoCd, get, plain};

/// The connection state of a cluster, as in `argocd cluster get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `Successful`, `Failed`, `Unknown`.
    pub status: String,
    /// The reason.
    pub message: String,
    /// The number of Applications in the cluster.
    pub applications: u64,
    /// The time of the last cache sync (RFC 3339).
    pub synced_at: Option<String>,
    /// The number of watched kinds.
    pub kinds: u64,
}

impl ArgoCd {
    /// The connection state of the cluster with this URL, if Argo CD has it. Argo CD refreshes it every ten seconds.
    pub async fn connection(&self, server: &str) -> Result<Option<Connection>> {
        let all: Value = serde_json::from_str(&get(self.ports.server, "/api/v1/clusters").await?)?;
        let items = all["items"].as_array().into_iter().flatten();
        let found = items.into_iter().find(|cluster| cluster["server"] == server);
        Ok(found.map(|cluster| {
            let (state, info) = (&cluster["connectionState"], &cluster["info"]);
            let text = |value: &Value| value.as_str().map(str::to_owned);
            Connection {
                status: text(&state["status"]).unwrap_or_default(),
                message: text(&state["message"]).unwrap_or_default(),
                applications: number(&info["applicationsCount"]),
                synced_at: text(&info["cacheInfo"]["lastCacheSyncTime"]),
                kinds: number(&info["cacheInfo"]["apisCount"]),
            }
        }))
    }

    /// Invalidates the cache of a cluster, like the button in Argo CD's user interface. argocd-server reads the Secret
    /// and writes all of it back.
    pub async fn invalidate_cache(&self, server: &str) -> Result<()> {
        let path = format!("/api/v1/clusters/{}/invalidate-cache", escaped(server));
        let answer = self.post(&path, &json!({})).await;
        answer
            .map(drop)
            .with_context(|| format!("invalidate the cache of {server}"))
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = http::Request::post(path).header("content-type", "application/json");
        let text = plain(self.ports.server)?
            .request_text(request.body(serde_json::to_vec(body)?)?)
            .await
            .with_context(|| format!("ask argocd-server for {path}"))?;
        serde_json::from_str(&text).with_context(|| format!("argocd-server answered {text:?}"))
    }
}

/// grpc-gateway writes 64 bit numbers as strings.
fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or_default()
}

/// Escapes a path segment.
fn escaped(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(letter).collect()
}
