//! A rescue reads the agent's old token, and makes it valid again. Neither it nor a new one is anywhere else than where it has to be.

use anyhow::{Context as _, Result};
use e2e::{RancherFixture, Shell};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::Value;
use test_cluster::{Fault, Moment, On, TokenStorage};

use super::{AT_ONCE, FLAGS, LeakSearch, run, with_tokens};
use crate::manual_changes;
use crate::rescue::{is_rescued, lose};

/// What is read of both clusters. Some of it is only in one of them.
const KINDS: &str = "secrets,configmaps,leases,events,serviceaccounts,deployments,replicasets,pods";

/// Whether an object has a registration token for its purpose.
fn has_token(object: &Value) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match object["kind"].as_str().unwrap_or_default() {
        "ClusterRegistrationToken" => true,
        "Secret" => {
            let prefixes = ["crt-token-", "cattle-credentials-"];
            name == "stv-aggregation" || prefixes.iter().any(|prefix| name.starts_with(prefix))
        }
        _ => false,
    }
}

/// What of an object has no token. Rancher's own apply repeats the whole object in an annotation.
fn searched(object: &Value) -> Value {
    if !has_token(object) {
        return object.clone();
    }
    let mut metadata = object["metadata"].clone();
    if let Some(annotations) = metadata["annotations"].as_object_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    metadata
}

impl LeakSearch {
    /// Adds every object of the cluster's namespaces that is not for a token, the Cluster, and all labels and annotations.
    async fn add_objects(&mut self, fixture: &RancherFixture) -> Result<()> {
        let id = fixture.cluster.id.as_str();
        let management = ["--context", "management"];
        let kubeconfig = fixture.downstream.kubeconfig().to_str().context("a path")?;
        let downstream = ["--kubeconfig", kubeconfig];
        let namespace = fixture.cluster.agent_namespace();
        let kinds = format!("{KINDS},clusterregistrationtokens.management.cattle.io");
        for (side, words) in [
            (&management, vec![&*kinds, "-n", id]),
            (&management, vec!["clusters.management.cattle.io", id]),
            (&downstream, vec![KINDS, "-n", &namespace]),
        ] {
            let get = side.iter().chain(&["get", "-o", "json"]).copied().chain(words);
            let read = fixture.shell.kubectl(get).run().await?.expect(0)?;
            let document: Value = serde_json::from_str(&read.stdout)?;
            let alone = [document.clone()];
            for object in document["items"].as_array().map_or(&alone[..], Vec::as_slice) {
                let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
                self.add_text(what, searched(object).to_string());
            }
        }
        Ok(())
    }

    /// Runs these commands with all flags, and adds their output.
    async fn run_with_flags(&mut self, shell: &Shell, commands: &[Vec<&str>], stdin: &str) -> Result<()> {
        let all_flags = || [&[][..]].into_iter().chain(FLAGS);
        let runs = commands.iter().flat_map(|command| {
            all_flags().map(async move |flags| {
                let args: Vec<String> = command.iter().chain(flags).map(|word| (*word).to_owned()).collect();
                run(shell, &args, stdin).await
            })
        });
        let texts: Vec<_> = stream::iter(runs).buffer_unordered(AT_ONCE).try_collect().await?;
        self.texts.extend(texts);
        Ok(())
    }
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn no_rescue_leaks_a_token(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let mut search = with_tokens(&fixture).await?;
    let id = fixture.cluster.id.as_str();
    let old = lose(&fixture).await?;
    let stdin = format!("{old}\n");
    let direct = format!("{id}-direct");
    let with_old = ["rescue", id, "--reactivate-old-token", "--token-stdin"];
    let commands: [&[&str]; 3] = [
        &["rescue", id],
        &["rescue", id, "--downstream-context", &direct],
        &with_old,
    ];
    let dry_run = |flag| commands.map(|command| [command, &[flag]].concat());
    let commands = [dry_run("--dry-run"), dry_run("--dry-run=server")].concat();
    search.run_with_flags(&fixture.shell, &commands, &stdin).await?;

    // Paused while the old token is valid again, and the agent is about to get the new one.
    let (proxy, shell) = fixture.behind_proxy().await?;
    let held = proxy.plan(On::write().path("*/deployments/*"), Fault::Stop(Moment::Before));
    let rescue = with_old
        .iter()
        .chain(&["--yes", "--settle", "0s", "-v=9", "-o", "json"]);
    let rescue = shell.crt(rescue).stdin(stdin.clone()).start().await?;
    let pid = rescue.pid()?;
    proxy.victim(pid);
    tokio::time::timeout(e2e::PATIENCE, held.strikes()).await?;
    for file in ["cmdline", "environ", "comm"] {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}"))?;
        search.add_text(file, String::from_utf8_lossy(&bytes).into_owned());
    }
    search.add_objects(&fixture).await?;
    let reading = [vec!["list", id], vec!["status", id], vec!["rescue", id, "--dry-run"]];
    search.run_with_flags(&fixture.shell, &reading, "").await?;
    for (name, value) in manual_changes::values(&fixture).await? {
        search.add_secret(&format!("registration token {name} of the rescue"), &value);
    }
    held.release();
    rescue.signal(Signal::CONT)?;
    let rescued = rescue.finish().await?.expect(0)?;
    is_rescued(&fixture, &old, &rescued).await?;
    search.add_text("output of the rescue", rescued.to_string());
    for (name, value) in manual_changes::values(&fixture).await? {
        search.add_secret(&format!("new registration token {name}"), &value);
    }
    search.add_objects(&fixture).await?;
    search.add_home(&shell)?;
    search.finds_nothing()
}
