//! Tests of the fake Rancher's planner, against what real Ranchers have shown.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use test_cluster::{FakeRancher, Registered, Registration, Report, TestEnvironment, TokenStorage};

const PATIENCE: Duration = Duration::from_mins(1);

fn fingerprint(token: &str) -> String {
    let digest = Sha256::digest(token);
    let first: [u8; 8] = digest[..8].try_into().unwrap_or_default();
    format!("{:010x}", u64::from_be_bytes(first) >> 24)
}

async fn until(
    rancher: &FakeRancher,
    cluster: &Registered,
    what: &str,
    is: impl Fn(&Report) -> bool,
) -> Result<Report> {
    let mut last = None;
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let report = rancher.report(cluster).await?;
            if is(&report) {
                return anyhow::Ok(report);
            }
            last = Some(report);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    match waited.await {
        Ok(report) => report,
        Err(_) => bail!("not {what}: {last:#?}\n{:#?}", rancher.log_of(cluster)?),
    }
}

fn token_of(machine: &Value, key: &str) -> String {
    machine[key].as_str().unwrap_or_default().to_owned()
}

/// Every machine has this token in its plan, in the applied one and in its file, and the one agent is connected with it.
fn is_everywhere(report: &Report, token: &str) -> bool {
    let mut machines = report.machines.values();
    machines.all(|machine| {
        ["plan", "applied", "file"]
            .iter()
            .all(|key| token_of(machine, key) == token)
    }) && report.fingerprints() == [token]
        && report.sessions.len() == 2
}

struct Fixture {
    rancher: &'static FakeRancher,
    cluster: Registered,
    secrets: Api<Secret>,
    tokens: Api<DynamicObject>,
}

impl Fixture {
    async fn begin(name: &str, machines: u32) -> Result<Self> {
        let environment = TestEnvironment::shared().await?;
        let rancher = environment.rancher(TokenStorage::Secret).await?;
        let registration = Registration::imported(name).quick().provisioned(machines);
        let cluster = rancher.register_as(&registration).await?;
        let client = rancher.client("/k8s/clusters/local", Some(&test_cluster::User::admin()))?;
        let kind = GroupVersionKind::gvk("management.cattle.io", "v3", "ClusterRegistrationToken");
        let kind = ApiResource::from_gvk_with_plural(&kind, "clusterregistrationtokens");
        Ok(Self {
            secrets: Api::namespaced(client.clone(), &cluster.id),
            tokens: Api::namespaced_with(client, &cluster.id, &kind),
            rancher,
            cluster,
        })
    }

