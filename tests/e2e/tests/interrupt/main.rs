//! Ctrl-C while a server accepts connections and never answers: every command of every plugin ends at once.

#![cfg(unix)]

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{every_command, plugin_binary};
use rustix::process::{Pid, Signal, kill_process};

/// So long may a command take to end, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);
/// A command that never connects is a mistake of this test.
const CONNECTS: Duration = Duration::from_secs(30);

/// A Rancher that is not asked: the cluster of Argo CD comes first.
const RANCHER: [&str; 4] = [
    "--rancher-url",
    "https://127.0.0.1:1",
    "--rancher-token-secret",
    "argocd/login/token",
];

fn kubeconfig(home: &Path, server: &TcpListener) -> Result<PathBuf> {
    let path = home.join("config");
    let address = server.local_addr()?;
    write!(
        std::fs::File::create(&path)?,
        "apiVersion: v1\nkind: Config\ncurrent-context: silent\n\
         clusters: [{{name: silent, cluster: {{server: 'http://{address}'}}}}]\n\
         contexts: [{{name: silent, context: {{cluster: silent, user: anonymous, namespace: argocd}}}}]\n\
         users: [{{name: anonymous, user: {{}}}}]\n"
    )?;
    Ok(path)
}

/// Waits until the command has connected. The connection stays open, and nothing is ever sent on it.
fn connected(server: &TcpListener, child: &mut Child) -> Result<TcpStream> {
    let began = Instant::now();
    server.set_nonblocking(true)?;
    while began.elapsed() < CONNECTS {
        match server.accept() {
            Ok((connection, _)) => return Ok(connection),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        ensure!(child.try_wait()?.is_none(), "it ended without asking the server");
        std::thread::sleep(Duration::from_millis(5));
    }
    anyhow::bail!("it has not connected");
}

fn interrupted(plugin: &str, arguments: &[String]) -> Result<()> {
    let home = tempfile::tempdir()?;
    let server = TcpListener::bind("127.0.0.1:0")?;
    let mut child = Command::new(plugin_binary(plugin)?)
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("KUBECONFIG", kubeconfig(home.path(), &server)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let connection = connected(&server, &mut child);
    if connection.is_ok() {
        let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(process.context("no process")?, Signal::INT)?;
    }
    let sent = Instant::now();
    while child.try_wait()?.is_none() && sent.elapsed() < AT_ONCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = sent.elapsed();
    child.kill()?;
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let _open = connection.with_context(|| stderr.clone().into_owned())?;
    ensure!(
        output.status.code() == Some(130),
        "it took {took:?} and ended with {:?}: {stderr}",
        output.status
    );
    ensure!(stderr.contains("interrupted"), "{stderr}");
    Ok(())
}

fn every_command_ends_at_once(plugin: &str) -> Result<()> {
    let mut failures = Vec::new();
    for command in every_command(plugin, &RANCHER)? {
        if let Err(error) = interrupted(plugin, &command) {
            failures.push(format!("kubectl {plugin} {}: {error:#}", command[0]));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

#[test]
fn crt_ends_at_once_while_a_server_is_silent() -> Result<()> {
    every_command_ends_at_once("crt")
}

#[test]
fn bootstrap_token_ends_at_once_while_a_server_is_silent() -> Result<()> {
    every_command_ends_at_once("bootstrap-token")
}

#[test]
fn argocd_rancher_ends_at_once_while_a_server_is_silent() -> Result<()> {
    every_command_ends_at_once("argocd-rancher")
}
