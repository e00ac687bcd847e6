//! What is so on both sides of a cluster: read past the plugin, from the API servers and from Rancher itself, by code
//! that shares nothing with it. Stories compare one look with another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Story, until};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use testbed::{Interval, Report};

/// What the names of the agent's credential Secrets begin with.
const CREDENTIALS: &str = "cattle-credentials-";
/// The annotation of the Lease that holds the journal.
const JOURNAL: &str = "kubectl-rotation.github.io/journal";

/// One look.
#[derive(Debug)]
pub(crate) struct State {
    /// The registration tokens: name and fingerprint of the value that Rancher goes by. Bridges are among them.
    pub(crate) tokens: BTreeMap<String, String>,
    /// Those that carry the label of a bridge.
    pub(crate) bridges: Vec<String>,
    /// Previous values and ends of grace, wherever they stand: `system/previousToken`, `system/status`.
    pub(crate) graces: BTreeSet<String>,
    /// The name that Rancher's own formula gives to the Secret with the value of `system`.
    by_formula: String,
    /// The agent's Deployment.
    pub(crate) deployment: Rollout,
    /// The credential Secrets of the agent: name and fingerprint.
    pub(crate) credentials: BTreeMap<String, String>,
    /// The same Secrets: name and fingerprint of everything that is in them.
    pub(crate) contents: BTreeMap<String, String>,
    /// What the agent that connected last wrote down.
    pub(crate) connected: Option<String>,
    /// The agent's pods that have not ended: name and the Secret that each mounts.
    pub(crate) pods: BTreeMap<String, String>,
    /// The Lease.
    pub(crate) lease: Option<Lock>,
    /// By Rancher's own word.
    pub(crate) report: Report,
}

/// What matters of the agent's Deployment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// The Secret in the volume.
    pub(crate) secret: String,
    /// The Secret in `CATTLE_CREDENTIAL_NAME`, where there is such a variable.
    pub(crate) variable: Option<String>,
    /// `minReadySeconds` and `progressDeadlineSeconds`.
    pub(crate) settings: (i32, i32),
    /// All of the specification.
    pub(crate) spec: Value,
}

impl fmt::Debug for Rollout {
    /// Without the whole specification, which is for comparing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            secret,
            variable,
            settings,
            ..
        } = self;
        write!(f, "{secret}, variable {variable:?}, settings {settings:?}")
    }
}

/// What the Lease says.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    pub(crate) holder: Option<String>,
    pub(crate) journal: Option<Value>,
    pub(crate) result: Option<String>,
}

impl Lock {
    /// A word of the journal: `phase`, `goal`.
    pub(crate) fn says(&self, key: &str) -> Option<&str> {
        self.journal.as_ref()?[key].as_str()
    }
}

