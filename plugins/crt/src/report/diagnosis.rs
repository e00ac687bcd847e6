//! The diagnosis of a cluster's registration: one check for each part, each with one sentence.
//!
//! Pure: from [`DiagnosisInputs`] to [`CheckResult`]s. `status` shows all of them, `verify` those that are proofs.

use std::fmt::Write as _;

use cli::ui::{Stream, Tone, Ui};
use client::redact::without_user_info;
use client::sanitize;
use client::secret::{Fingerprint, Secret};
use rancher::agent::{Deployment, Pod, StvAggregation};
use rancher::cluster::{ClusterKind, ConditionStatus};
use rancher::probe::ProbeResult;
use rancher::token::{RegistrationToken, SYSTEM, Tokens};
use rancher::{ClusterId, TokenStorage};
use serde::Serialize;

use super::inputs::{self, Collected, DiagnosisInputs, Unavailable};

/// The status of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckStatus {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// As it should be, but it prevents a rotation.
    Warning,
    /// The inputs could not be read.
    Unknown,
    /// It could not be tried, which is no fault.
    Skipped,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CheckResult {
    /// The name of the check, one word.
    pub(crate) name: &'static str,
    /// Its status.
    pub(crate) status: CheckStatus,
    /// What was found, in a sentence.
    pub(crate) message: String,
}

impl CheckResult {
    fn new(name: &'static str, passed: bool, message: impl Into<String>) -> Self {
        let status = if passed {
            CheckStatus::Passed
        } else {
            CheckStatus::Failed
        };
        Self {
            name,
            status,
            message: message.into(),
        }
    }

    fn unknown(name: &'static str, why: &Unavailable) -> Self {
        Self {
            name,
            status: CheckStatus::Unknown,
            message: why.0.clone(),
        }
    }

    /// The line on a page: a symbol, the name and the message.
    pub(crate) fn line(&self, ui: &Ui) -> String {
        let (symbol, ascii, tone) = match self.status {
            CheckStatus::Passed => ("✔", "+", Tone::Good),
            CheckStatus::Failed => ("✖", "x", Tone::Bad),
            CheckStatus::Warning => ("!", "!", Tone::Caution),
            CheckStatus::Unknown => ("?", "?", Tone::Caution),
            CheckStatus::Skipped => ("–", "-", Tone::Quiet),
        };
        let symbol = if ui.terminal().utf8 { symbol } else { ascii };
        format!(
            "{} {:<10}{}",
            ui.paint(Stream::Out, tone, symbol),
            self.name,
            sanitize::cell(&self.message)
        )
    }
}

/// All checks, from the cluster to a call through its tunnel.
pub(crate) fn all(inputs: &DiagnosisInputs) -> Vec<CheckResult> {
    let mut checks = vec![
        cluster(inputs),
        agent(&inputs.deployment),
        secret(inputs),
        pods(inputs),
        token(inputs),
        accepted(inputs),
        deployed(inputs),
        address(inputs),
        owner(inputs),
        tunnels(inputs),
        call(inputs),
    ];
    checks.extend(plans(inputs));
    checks.extend(storage(inputs));
    checks
}

/// The checks that prove that the agent uses one token and that Rancher accepts it.
pub(crate) fn proofs(inputs: &DiagnosisInputs) -> Vec<CheckResult> {
    vec![
        secret(inputs),
        pods(inputs),
        tunnels(inputs),
        accepted(inputs),
        call(inputs),
    ]
}

/// Whether every check that could be tried has passed.
pub(crate) fn is_proven(proofs: &[CheckResult]) -> bool {
    proofs
        .iter()
        .all(|check| matches!(check.status, CheckStatus::Passed | CheckStatus::Skipped))
}

fn cluster(inputs: &DiagnosisInputs) -> CheckResult {
    let cluster = &inputs.cluster;
    let (connected, agent) = match cluster.connected() {
        None => (false, "no agent has ever connected"),
        Some(ConditionStatus::True) => (true, "Rancher reports its agent as connected"),
        Some(_) => (false, "Rancher reports its agent as not connected"),
    };
    let deleting = if cluster.deleting {
        "; the cluster is being deleted"
    } else {
        ""
    };
    let text = format!("kind {}; {agent}{deleting}", cluster.kind);
    CheckResult::new("cluster", connected && !cluster.deleting, text)
}

