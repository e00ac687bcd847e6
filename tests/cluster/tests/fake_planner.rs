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
    digest_of(token)[..10].to_owned()
}

/// The first sixteen digits of SHA-256.
fn digest_of(text: &str) -> String {
    let digest = Sha256::digest(text);
    let first: [u8; 8] = digest[..8].try_into().unwrap_or_default();
    format!("{:016x}", u64::from_be_bytes(first))
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

/// A node joins with this token under this id. Returns the status, and the answer.
async fn join(rancher: &FakeRancher, id: Option<&str>, token: Option<&str>, role: &str) -> Result<(u16, String)> {
    let mut request = http::Request::get("/v3/connect/agent")
        .header(format!("x-cattle-role-{role}"), "true")
        .header("x-cattle-node-name", "later")
        .header("x-cattle-address", "10.98.0.99");
    if let Some(id) = id {
        request = request.header("x-cattle-id", id);
    }
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = rancher.client("", None)?.send(request.body(Vec::new().into())?).await?;
    let code = answer.status().as_u16();
    let body = answer.into_body().collect_bytes().await?;
    Ok((code, String::from_utf8(body.to_vec())?))
}

/// What is read with the credential that a node got, and with which status.
async fn plan_by(rancher: &FakeRancher, answer: &str) -> Result<(u16, Value)> {
    let answer: Value = serde_json::from_str(answer)?;
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let kubeconfig: Value = serde_json::from_str(&text("kubeConfig"))?;
    let user = test_cluster::User {
        name: String::new(),
        token: kubeconfig["users"][0]["user"]["token"]
            .as_str()
            .context("no token")?
            .to_owned(),
        groups: Vec::new(),
    };
    let path = format!(
        "/api/v1/namespaces/{}/secrets/{}",
        text("namespace"),
        text("secretName")
    );
    let request = http::Request::get(path).body(Vec::new().into())?;
    let answer = rancher.client("", Some(&user))?.send(request).await?;
    let code = answer.status().as_u16();
    let body = answer.into_body().collect_bytes().await?;
    Ok((code, serde_json::from_slice(&body)?))
}

fn plan_in(secret: &Value) -> Result<String> {
    let plan = secret["data"]["plan"].as_str().context("no plan")?;
    Ok(String::from_utf8(STANDARD.decode(plan)?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_with_any_valid_token_and_keeps_its_plan_without_it() -> Result<()> {
    let fixture = Fixture::begin("joined", 1).await?;
    let Fixture { rancher, cluster, .. } = &fixture;
    let values = rancher.token_values(cluster).await?;
    let unknown = "machine not found by request";
    let refused = |code: u16, body: &str| (code, body.to_owned());
    let (first, other) = (values["default-token"].as_str(), values["system"].as_str());
    let id = format!("id-of-{}", cluster.id);
    assert_eq!(
        join(rancher, Some(&id), Some("dead"), "worker").await?,
        refused(500, unknown)
    );
    assert_eq!(join(rancher, Some(&id), None, "worker").await?, refused(500, unknown));
    assert_eq!(join(rancher, None, Some(first), "worker").await?.0, 401);

    let (code, worker) = join(rancher, Some(&id), Some(first), "worker").await?;
    ensure!(code == 200, "{code} {worker}");
    let machine = format!("custom-{}", &digest_of(&id)[..12]);
    ensure!(worker.contains(&format!("{machine}-machine-plan")), "{worker}");
    // A known id gets the credential of its machine, with any other token.
    assert_eq!(
        join(rancher, Some(&id), Some(other), "worker").await?,
        (200, worker.clone())
    );
    let (code, plan) = plan_by(rancher, &worker).await?;
    ensure!(code == 200, "{plan}");
    let plan = plan_in(&plan)?;
    ensure!(
        plan.contains("50-rancher.yaml") && !plan.contains("cluster-agent.yaml"),
        "{plan}"
    );

    // A control-plane machine gets the agent's manifest too, and applies it.
    let control_plane = format!("{id}-2");
    let (code, answer) = join(rancher, Some(&control_plane), Some(other), "control-plane").await?;
    ensure!(code == 200, "{answer}");
    let print = fingerprint(first);
    fixture
        .until("the new machine has the first token", |report| {
            report.machines.len() == 2 && is_everywhere(report, &print)
        })
        .await?;

    // The token goes, the plan stays; the Machine goes, and with it the plan.
    fixture.set("default-token").await?;
    ensure!(plan_by(rancher, &worker).await?.0 == 200);
    let (client, kind) = (
        rancher.client("/k8s/clusters/local", Some(&test_cluster::User::admin()))?,
        GroupVersionKind::gvk("cluster.x-k8s.io", "v1beta1", "Machine"),
    );
    let kind = ApiResource::from_gvk_with_plural(&kind, "machines");
    let machines = Api::<DynamicObject>::namespaced_with(client, "fleet-default", &kind);
    machines.delete(&machine, &DeleteParams::default()).await?;
    let rejected = tokio::time::timeout(PATIENCE, async {
        while plan_by(rancher, &worker).await?.0 != 403 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    });
    rejected.await.context("the plan can still be read")?
}
