//! The control interface for tests: HTTP on 127.0.0.1, without authentication. Seconds in requests are real ones.
//!
//! ```text
//! GET  state                       all servers and the datastore, with fingerprints (state.rs)
//! GET  requests                    every request that a server answered: node, method, path, user, status, ms, at
//! POST nodes                       {"name", "address", "token"?, …} another server joins → {"ready"}
//! POST nodes/<n>/start             {"wait"?: true} → {"ready"}; likewise stop and restart
//! POST nodes/<n>/kill              kill -9; the unit restarts it
//! POST nodes/<n>/faults            {"kill"?, "delay"?, "cut"?, "ahead"?, "hold"?, "staysDown"?, "leads"?} changes the named ones (faults.rs)
//! POST nodes/<n>/pin               {"pin": "config", "token": "…"} what configuration management would write
//! POST nodes/<n>/encryption        {"stage": "prepare" | "rotate_keys" | …} secrets-encrypt on that server
//! POST nodes/<n>/systemctl         {"arguments": […]} → {"stdout", "stderr", "code"}; likewise systemd-run
//! POST agents                      {"name", "token", "server"?} a node joins as an agent → {"joined"} or {"error"}
//! POST age                         {"seconds"} everything so far was that much earlier
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::config::{Pin, ServerConfig};
use crate::faults::Faults;
use crate::manager::{Manager, files};
use crate::{agent, encryption, exec, state, systemctl};

pub(crate) async fn bind() -> Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}

/// Serves forever.
pub(crate) async fn serve(listener: TcpListener, manager: Arc<Manager>) {
    while let Ok((stream, _)) = listener.accept().await {
        let manager = Arc::clone(&manager);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&manager), request));
            // An error is the end of the connection by the client.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(manager: Arc<Manager>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let outcome = route(&manager, &parts.method, parts.uri.path(), &body).await;
    let (code, value) = match outcome {
        Ok(value) => (http::StatusCode::OK, value),
        Err(error) => (http::StatusCode::BAD_REQUEST, json!({"error": format!("{error:#}")})),
    };
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = code;
    Ok(response)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(if body.is_empty() { b"{}" } else { body })?)
}

#[derive(Deserialize)]
struct Wait {
    #[serde(default = "yes")]
    wait: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct NewPin {
    pin: Pin,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Stage {
    stage: String,
}

#[derive(Deserialize)]
struct Age {
    seconds: u64,
}

#[derive(Deserialize)]
struct Arguments {
    arguments: Vec<String>,
}

async fn route(manager: &Arc<Manager>, method: &Method, path: &str, body: &[u8]) -> Result<Value> {
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method.as_str(), words.as_slice()) {
        ("GET", ["state"]) => state::all(manager),
        ("GET", ["requests"]) => state::requests(manager),
        ("POST", ["age"]) => {
            manager.age(Duration::from_secs(parse::<Age>(body)?.seconds))?;
            Ok(json!({}))
        }
        ("POST", ["agents"]) => agent::join(manager, &parse(body)?).await,
        ("POST", ["nodes"]) => {
            let mut request: Value = parse(body)?;
            let fields = request.as_object_mut().context("not an object")?;
            let token = fields
                .remove("token")
                .and_then(|token| Some(token.as_str()?.to_owned()));
            let server: ServerConfig = serde_json::from_value(request)?;
            Ok(json!({"ready": manager.add(server, token.as_deref()).await?}))
        }
        ("POST", ["nodes", name, action]) => on_node(manager, name, action, body).await,
        _ => bail!("no such control: {method} {path}"),
    }
}

async fn on_node(manager: &Manager, name: &str, action: &str, body: &[u8]) -> Result<Value> {
    let unit = manager
        .unit(name)
        .with_context(|| format!("server {name:?} not found"))?;
    let node = &unit.node;
    match action {
        "start" => return Ok(json!({"ready": unit.start(parse::<Wait>(body)?.wait).await})),
        "restart" => return Ok(json!({"ready": unit.restart(parse::<Wait>(body)?.wait).await})),
        "stop" => unit.stop(parse::<Wait>(body)?.wait).await,
        "kill" => unit.kill(),
        "faults" => {
            let mut faults = serde_json::to_value(node.faults())?;
            let changes: serde_json::Map<String, Value> = parse(body)?;
            faults.as_object_mut().context("not an object")?.extend(changes);
            serde_json::from_value::<Faults>(faults)?.write(node)?;
        }
        "pin" => {
            let NewPin { pin, token } = parse(body)?;
            node.configure(pin, token.as_deref())?;
            unit.reload()?;
        }
        "encryption" => encryption::advance(node, &files(node)?, &parse::<Stage>(body)?.stage)?,
        "systemctl" => return systemctl::run(&unit, &parse::<Arguments>(body)?.arguments).await,
        "systemd-run" => return exec::run_later(node, &parse::<Arguments>(body)?.arguments),
        _ => bail!("no such control: {action}"),
    }
    Ok(json!({}))
}
