//! The cost of rotating the tokens of all clusters in Argo CD, compared with a shell script with the same steps.
//!
//! Argo CD's namespace is reached through Rancher too, so that the log of the fake Rancher has all requests of both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use test_cluster::{ControlPlane, FakeRancher, Registration, TestEnvironment, TokenStorage, User};

use crate::cost::{Cost, MeasuredCommand};
use crate::figures::{ratio, table};

/// Registrations in parallel. Each starts an agent.
const REGISTERED_AT_ONCE: usize = 8;
/// Clusters that both rotate in parallel.
const AT_ONCE: &str = "8";
/// The grace period before the old token is revoked, the same for both.
const GRACE: &str = "2s";
const ROTATE: [&str; 9] = [
    "rotate",
    "--all",
    "--yes",
    "--grace",
    GRACE,
    "--max-parallel",
    AT_ONCE,
    "--jitter",
    "0s",
];
const SCRIPT: &str = include_str!("rotate.sh");

/// Rotates this number of clusters, first with the script and then with the plugin.
pub(crate) async fn run(environment: &TestEnvironment, plugin: &Path, kubectl: &Path, clusters: usize) -> Result<()> {
    let place = Place::prepare(environment, plugin, kubectl, clusters).await?;
    let mut rows = table(&[
        "one cluster's share",
        "CPU",
        "requests",
        "peak memory of a process",
        "wall, of all",
    ]);
    let mut measured = Vec::new();
    for command in [place.script()?, place.plugin(&ROTATE)] {
        let before = place.tokens().await?;
        let logged = place.rancher.log()?.len();
        let cost = command.once()?;
        let requests = place.requests_since(logged)?;
        let after = place.tokens().await?;
        ensure!(
            after.len() == clusters && after.iter().all(|token| !before.contains(token)),
            "{} has not rotated all",
            command.name
        );
        ensure!(
            place.valid_tokens().await? == clusters,
            "{} leaves another number of valid tokens",
            command.name
        );
        measured.push((command.name.clone(), cost, requests));
    }
    for (name, cost, requests) in &measured {
        let share = |of: f64| of / clusters as f64;
        rows.add_row([
            name.clone(),
            format!("{:.1} ms", share(cost.cpu_ms)),
            format!("{:.1}", share(*requests as f64)),
            format!("{:.1} MiB", cost.peak_mib),
            format!("{:.1} s", cost.wall_ms / 1e3),
        ]);
    }
    rows.add_row(ratios(&measured)?);
    anstream::println!("\n{clusters} clusters, {AT_ONCE} at once, a grace time of {GRACE}:\n\n{rows}");
    place.end().await;
    Ok(())
}

/// The parts of the script that differ from the plugin.
fn ratios(measured: &[(String, Cost, usize)]) -> Result<[String; 5]> {
    let [(_, theirs, their_requests), (_, ours, our_requests)] = measured else {
        anyhow::bail!("two are compared");
    };
    Ok([
        "as ratios".to_owned(),
        ratio(ours.cpu_ms, theirs.cpu_ms),
        ratio(*our_requests as f64, *their_requests as f64),
        ratio(ours.peak_mib, theirs.peak_mib),
        ratio(ours.wall_ms, theirs.wall_ms),
    ])
}

/// A Rancher with many clusters, all of them in Argo CD.
struct Place {
    management: ControlPlane,
    rancher: FakeRancher,
    dir: PathBuf,
    plugin: PathBuf,
    kubeconfig: PathBuf,
    secrets: Api<Secret>,
}

