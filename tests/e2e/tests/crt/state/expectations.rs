//! What must hold after a rotation and after a rollback.

use std::time::Duration;

use super::{CREDENTIALS, JOURNAL, State};
use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, until};
use test_cluster::Interval;

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
pub(crate) async fn rotated(fixture: &RancherFixture, start: &State, scope: Scope) -> Result<State> {
    let state = rancher_sees(fixture, |state| state.named().to_owned()).await?;
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
pub(crate) async fn restored(fixture: &RancherFixture, start: &State, new: Option<&str>) -> Result<State> {
    let state = rancher_sees(fixture, |_| start.named().to_owned()).await?;
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
async fn rancher_sees(fixture: &RancherFixture, token: impl Fn(&State) -> String) -> Result<State> {
    let what = format!("Rancher to see one agent of cluster {}, connected", fixture.cluster.id);
    let seen = until(&what, async || {
        let report = fixture.rancher.report(&fixture.cluster).await?;
        let condition = report.conditions.get("Connected");
        let connected = condition.is_some_and(|status| status == "True");
        let tunnels = report.sessions.len() == 2 && report.fingerprints().len() == 1;
        if !connected || !tunnels {
            return Ok(None);
        }
        // Kubernetes may take its time to end the pod whose tunnels are gone.
        let state = State::of(fixture).await?;
        Ok((state.pods.len() == 1).then_some(state))
    });
    let state = match seen.await {
        Ok(state) => state,
        Err(error) => {
            let state = State::of(fixture).await?;
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
#[case::plain(test_cluster::TokenStorage::Status)]
#[case::secret(test_cluster::TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_and_interruptions_are_reported(#[case] storage: test_cluster::TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let start = State::of(&fixture).await?;
    restored(&fixture, &start, None).await?;
    let told = async |what: &str| -> Result<()> {
        let error = restored(&fixture, &start, None).await.err();
        let error = error.with_context(|| format!("{what}: nothing was told"))?.to_string();
        ensure!(error.contains(what), "{what}: {error}");
        Ok(())
    };
    let unrotated = rotated(&fixture, &start, Scope::All)
        .await
        .err()
        .context("taken for a rotated one")?;
    let unrotated = unrotated.to_string();
    for what in ["token system: ", "token default-token: ", "old value ", "last result: "] {
        ensure!(unrotated.contains(what), "{what}: {unrotated}");
    }

    let (id, token) = (fixture.cluster.id.as_str(), start.named().to_owned());
    let below = ["--context", id, "-n", "cattle-system"];
    let above = ["--context", "management", "-n", id];
    let by_hand =
        async |side: &[&str], words: &[&str]| fixture.shell.kubectl(side.iter().chain(words)).run().await?.expect(0);
    let began = std::time::Instant::now();
    fixture.rancher.fault(&serde_json::json!({ "refuse": [token] })).await?;
    until("the refusal to be noted", async || {
        // Rancher's stand-in looks when something changes.
        let now = format!("seen={}", began.elapsed().as_millis());
        by_hand(
            &below,
            &["annotate", "--overwrite", "deployment", "cattle-cluster-agent", &now],
        )
        .await?;
        let without = fixture.rancher.report(&fixture.cluster).await?.without;
        Ok((!without.way_back.is_empty() && !without.restart_safety.is_empty()).then_some(()))
    })
    .await?;
    fixture.rancher.fault(&serde_json::json!({ "admit": [token] })).await?;
    told("without a way back: ").await?;
    told("without restart safety: ").await?;
    fixture.rancher.reset(&fixture.cluster).await?;

    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("{CREDENTIALS}0123456789") },
    });
    let create = below.iter().chain(&["create", "-f", "-"]);
    fixture
        .shell
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
    fixture
        .shell
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
