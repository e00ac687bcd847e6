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

/// The differences from what must hold.
#[derive(Debug, Default)]
pub(crate) struct Differences(Vec<String>);

impl Differences {
    fn unless(&mut self, holds: bool, difference: impl FnOnce() -> String) {
        if !holds {
            self.0.push(difference());
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, is: &T, should: &T) {
        self.unless(is == should, || format!("{what}: {is:?}, should be {should:?}"));
    }

    fn none<T: std::fmt::Debug>(&mut self, what: &str, found: &[T]) {
        self.unless(found.is_empty(), || format!("{what}: {found:?}"));
    }

    /// Fails with all of them and the state.
    pub(crate) fn check(self, state: &State) -> Result<()> {
        ensure!(self.0.is_empty(), "{}\nin {state:#?}", self.0.join("\n"));
        Ok(())
    }
}

/// The cluster was rotated: the values of the start are revoked, the current ones are new, and nothing else is left.
///
/// The objects are read as they are now. Rancher's own view of tunnels may lag by a second.
pub(crate) async fn rotated(fixture: &RancherFixture, start: &State, scope: Scope) -> Result<State> {
    let state = rancher_sees(fixture, |state| state.named().to_owned()).await?;
    let mut differences = Differences::default();
    let c = &mut differences;
    for (name, value) in &start.tokens {
        let changes = name == "system" || scope == Scope::All;
        let now = state.tokens.get(name);
        c.unless(now.is_some_and(|now| (now != value) == changes), || {
            format!("token {name}: {now:?} after {value}")
        });
        let revoked = !state.report.accepted.contains(value);
        c.unless(revoked == changes, || {
            format!("old value {value} of {name}, accepted: {}", !revoked)
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
    always_with_a_valid_token(c, &state);
    let result = state.lease.as_ref().and_then(|lease| lease.result.as_deref());
    c.same("last result", &result, &Some("rotated"));
    differences.check(&state)?;
    Ok(state)
}

/// The cluster is as at the start: the old values are valid, there is no other one, and the agent uses the old one.
pub(crate) async fn restored(fixture: &RancherFixture, start: &State, new: Option<&str>) -> Result<State> {
    let state = rancher_sees(fixture, |_| start.named().to_owned()).await?;
    let mut differences = Differences::default();
    let c = &mut differences;
    c.same("registration tokens", &state.tokens, &start.tokens);
    c.same(
        "accepted",
        &sorted(&state.report.accepted),
        &sorted(&start.report.accepted),
    );
    if let Some(new) = new {
        c.unless(!state.report.accepted.iter().any(|token| token == new), || {
            format!("the new token {new} is still accepted")
        });
    }
    let named = |state: &State| (state.deployment.secret.clone(), state.deployment.variable.clone());
    c.same("the Secret of the agent", &named(&state), &named(start));
    c.same("credential Secrets", &state.credentials, &start.credentials);
    nothing_left(c, &state);
    always_with_a_valid_token(c, &state);
    differences.check(&state)?;
    Ok(state)
}

/// Nothing of a run is left behind, and the agent's Deployment is rolled out as it is meant to be.
fn nothing_left(c: &mut Differences, state: &State) {
    c.none("temporary tokens", &state.temporary);
    c.none("grace periods", &state.graces.iter().collect::<Vec<_>>());
    c.same("credential Secrets", &state.credentials.len(), &1);
    c.same("rollout settings", &state.deployment.settings, &(0, 600));
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

fn always_with_a_valid_token(c: &mut Differences, state: &State) {
    let without = &state.report.without;
    c.none("without a valid token", &without.way_back);
    c.none("without restart safety", &without.restart_safety);
    c.none("without a tunnel", &without.tunnel);
    // The steve tunnel of a pod is reopened whenever another agent connects, and the condition follows it.
    let long = |interval: &&Interval| interval.ms > AGENTS_RESTART.as_millis() as u64;
    c.none(
        "without a steve tunnel",
        &without.steve.iter().filter(long).collect::<Vec<_>>(),
    );
}

/// How long an agent takes at most to start and connect (`agentStart` and `agentRetry` of the fake Rancher), with a margin for a
/// busy machine.
const AGENTS_RESTART: Duration = Duration::from_secs(20);

/// Waits until Rancher reports only the tunnels of one agent, and the cluster as connected. Then reads everything.
async fn rancher_sees(fixture: &RancherFixture, token: impl Fn(&State) -> String) -> Result<State> {
    let what = format!(
        "Rancher to report one connected agent of cluster {}",
        fixture.cluster.id
    );
    let seen = until(&what, async || {
        let report = fixture.rancher.report(&fixture.cluster).await?;
        let condition = report.conditions.get("Connected");
        let connected = condition.is_some_and(|status| status == "True");
        let tunnels = report.sessions.len() == 2 && report.fingerprints().len() == 1;
        if !connected || !tunnels {
            return Ok(None);
        }
        // Kubernetes may take some time to delete the pod whose tunnels are closed.
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

/// Spoils a restored cluster in several ways. Each must be reported.
#[rstest::rstest]
#[case::status(test_cluster::TokenStorage::Status)]
#[case::secret(test_cluster::TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_and_interruptions_are_reported(#[case] storage: test_cluster::TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let start = State::of(&fixture).await?;
    restored(&fixture, &start, None).await?;
    let reported = async |what: &str| -> Result<()> {
        let error = restored(&fixture, &start, None).await.err();
        let error = error.with_context(|| format!("{what}: not reported"))?.to_string();
        ensure!(error.contains(what), "{what}: {error}");
        Ok(())
    };
    let unrotated = rotated(&fixture, &start, Scope::All)
        .await
        .err()
        .context("counts as rotated")?;
    let unrotated = unrotated.to_string();
    for what in ["token system: ", "token default-token: ", "old value ", "last result: "] {
        ensure!(unrotated.contains(what), "{what}: {unrotated}");
    }

    let (id, token) = (fixture.cluster.id.as_str(), start.named().to_owned());
    let downstream = ["--context", id, "-n", "cattle-system"];
    let management = ["--context", "management", "-n", id];
    let kubectl =
        async |side: &[&str], words: &[&str]| fixture.shell.kubectl(side.iter().chain(words)).run().await?.expect(0);
    let began = std::time::Instant::now();
    fixture.rancher.fault(&serde_json::json!({ "refuse": [token] })).await?;
    until("the rejection to be recorded", async || {
        // The fake Rancher checks when something changes.
        let now = format!("changed={}", began.elapsed().as_millis());
        kubectl(
            &downstream,
            &["annotate", "--overwrite", "deployment", "cattle-cluster-agent", &now],
        )
        .await?;
        let without = fixture.rancher.report(&fixture.cluster).await?.without;
        Ok((!without.way_back.is_empty() && !without.restart_safety.is_empty()).then_some(()))
    })
    .await?;
    fixture.rancher.fault(&serde_json::json!({ "admit": [token] })).await?;
    reported("without a valid token: ").await?;
    reported("without restart safety: ").await?;
    fixture.rancher.reset(&fixture.cluster).await?;

    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("{CREDENTIALS}0123456789") },
    });
    let create = downstream.iter().chain(&["create", "-f", "-"]);
    fixture
        .shell
        .kubectl(create)
        .stdin(secret.to_string())
        .run()
        .await?
        .expect(0)?;
    reported("credential Secrets: 2").await?;
    let hold = r#"{"spec":{"progressDeadlineSeconds":3600}}"#;
    kubectl(
        &downstream,
        &["patch", "deployment", "cattle-cluster-agent", "-p", hold],
    )
    .await?;
    reported("rollout settings: (0, 3600)").await?;
    let lease = serde_json::json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "kubectl-crt", "annotations": { JOURNAL: "{}" } }, "spec": { "holderIdentity": "me" },
    });
    let create = management.iter().chain(&["create", "-f", "-"]);
    fixture
        .shell
        .kubectl(create)
        .stdin(lease.to_string())
        .run()
        .await?
        .expect(0)?;
    reported("holder of the Lease: ").await?;
    reported("a journal is left: ").await?;
    let kind = "clusterregistrationtokens.management.cattle.io";
    kubectl(
        &management,
        &[
            "label",
            kind,
            "default-token",
            "kubectl-rotation.github.io/temporary=true",
        ],
    )
    .await?;
    reported("temporary tokens: [\"default-token\"]").await
}
