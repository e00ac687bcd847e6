//! The bootstrap kubeconfig: one cluster, one user with the token, one context.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bootstrap::Token;
use cli::output;
use client::error::Error;
use serde_json::json;

use crate::endpoint::Endpoint;

/// The file as YAML. It contains the token.
pub(crate) fn of(token: &Token, endpoint: &Endpoint) -> Result<String, Error> {
    let mut cluster = json!({ "server": endpoint.server });
    if let Some(authority) = &endpoint.authority {
        cluster["certificate-authority-data"] = json!(STANDARD.encode(authority));
    }
    // The kubelet uses the same names.
    output::to_yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "default-cluster", "cluster": cluster }],
        "users": [{ "name": "default-auth", "user": { "token": token.text().expose() } }],
        "contexts": [{ "name": "default-context", "context": { "cluster": "default-cluster", "user": "default-auth" } }],
        "current-context": "default-context",
    }))
}
