//! Every command of a plugin that asks a server, with the arguments that it needs for that.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

/// The plugins.
pub const PLUGINS: [&str; 3] = ["crt", "bootstrap-token", "argocd-rancher"];

/// The commands that ask no server.
const OFFLINE: [&str; 4] = ["completion", "help", "options", "generate"];

/// The arguments of a command, but for those that name Rancher.
fn arguments(plugin: &str, command: &str) -> Option<&'static [&'static str]> {
    Some(match (plugin, command) {
        (_, "list" | "version") | ("bootstrap-token", "create" | "snapshots") => &[],
        ("bootstrap-token", "rbac") => &["show"],
        ("bootstrap-token", "server-token" | "agent-token") => &["status"],
        ("bootstrap-token", "kubeconfig" | "revoke" | "rotate" | "rollback" | "status" | "verify") => &["07401b"],
        ("bootstrap-token", "extend") => &["07401b", "--ttl", "2h"],
        ("crt", "status" | "verify" | "rotate" | "rescue" | "rollback") => &["c-x7k2p"],
        ("argocd-rancher", "add" | "status" | "verify" | "rotate" | "rollback" | "remove") => &["oslo"],
        _ => return None,
    })
}

/// The executable of a plugin, beside that of the test.
pub fn plugin_binary(plugin: &str) -> Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.pop();
    path.pop();
    Ok(path.join(format!("kubectl-{}", plugin.replace('-', "_"))))
}

/// The command lines of all commands in a plugin's own help. A new command without arguments here is an error. Where a
/// command of `argocd-rancher` takes a cluster, it gets `rancher`, the flags for the connection to Rancher.
pub fn every_command(plugin: &str, rancher: &[&str]) -> Result<Vec<Vec<String>>> {
    let output = Command::new(plugin_binary(plugin)?).arg("--help").output()?;
    let help = String::from_utf8(output.stdout)?;
    let listed = help.split("Commands:").nth(1).context("no commands in the help")?;
    let listed = listed.lines().skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.split_whitespace().next());
    let online = names.filter(|name| !OFFLINE.contains(name));
    online
        .map(|name| {
            let arguments = arguments(plugin, name).with_context(|| format!("no arguments for {plugin} {name}"))?;
            let rancher = if plugin == "argocd-rancher" && !arguments.is_empty() {
                rancher
            } else {
                &[]
            };
            let words = [&[name], arguments, rancher].concat();
            Ok(words.into_iter().map(str::to_owned).collect())
        })
        .collect()
}
