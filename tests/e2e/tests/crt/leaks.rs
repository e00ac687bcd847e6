//! No command leaks a token. Every command runs in every output format, and against servers and files that are malformed
//! in ways that quote a token. Then everything that the plugin has written anywhere is searched for the tokens.

mod rescue;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use e2e::{RancherFixture, Shell};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, Kubeconfig, Moment, On, TokenStorage, User};
use tokio::sync::Mutex;

use crate::manual_changes;

/// Every command. `CLUSTER` stands for the id. All of them get the token for `--token-stdin`.
const COMMANDS: [&[&str]; 16] = [
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
    &["rescue", "CLUSTER", "--dry-run"],
    &[
        "rescue",
        "CLUSTER",
        "--reactivate-old-token",
        "--token-stdin",
        "--dry-run",
    ],
    &["rollback", "CLUSTER", "--dry-run"],
    &["rollback", "CLUSTER", "--yes", "--settle", "0s"],
    &["version"],
    &["completion"],
];

/// The flags that each command runs with, besides none.
const FLAGS: [&[&str]; 3] = [&["-v=9"], &["-o", "json"], &["-o", "yaml", "-v=9"]];

/// How many commands run in parallel. Most of them wait between retries.
const AT_ONCE: usize = 6;

/// The secret values, and all texts that must not contain them.
#[derive(Default)]
struct LeakSearch {
    /// The values to search for, and their descriptions.
    values: BTreeMap<String, String>,
    /// The texts, and where they are from.
    texts: Vec<(String, String)>,
}

impl LeakSearch {
    /// Adds a value, its halves, and each of them in base64, as Secrets and URLs encode it.
    fn add_secret(&mut self, what: &str, value: &str) {
        let secret = value.rsplit_once(':').map_or(value, |(_, secret)| secret);
        let half = (secret.len() / 2).max(20).min(secret.len());
        for part in [value, secret, &secret[..half], &secret[secret.len() - half..]] {
            let encoded = [STANDARD.encode(part), URL_SAFE_NO_PAD.encode(part)];
            for value in [part.to_owned()].into_iter().chain(encoded) {
                // The bytes that follow may change the padding of the encoded value.
                let value = value.trim_end_matches('=').to_owned();
                self.values.insert(value, what.to_owned());
            }
        }
    }

    fn add_text(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.texts.push((place.into(), text.into()));
    }

    /// Runs all commands with all flags, and adds their output.
    async fn run_all(&mut self, shell: &Shell, cluster: &str, stdin: &str) -> Result<()> {
        let run = async |command: &[&str], flags: &[&str]| {
            let args = command.iter().chain(flags).map(|word| word.replace("CLUSTER", cluster));
            let args: Vec<String> = args.chain(["--context=rancher".to_owned()]).collect();
            run(shell, &args, stdin).await
        };
        let all_flags = || [&[][..]].into_iter().chain(FLAGS);
        let (changing, reading): (Vec<&[&str]>, Vec<_>) =
            COMMANDS.into_iter().partition(|command| command.contains(&"--yes"));
        let reading = reading
            .iter()
            .flat_map(|command| all_flags().map(|flags| run(command, flags)));
        let reading = stream::iter(reading).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>();
        // Only one at a time can hold the lock.
        let changing = async {
            let mut texts = Vec::new();
            for command in changing {
                for flags in all_flags() {
                    texts.push(run(command, flags).await?);
                }
            }
            anyhow::Ok(texts)
        };
        let (reading, changing) = tokio::try_join!(reading, changing)?;
        self.texts.extend(reading.into_iter().chain(changing));
        Ok(())
    }