/// The form in which Rancher and the plugin show a token.
pub(crate) fn fingerprint(token: &str) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(token);
    digest.iter().take(5).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl State {
    /// Looks at everything.
    pub(crate) async fn of(story: &Story) -> Result<Self> {
        let namespace = story.cluster.agent_namespace();
        let (management, downstream) = (story.management.client().await?, story.downstream.client().await?);
        let secrets = Api::<Secret>::namespaced(downstream.clone(), &namespace)
            .list(&ListParams::default())
            .await?;
        let pods = Api::<Pod>::namespaced(downstream.clone(), &namespace)
            .list(&ListParams::default().labels("app=cattle-cluster-agent"))
            .await?;
        let deployment = Api::<Deployment>::namespaced(downstream, &namespace)
            .get("cattle-cluster-agent")
            .await?;
        let lease = Api::<Lease>::namespaced(management.clone(), &story.cluster.id)
            .get_opt("kubectl-crt")
            .await?;
        let tokens = Tokens::read(management, &story.cluster.id).await?;
        let mut state = Self {
            tokens: tokens
                .values
                .iter()
                .map(|(name, value)| (name.clone(), fingerprint(value)))
                .collect(),
            by_formula: by_ranchers_formula(story, tokens.values.get("system")),
            bridges: tokens.bridges,
            graces: tokens.graces,
            deployment: Rollout::of(&deployment)?,
            credentials: BTreeMap::new(),
            contents: BTreeMap::new(),
            connected: None,
            pods: pods
                .iter()
                .filter(|pod| !has_ended(pod))
                .map(|pod| (pod.metadata.name.clone().unwrap_or_default(), mounted(pod)))
                .collect(),
            lease: lease.as_ref().map(Lock::of),
            report: story.rancher.report(&story.cluster).await?,
        };
        for secret in &secrets {
            let (name, data) = (
                secret.metadata.name.clone().unwrap_or_default(),
                secret.data.clone().unwrap_or_default(),
            );
            if name.starts_with(CREDENTIALS) {
                let all: Vec<_> = data.keys().map(|key| (key, text(&data, key))).collect();
                state.contents.insert(name.clone(), fingerprint(&format!("{all:?}")));
                state.credentials.insert(name, fingerprint(&text(&data, "token")));
            } else if name == "stv-aggregation" {
                state.connected = Some(fingerprint(&text(&data, "CATTLE_TOKEN")));
            }
        }
        Ok(state)
    }

    /// The fingerprint of `system`.
    pub(crate) fn system(&self) -> &str {
        self.tokens.get("system").map_or("", String::as_str)
    }

    /// The fingerprint that the agent's Deployment leads to.
    pub(crate) fn named(&self) -> &str {
        self.credentials.get(&self.deployment.secret).map_or("", String::as_str)
    }

    /// The phase in the journal, if there is one.
    pub(crate) fn phase(&self) -> Option<&str> {
        self.lease.as_ref()?.says("phase")
    }

    /// The new token, as far as the journal knows one.
    pub(crate) fn drawn(&self) -> Option<&str> {
        self.lease.as_ref()?.journal.as_ref()?["notes"]["new"].as_str()
    }
}

/// `systemtemplate/import.go` since Rancher 2.11.1: ten digits of SHA-256 over URL, token and cluster, joined by dots.
fn by_ranchers_formula(story: &Story, token: Option<&String>) -> String {
    let (url, token) = (story.rancher.url(), token.map_or("", String::as_str));
    format!(
        "{CREDENTIALS}{}",
        fingerprint(&format!("{url}.{token}.{}", story.cluster.id))
    )
}

/// What the registration tokens of a cluster hold, in either era.
#[derive(Default)]
struct Tokens {
    values: BTreeMap<String, String>,
    bridges: Vec<String>,
    graces: BTreeSet<String>,
}

impl Tokens {
    async fn read(client: kube::Client, cluster: &str) -> Result<Self> {
        let kind = GroupVersionKind::gvk("management.cattle.io", "v3", "ClusterRegistrationToken");
        let objects = Api::<DynamicObject>::namespaced_with(client.clone(), cluster, &ApiResource::from_gvk(&kind))
            .list(&ListParams::default())
            .await?;
        let secrets = Api::<Secret>::namespaced(client, cluster)
            .list(&ListParams::default())
            .await?;
        let mut all = Self::default();
        for object in &objects {
            let name = object.metadata.name.clone().unwrap_or_default();
            let labels = object.metadata.labels.clone().unwrap_or_default();
            if labels.contains_key("kubectl-rotation.github.io/bridge") {
                all.bridges.push(name.clone());
            }
            let status = &object.data["status"];
            if !status["gracePeriodExpiresAt"].is_null() {
                all.graces.insert(format!("{name}/status"));
            }
            if let Some(token) = status["token"].as_str().filter(|token| !token.is_empty()) {
                all.values.insert(name, token.to_owned());
            }
        }
        for secret in &secrets {
            let name = secret.metadata.name.clone().unwrap_or_default();
            let Some(token) = name.strip_prefix("crt-token-") else {
                continue;
            };
            let data = secret.data.clone().unwrap_or_default();
            for key in ["previousToken", "gracePeriodExpiresAt"] {
                if data.contains_key(key) {
                    all.graces.insert(format!("{token}/{key}"));
                }
            }
            all.values.insert(token.to_owned(), text(&data, "token"));
        }
        Ok(all)
    }
}