fn agent(deployment: &Collected<Option<Deployment>>) -> CheckResult {
    let name = "agent";
    match deployment {
        Err(why) => CheckResult::unknown(name, why),
        Ok(None) => CheckResult::new(name, false, "Deployment cattle-system/cattle-cluster-agent not found"),
        Ok(Some(deployment)) => {
            let problems = problems(deployment);
            let mut text = format!(
                "Deployment {} has {} of {} pods available",
                deployment.object.name, deployment.available_replicas, deployment.replicas
            );
            for problem in &problems {
                let _ = write!(text, "; {problem}");
            }
            CheckResult::new(name, problems.is_empty(), text)
        }
    }
}

fn problems(deployment: &Deployment) -> Vec<String> {
    let min_ready_seconds = deployment.rollout.min_ready_seconds;
    let all = [
        (
            deployment.volume_secret.is_none(),
            "it mounts no Secret with a token".to_owned(),
        ),
        (
            !deployment.is_consistent(),
            "its variable CATTLE_CREDENTIAL_NAME names another Secret than its volume".to_owned(),
        ),
        (deployment.paused, "it is paused".to_owned()),
        (!deployment.is_rolled_out(), "its rollout is in progress".to_owned()),
        (
            !deployment.opens_both_tunnels,
            "it opens only one of its two tunnels, without the feature multi-cluster-management-agent".to_owned(),
        ),
        (
            min_ready_seconds > 0,
            format!("its rollout is held (minReadySeconds {min_ready_seconds})"),
        ),
        (
            deployment.failure.is_some(),
            format!(
                "it cannot create pods: {}",
                deployment.failure.as_deref().unwrap_or_default()
            ),
        ),
    ];
    let found = all.into_iter().filter(|(is_problem, _)| *is_problem);
    found.map(|(_, problem)| problem).collect()
}

fn secret(inputs: &DiagnosisInputs) -> CheckResult {
    let name = "secret";
    let named = inputs
        .deployment
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .and_then(|deployment| deployment.volume_secret.as_deref());
    match (&inputs.credentials, named) {
        (Err(why), _) => CheckResult::unknown(name, why),
        (Ok(None), None) => CheckResult::new(name, false, "the agent's Deployment names no Secret"),
        (Ok(None), Some(named)) => CheckResult::new(
            name,
            false,
            format!("Secret {named} not found: a new pod of the agent cannot start"),
        ),
        (Ok(Some(found)), _) => match &found.token {
            None => CheckResult::new(name, false, format!("Secret {} has no token", found.object.name)),
            Some(token) => {
                let mut text = format!("Secret {} has {}", found.object.name, token.fingerprint());
                if found.formula().is_none() {
                    text.push_str("; its name is not the one that Rancher would choose");
                }
                for problem in &found.problems {
                    let _ = write!(text, "; {problem}");
                }
                CheckResult::new(name, found.problems.is_empty(), text)
            }
        },
    }
}

fn pods(inputs: &DiagnosisInputs) -> CheckResult {
    let name = "pods";
    let all = match &inputs.pods {
        Err(why) => return CheckResult::unknown(name, why),
        Ok(pods) => pods,
    };
    let named = inputs
        .credentials
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .map(|found| found.object.name.as_str());
    let pods: Vec<&Pod> = all.iter().filter(|pod| !pod.finished).collect();
    let others = pods.iter().filter(|pod| pod.secret.as_deref() != named).count();
    let ready = pods.iter().filter(|pod| pod.ready && !pod.terminating).count();
    let mut text = format!("{ready} of {} agent pods ready", pods.len());
    if others > 0 {
        let _ = write!(text, "; {others} with another Secret");
    }
    for pod in &pods {
        if let Some(why) = &pod.waiting {
            let _ = write!(text, "; {} is waiting: {why}", pod.name);
        }
        if pod.terminating {
            let _ = write!(text, "; {} is terminating", pod.name);
        }
    }
    CheckResult::new(name, ready > 0 && ready == pods.len() && others == 0, text)
}

