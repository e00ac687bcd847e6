//! No secret leaks: every command runs with every output format, also against servers and files that are malformed in ways that
//! contain a token. Then the output and everything that the plugin has written is searched for tokens.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use e2e::{RancherFixture, Shell};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, Kubeconfig, Moment, On, TokenStorage, User};

use crate::manual_changes;

/// Every command; `CLUSTER` is the id of the cluster. All of them get the token for `--token-stdin`.
const COMMANDS: [&[&str]; 14] = [
    &["list", "CLUSTER"],
    &["list", "CLUSTER", "--probe", "-o", "wide"],
    &["status", "CLUSTER"],
    &["verify", "CLUSTER"],
    &["verify", "--token-stdin"],
    &["verify", "CLUSTER", "--token-stdin"],
    &["rotate", "CLUSTER"],
    &["rotate", "CLUSTER", "--dry-run"],
    &["rotate", "CLUSTER", "--dry-run=server"],
    &["rotate", "CLUSTER", "--yes", "--settle", "0s", "--timeout", "20s"],
    &["rollback", "CLUSTER", "--dry-run"],
    &["rollback", "CLUSTER", "--yes", "--settle", "0s"],
    &["version"],
    &["completion"],
];

/// The flags with which each of them also runs.
const FLAGS: [&[&str]; 3] = [&["-v=9"], &["-o", "json"], &["-o", "yaml", "-v=9"]];

/// Values that must not appear, and all texts to search.
#[derive(Default)]
struct LeakSearch {
    /// The values to search for, and what they are.
    patterns: BTreeMap<String, String>,
    /// The texts, and where they are from.
    texts: Vec<(String, String)>,
}

impl LeakSearch {
    /// Searches for the value, its halves, and each of them in base64 as in a Secret or in a URL.
    fn add_secret(&mut self, what: &str, value: &str) {
        let secret = value.rsplit_once(':').map_or(value, |(_, secret)| secret);
        let half = (secret.len() / 2).max(20).min(secret.len());
        for part in [value, secret, &secret[..half], &secret[secret.len() - half..]] {
            let encoded = [STANDARD.encode(part), URL_SAFE_NO_PAD.encode(part)];
            for pattern in [part.to_owned()].into_iter().chain(encoded) {
                // A multiple of three bytes has no padding; what follows a value may change its last digits.
                let pattern = pattern.trim_end_matches('=').to_owned();
                self.patterns.insert(pattern, what.to_owned());
            }
        }
    }

    fn add_text(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.texts.push((place.into(), text.into()));
    }

    async fn run(&mut self, shell: &Shell, args: &[String], stdin: &str) -> Result<()> {
        let outcome = shell.crt(args).stdin(stdin).run().await?;
        ensure!(outcome.code() != Some(101), "a panic:\n{outcome}");
        self.add_text(format!("output of `{}`", args.join(" ")), outcome.to_string());
        Ok(())
    }

    /// All commands with all flags.
    async fn run_all(&mut self, shell: &Shell, cluster: &str, stdin: &str, context: &str) -> Result<()> {
        for command in COMMANDS {
            for flags in [&[][..]].iter().chain(&FLAGS) {
                let args = command.iter().chain(flags.iter());
                let args = args.map(|word| word.replace("CLUSTER", cluster));
                let args: Vec<String> = args.chain(["--context".to_owned(), context.to_owned()]).collect();
                self.run(shell, &args, stdin).await?;
            }
        }
        Ok(())
    }

    /// The files of a home directory except the kubeconfig, which contains the user's own token.
    fn search_home(&mut self, shell: &Shell) -> Result<()> {
        fn walk(search: &mut LeakSearch, dir: &Path, except: &Path) -> Result<()> {
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_symlink() || path == except {
                    continue;
                }
                if path.is_dir() {
                    walk(search, &path, except)?;
                } else {
                    let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
                    search.add_text(path.display().to_string(), text);
                }
            }
            Ok(())
        }
        walk(self, shell.home(), shell.kubeconfig())
    }

    async fn search_cluster(&mut self, fixture: &RancherFixture) -> Result<()> {
        let management = (fixture.management.client().await?, fixture.cluster.id.clone());
        let downstream = (fixture.downstream.client().await?, fixture.cluster.agent_namespace());
        for (client, namespace) in [management, downstream] {
            let leases = Api::<Lease>::namespaced(client.clone(), &namespace);
            let leases = leases.list(&ListParams::default()).await?;
            self.add_text(format!("Leases in {namespace}"), serde_json::to_string(&leases.items)?);
            let events = Api::<Event>::namespaced(client, &namespace)
                .list(&ListParams::default())
                .await?;
            self.add_text(format!("Events in {namespace}"), serde_json::to_string(&events.items)?);
        }
        Ok(())
    }

    /// What was found, without the values.
    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (place, text) in &self.texts {
            for (pattern, what) in &self.patterns {
                if let Some(at) = text.find(pattern.as_str()) {
                    let line = text[..at].rsplit('\n').next().unwrap_or_default();
                    leaks.push(format!(
                        "{what} ({} characters of it) in {place}, after {line:?}",
                        pattern.len()
                    ));
                }
            }
        }
        leaks
    }

    fn expect_nothing(self) -> Result<()> {
        let leaks = self.leaks();
        ensure!(leaks.is_empty(), "{}", leaks.join("\n"));
        ensure!(
            self.texts.iter().any(|(_, text)| !text.is_empty()),
            "nothing was searched"
        );
        Ok(())
    }
}