impl Rollout {
    fn of(deployment: &Deployment) -> Result<Self> {
        let spec = deployment.spec.as_ref().context("a Deployment without spec")?;
        let pod = spec.template.spec.as_ref().context("a template without spec")?;
        let variables = pod
            .containers
            .iter()
            .flat_map(|container| container.env.iter().flatten());
        let variable = variables
            .filter(|variable| variable.name == "CATTLE_CREDENTIAL_NAME")
            .find_map(|variable| variable.value.clone());
        Ok(Self {
            secret: secret_of(pod),
            variable,
            settings: (
                spec.min_ready_seconds.unwrap_or(0),
                spec.progress_deadline_seconds.unwrap_or(600),
            ),
            spec: serde_json::to_value(spec)?,
        })
    }
}

impl Lock {
    fn of(lease: &Lease) -> Self {
        let notes = lease.metadata.annotations.clone().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            journal: notes.get(JOURNAL).and_then(|text| serde_json::from_str(text).ok()),
            result: notes.get("kubectl-rotation.github.io/last-result").cloned(),
        }
    }
}

/// Kubernetes keeps the object of a pod for a moment after its containers have ended.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn mounted(pod: &Pod) -> String {
    pod.spec.as_ref().map(secret_of).unwrap_or_default()
}

fn secret_of(pod: &k8s_openapi::api::core::v1::PodSpec) -> String {
    let volumes = pod.volumes.iter().flatten();
    volumes
        .filter(|volume| volume.name == "cattle-credentials")
        .find_map(|volume| volume.secret.as_ref()?.secret_name.clone())
        .unwrap_or_default()
}

fn text(data: &BTreeMap<String, ByteString>, key: &str) -> String {
    data.get(key)
        .map(|value| String::from_utf8_lossy(&value.0).into_owned())
        .unwrap_or_default()
}

/// Which registration tokens a rotation was to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    All,
    /// Only that of the agent.
    OnlyAgent,
}

/// Everything that is not as it must be; empty when all is well.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Vec<String>);

