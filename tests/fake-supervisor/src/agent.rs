//! A node that joins as an agent, as far as its token is concerned: `pkg/clientaccess/token.go`.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, basic};
use crate::manager::Manager;
use crate::token::{is_bootstrap_shape, parse_full};
use crate::{kubernetes, pki};

#[derive(Deserialize)]
pub(crate) struct Join {
    /// The name of the Node.
    name: String,
    /// A bare token or the K10 form, of the server, of agents, or a bootstrap token.
    token: String,
    /// The server that it asks; without it the first one.
    server: Option<String>,
}

/// One try. An agent would repeat it every 2 s.
pub(crate) async fn join(manager: &Manager, join: &Join) -> Result<Value> {
    let config = manager.config()?;
    let first = config.servers.first().context("no servers")?;
    let name = join.server.as_deref().unwrap_or(&first.name);
    let node = &manager
        .unit(name)
        .with_context(|| format!("server {name:?} not found"))?
        .node;
    let ca_pem = pki::read_ca(&manager.dir)?;
    let mut secret = join.token.as_str();
    if let Some((hash, rest)) = join.token.strip_prefix("K10").and_then(|rest| rest.split_once("::")) {
        let real = pki::ca_hash(&ca_pem)?;
        if hash.len() != real.len() {
            return Ok(json!({"error": "invalid token CA hash length"}));
        }
        if hash != real {
            let text = format!("token CA hash does not match the Cluster CA certificate hash: {hash} != {real}");
            return Ok(json!({"error": text}));
        }
        secret = parse_full(&join.token).map_or(rest, |(_, password)| password);
    }
    let authorization = if is_bootstrap_shape(secret) {
        format!("Bearer {secret}")
    } else {
        basic("node", secret)
    };
    let program = node.program();
    let request = Request::get(format!("/v1-{program}/config"))
        .header(header::AUTHORIZATION, authorization)
        .header(header::USER_AGENT, program)
        .header(format!("{program}-Node-Name"), &join.name)
        .body(Full::<Bytes>::default())?;
    let (status, _) = match Client::new(&node.url(), &ca_pem)?.send(request).await {
        Ok(answer) => answer,
        Err(error) => return Ok(json!({"error": format!("{error:#}")})),
    };
    if status != 200 {
        return Ok(
            json!({"error": format!("failed to retrieve configuration from server: status {status}"), "status": status}),
        );
    }
    if let Some(client) = &manager.kube {
        kubernetes::write_agent(client, node, &join.name, &node.url()).await?;
    }
    Ok(json!({"joined": true, "status": status}))
}
