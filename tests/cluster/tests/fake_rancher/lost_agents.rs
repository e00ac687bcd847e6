//! How an agent is lost and comes back, against what real Ranchers have shown.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use rstest::rstest;
use serde_json::{Value, json};
use test_cluster::{FakeRancher, Registered, Registration, Report, TestEnvironment, TokenStorage, User};

use crate::{PATIENCE, ask, forced, registration_tokens};

/// A connected cluster with its Rancher.
struct Fixture {
    rancher: &'static FakeRancher,
    cluster: Registered,
}

impl Fixture {
    async fn begin(storage: TokenStorage, name: &str) -> Result<Self> {
        let rancher = TestEnvironment::shared().await?.rancher(storage).await?;
        let cluster = rancher.register_as(&Registration::imported(name).quick()).await?;
        Ok(Self { rancher, cluster })
    }

    fn tokens(&self) -> Result<Api<DynamicObject>> {
        registration_tokens(self.rancher, &self.cluster)
    }

    fn secrets(&self) -> Result<Api<Secret>> {
        let client = self.rancher.client("/k8s/clusters/local", Some(&User::admin()))?;
        Ok(Api::namespaced(client, &self.cluster.id))
    }

    async fn value(&self, name: &str) -> Result<String> {
        let mut values = self.rancher.token_values(&self.cluster).await?;
        values.remove(name).with_context(|| format!("{name} has no value"))
    }