fn unknown_token(name: &'static str) -> CheckResult {
    CheckResult::unknown(name, &Unavailable("the agent's token is unknown".to_owned()))
}

fn token(inputs: &DiagnosisInputs) -> CheckResult {
    let name = "token";
    let (tokens, value) = match (&inputs.tokens, inputs.token()) {
        (Err(why), _) => return CheckResult::unknown(name, why),
        (Ok(_), None) => return unknown_token(name),
        (Ok(tokens), Some(value)) => (tokens, value),
    };
    let (current, previous) = holders(tokens, value);
    if !current.is_empty() {
        return CheckResult::new(
            name,
            true,
            format!("{value} is the value of registration token {}", current.join(", ")),
        );
    }
    if !previous.is_empty() {
        let text = format!(
            "{value} is the previous value of registration token {}, which Rancher rejects after the grace period",
            previous.join(", ")
        );
        return CheckResult::new(name, false, text);
    }
    if tokens.tokens.iter().any(|token| token.value.is_err()) || tokens.orphans_unknown {
        let text = format!("cannot find {value}: not all registration tokens can be read");
        return CheckResult::unknown(name, &Unavailable(text));
    }
    CheckResult::new(
        name,
        false,
        format!("{value} is not the value of any registration token of this cluster"),
    )
}

/// The names of the tokens that have a value now, and of those that had it before.
fn holders(tokens: &Tokens, value: Fingerprint) -> (Vec<String>, Vec<String>) {
    let is = |held: Option<&Secret>| held.is_some_and(|held| held.fingerprint() == value);
    let named = |previous: bool| {
        let of_tokens = tokens
            .tokens
            .iter()
            .filter(move |token| is(if previous { token.previous() } else { token.current() }))
            .map(|token| &token.object.name);
        let of_orphans = tokens
            .orphans
            .iter()
            .filter(move |secret| {
                is(if previous {
                    secret.previous.as_ref()
                } else {
                    secret.current.as_ref()
                })
            })
            .map(|secret| &secret.object.name);
        of_tokens.chain(of_orphans).map(|name| format!("{name:?}")).collect()
    };
    (named(false), named(true))
}

fn accepted(inputs: &DiagnosisInputs) -> CheckResult {
    match (&inputs.probe, inputs.token()) {
        (Err(why), _) => CheckResult::unknown("accepted", why),
        (Ok(_), None) => unknown_token("accepted"),
        (Ok(result), Some(value)) => acceptance(result, value, Some(&inputs.cluster.id)),
    }
}

/// Whether Rancher accepts a token. `of` is the cluster that it should belong to.
pub(crate) fn acceptance(result: &ProbeResult, value: Fingerprint, of: Option<&ClusterId>) -> CheckResult {
    let name = "accepted";
    match result {
        ProbeResult::Accepted { cluster: Some(cluster) } if of.is_some_and(|wanted| wanted != cluster) => {
            CheckResult::new(
                name,
                false,
                format!("Rancher accepts {value}, but as a token of cluster {cluster}"),
            )
        }
        ProbeResult::Accepted { cluster: Some(cluster) } => CheckResult::new(
            name,
            true,
            format!("Rancher accepts {value} as a token of cluster {cluster}"),
        ),
        ProbeResult::Accepted { cluster: None } => CheckResult::new(name, true, format!("Rancher accepts {value}")),
        ProbeResult::Rejected => CheckResult::new(name, false, format!("Rancher rejects {value}")),
        ProbeResult::Unknown(reason) => {
            let text = format!("cannot tell whether Rancher accepts {value}: {reason}");
            CheckResult::unknown(name, &Unavailable(text))
        }
    }
}

