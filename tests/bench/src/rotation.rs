//! The duration of a rotation, and the time that it waits for the new agent, for Rancher and for the old agent.
//!
//! The fake Rancher has the delays of real servers (2.15.0 with `secret` storage, 2.12.0 with `status` storage).
//! `--settle` is 0.

use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use test_cluster::{FakeRancher, Registered, Registration, TestEnvironment, TokenStorage, User};

use crate::cost::MeasuredCommand;
use crate::figures::{median, table};

/// From the running pod to the first connection, and from rendering to applying.
fn delays() -> Value {
    json!({"agentStart": "1500ms", "redeploy": "700ms", "agentRetry": "10s", "connectedTick": "15s"})
}

/// Rotates a cluster with this token storage several times.
pub(crate) async fn rotation(
    environment: &TestEnvironment,
    storage: TokenStorage,
    plugin: &Path,
    count: u32,
) -> Result<()> {
    let name = format!("rotation-{}", storage.word());
    let (management, rancher) = environment.separate_rancher(&name, storage, delays()).await?;
    let cluster = rancher.register_as(&Registration::imported(&name).quick()).await?;
    let kubeconfig = rancher.with_cluster(rancher.kubeconfig(), &cluster, &User::admin());
    let kubeconfig = kubeconfig.write(management.dir().join("user.kubeconfig"))?;
    let args = ["rotate", &cluster.id, "--only-agent", "--yes", "--settle", "0s"];
    let rotate = MeasuredCommand::new("kubectl crt rotate", plugin, &args).env("KUBECONFIG", &kubeconfig);

    let mut runs = Vec::new();
    for _ in 0..count {
        let before = rancher.log()?.len();
        rotate.output()?;
        runs.push(Run::read(&rancher, &cluster, before)?);
    }
    let mut rows = table(&[&format!("one rotation, token storage {}", storage.word()), "time"]);
    let mut row = |what: &str, of: fn(&Run) -> u64| {
        rows.add_row([what.to_owned(), format!("{:.2} s", median(runs.iter().map(of)) / 1e3)]);
    };
    row("from the first write to the old token refused", |run| run.whole);
    row("until the new agent has connected", |run| run.new_agent);
    row("until Rancher has applied the token itself", |run| run.rancher);
    row("until the old agent is gone", |run| run.old_agent);
    row("ours: all the rest", |run| {
        run.whole.saturating_sub(run.new_agent + run.rancher + run.old_agent)
    });
    anstream::println!("\n{rows}");
    rancher.process().end().await;
    management.stop().await;
    Ok(())
}

/// One rotation, in milliseconds.
struct Run {
    whole: u64,
    new_agent: u64,
    rancher: u64,
    old_agent: u64,
}

impl Run {
    /// From the log entries of the fake Rancher since then.
    fn read(rancher: &FakeRancher, cluster: &Registered, since: usize) -> Result<Self> {
        let lines = rancher.log()?.split_off(since);
        let lines = || lines.iter();
        let id = cluster.id.as_str();
        let ours = |line: &&Value| {
            line["userAgent"]
                .as_str()
                .is_some_and(|agent| agent.starts_with("kubectl-crt"))
        };
        let patches = |resource: String| {
            lines().filter(ours).filter(move |line| {
                line["method"] == "PATCH" && line["path"].as_str().is_some_and(|path| path.contains(&resource))
            })
        };
        let writes = lines().filter(ours).filter(|line| {
            let path = line["path"].as_str().unwrap_or_default();
            let about_something_else = ["/leases", "/selfsubjectaccessreviews"]
                .iter()
                .any(|part| path.contains(part));
            line["method"] != "GET" && path.contains("/api") && !about_something_else
        });
        let first = writes.map(began).next().context("no write was logged")??;
        let probes = lines().filter(ours).filter(|line| line["path"] == "/v3/connect");
        let last = probes
            .map(ended)
            .next_back()
            .context("no request checked that the old token is rejected")??;

        let mut deployment = patches("/deployments/cattle-cluster-agent".to_owned()).map(ended);
        let placed = deployment
            .next()
            .context("the agent was not pointed at the new token")??;
        let released = deployment.next().context("the rollout was not released")??;
        let of_kind = |kind: &'static str| lines().filter(move |line| line["kind"] == kind && line["cluster"] == id);
        let connected = of_kind("aggregation-written")
            .map(ended)
            .next()
            .context("no agent has connected")??;
        let gone = of_kind("agent-ended")
            .map(ended)
            .next_back()
            .context("no agent has ended")??;
        let touched = patches(format!("/v3/clusters/{id}")).map(ended).next().transpose()?;
        let applied = of_kind("redeploy").map(ended).next_back().transpose()?;
        let rancher = touched
            .zip(applied)
            .map_or(0, |(touched, applied)| between(touched, applied));
        Ok(Self {
            whole: between(first, last),
            new_agent: between(placed, connected),
            rancher,
            old_agent: between(released, gone),
        })
    }
}

fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond() - from.as_millisecond()).unwrap_or(0)
}

/// An entry is written at the end of its event.
fn ended(line: &Value) -> Result<Timestamp> {
    let at = line["at"].as_str().context("a line of the log without its time")?;
    Ok(at.parse()?)
}

fn began(line: &Value) -> Result<Timestamp> {
    let took = line["ms"].as_i64().unwrap_or(0);
    Ok(Timestamp::from_millisecond(ended(line)?.as_millisecond() - took)?)
}