impl Complaints {
    fn unless(&mut self, holds: bool, complaint: impl FnOnce() -> String) {
        if !holds {
            self.0.push(complaint());
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, is: &T, should: &T) {
        self.unless(is == should, || format!("{what}: {is:?}, should be {should:?}"));
    }

    fn none<T: std::fmt::Debug>(&mut self, what: &str, found: &[T]) {
        self.unless(found.is_empty(), || format!("{what}: {found:?}"));
    }

    /// Fails with all of them, and with what the look showed.
    pub(crate) fn check(self, state: &State) -> Result<()> {
        ensure!(self.0.is_empty(), "{}\nin {state:#?}", self.0.join("\n"));
        Ok(())
    }
}

/// The cluster was rotated: what it started with is dead, what it has now is new, and nothing else is left.
///
/// The objects are looked at as they are at this moment; Rancher's own view of tunnels may lag by a second.
pub(crate) async fn rotated(story: &Story, start: &State, scope: Scope) -> Result<State> {
    let state = rancher_sees(story, |state| state.named().to_owned()).await?;
    let mut complaints = Complaints::default();
    let c = &mut complaints;
    for (name, value) in &start.tokens {
        let changes = name == "system" || scope == Scope::All;
        let now = state.tokens.get(name);
        c.unless(now.is_some_and(|now| (now != value) == changes), || {
            format!("token {name}: {now:?} after {value}")
        });
        let dead = !state.report.accepted.contains(value);
        c.unless(dead == changes, || {
            format!("old value {value} of {name}, accepted: {}", !dead)
        });
    }
    let old_names: Vec<_> = start.tokens.keys().collect();
    c.same("registration tokens", &state.tokens.keys().collect(), &old_names);
    c.unless(
        state.report.accepted.iter().any(|token| token == state.system()),
        || format!("new value {} is not accepted", state.system()),
    );
    c.same("the agent's token", &state.named(), &state.system());
    c.same("the Secret's name", &state.deployment.secret, &state.by_formula);
    nothing_left(c, &state);
    never_without_a_way_back(c, &state);
    let result = state.lease.as_ref().and_then(|lease| lease.result.as_deref());
    c.same("last result", &result, &Some("rotated"));
    complaints.check(&state)?;
    Ok(state)
}

/// The cluster is what it was at the start: all old values alive, no other one, the agent on the old one.
pub(crate) async fn restored(story: &Story, start: &State, new: Option<&str>) -> Result<State> {
    let state = rancher_sees(story, |_| start.named().to_owned()).await?;
    let mut complaints = Complaints::default();
    let c = &mut complaints;
    c.same("registration tokens", &state.tokens, &start.tokens);
    c.same(
        "accepted",
        &sorted(&state.report.accepted),
        &sorted(&start.report.accepted),
    );
    if let Some(new) = new {
        c.unless(!state.report.accepted.iter().any(|token| token == new), || {
            format!("the new token {new} is accepted still")
        });
    }
    let named = |state: &State| (state.deployment.secret.clone(), state.deployment.variable.clone());
    c.same("the Secret of the agent", &named(&state), &named(start));
    c.same("credential Secrets", &state.credentials, &start.credentials);
    nothing_left(c, &state);
    never_without_a_way_back(c, &state);
    complaints.check(&state)?;
    Ok(state)
}

/// Nothing of a run is left behind, and the agent's Deployment is rolled out as it is meant to be.
fn nothing_left(c: &mut Complaints, state: &State) {
    c.none("bridges", &state.bridges);
    c.none("graces", &state.graces.iter().collect::<Vec<_>>());
    c.same("credential Secrets", &state.credentials.len(), &1);
    c.same("roll-out settings", &state.deployment.settings, &(0, 600));
    if let Some(variable) = &state.deployment.variable {
        c.same("CATTLE_CREDENTIAL_NAME", variable, &state.deployment.secret);
    }
    let named = &state.deployment.secret;
    c.same("Secrets of the pods", &state.pods.values().collect(), &vec![named]);
    c.same("stv-aggregation", &state.connected.as_deref(), &Some(state.named()));
    if let Some(lease) = &state.lease {
        c.same("holder of the Lease", &lease.holder.as_deref(), &None);
        c.unless(lease.journal.is_none(), || format!("a journal is left: {lease:?}"));
    }
}

fn never_without_a_way_back(c: &mut Complaints, state: &State) {
    let without = &state.report.without;
    c.none("without a way back", &without.way_back);
    c.none("without restart safety", &without.restart_safety);
    c.none("without a tunnel", &without.tunnel);
    // The steve tunnel of a pod is opened anew whenever another agent connects, and the condition follows it.
    let long = |interval: &&Interval| interval.ms > AGENTS_RESTART.as_millis() as u64;
    c.none(
        "without a steve tunnel",
        &without.steve.iter().filter(long).collect::<Vec<_>>(),
    );
}

/// An agent needs no longer to come up and connect (the stand-in's `agentStart` and `agentRetry`), with room for a busy
/// machine.
const AGENTS_RESTART: Duration = Duration::from_secs(20);

/// Waits until Rancher sees nothing but the tunnels of one agent, and the cluster as connected; then looks at everything.
async fn rancher_sees(story: &Story, token: impl Fn(&State) -> String) -> Result<State> {
    let what = format!("Rancher to see one agent of cluster {}, connected", story.cluster.id);
    let seen = until(&what, async || {
        let report = story.rancher.report(&story.cluster).await?;
        let condition = report.conditions.get("Connected");
        let connected = condition.is_some_and(|status| status == "True");
        let tunnels = report.sessions.len() == 2 && report.fingerprints().len() == 1;
        if !connected || !tunnels {
            return Ok(None);
        }
        // Kubernetes may take its time to end the pod whose tunnels are gone.
        let state = State::of(story).await?;
        Ok((state.pods.len() == 1).then_some(state))
    });
    let state = match seen.await {
        Ok(state) => state,
        Err(error) => {
            let state = State::of(story).await?;
            return Err(error.context(format!("{state:#?}")));
        }
    };
    let with = token(&state);
    ensure!(
        state.report.fingerprints() == [with.as_str()],
        "not connected with {with}: {state:#?}"
    );
    Ok(state)
}

fn sorted(list: &[String]) -> Vec<&str> {
    let mut list: Vec<_> = list.iter().map(String::as_str).collect();
    list.sort_unstable();
    list
}

/// Spoils a restored cluster in one way after another, and sees that each is told.
#[rstest::rstest]
#[case::plain(testbed::Era::Plain)]
#[case::secret(testbed::Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_left_behind_or_was_missing_for_a_moment_is_told(#[case] era: testbed::Era) -> Result<()> {
    let story = Story::begin(era, "oslo").await?;
    let start = State::of(&story).await?;
    restored(&story, &start, None).await?;
    let told = async |what: &str| -> Result<()> {
        let error = restored(&story, &start, None).await.err();
        let error = error.with_context(|| format!("{what}: nothing was told"))?.to_string();
        ensure!(error.contains(what), "{what}: {error}");
        Ok(())
    };
    let unrotated = rotated(&story, &start, Scope::All)
        .await
        .err()
        .context("taken for a rotated one")?;
    let unrotated = unrotated.to_string();
    for what in ["token system: ", "token default-token: ", "old value ", "last result: "] {
        ensure!(unrotated.contains(what), "{what}: {unrotated}");
    }