/// Whether the next redeploy by Rancher would give the agent the token that it uses.
fn deployed(inputs: &DiagnosisInputs) -> CheckResult {
    let name = "deployed";
    let (tokens, value) = match (&inputs.tokens, inputs.token()) {
        (Err(why), _) => return CheckResult::unknown(name, why),
        (Ok(_), None) => return unknown_token(name),
        (Ok(tokens), Some(value)) => (tokens, value),
    };
    let system = tokens
        .named(SYSTEM)
        .map(|token| token.value.as_ref().map(Secret::fingerprint));
    let system = match system {
        None => {
            let text =
                "registration token \"system\" does not exist yet: Rancher's next redeploy creates it with a new value";
            return CheckResult::new(name, false, text);
        }
        Some(Err(why)) => {
            let text = format!("cannot tell which token Rancher would deploy: {why}");
            return CheckResult::unknown(name, &Unavailable(text));
        }
        Some(Ok(system)) => system,
    };
    if system != value {
        let text =
            format!("Rancher's next redeploy replaces {value} by {system}, the value of registration token \"system\"");
        return CheckResult::new(name, false, text);
    }
    // Its nodes deploy the agent too, with the first token by name.
    let first = tokens.tokens.iter().min_by_key(|token| &token.object.name);
    let first = first.filter(|_| inputs.cluster.kind == ClusterKind::Provisioned);
    if let Some(RegistrationToken {
        object,
        value: of_first,
        ..
    }) = first
        && of_first.as_ref().map(Secret::fingerprint) != Ok(value)
    {
        let by_name = format!("registration token {:?}, the first by name", object.name);
        return match of_first {
            // That is so from the first deployment on, and both are valid.
            Ok(other) => CheckResult {
                name,
                status: CheckStatus::Warning,
                message: format!(
                    "Rancher's next redeploy keeps this token, and the cluster's nodes replace it by {}, the value of {by_name}",
                    other.fingerprint()
                ),
            },
            Err(why) => {
                let text =
                    format!("cannot tell what the cluster's nodes deploy, which is the value of {by_name}: {why}");
                CheckResult::unknown(name, &Unavailable(text))
            }
        };
    }
    match inputs.cluster.applied_token {
        Some(applied) if inputs.storage == Ok(TokenStorage::Secret) && applied != value => CheckResult::new(
            name,
            false,
            format!("registration token \"system\" has {value}, but Rancher applied {applied} last"),
        ),
        _ => CheckResult::new(name, true, "Rancher's next redeploy keeps this token"),
    }
}

/// Tokens with a value in their status, and Secrets beside them.
fn storage(inputs: &DiagnosisInputs) -> Option<CheckResult> {
    let tokens = inputs.tokens.as_ref().ok()?;
    let has_feature = inputs.storage == Ok(TokenStorage::Secret);
    let mixed = TokenStorage::of(has_feature, &tokens.tokens).err()?;
    let left = tokens.tokens.iter().filter(|token| token.secret_name.is_none());
    let left: Vec<&str> = left
        .filter_map(|token| Some(token.secret.as_ref()?.object.name.as_str()))
        .collect();
    let left = match left.as_slice() {
        [] => String::new(),
        names => format!("; no token names these Secrets: {}", names.join(", ")),
    };
    Some(CheckResult {
        name: "storage",
        status: CheckStatus::Warning,
        message: format!("{mixed}{left}"),
    })
}

/// Whether every control-plane machine has applied its plan. RKE2 and K3s apply the file of an older one at each start of the server.
fn plans(inputs: &DiagnosisInputs) -> Option<CheckResult> {
    let name = "plans";
    if inputs.cluster.kind != ClusterKind::Provisioned {
        return None;
    }
    let plans = match &inputs.plans {
        Ok(plans) => plans,
        Err(why) => return Some(CheckResult::unknown(name, why)),
    };
    let stale: Vec<String> = plans
        .iter()
        .filter(|(_, plan)| !plan.is_applied)
        .map(|(machine, plan)| match plan.fingerprints().1 {
            Some(applied) => format!("{machine} (it deploys {applied})"),
            None => machine.clone(),
        })
        .collect();
    Some(if stale.is_empty() {
        let count = plans.len();
        let machines = if count == 1 { "machine has" } else { "machines have" };
        CheckResult::new(
            name,
            count > 0,
            format!("{count} control-plane {machines} applied the last plan"),
        )
    } else {
        CheckResult::new(
            name,
            false,
            format!("not every machine has applied its plan: {}", stale.join(", ")),
        )
    })
}

