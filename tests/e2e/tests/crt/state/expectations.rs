//! What must hold after a rotation and after a rollback.

use std::time::Duration;

use super::{CREDENTIALS, JOURNAL, State};
use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, until};
use test_cluster::Interval;

/// The registration tokens that a rotation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    All,
    /// Only the agent's token.
    OnlyAgent,
}

/// The failed expectations. Empty if all hold.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    fn unless(&mut self, holds: bool, failure: impl FnOnce() -> String) {
        if !holds {
            self.0.push(failure());
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, is: &T, should: &T) {
        self.unless(is == should, || format!("{what}: {is:?}, should be {should:?}"));
    }

    fn none<T: std::fmt::Debug>(&mut self, what: &str, found: &[T]) {
        self.unless(found.is_empty(), || format!("{what}: {found:?}"));
    }

    /// Fails with all of them, and with the observed state.
    pub(crate) fn check(self, state: &State) -> Result<()> {
        ensure!(self.0.is_empty(), "{}\nin {state:#?}", self.0.join("\n"));
        Ok(())
    }
}

/// Checks that the cluster was rotated: the old values are revoked, the new ones are valid, and nothing else is left.
///
/// It waits for Rancher's view of the tunnels, which may lag by a second, and for nothing else.
pub(crate) async fn rotated(fixture: &RancherFixture, start: &State, scope: Scope) -> Result<State> {
    let state = rancher_sees(fixture, |state| state.named().to_owned()).await?;
    let mut failures = Failures::default();
    let c = &mut failures;
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
    never_without_a_valid_agent(c, &state);
    let result = state.lease.as_ref().and_then(|lease| lease.result.as_deref());
    c.same("last result", &result, &Some("rotated"));
    failures.check(&state)?;
    Ok(state)
}

/// Checks that the cluster is as it was at the start: only the old values are valid, and the agent runs with the old one.
pub(crate) async fn restored(fixture: &RancherFixture, start: &State, new: Option<&str>) -> Result<State> {
    let state = rancher_sees(fixture, |_| start.named().to_owned()).await?;
    let mut failures = Failures::default();
    let c = &mut failures;
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
    never_without_a_valid_agent(c, &state);
    failures.check(&state)?;
    Ok(state)
}

/// A run has left nothing behind, and the agent's Deployment has its usual rollout settings.
fn nothing_left(c: &mut Failures, state: &State) {
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

fn never_without_a_valid_agent(c: &mut Failures, state: &State) {
    let without = &state.report.without;
    c.none("without a valid token", &without.valid_token);
    c.none("without restart safety", &without.restart_safety);
    c.none("without a tunnel", &without.tunnel);
    // A pod reopens its steve tunnel whenever another agent connects, and the condition follows the tunnel.
    let long = |interval: &&Interval| interval.ms > AGENTS_RESTART.as_millis() as u64;
    c.none(
        "without a steve tunnel",
        &without.steve.iter().filter(long).collect::<Vec<_>>(),
    );
}

/// The longest time that an agent needs to start and connect (`agentStart` and `agentRetry` of the fake Rancher), on a busy
/// machine.
const AGENTS_RESTART: Duration = Duration::from_secs(20);

/// Waits until Rancher sees only the tunnels of one agent, and the cluster as connected. Returns the state.
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
        // The pod may still exist for a while after its tunnels are closed.
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

/// Changes a restored cluster in one way after another. Each change must be reported.
#[rstest::rstest]
#[case::status(test_cluster::TokenStorage::Status)]
#[case::secret(test_cluster::TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_and_interruptions_are_reported(#[case] storage: test_cluster::TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let start = State::of(&fixture).await?;
    restored(&fixture, &start, None).await?;
    let reports = async |what: &str| -> Result<()> {
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
    until("the refusal to be noted", async || {
        // The fake Rancher checks on each change.
        let now = format!("seen={}", began.elapsed().as_millis());
        kubectl(
            &downstream,
            &["annotate", "--overwrite", "deployment", "cattle-cluster-agent", &now],
        )
        .await?;
        let without = fixture.rancher.report(&fixture.cluster).await?.without;
        Ok((!without.valid_token.is_empty() && !without.restart_safety.is_empty()).then_some(()))
    })
    .await?;
    fixture.rancher.fault(&serde_json::json!({ "admit": [token] })).await?;
    reports("without a valid token: ").await?;
    reports("without restart safety: ").await?;
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
    reports("credential Secrets: 2").await?;
    let patch = r#"{"spec":{"progressDeadlineSeconds":3600}}"#;
    kubectl(
        &downstream,
        &["patch", "deployment", "cattle-cluster-agent", "-p", patch],
    )
    .await?;
    reports("rollout settings: (0, 3600)").await?;
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
    reports("holder of the Lease: ").await?;
    reports("a journal is left: ").await?;
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
    reports("temporary tokens: [\"default-token\"]").await
}
