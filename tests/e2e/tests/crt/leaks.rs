//! No secret leaves its place: tokens are planted, every command runs in every way, also against servers and files that
//! are broken in ways that hold a token, and then everything that the plugin has left anywhere is searched.
//!
//! A later plugin adds rows to [`COMMANDS`] and to [`broken_answers`].

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

/// Every command; `CLUSTER` is its id. The token for `--token-stdin` is given to all of them.
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

/// How each of them is run besides.
const WAYS: [&[&str]; 3] = [&["-v=9"], &["-o", "json"], &["-o", "yaml", "-v=9"]];

/// Values that nobody may see, and everything that was seen.
#[derive(Default)]
struct Hunt {
    /// What is searched for, and what it is.
    needles: BTreeMap<String, String>,
    /// Where, and the text.
    seen: Vec<(String, String)>,
}

impl Hunt {
    /// The value, its halves, and each of them in base64 as it would stand in a Secret or in a URL.
    fn plant(&mut self, what: &str, value: &str) {
        let secret = value.rsplit_once(':').map_or(value, |(_, secret)| secret);
        let half = (secret.len() / 2).max(20).min(secret.len());
        for part in [value, secret, &secret[..half], &secret[secret.len() - half..]] {
            let encoded = [STANDARD.encode(part), URL_SAFE_NO_PAD.encode(part)];
            for needle in [part.to_owned()].into_iter().chain(encoded) {
                // A multiple of three bytes has no padding; what follows a needle may change its last digits.
                let needle = needle.trim_end_matches('=').to_owned();
                self.needles.insert(needle, what.to_owned());
            }
        }
    }

    fn see(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.seen.push((place.into(), text.into()));
    }

    async fn run(&mut self, shell: &Shell, args: &[String], stdin: &str) -> Result<()> {
        let outcome = shell.crt(args).stdin(stdin).run().await?;
        ensure!(outcome.code() != Some(101), "a panic:\n{outcome}");
        self.see(format!("output of `{}`", args.join(" ")), outcome.to_string());
        Ok(())
    }

    /// All commands in all ways.
    async fn run_all(&mut self, shell: &Shell, cluster: &str, stdin: &str, context: &str) -> Result<()> {
        for command in COMMANDS {
            for way in [&[][..]].iter().chain(&WAYS) {
                let args = command.iter().chain(way.iter());
                let args = args.map(|word| word.replace("CLUSTER", cluster));
                let args: Vec<String> = args.chain(["--context".to_owned(), context.to_owned()]).collect();
                self.run(shell, &args, stdin).await?;
            }
        }
        Ok(())
    }

    /// The files of a home, but for the kubeconfig, where the user's own token belongs.
    fn search_home(&mut self, shell: &Shell) -> Result<()> {
        fn walk(hunt: &mut Hunt, dir: &Path, except: &Path) -> Result<()> {
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_symlink() || path == except {
                    continue;
                }
                if path.is_dir() {
                    walk(hunt, &path, except)?;
                } else {
                    let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
                    hunt.see(path.display().to_string(), text);
                }
            }
            Ok(())
        }
        walk(self, shell.home(), shell.kubeconfig())
    }

    async fn search_cluster(&mut self, fixture: &RancherFixture) -> Result<()> {
        let above = (fixture.management.client().await?, fixture.cluster.id.clone());
        let below = (fixture.downstream.client().await?, fixture.cluster.agent_namespace());
        for (client, namespace) in [above, below] {
            let leases = Api::<Lease>::namespaced(client.clone(), &namespace);
            let leases = leases.list(&ListParams::default()).await?;
            self.see(format!("Leases in {namespace}"), serde_json::to_string(&leases.items)?);
            let events = Api::<Event>::namespaced(client, &namespace)
                .list(&ListParams::default())
                .await?;
            self.see(format!("Events in {namespace}"), serde_json::to_string(&events.items)?);
        }
        Ok(())
    }

    /// What was found, shortened.
    fn finds(&self) -> Vec<String> {
        let mut finds = Vec::new();
        for (place, text) in &self.seen {
            for (needle, what) in &self.needles {
                if let Some(at) = text.find(needle.as_str()) {
                    let line = text[..at].rsplit('\n').next().unwrap_or_default();
                    finds.push(format!(
                        "{what} ({} characters of it) in {place}, after {line:?}",
                        needle.len()
                    ));
                }
            }
        }
        finds
    }

    fn nothing(self) -> Result<()> {
        let finds = self.finds();
        ensure!(finds.is_empty(), "{}", finds.join("\n"));
        ensure!(
            self.seen.iter().any(|(_, text)| !text.is_empty()),
            "nothing was seen at all"
        );
        Ok(())
    }
}

async fn planted(fixture: &RancherFixture) -> Result<Hunt> {
    let mut hunt = Hunt::default();
    hunt.plant("the user's token", &User::admin().token);
    for (name, value) in manual_changes::values(fixture).await? {
        hunt.plant(&format!("registration token {name}"), &value);
    }
    Ok(hunt)
}