async fn search_of(fixture: &RancherFixture) -> Result<LeakSearch> {
    let mut search = LeakSearch::default();
    search.add_secret("the user's token", &User::admin().token);
    for (name, value) in manual_changes::values(fixture).await? {
        search.add_secret(&format!("registration token {name}"), &value);
    }
    Ok(search)
}

#[test]
fn search_finds_tokens_in_plain_text_and_base64() {
    let token = "k2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x";
    let text = |text: String| {
        let mut search = LeakSearch::default();
        search.add_secret("a token", token);
        search.add_text("here", text);
        !search.leaks().is_empty()
    };
    assert!(!text("nothing".into()));
    assert!(text(format!("error: {token}.")));
    assert!(text(format!("…{}…", &token[..27])) && text(format!("…{}…", &token[27..])));
    assert!(text(STANDARD.encode(token)) && text(STANDARD.encode(format!("{token}\n"))));
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn no_command_prints_a_token(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let mut search = search_of(&fixture).await?;
    let old = manual_changes::values(&fixture).await?["system"].clone();
    search
        .run_all(&fixture.shell, &fixture.cluster.id, &format!("{old}\n"), "rancher")
        .await?;
    // The texts are about these tokens: they contain their fingerprints.
    let fingerprint = crate::state::fingerprint(&old);
    ensure!(
        search
            .texts
            .iter()
            .filter(|(_, text)| text.contains(&fingerprint))
            .count()
            > 10,
        "{fingerprint} not found"
    );
    // The new tokens are secret too.
    for (name, value) in manual_changes::values(&fixture).await? {
        ensure!(name != "system" || value != old, "nothing was rotated");
        search.add_secret(&format!("new registration token {name}"), &value);
    }
    search.search_cluster(&fixture).await?;
    search.search_home(&fixture.shell)?;
    search.expect_nothing()
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn process_and_journal_hold_no_token_during_a_rotation(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let mut search = search_of(&fixture).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let held = proxy.plan(On::write().path("*/deployments/*"), Fault::Stop(Moment::Before));
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s", "-v=9"];
    let rotation = shell.crt(rotate).start().await?;
    let pid = rotation.pid()?;
    proxy.victim(pid);
    tokio::time::timeout(e2e::PATIENCE, held.strikes()).await?;
    for file in ["cmdline", "environ", "comm"] {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}"))?;
        search.add_text(file, String::from_utf8_lossy(&bytes).into_owned());
    }
    search.search_cluster(&fixture).await?;
    for (name, value) in manual_changes::values(&fixture).await? {
        search.add_secret(&format!("new registration token {name}"), &value);
    }
    held.release();
    rotation.signal(Signal::CONT)?;
    let outcome = rotation.finish().await?.expect(0)?;
    search.add_text("output", outcome.to_string());
    search.search_cluster(&fixture).await?;
    search.search_home(&shell)?;
    search.expect_nothing()
}

/// Responses with a token where no token should be, and what they are.
fn malformed_responses(token: &str) -> Vec<(&'static str, Fault)> {
    let respond = |status, body: String| Fault::Say { status, body };
    let secret = |data: serde_json::Value| {
        json!({
            "kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
            "items": [{"metadata": {"name": "crt-token-system", "namespace": "x", "uid": "1", "resourceVersion": "1"}, "data": data}],
        })
        .to_string()
    };
    let error = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "reason": "InternalError",
        "message": format!("cannot store {token}"), "details": {"causes": [{"message": token, "field": token}]},
    });
    let token_object = |status: serde_json::Value| {
        json!({
            "kind": "ClusterRegistrationTokenList", "apiVersion": "management.cattle.io/v3", "metadata": {"resourceVersion": "1"},
            "items": [{"metadata": {"name": "system", "namespace": "x", "uid": "1", "resourceVersion": "1"}, "status": status}],
        })
        .to_string()
    };
    let whole = secret(json!({"token": STANDARD.encode(token)}));
    vec![
        ("an internal error that quotes it", respond(500, error.to_string())),
        (
            "a forbidden that quotes it",
            respond(403, error.to_string().replace("500", "403")),
        ),
        (
            "an error that is not JSON",
            respond(500, format!("panic: token {token}\n")),
        ),
        (
            "not base64",
            respond(200, secret(json!({"token": format!("%{token}")}))),
        ),
        (
            "a number and a list",
            respond(200, secret(json!({"token": [token], "previousToken": 7}))),
        ),
        (
            "a token with line breaks",
            respond(
                200,
                secret(json!({"token": STANDARD.encode(format!("{token}\n{token}\r\n"))})),
            ),
        ),
        (
            "an object cut off",
            respond(
                200,
                whole[..whole.find(&STANDARD.encode(token)).unwrap_or(0) + 30].to_owned(),
            ),
        ),
        (
            "a token object of wrong types",
            respond(200, token_object(json!({"token": {"value": token}}))),
        ),
        (
            "a token object with line breaks",
            respond(200, token_object(json!({"token": format!("{token}\n{token}")}))),
        ),
        ("nothing but the token", respond(200, format!("{token:?}"))),
    ]
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn malformed_responses_do_not_leak_tokens(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let mut search = search_of(&fixture).await?;
    let token = manual_changes::values(&fixture).await?["system"].clone();
    let (proxy, shell) = fixture.behind_proxy().await?;
    let id = fixture.cluster.id.as_str();
    for (what, fault) in malformed_responses(&token) {
        for path in ["*/secrets*", "*/clusterregistrationtokens*", "*"] {
            proxy.heal();
            let planned = proxy.plan(On::request().path(path).always(), fault.clone());
            for command in [
                &["list", id, "-v=9"][..],
                &["status", id, "-v=9"],
                &["verify", id],
                &["rotate", id, "--yes", "--timeout", "1s", "-v=9"],
            ] {
                let args: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
                search
                    .run(&shell, &args, "")
                    .await
                    .with_context(|| format!("{what} at {path}"))?;
            }
            ensure!(
                planned.struck() > 0 || (storage == TokenStorage::Status && path == "*/secrets*"),
                "{what} at {path} was never sent"
            );
        }
    }
    proxy.heal();
    search.search_cluster(&fixture).await?;
    search.search_home(&shell)?;
    search.expect_nothing()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_kubeconfigs_and_credential_plugins_do_not_leak_tokens() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let mut search = search_of(&fixture).await?;
    let token = User::admin().token;
    let environment = test_cluster::TestEnvironment::shared().await?;
    let shell = Shell::new(environment, &Kubeconfig::read(fixture.shell.kubeconfig())?)?;
    let good = std::fs::read_to_string(fixture.shell.kubeconfig())?;
    let plugin = shell.home().join("bin/get-token");
    let script = format!("#!/bin/sh\necho 'failed: {token}' >&2\necho '{{\"token\": \"{token}\"'\nexit 3\n");
    std::fs::write(&plugin, script)?;
    std::os::unix::fs::symlink("/bin/sh", shell.home().join("bin/sh"))?;
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755))?;
    let exec = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": fixture.rancher.url(), "insecure-skip-tls-verify": true}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "interactiveMode": "Never",
            "env": [{"name": "TOKEN", "value": token}], "args": ["--token", token],
        }}}],
    });
    let kubeconfigs = [
        ("a line that is not YAML", format!("{good}\n\ttoken: {token}\n")),
        (
            "a token that is a list",
            good.replace(&format!("\"{token}\""), &format!("[\"{token}\"]")),
        ),
        (
            "a file that is cut off in the token",
            good[..good.find(&token).context("no token")? + token.len()].to_owned(),
        ),
        ("a user that is the token", format!("users: {token}\n")),
        ("nothing but the token", token.clone()),
        (
            "a server that holds the token",
            good.replace(fixture.rancher.url(), &format!("https://u:{token}@127.0.0.1:1")),
        ),
        (
            "a certificate that is the token",
            good.replace(
                "certificate-authority-data\": \"",
                &format!("certificate-authority-data\": \"{token}"),
            ),
        ),
        ("an invalid header", good.replace(&token, &format!("{token}\\n{token}"))),
        ("a credential plugin that prints the token", exec.to_string()),
    ];
    for (what, text) in kubeconfigs {
        ensure!(text != good, "{what}: unchanged");
        std::fs::write(shell.kubeconfig(), text)?;
        for command in [
            &["list"][..],
            &["list", "-v=9"],
            &["status", &fixture.cluster.id, "-o", "json", "-v=9"],
            &["version", "-v=9"],
        ] {
            let args: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            let outcome = shell.crt(&args).run().await?;
            ensure!(outcome.code() != Some(101), "{what}: a panic:\n{outcome}");
            search.add_text(
                format!("output of `{}` with {what}", args.join(" ")),
                outcome.to_string(),
            );
        }
    }
    search.expect_nothing()
}