impl Place {
    async fn prepare(environment: &TestEnvironment, plugin: &Path, kubectl: &Path, clusters: usize) -> Result<Self> {
        let (management, rancher) = environment
            .separate_rancher("argocd", TokenStorage::Secret, json!({}))
            .await?;
        anstream::println!("Registering {clusters} clusters …");
        let names = (0..clusters).map(|number| format!("cluster-{number:03}"));
        let registered = names.map(async |name| {
            let registered = rancher.register_as(&Registration::imported(&name).quick()).await;
            registered.map(|cluster| cluster.id)
        });
        let ids: Vec<String> = futures::stream::iter(registered)
            .buffer_unordered(REGISTERED_AT_ONCE)
            .try_collect()
            .await?;

        let client = management.client().await?;
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "argocd"}}))?;
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        let dir = management.dir().join("user");
        std::fs::create_dir(&dir)?;
        std::os::unix::fs::symlink(std::path::absolute(kubectl)?, dir.join("kubectl"))?;
        std::fs::write(dir.join("rotate.sh"), SCRIPT)?;
        std::fs::write(dir.join("ca.crt"), rancher.ca_pem())?;
        let kubeconfig = rancher.kubeconfig().write(dir.join("kubeconfig"))?;
        let place = Self {
            management,
            rancher,
            dir,
            plugin: plugin.to_owned(),
            kubeconfig,
            secrets: Api::namespaced(client, "argocd"),
        };
        anstream::println!("Adding them to Argo CD …");
        let add = std::iter::once("add").chain(ids.iter().map(String::as_str));
        place.plugin(&add.collect::<Vec<_>>()).output()?;
        Ok(place)
    }

    /// `kubectl-argocd_rancher ARGS`
    fn plugin(&self, args: &[&str]) -> MeasuredCommand {
        let sides = ["--context", "rancher", "--rancher-context", "rancher"];
        let name = format!("kubectl-argocd_rancher {}", args.first().unwrap_or(&""));
        MeasuredCommand::new(name, &self.plugin, &[args, &sides].concat()).env("KUBECONFIG", &self.kubeconfig)
    }

    fn script(&self) -> Result<MeasuredCommand> {
        let file = self.dir.join("rotate.sh");
        let file = file.to_str().context("a path that is not UTF-8")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path: OsString =
            std::env::join_paths(std::iter::once(self.dir.clone()).chain(std::env::split_paths(&path)))?;
        // Like `kubectl config set-context --current --namespace argocd`.
        let kubeconfig = self.dir.join("script.kubeconfig");
        std::fs::copy(&self.kubeconfig, &kubeconfig)?;
        MeasuredCommand::new(
            "set the namespace",
            &self.dir.join("kubectl"),
            &["config", "set-context", "--current", "--namespace", "argocd"],
        )
        .env("KUBECONFIG", &kubeconfig)
        .output()?;
        Ok(
            MeasuredCommand::new("a script with kubectl and curl", Path::new("sh"), &[file])
                .env("PATH", path)
                .env("KUBECONFIG", kubeconfig)
                .env("KUBECACHEDIR", self.dir.join("cache"))
                .env("URL", self.rancher.url())
                .env("CA", self.dir.join("ca.crt"))
                .env("RANCHER", User::admin().token)
                .env("AT_ONCE", AT_ONCE)
                .env("GRACE", GRACE),
        )
    }

    /// The tokens that Argo CD has now.
    async fn tokens(&self) -> Result<Vec<String>> {
        let secrets = self
            .secrets
            .list(&ListParams::default().labels("argocd.argoproj.io/secret-type=cluster"))
            .await?;
        let config = |secret: Secret| -> Option<String> {
            let config = secret.data?.remove("config")?;
            let config: serde_json::Value = serde_json::from_slice(&config.0).ok()?;
            Some(config["bearerToken"].as_str()?.to_owned())
        };
        Ok(secrets.items.into_iter().filter_map(config).collect())
    }

    async fn valid_tokens(&self) -> Result<usize> {
        let tokens = self.rancher.tokens().await?;
        Ok(tokens.iter().filter(|token| token["valid"] == true).count())
    }

    /// The number of requests of kubectl, curl or the plugin.
    fn requests_since(&self, line: usize) -> Result<usize> {
        let log = self.rancher.log()?;
        let by_us = |agent: &str| agent.starts_with("kubectl") || agent.starts_with("curl");
        let lines = log.iter().skip(line);
        Ok(lines
            .filter(|line| line["kind"] == "request" && line["userAgent"].as_str().is_some_and(by_us))
            .count())
    }

    async fn end(self) {
        self.rancher.process().end().await;
        self.management.stop().await;
    }
}
