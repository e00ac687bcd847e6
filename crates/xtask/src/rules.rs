//! Rules for the source that no compiler checks.

use std::path::{Path, PathBuf};

use crate::cargo::root;

/// Kinds whose objects hold no credential: kube's own requests may be used for them.
const WITHOUT_CREDENTIALS: [&str; 5] = [
    "EndpointSlice",
    "Lease",
    "SelfSubjectAccessReview",
    "SelfSubjectReview",
    "SubjectAccessReview",
];

/// Files outside of the client that send a request themselves: they pass one on, or speak an API that is not Kubernetes'.
const SENDERS: [&str; 4] = [
    "crates/rancher/src/api_token.rs",
    "crates/rancher/src/api_token/norman.rs",
    "crates/rancher/src/probe.rs",
    "crates/rancher/src/proxy.rs",
];

/// All files of the product.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["crates", "plugins"]
        .iter()
        .flat_map(|part| std::fs::read_dir(root().join(part)).unwrap())
        .map(|member| member.unwrap().path().join("src"))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((name(&path), text));
            }
        }
    }
    found
}

fn name(path: &Path) -> String {
    let inside = path.strip_prefix(root()).unwrap();
    inside.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/")
}

/// What is wrong with a line of a file.
fn broken(file: &str, line: &str) -> bool {
    let kinds = line
        .match_indices("Api<")
        .chain(line.match_indices("Api::<"))
        .map(|(at, start)| line[at + start.len()..].split('>').next().unwrap_or_default());
    let mut other_kinds = kinds.filter(|kind| !WITHOUT_CREDENTIALS.contains(kind));
    let sends = ["client.send(", "client.request", "Client::send("];
    other_kinds.next().is_some() || !SENDERS.contains(&file) && sends.iter().any(|send| line.contains(send))
}

#[test]
fn answers_that_may_hold_a_credential_are_read_by_the_client_alone() {
    let this = name(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules.rs"));
    let mut found = Vec::new();
    for (file, text) in sources() {
        if file.starts_with("crates/client/src/") || file == this {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if broken(&file, line) {
                found.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(
        found.is_empty(),
        "use client::request, which keeps answers out of logs and errors:\n{}",
        found.join("\n")
    );
}

#[test]
fn requests_of_kube_are_recognized() {
    for line in [
        "    let api: Api<Secret> = Api::all(client);",
        "    let api = kube::Api::<KubeSecret>::all(client);",
        "    let (head, body) = self.client.send(request).await?.into_parts();",
        "    client.request_text(request).await?;",
    ] {
        assert!(broken("plugins/crt/src/sides.rs", line), "{line}");
    }
    assert!(!broken("crates/engine/src/lock.rs", "    api: Api<Lease>,"));
    assert!(!broken(SENDERS[2], "    client.send(request).await"));
}

/// Whether a line has a command of a plugin in a string. Those in help texts begin a line, or are after other text of it.
fn has_command(line: &str) -> bool {
    let line = line.trim_start();
    let plugins = ["crt", "bootstrap-token", "argocd-rancher"].map(|plugin| format!("kubectl {plugin} "));
    let starts = plugins.iter().filter_map(|start| line.find(start.as_str()));
    !line.starts_with("//") && starts.min().is_some_and(|at| line[..at].contains('"'))
}

#[test]
fn commands_in_messages_are_composed_where_they_are_checked() {
    let this = name(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules.rs"));
    let mut found = Vec::new();
    for (file, text) in sources() {
        if file == this || file.ends_with("tests.rs") {
            continue;
        }
        let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for (number, line) in product.lines().enumerate().filter(|(_, line)| has_command(line)) {
            found.push(format!("{file}:{}: {}", number + 1, line.trim()));
        }
    }
    assert!(
        found.is_empty(),
        "use cli::rotation::Commands, which adds the connection flags and checks the command:\n{}",
        found.join("\n")
    );
}

#[test]
fn commands_in_messages_are_recognized() {
    assert!(has_command("        error.hint(\"`kubectl crt list` lists them\")"));
    assert!(has_command("    format!(\"run `kubectl argocd-rancher add {id}`\")"));
    assert!(!has_command(
        "  kubectl crt list -o jsonpath='{.items[?(@.state == \\\"x\\\")]}'"
    ));
    assert!(!has_command("/// As `kubectl crt list` prints it: \"kubectl crt \""));
}