    let (id, token) = (story.cluster.id.as_str(), start.named().to_owned());
    let below = ["--context", id, "-n", "cattle-system"];
    let above = ["--context", "management", "-n", id];
    let by_hand =
        async |side: &[&str], words: &[&str]| story.desk.kubectl(side.iter().chain(words)).run().await?.expect(0);
    let began = std::time::Instant::now();
    story.rancher.fault(&serde_json::json!({ "refuse": [token] })).await?;
    until("the refusal to be noted", async || {
        // Rancher's stand-in looks when something changes.
        let now = format!("seen={}", began.elapsed().as_millis());
        by_hand(
            &below,
            &["annotate", "--overwrite", "deployment", "cattle-cluster-agent", &now],
        )
        .await?;
        let without = story.rancher.report(&story.cluster).await?.without;
        Ok((!without.way_back.is_empty() && !without.restart_safety.is_empty()).then_some(()))
    })
    .await?;
    story.rancher.fault(&serde_json::json!({ "admit": [token] })).await?;
    told("without a way back: ").await?;
    told("without restart safety: ").await?;
    story.rancher.reset(&story.cluster).await?;

    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("{CREDENTIALS}0123456789") },
    });
    let create = below.iter().chain(&["create", "-f", "-"]);
    story
        .desk
        .kubectl(create)
        .stdin(secret.to_string())
        .run()
        .await?
        .expect(0)?;
    told("credential Secrets: 2").await?;
    let hold = r#"{"spec":{"progressDeadlineSeconds":3600}}"#;
    by_hand(&below, &["patch", "deployment", "cattle-cluster-agent", "-p", hold]).await?;
    told("roll-out settings: (0, 3600)").await?;
    let lease = serde_json::json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "kubectl-crt", "annotations": { JOURNAL: "{}" } }, "spec": { "holderIdentity": "me" },
    });
    let create = above.iter().chain(&["create", "-f", "-"]);
    story
        .desk
        .kubectl(create)
        .stdin(lease.to_string())
        .run()
        .await?
        .expect(0)?;
    told("holder of the Lease: ").await?;
    told("a journal is left: ").await?;
    let kind = "clusterregistrationtokens.management.cattle.io";
    by_hand(
        &above,
        &["label", kind, "default-token", "kubectl-rotation.github.io/bridge=true"],
    )
    .await?;
    told("bridges: [\"default-token\"]").await
}