    /// Writes a value into the Secret of a token, with the present one as the previous one.
    async fn set(&self, name: &str) -> Result<()> {
        let secret = self.secrets.get(&format!("crt-token-{name}")).await?;
        let before = secret.data.context("no data")?["token"].0.clone();
        let data = json!({ "token": STANDARD.encode(self.new_value()), "previousToken": STANDARD.encode(before) });
        let patch = Patch::Merge(json!({ "data": data }));
        let name = format!("crt-token-{name}");
        self.secrets.patch(&name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// A value is one cluster's alone.
    fn new_value(&self) -> String {
        format!("n{}", self.cluster.id).repeat(4)
    }

    async fn touch(&self) -> Result<()> {
        self.rancher.cluster_event(&self.cluster).await
    }

    async fn until(&self, what: &str, is: impl Fn(&Report) -> bool) -> Result<Report> {
        until(self.rancher, &self.cluster, what, is).await
    }

    async fn change(&self, machine: &str, change: Value) -> Result<()> {
        self.rancher.change_machine(&self.cluster, machine, &change).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_touch_starts_both_writers_and_the_last_one_wins_for_good() -> Result<()> {
    let fixture = Fixture::begin("planner-both", 2).await?;
    let report = fixture.rancher.report(&fixture.cluster).await?;
    let machines: Vec<String> = report.machines.keys().cloned().collect();
    ensure!(machines.len() == 2, "{report:#?}");
    let (system, first) = (
        report.fingerprints()[0].to_owned(),
        token_of(&report.machines[&machines[0]], "file"),
    );
    ensure!(
        system != first,
        "the files have F, the Deployment has `system`: {report:#?}"
    );
    // A write of a token's Secret wakes no one.
    fixture.set("system").await?;
    fixture.set("default-token").await?;
    let before = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(token_of(&before.machines[&machines[0]], "plan") == first, "{before:#?}");
    fixture.touch().await?;
    let n = fingerprint(&fixture.new_value());
    fixture
        .until("everything has N", |report| is_everywhere(report, &n))
        .await?;
    // RKE2 reads the file a while later.
    let kinds = ["plan", "file-applied", "redeploy"];
    let is_done = |log: &[Value], kind: &str| {
        let mut lines = log.iter();
        lines.any(|line| line["kind"] == kind && line["fingerprint"] == n.as_str())
    };
    let all_done = |_: &Report| {
        let log = fixture.rancher.log_of(&fixture.cluster).unwrap_or_default();
        kinds.iter().all(|kind| is_done(&log, kind))
    };
    fixture.until("both writers have written", all_done).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_silent_brings_the_old_token_back_at_the_start_of_its_server() -> Result<()> {
    let fixture = Fixture::begin("planner-silent", 2).await?;
    let report = fixture.rancher.report(&fixture.cluster).await?;
    let machines: Vec<String> = report.machines.keys().cloned().collect();
    let first = token_of(&report.machines[&machines[0]], "file");
    fixture.change(&machines[1], json!({ "running": false })).await?;
    fixture.set("system").await?;
    fixture.set("default-token").await?;
    fixture.touch().await?;
    let n = fingerprint(&fixture.new_value());
    // The deploy controller does nothing more by itself.
    let is_noted = |line: &Value| line["step"] == "noted" && line["fingerprint"] == n.as_str();
    let has_file = |report: &Report| {
        let log = fixture.rancher.log_of(&fixture.cluster).unwrap_or_default();
        let file = token_of(&report.machines[&machines[0]], "file");
        file == n && report.fingerprints() == [n.as_str()] && log.iter().any(is_noted)
    };
    let silent = fixture.until("the first machine has N", has_file).await?;
    ensure!(token_of(&silent.machines[&machines[1]], "plan") == n, "{silent:#?}");
    ensure!(
        token_of(&silent.machines[&machines[1]], "applied") == first,
        "{silent:#?}"
    );
    fixture.change(&machines[1], json!({ "restart": true })).await?;
    let old = |report: &Report| report.fingerprints() == [first.as_str()] && report.sessions.len() == 2;
    fixture.until("the agent is back on the old token", old).await?;
    // Its Secret was pruned with the file before, and is new.
    fixture.change(&machines[1], json!({ "running": true })).await?;
    fixture
        .until("everything has N", |report| is_everywhere(report, &n))
        .await?;
    let pruned = |line: &Value| line["kind"] == "pruned";
    ensure!(
        fixture.rancher.log_of(&fixture.cluster)?.iter().any(pruned),
        "nothing was pruned"
    );
    // A Machine that is deleted takes its plan with it.
    fixture.change(&machines[1], json!({ "delete": true })).await?;
    fixture
        .until("one machine is left", |report| report.machines.len() == 1)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_token_by_name_is_the_one_of_the_plans() -> Result<()> {
    let fixture = Fixture::begin("planner-first", 1).await?;
    let report = fixture.rancher.report(&fixture.cluster).await?;
    let first = token_of(report.machines.values().next().context("no machine")?, "plan");
    let token = |name: &str| {
        serde_json::from_value::<DynamicObject>(json!({
            "apiVersion": "management.cattle.io/v3", "kind": "ClusterRegistrationToken",
            "metadata": {"name": name}, "spec": {"clusterName": fixture.cluster.id},
        }))
    };
    fixture.tokens.create(&PostParams::default(), &token("zz-crt")?).await?;
    fixture.touch().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(
        report
            .machines
            .values()
            .all(|machine| token_of(machine, "plan") == first),
        "{report:#?}"
    );
    fixture
        .tokens
        .create(&PostParams::default(), &token("crt-aaaaa")?)
        .await?;
    fixture.touch().await?;
    let is_new = |report: &Report| {
        let mut machines = report.machines.values();
        machines.all(|machine| token_of(machine, "file") != first && token_of(machine, "file") != fingerprint(""))
    };
    let report = fixture.until("the plan has the new first token", is_new).await?;
    let file = token_of(report.machines.values().next().context("no machine")?, "file");
    fixture
        .until("the agent has it", |report| report.fingerprints() == [file.as_str()])
        .await?;
    // Without its Secret the planner stops.
    let all = fixture.secrets.list(&ListParams::default()).await?;
    let names: Vec<_> = all
        .items
        .iter()
        .filter_map(|secret| secret.metadata.name.clone())
        .collect();
    ensure!(names.contains(&"crt-token-crt-aaaaa".to_owned()), "{names:?}");
    fixture
        .secrets
        .delete("crt-token-crt-aaaaa", &DeleteParams::default())
        .await?;
    fixture.touch().await?;
    let log = || fixture.rancher.log_of(&fixture.cluster);
    let stopped = tokio::time::timeout(PATIENCE, async {
        while !log()?.iter().any(|line| line["kind"] == "planner-error") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    });
    stopped.await.context("the planner continues")??;
    Ok(())
}

/// Rancher reaches the API server of a hosted cluster by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_hosted_cluster_answers_without_an_agent() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let rancher = environment.rancher(TokenStorage::Secret).await?;
    let cluster = rancher
        .register_as(&Registration::imported("hosted").quick().kind("eks"))
        .await?;
    rancher.offline(&cluster, Duration::from_mins(10)).await?;
    let report = rancher.report(&cluster).await?;
    ensure!(report.sessions.is_empty(), "{report:#?}");
    let path = format!("/k8s/clusters/{}", cluster.id);
    let client = rancher.client(&path, Some(&test_cluster::User::admin()))?;
    client
        .apiserver_version()
        .await
        .context("a proxied call without an agent")?;
    Ok(())
}
