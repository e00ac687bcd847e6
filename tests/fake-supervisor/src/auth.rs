//! Who a request is: `pkg/server/auth/auth.go`. The passwords are those that the server loaded at its start.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

use crate::serve::Server;
use crate::token::is_bootstrap_shape;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// No credentials.
    None,
    /// Not authenticated.
    Wrong,
    Server,
    /// `node`, or a bootstrap token.
    Agent,
}

/// The login of a request, and the user name for the log.
pub(crate) async fn login(server: &Server, headers: &HeaderMap) -> (Login, Option<String>) {
    let Some(value) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return (Login::None, None);
    };
    if let Some(token) = value.strip_prefix("Bearer ") {
        let login = if is_valid_bootstrap_token(server, token).await {
            Login::Agent
        } else {
            Login::Wrong
        };
        let id = token.split_once('.').map(|(id, _)| format!("system:bootstrap:{id}"));
        return (login, id);
    }
    let decoded = value
        .strip_prefix("Basic ")
        .and_then(|text| String::from_utf8(STANDARD.decode(text).ok()?).ok());
    let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
        return (Login::Wrong, None);
    };
    let logins = server.logins();
    let row = logins
        .rows
        .iter()
        .find(|row| row.user == user && row.password == password);
    let login = match row.map(|row| row.group.rsplit(':').next().unwrap_or_default()) {
        Some("server") => Login::Server,
        Some("agent") => Login::Agent,
        _ => Login::Wrong,
    };
    (login, Some(user.to_owned()))
}

/// Seen: a Secret with id, secret and `usage-bootstrap-authentication` is enough. An accepted token is accepted for 10 s
/// more after its Secret was deleted.
async fn is_valid_bootstrap_token(server: &Server, token: &str) -> bool {
    let Some(client) = server.kube.clone().filter(|_| is_bootstrap_shape(token)) else {
        return false;
    };
    let lasts = server.node.config.timing.scaled(10.0).max(Duration::from_millis(1));
    let cached = |accepted: &Instant| accepted.elapsed() < lasts;
    if server.accepted_tokens().get(token).is_some_and(cached) {
        return true;
    }
    let (id, secret) = token.split_once('.').unwrap_or_default();
    let secrets: kube::Api<Secret> = kube::Api::namespaced(client, "kube-system");
    let Ok(Some(object)) = secrets.get_opt(&format!("bootstrap-token-{id}")).await else {
        return false;
    };
    let data = object.data.unwrap_or_default();
    let field = |key: &str| {
        data.get(key)
            .map_or("", |value| std::str::from_utf8(&value.0).unwrap_or_default())
    };
    let expired = field("expiration")
        .parse::<Timestamp>()
        .is_ok_and(|end| end < Timestamp::now());
    let valid = object.type_.as_deref() == Some("bootstrap.kubernetes.io/token")
        && field("token-id") == id
        && field("token-secret") == secret
        && field("usage-bootstrap-authentication") == "true"
        && !expired;
    if valid {
        server.accepted_tokens().insert(token.to_owned(), Instant::now());
    }
    valid
}