/// Whether the next redeploy by Rancher would keep the address that the agent connects to.
fn address(inputs: &DiagnosisInputs) -> CheckResult {
    let name = "address";
    let deployment = match &inputs.deployment {
        Err(why) => return CheckResult::unknown(name, why),
        Ok(None) => return CheckResult::unknown(name, &Unavailable("the agent has no Deployment".to_owned())),
        Ok(Some(deployment)) => deployment,
    };
    let Some(wanted) = inputs::pushed_address(&inputs.settings) else {
        return CheckResult::unknown(name, &Unavailable("Rancher's setting server-url is unknown".to_owned()));
    };
    let secret = inputs.credentials.as_ref().ok().and_then(Option::as_ref);
    if let Some(difference) = inputs::unpushed_address(deployment, secret, &inputs.settings, wanted) {
        let message = format!("{difference}; Rancher's next redeploy changes that");
        return CheckResult::new(name, false, message);
    }
    let url = without_user_info(deployment.server_url.as_deref().unwrap_or_default());
    CheckResult::new(
        name,
        true,
        format!("the agent connects to {url}, as in Rancher's settings"),
    )
}

/// What else writes the objects that a rotation changes.
fn owner(inputs: &DiagnosisInputs) -> CheckResult {
    let name = "owner";
    match &inputs.owned {
        Err(why) => CheckResult::unknown(name, why),
        Ok(owned) if owned.is_empty() => {
            CheckResult::new(name, true, "only Rancher manages the agent and its registration token")
        }
        Ok(owned) => {
            let owned: Vec<_> = owned.iter().map(ToString::to_string).collect();
            CheckResult {
                name,
                status: CheckStatus::Warning,
                message: format!("{}, which would revert a rotation", owned.join("; ")),
            }
        }
    }
}

fn tunnels(inputs: &DiagnosisInputs) -> CheckResult {
    let name = "tunnels";
    match (&inputs.record, inputs.token()) {
        (Err(why), _) => CheckResult::unknown(name, why),
        (Ok(None), _) => CheckResult::new(
            name,
            false,
            "no agent has ever connected: Secret stv-aggregation not found",
        ),
        (Ok(Some(record)), value) => recorded(name, record, value),
    }
}

fn recorded(name: &'static str, record: &StvAggregation, value: Option<Fingerprint>) -> CheckResult {
    let print = |token: Option<Fingerprint>| token.map_or_else(|| "no token".to_owned(), |token| token.to_string());
    let (first, second) = (print(record.token), print(record.tunnel_token));
    let mut text = if first == second {
        format!("the agent that connected last uses {first} for both tunnels")
    } else {
        format!("the agent that connected last uses {first} for its first tunnel and {second} for the second")
    };
    let Some(value) = value else {
        let text = format!("{text}; the token of its Deployment is unknown");
        return CheckResult::unknown(name, &Unavailable(text));
    };
    if !record.names(value) {
        let _ = write!(text, "; its Deployment has {value}");
    }
    CheckResult::new(name, record.names(value), text)
}

fn call(inputs: &DiagnosisInputs) -> CheckResult {
    let name = "call";
    match &inputs.call {
        None => CheckResult {
            name,
            status: CheckStatus::Skipped,
            message: "no call through Rancher: --context has no credentials of a Rancher user".to_owned(),
        },
        Some(Ok(Some(version))) => CheckResult::new(
            name,
            true,
            format!("a call through Rancher succeeded (Kubernetes {version})"),
        ),
        Some(Ok(None)) => CheckResult::new(name, true, "a call to the agent through Rancher succeeded"),
        Some(Err(why)) => CheckResult::new(name, false, format!("a call through Rancher failed: {}", why.0)),
    }
}

#[cfg(test)]
mod tests;
