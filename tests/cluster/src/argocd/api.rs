//! argocd-server's own API, as its users call it: what Argo CD says of its clusters, and the invalidation of a cache.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{ArgoCd, get, plain};

/// What Argo CD says of a cluster, in `argocd cluster get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `Successful`, `Failed`, `Unknown`.
    pub status: String,
    /// Why.
    pub message: String,
    /// How many Applications it counts there.
    pub applications: u64,
    /// When it has last listed everything, RFC 3339.
    pub synced_at: Option<String>,
    /// How many kinds it watches.
    pub kinds: u64,
}

impl ArgoCd {
    /// What Argo CD says of the cluster with this address; `None`: it knows of none. It looks every ten seconds.
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

    /// Invalidates the cache of a cluster, as a button of Argo CD's user interface does: argocd-server reads the Secret and
    /// writes it back, with all that it has read.
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

/// grpc-gateway writes 64 bit numbers as text.
fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or_default()
}

/// As a segment of a path.
fn escaped(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(letter).collect()
}
