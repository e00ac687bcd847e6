//! Commands on a node: what `ssh root@ADDRESS` and `systemctl` are on a real one. The node's files are below its own
//! directory, so scripts learn their paths from the unit: its arguments, `systemctl show` and `systemctl cat`.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::client::Client;
use crate::config::Config;
use crate::node::Node;

/// ssh's own exit code.
const UNREACHABLE: u8 = 255;

/// The node's own /run: it shows that systemd runs, and has its drop-ins, and the locks of scripts.
const IN_OWN_RUN: &str = r#"mount --bind "$0" /run && exec "$@""#;

/// A command on a node, with the node's programs first in PATH.
pub(crate) fn command_on(node: &Node, command: &[String]) -> Result<Command> {
    anyhow::ensure!(!command.is_empty(), "no command");
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", node.root().join("bin").display());
    std::fs::create_dir_all(node.root().join("run/systemd/system"))?;
    let own = ["--mount", "--propagation=private", "sh", "-c", IN_OWN_RUN];
    let mut in_own_run = Command::new("unshare");
    in_own_run
        .args(own)
        .arg(node.root().join("run"))
        .args(command)
        .current_dir(node.root())
        .env_clear()
        .env("PATH", path)
        .env("HOME", node.root())
        .env("USER", "root");
    Ok(in_own_run)
}

/// Replaces this process by the command.
pub(crate) fn node_exec(dir: &Path, address: &str, command: &[String]) -> Result<ExitCode> {
    let dir = std::fs::canonicalize(dir)?;
    let address = address.rsplit('@').next().unwrap_or_default();
    let config = Config::read(&dir.join("cluster.json"))?;
    let server = config.find(|server| server.name == address || server.address.to_string() == address);
    let node = server.map(|server| Node::open(&dir, &server.name)).transpose()?;
    let Some(node) = node.filter(|node| !node.faults().cut) else {
        writeln!(
            std::io::stderr(),
            "ssh: connect to host {address} port 22: No route to host"
        )?;
        return Ok(ExitCode::from(UNREACHABLE));
    };
    let error = command_on(&node, command)?.exec();
    Err(error).with_context(|| format!("run {command:?}"))
}

/// `systemd-run --on-active=SECONDS COMMAND…`: the manager runs it, so that it outlives the caller. The delay is scaled.
pub(crate) fn run_later(node: &Node, arguments: &[String]) -> Result<Value> {
    let options = arguments.iter().take_while(|word| word.starts_with('-')).count();
    let (options, command) = arguments.split_at(options);
    let delay = options.iter().find_map(|option| option.strip_prefix("--on-active="));
    let delay: f64 = delay
        .unwrap_or("0")
        .trim_end_matches('s')
        .parse()
        .context("--on-active")?;
    let mut command = tokio::process::Command::from(command_on(node, command)?);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let delay = node.config.timing.scaled(delay);
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        // It is not awaited, like a timer of systemd.
        let _ = command.status().await;
    });
    Ok(json!({"stdout": "", "stderr": "Running timer as unit: run-1.timer\n", "code": 0}))
}

/// Asks the manager.
pub(crate) async fn ask(dir: &Path, node: &str, program: &str, arguments: &[String]) -> Result<ExitCode> {
    let url = std::fs::read_to_string(dir.join("control.url")).context("the cluster is not running")?;
    let body = json!({"arguments": arguments}).to_string();
    let request = Request::post(format!("/nodes/{node}/{program}")).body(Full::<Bytes>::from(body))?;
    let (status, body) = Client::new(&url, "")?.send(request).await?;
    let answer: Value = serde_json::from_slice(&body)?;
    if status != 200 {
        anyhow::bail!("{answer}");
    }
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    std::io::stdout().write_all(text("stdout").as_bytes())?;
    std::io::stderr().write_all(text("stderr").as_bytes())?;
    let code = answer["code"].as_u64().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