    async fn create(&self, name: &str, token: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "management.cattle.io/v3", "kind": "ClusterRegistrationToken",
            "metadata": {"name": name}, "spec": {"clusterName": self.cluster.id}, "status": {"token": token},
        });
        let object = serde_json::from_value(object)?;
        self.tokens()?.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Writes into the Secret of a token.
    async fn write(&self, name: &str, data: &[(&str, &str)]) -> Result<()> {
        let data = data.iter().map(|(key, value)| (*key, STANDARD.encode(value)));
        let patch = json!({ "data": data.collect::<std::collections::BTreeMap<_, _>>() });
        let name = format!("crt-token-{name}");
        let by = PatchParams::default();
        self.secrets()?.patch(&name, &by, &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The annotation that makes Rancher deploy.
    async fn force_deploy(&self) -> Result<String> {
        let client = self.rancher.client("/k8s/clusters/local", Some(&User::admin()))?;
        let kind = GroupVersionKind::gvk("management.cattle.io", "v3", "Cluster");
        let clusters = Api::<DynamicObject>::all_with(client, &ApiResource::from_gvk(&kind));
        let cluster = clusters.get(&self.cluster.id).await?;
        let annotations = cluster.metadata.annotations.unwrap_or_default();
        Ok(annotations
            .get("io.cattle.agent.force.deploy")
            .cloned()
            .unwrap_or_default())
    }

    async fn until(&self, what: &str, is: impl AsyncFn(&Report) -> Result<bool>) -> Result<Report> {
        let begin = Instant::now();
        loop {
            let report = self.rancher.report(&self.cluster).await?;
            if is(&report).await? {
                return Ok(report);
            }
            if begin.elapsed() > PATIENCE {
                bail!("not {what}: {report:#?}\n{:#?}", self.rancher.log_of(&self.cluster)?);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The agent's token is revoked and the agent restarted. Returns the value of the token.
    async fn lose(&self) -> Result<String> {
        let value = self.value("system").await?;
        self.rancher.delete_registration_tokens(&self.cluster).await?;
        self.rancher.restart_agent(&self.cluster).await?;
        self.until("disconnected", async |report| Ok(!is_connected(report)))
            .await?;
        Ok(value)
    }
}

fn is_connected(report: &Report) -> bool {
    report.connected_since.is_some()
        && report
            .conditions
            .get("Connected")
            .is_some_and(|status| status == "True")
}

async fn pushes(fixture: &Fixture, token: &str) -> Result<Report> {
    let print = crate::fingerprint(token);
    fixture
        .until("on the present token", async |report| {
            Ok(is_connected(report) && report.fingerprints() == [print.as_str()])
        })
        .await
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn deleted_tokens_come_back_with_an_event_and_with_a_redeploy(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = Fixture::begin(storage, "turin").await?;
    let (rancher, cluster) = (fixture.rancher, &fixture.cluster);
    let before = rancher.token_values(cluster).await?;
    rancher.delete_registration_tokens(cluster).await?;
    ensure!(fixture.tokens()?.list(&ListParams::default()).await?.items.is_empty());
    // The open tunnel has survived its token.
    ensure!(is_connected(&rancher.report(cluster).await?));

    rancher.cluster_event(cluster).await?;
    fixture
        .until("default-token", async |report| Ok(!report.accepted.is_empty()))
        .await?;
    let event = rancher.token_values(cluster).await?;
    ensure!(event.keys().eq(["default-token"]), "an event makes {:?}", event.keys());
    ensure!(event["default-token"] != before["default-token"]);

    rancher.redeploy(cluster).await?;
    ensure!(fixture.force_deploy().await? == "false");
    let system = fixture.value("system").await?;
    ensure!(system != before["system"]);
    pushes(&fixture, &system).await?;
    Ok(())
}

/// Without an agent there is no way to deploy: the annotation stays until one connects.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_forced_deployment_waits_for_an_agent(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = Fixture::begin(storage, "trieste").await?;
    let (rancher, cluster) = (fixture.rancher, &fixture.cluster);
    let lost = fixture.lose().await?;
    rancher.request_redeploy(cluster).await?;
    // An event of the Cluster, as the lost connection is one, brings this one back.
    fixture
        .until("default-token", async |report| Ok(!report.accepted.is_empty()))
        .await?;
    ensure!(fixture.force_deploy().await? == "true" && forced(rancher, cluster)?.is_empty());
    fixture.create("zz-again", &lost).await?;
    fixture
        .until("deployed", async |_| Ok(fixture.force_deploy().await? == "false"))
        .await?;
    pushes(&fixture, &fixture.value("system").await?).await?;
    Ok(())
}

/// How the value of a lost agent is accepted again.
#[derive(Clone, Copy)]
enum Way {
    Token,
    Previous,
    Orphan,
}

#[rstest]
#[case::token_with_status_storage(TokenStorage::Status, Way::Token)]
#[case::token_with_secret_storage(TokenStorage::Secret, Way::Token)]
#[case::previous_token(TokenStorage::Secret, Way::Previous)]
#[case::orphaned_secret(TokenStorage::Secret, Way::Orphan)]
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_that_is_accepted_again_brings_the_agent_back(
    #[case] storage: TokenStorage,
    #[case] way: Way,
) -> Result<()> {
    let fixture = Fixture::begin(storage, "padua").await?;
    let (rancher, cluster) = (fixture.rancher, &fixture.cluster);
    let lost = fixture.lose().await?;
    let is_refusal = |line: &Value| line["kind"] == "tunnel-refused" && line["why"] == "400 cluster not found";
    fixture
        .until("refused", async |_| Ok(rancher.log_of(cluster)?.iter().any(is_refusal)))
        .await?;
    let path = format!("/k8s/clusters/{}/version", cluster.id);
    let (code, body) = ask(rancher, "GET", &path, Some(&User::admin().token), "").await?;
    ensure!(
        (code, body.as_str()) == (500, "error trying to reach service: cluster agent disconnected"),
        "{code} {body}"
    );

    match way {
        Way::Token => fixture.create("zz-again", &lost).await?,
        Way::Previous => {
            fixture.create("system", "the-present-value").await?;
            let present = crate::fingerprint("the-present-value");
            fixture
                .until("its Secret", async |report| Ok(report.accepted.contains(&present)))
                .await?;
            fixture.write("system", &[("previousToken", &lost)]).await?;
        }
        Way::Orphan => {
            let orphan = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "crt-token-orphan"},
                "stringData": {"token": lost},
            });
            let orphan = serde_json::from_value(orphan)?;
            fixture.secrets()?.create(&PostParams::default(), &orphan).await?;
        }
    }
    let came_back = fixture
        .until("connected", async |report| Ok(is_connected(report)))
        .await?;
    // Rancher pushes the token of `system` by itself, since the condition is an event of the Cluster; with storage `status` it compares
    // nothing.
    if let Way::Previous = way {
        pushes(&fixture, "the-present-value").await?;
    } else {
        ensure!(
            came_back.fingerprints() == [crate::fingerprint(&lost)],
            "{came_back:#?}"
        );
    }
    Ok(())
}

#[rstest]
#[case::deleted(true)]
#[case::token_of_another_cluster(false)]
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_its_secret_is_lost_at_its_next_start(#[case] deleted: bool) -> Result<()> {
    let fixture = Fixture::begin(TokenStorage::Secret, "verona").await?;
    let (rancher, cluster) = (fixture.rancher, &fixture.cluster);
    if deleted {
        rancher.delete_agent_secret(cluster).await?;
    } else {
        let other = Fixture::begin(TokenStorage::Secret, "vicenza").await?;
        rancher.set_agent_token(cluster, &other.value("system").await?).await?;
    }
    ensure!(is_connected(&rancher.report(cluster).await?));
    rancher.restart_agent(cluster).await?;
    fixture
        .until("disconnected", async |report| Ok(!is_connected(report)))
        .await?;
    Ok(())
}

/// `CRT.status.gracePeriodExpiresAt` alone decides, also a time in the near future.
#[tokio::test(flavor = "multi_thread")]
async fn a_previous_token_ends_with_the_grace_period_in_the_status() -> Result<()> {
    let fixture = Fixture::begin(TokenStorage::Secret, "mantua").await?;
    let accepted = crate::fingerprint("the-previous-value");
    let past = (Timestamp::now() - SignedDuration::from_mins(5)).to_string();
    let previous = [
        ("previousToken", "the-previous-value"),
        ("gracePeriodExpiresAt", &*past),
    ];
    fixture.write("system", &previous).await?;
    fixture
        .until("accepted", async |report| Ok(report.accepted.contains(&accepted)))
        .await?;
    // The time in the Secret counts for nothing, also after an event of the token.
    let touch = json!({"metadata": {"annotations": {"touched": "yes"}}});
    let by = PatchParams::default();
    fixture.tokens()?.patch("system", &by, &Patch::Merge(&touch)).await?;
    let ends = Timestamp::now() + SignedDuration::from_secs(3);
    let status = json!({"status": {"gracePeriodExpiresAt": format!("{ends:.0}")}});
    fixture.tokens()?.patch("system", &by, &Patch::Merge(&status)).await?;
    let report = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(report.accepted.contains(&accepted), "{report:#?}");
    fixture
        .until("rejected", async |report| Ok(!report.accepted.contains(&accepted)))
        .await?;
    ensure!(Timestamp::now() >= ends - SignedDuration::from_secs(1), "too early");
    fixture
        .until("cleared", async |_| {
            let (token, secret) = (
                fixture.tokens()?.get("system").await?,
                fixture.secrets()?.get("crt-token-system").await?,
            );
            let data = secret.data.unwrap_or_default();
            Ok(token.data["status"]["gracePeriodExpiresAt"] == Value::Null
                && !data.contains_key("previousToken")
                && !data.contains_key("gracePeriodExpiresAt"))
        })
        .await?;
    Ok(())
}

/// Rancher leaves the owner of a Secret that exists as it is. The garbage collector goes by the owner, not by the name.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_secret_belongs_to_a_former_object_loses_it_with_that_object() -> Result<()> {
    let fixture = Fixture::begin(TokenStorage::Secret, "modena").await?;
    let (tokens, secrets) = (fixture.tokens()?, fixture.secrets()?);
    fixture.create("former", "value-of-the-former").await?;
    let owner = json!({
        "apiVersion": "management.cattle.io/v3", "kind": "ClusterRegistrationToken", "name": "former",
        "uid": tokens.get("former").await?.metadata.uid,
    });
    let left = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "crt-token-again", "ownerReferences": [owner]},
    });
    secrets
        .create(&PostParams::default(), &serde_json::from_value(left)?)
        .await?;
    fixture.create("again", "made-by-hand").await?;
    let print = crate::fingerprint("made-by-hand");
    fixture
        .until("accepted", async |report| Ok(report.accepted.contains(&print)))
        .await?;
    tokens.delete("former", &DeleteParams::default()).await?;
    fixture
        .until("rejected", async |report| Ok(!report.accepted.contains(&print)))
        .await?;
    ensure!(secrets.get_opt("crt-token-again").await?.is_none());
    ensure!(tokens.get("again").await?.data["status"]["tokenSecretName"] == "crt-token-again");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_brings_older_values_back(#[case] storage: TokenStorage) -> Result<()> {
    let (one, two) = tokio::try_join!(Fixture::begin(storage, "parma"), Fixture::begin(storage, "lucca"))?;
    let rancher = one.rancher;
    let saved = [
        one.rancher.token_values(&one.cluster).await?,
        two.rancher.token_values(&two.cluster).await?,
    ];
    let backup = rancher.backup(&[&one.cluster, &two.cluster]).await?;
    // The one is rotated, the other loses its tokens.
    if storage == TokenStorage::Secret {
        one.write("system", &[("token", "rotated")]).await?;
    } else {
        let status = json!({"status": {"token": "rotated"}});
        let by = PatchParams::default();
        one.tokens()?.patch("system", &by, &Patch::Merge(&status)).await?;
    }
    one.create("zz-later", "made-later").await?;
    one.until("rotated", async |report| {
        Ok(["rotated", "made-later"]
            .iter()
            .all(|value| report.accepted.contains(&crate::fingerprint(value))))
    })
    .await?;
    rancher.delete_registration_tokens(&two.cluster).await?;

    rancher.restore(&backup).await?;
    for (fixture, saved) in [&one, &two].into_iter().zip(saved) {
        let mut wanted: Vec<_> = saved.values().map(|value| crate::fingerprint(value)).collect();
        wanted.sort_unstable();
        fixture
            .until("restored", async |report| {
                let mut accepted = report.accepted.clone();
                accepted.sort_unstable();
                Ok(accepted == wanted)
            })
            .await?;
        ensure!(rancher.token_values(&fixture.cluster).await? == saved);
    }
    Ok(())
}