    /// Adds the files of a home directory, except for the kubeconfig, which holds the user's own token.
    fn add_home(&mut self, shell: &Shell) -> Result<()> {
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

    async fn add_cluster(&mut self, fixture: &RancherFixture) -> Result<()> {
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

    /// The places where a value was found, without the value.
    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (place, text) in &self.texts {
            for (value, what) in &self.values {
                if let Some(at) = text.find(value.as_str()) {
                    let line = text[..at].rsplit('\n').next().unwrap_or_default();
                    leaks.push(format!(
                        "{what} ({} characters of it) in {place}, after {line:?}",
                        value.len()
                    ));
                }
            }
        }
        leaks
    }

    fn finds_nothing(self) -> Result<()> {
        let leaks = self.leaks();
        ensure!(leaks.is_empty(), "{}", leaks.join("\n"));
        ensure!(
            self.texts.iter().any(|(_, text)| !text.is_empty()),
            "there were no texts"
        );
        Ok(())
    }
}

/// The output of a command, and its description.
async fn run(shell: &Shell, args: &[String], stdin: &str) -> Result<(String, String)> {
    let output = shell.crt(args).stdin(stdin).run().await?;
    ensure!(output.code() != Some(101), "a panic:\n{output}");
    Ok((format!("output of `{}`", args.join(" ")), output.to_string()))
}

async fn with_tokens(fixture: &RancherFixture) -> Result<LeakSearch> {
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
    let mut search = with_tokens(&fixture).await?;
    let given = manual_changes::values(&fixture).await?["system"].clone();
    search
        .run_all(&fixture.shell, &fixture.cluster.id, &format!("{given}\n"))
        .await?;
    // The texts are about these tokens: they contain the fingerprints.
    let shown = crate::state::fingerprint(&given);
    ensure!(
        search.texts.iter().filter(|(_, text)| text.contains(&shown)).count() > 10,
        "no text contains {shown}"
    );
    // The new values are secret too.
    for (name, value) in manual_changes::values(&fixture).await? {
        ensure!(name != "system" || value != given, "nothing was rotated");
        search.add_secret(&format!("new registration token {name}"), &value);
    }
    search.add_cluster(&fixture).await?;
    search.add_home(&fixture.shell)?;
    search.finds_nothing()
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn process_and_journal_hold_no_token_during_a_rotation(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let mut search = with_tokens(&fixture).await?;
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
    search.add_cluster(&fixture).await?;
    for (name, value) in manual_changes::values(&fixture).await? {
        search.add_secret(&format!("new registration token {name}"), &value);
    }
    held.release();
    rotation.signal(Signal::CONT)?;
    let outcome = rotation.finish().await?.expect(0)?;
    search.add_text("output", outcome.to_string());
    search.add_cluster(&fixture).await?;
    search.add_home(&shell)?;
    search.finds_nothing()
}

/// Responses that hold a token in the wrong place, with their descriptions.
fn malformed_responses(token: &str) -> Vec<(&'static str, Fault)> {
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
    let mut search = with_tokens(&fixture).await?;
    let token = manual_changes::values(&fixture).await?["system"].clone();
    let one_rotation = Mutex::new(());
    let responses = malformed_responses(&token).into_iter().flat_map(|(what, fault)| {
        let paths = ["*/secrets*", "*/clusterregistrationtokens*", "*"];
        paths.map(|path| (what, path, fault.clone()))
    });
    let searched = responses.map(async |(what, path, fault)| {
        let (proxy, shell) = fixture.behind_proxy().await?;
        let planned = proxy.plan(On::request().path(path).always(), fault);
        let id = fixture.cluster.id.as_str();
        let commands = [
            &["list", id, "-v=9"][..],
            &["status", id, "-v=9"],
            &["verify", id],
            &["rotate", id, "--yes", "--timeout", "1s", "-v=9"],
        ];
        let texts = try_join_all(commands.map(async |command| {
            let _guard = match command[0] {
                "rotate" => Some(one_rotation.lock().await),
                _ => None,
            };
            let args: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            run(&shell, &args, "")
                .await
                .with_context(|| format!("{what} at {path}"))
        }));
        let mut found = LeakSearch {
            texts: texts.await?,
            ..LeakSearch::default()
        };
        ensure!(
            planned.struck() > 0 || (storage == TokenStorage::Status && path == "*/secrets*"),
            "{what} at {path} was never sent"
        );
        found.add_home(&shell)?;
        Ok(found.texts)
    });
    let texts: Vec<_> = stream::iter(searched).buffer_unordered(AT_ONCE).try_collect().await?;
    search.texts.extend(texts.into_iter().flatten());
    search.add_cluster(&fixture).await?;
    search.finds_nothing()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_kubeconfigs_and_credential_plugins_do_not_leak_tokens() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let mut search = with_tokens(&fixture).await?;
    let token = User::admin().token;
    let environment = test_cluster::TestEnvironment::shared().await?;
    let shell = Shell::new(environment, &Kubeconfig::read(fixture.shell.kubeconfig())?)?;
    let good = std::fs::read_to_string(fixture.shell.kubeconfig())?;
    let plugin = shell.home().join("bin/get-token");
    let script = format!("#!/bin/sh\necho 'denied: {token}' >&2\necho '{{\"token\": \"{token}\"'\nexit 3\n");
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
            search.add_text(
                format!("output of `{}` with {what}", args.join(" ")),
                outcome.to_string(),
            );
        }
    }
    search.finds_nothing()
}