#[test]
fn search_finds_tokens_in_plain_text_and_base64() {
    let token = "k2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x";
    let text = |text: String| {
        let mut hunt = Hunt::default();
        hunt.plant("a token", token);
        hunt.see("here", text);
        !hunt.finds().is_empty()
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
    let mut hunt = planted(&fixture).await?;
    let given = manual_changes::values(&fixture).await?["system"].clone();
    hunt.run_all(&fixture.shell, &fixture.cluster.id, &format!("{given}\n"), "rancher")
        .await?;
    // What was searched is about these tokens: their fingerprints stand there.
    let shown = crate::state::fingerprint(&given);
    ensure!(
        hunt.seen.iter().filter(|(_, text)| text.contains(&shown)).count() > 10,
        "{shown} is nowhere"
    );
    // What it has rotated to is as secret as what it has rotated from.
    for (name, value) in manual_changes::values(&fixture).await? {
        ensure!(name != "system" || value != given, "nothing was rotated");
        hunt.plant(&format!("new registration token {name}"), &value);
    }
    hunt.search_cluster(&fixture).await?;
    hunt.search_home(&fixture.shell)?;
    hunt.nothing()
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn process_and_journal_hold_no_token_during_a_rotation(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let mut hunt = planted(&fixture).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let held = proxy.plan(On::write().path("*/deployments/*"), Fault::Stop(Moment::Before));
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s", "-v=9"];
    let rotation = shell.crt(rotate).start().await?;
    let pid = rotation.pid()?;
    proxy.victim(pid);
    tokio::time::timeout(e2e::PATIENCE, held.strikes()).await?;
    for file in ["cmdline", "environ", "comm"] {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}"))?;
        hunt.see(file, String::from_utf8_lossy(&bytes).into_owned());
    }
    hunt.search_cluster(&fixture).await?;
    for (name, value) in manual_changes::values(&fixture).await? {
        hunt.plant(&format!("new registration token {name}"), &value);
    }
    held.release();
    rotation.signal(Signal::CONT)?;
    let outcome = rotation.finish().await?.expect(0)?;
    hunt.see("output", outcome.to_string());
    hunt.search_cluster(&fixture).await?;
    hunt.search_home(&shell)?;
    hunt.nothing()
}

/// Answers that hold a token where no token should be, with what they are.
fn broken_answers(token: &str) -> Vec<(&'static str, Fault)> {
    let say = |status, body: String| Fault::Say { status, body };
    let secret = |data: serde_json::Value| {
        json!({
            "kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
            "items": [{"metadata": {"name": "crt-token-system", "namespace": "x", "uid": "1", "resourceVersion": "1"}, "data": data}],
        })
        .to_string()
    };
    let refusal = json!({
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
        ("an internal error that quotes it", say(500, refusal.to_string())),
        (
            "a forbidden that quotes it",
            say(403, refusal.to_string().replace("500", "403")),
        ),
        ("an error that is no JSON", say(500, format!("panic: token {token}\n"))),
        ("no base64", say(200, secret(json!({"token": format!("%{token}")})))),
        (
            "a number and a list",
            say(200, secret(json!({"token": [token], "previousToken": 7}))),
        ),
        (
            "a token with line breaks",
            say(
                200,
                secret(json!({"token": STANDARD.encode(format!("{token}\n{token}\r\n"))})),
            ),
        ),
        (
            "an object cut off",
            say(
                200,
                whole[..whole.find(&STANDARD.encode(token)).unwrap_or(0) + 30].to_owned(),
            ),
        ),
        (
            "a token object of wrong types",
            say(200, token_object(json!({"token": {"value": token}}))),
        ),
        (
            "a token object with line breaks",
            say(200, token_object(json!({"token": format!("{token}\n{token}")}))),
        ),
        ("nothing but the token", say(200, format!("{token:?}"))),
    ]
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn malformed_responses_do_not_leak_tokens(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let mut hunt = planted(&fixture).await?;
    let token = manual_changes::values(&fixture).await?["system"].clone();
    let (proxy, shell) = fixture.behind_proxy().await?;
    let id = fixture.cluster.id.as_str();
    for (what, fault) in broken_answers(&token) {
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
                hunt.run(&shell, &args, "")
                    .await
                    .with_context(|| format!("{what} at {path}"))?;
            }
            ensure!(
                planned.struck() > 0 || (storage == TokenStorage::Status && path == "*/secrets*"),
                "{what} at {path} never came"
            );
        }
    }
    proxy.heal();
    hunt.search_cluster(&fixture).await?;
    hunt.search_home(&shell)?;
    hunt.nothing()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_kubeconfigs_and_credential_plugins_do_not_leak_tokens() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let mut hunt = planted(&fixture).await?;
    let token = User::admin().token;
    let environment = test_cluster::TestEnvironment::shared().await?;
    let shell = Shell::new(environment, &Kubeconfig::read(fixture.shell.kubeconfig())?)?;
    let good = std::fs::read_to_string(fixture.shell.kubeconfig())?;
    let plugin = shell.home().join("bin/get-token");
    let script = format!("#!/bin/sh\necho 'no way: {token}' >&2\necho '{{\"token\": \"{token}\"'\nexit 3\n");
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
        ("a line that is no YAML", format!("{good}\n\ttoken: {token}\n")),
        (
            "a token that is a list",
            good.replace(&format!("\"{token}\""), &format!("[\"{token}\"]")),
        ),
        (
            "a file that breaks off in the token",
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
        (
            "a header that cannot be",
            good.replace(&token, &format!("{token}\\n{token}")),
        ),
        ("a credential plugin that fails and talks", exec.to_string()),
    ];
    for (what, text) in kubeconfigs {
        ensure!(text != good, "{what}: as before");
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
            hunt.see(
                format!("output of `{}` with {what}", args.join(" ")),
                outcome.to_string(),
            );
        }
    }
    hunt.nothing()
}
