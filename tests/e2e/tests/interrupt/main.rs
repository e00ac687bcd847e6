//! Ctrl-C while a server accepts connections and never answers: every command of every plugin ends at once.

#![cfg(unix)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// So long may a command take to end, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);
/// A command that never connects is a mistake of this test.
const CONNECTS: Duration = Duration::from_secs(30);

/// The commands that ask no server.
const OFFLINE: [&str; 4] = ["completion", "help", "options", "generate"];

/// The arguments of each command that asks a server.
fn arguments(plugin: &str, command: &str) -> Option<&'static [&'static str]> {
    Some(match (plugin, command) {
        (_, "list" | "version") | ("bootstrap-token", "create") => &[],
        ("bootstrap-token", "rbac") => &["show"],
        ("bootstrap-token", "kubeconfig" | "revoke" | "rotate" | "rollback" | "status" | "verify") => &["07401b"],
        ("bootstrap-token", "extend") => &["07401b", "--ttl", "2h"],
        ("crt", "status" | "verify" | "rotate" | "rollback") => &["c-x7k2p"],
        ("argocd-rancher", "add" | "status" | "verify" | "rotate" | "rollback" | "remove") => &[
            "oslo",
            "--rancher-url",
            "https://127.0.0.1:1",
            "--rancher-token-secret",
            "argocd/login/token",
        ],
        _ => return None,
    })
}

fn binary(plugin: &str) -> Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.pop();
    path.pop();
    Ok(path.join(format!("kubectl-{}", plugin.replace('-', "_"))))
}

/// The commands in a plugin's own help.
fn commands(plugin: &str) -> Result<BTreeSet<String>> {
    let output = Command::new(binary(plugin)?).arg("--help").output()?;
    let help = String::from_utf8(output.stdout)?;
    let listed = help.split("Commands:").nth(1).context("no commands in the help")?;
    let listed = listed.lines().skip(1).take_while(|line| !line.is_empty());
    Ok(listed
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

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

fn interrupted(plugin: &str, command: &str, arguments: &[&str]) -> Result<()> {
    let home = tempfile::tempdir()?;
    let server = TcpListener::bind("127.0.0.1:0")?;
    let mut child = Command::new(binary(plugin)?)
        .arg(command)
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
    for command in commands(plugin)? {
        if OFFLINE.contains(&command.as_str()) {
            continue;
        }
        let arguments = arguments(plugin, &command).with_context(|| format!("no arguments for {plugin} {command}"))?;
        if let Err(error) = interrupted(plugin, &command, arguments) {
            failures.push(format!("kubectl {plugin} {command}: {error:#}"));
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
