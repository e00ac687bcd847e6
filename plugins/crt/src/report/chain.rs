//! The chain from the cluster to its tunnels, link by link: what is well, what is not, in one plain sentence each.
//!
//! Pure: from [`Evidence`] to [`Link`]s. `status` shows all of them, `verify` those that are proofs.

use std::fmt::Write as _;

use client::secret::{Fingerprint, Secret};
use rancher::ClusterId;
use rancher::agent::{Deployment, Pod, StvAggregation};
use rancher::cluster::ConditionStatus;
use rancher::token_storage::TokenStorage;
use rancher::probe::ProbeResult;
use rancher::token::{SYSTEM, Tokens};
use serde::Serialize;

use super::evidence::{self, Evidence, Gap, Seen};

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Well, but it stands in the way of a rotation.
    Caution,
    /// It could not be seen.
    Unknown,
    /// There is no way to try, and that is no fault.
    Skipped,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// One word for it.
    pub name: &'static str,
    /// How it stands.
    pub status: Standing,
    /// What was seen, in a sentence.
    pub message: String,
}

impl Link {
    fn new(name: &'static str, good: bool, message: impl Into<String>) -> Self {
        let status = if good { Standing::Good } else { Standing::Bad };
        Self {
            name,
            status,
            message: message.into(),
        }
    }

    fn unknown(name: &'static str, gap: &Gap) -> Self {
        Self {
            name,
            status: Standing::Unknown,
            message: gap.0.clone(),
        }
    }
}

/// The whole chain: cluster → agent → Secret → token → what Rancher deploys, and to where → who else writes → tunnels → a call.
pub fn chain(evidence: &Evidence) -> Vec<Link> {
    let mut links = vec![
        cluster(evidence),
        agent(&evidence.deployment),
        secret(evidence),
        pods(evidence),
    ];
    links.extend([
        token(evidence),
        accepted(evidence),
        deployed(evidence),
        address(evidence),
        owner(evidence),
        tunnels(evidence),
        call(evidence),
    ]);
    links
}

/// The proofs that the agent runs with one token and that this token is alive.
pub fn proofs(evidence: &Evidence) -> Vec<Link> {
    vec![
        secret(evidence),
        pods(evidence),
        tunnels(evidence),
        accepted(evidence),
        call(evidence),
    ]
}

/// Whether every proof that could be tried holds.
pub fn is_proven(proofs: &[Link]) -> bool {
    proofs
        .iter()
        .all(|link| matches!(link.status, Standing::Good | Standing::Skipped))
}

fn cluster(evidence: &Evidence) -> Link {
    let cluster = &evidence.cluster;
    let mut text = format!("{} is of kind {}", cluster.id, cluster.kind);
    let well = match cluster.connected() {
        None => {
            text.push_str(", and no agent of it has ever connected");
            false
        }
        Some(ConditionStatus::True) => {
            text.push_str("; Rancher says that its agent is connected");
            true
        }
        Some(_) => {
            text.push_str("; Rancher says that its agent is not connected");
            false
        }
    };
    if cluster.deleting {
        text.push_str("; it is being deleted");
    }
    Link::new("cluster", well && !cluster.deleting, text)
}

fn agent(deployment: &Seen<Option<Deployment>>) -> Link {
    let name = "agent";
    match deployment {
        Err(gap) => Link::unknown(name, gap),
        Ok(None) => Link::new(name, false, "there is no Deployment cattle-system/cattle-cluster-agent"),
        Ok(Some(deployment)) => {
            let complaints = complaints(deployment);
            let mut text = format!(
                "Deployment {} has {} of {} pods available",
                deployment.object.name, deployment.available_replicas, deployment.replicas
            );
            for complaint in &complaints {
                let _ = write!(text, "; {complaint}");
            }
            Link::new(name, complaints.is_empty(), text)
        }
    }
}

fn complaints(deployment: &Deployment) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |wrong: bool, text: &str| {
        if wrong {
            found.push(text.to_owned());
        }
    };
    let held = deployment.hold.min_ready_seconds > 0;
    add(deployment.volume_secret.is_none(), "it mounts no Secret with a token");
    add(
        !deployment.is_consistent(),
        "its variable CATTLE_CREDENTIAL_NAME names another Secret than its volume",
    );
    add(deployment.paused, "it is paused");
    add(!deployment.is_rolled_out(), "its roll-out is under way");
    add(
        !deployment.opens_both_tunnels,
        "it opens only one of its two tunnels, for want of its features",
    );
    if held {
        found.push(format!(
            "its roll-out is held (minReadySeconds {})",
            deployment.hold.min_ready_seconds
        ));
    }
    if let Some(failure) = &deployment.failure {
        found.push(format!("it cannot make pods: {failure}"));
    }
    found
}

fn secret(evidence: &Evidence) -> Link {
    let name = "secret";
    let named = evidence
        .deployment
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .and_then(|it| it.volume_secret.as_deref());
    match (&evidence.credentials, named) {
        (Err(gap), _) => Link::unknown(name, gap),
        (Ok(None), None) => Link::new(name, false, "the agent's Deployment names no Secret"),
        (Ok(None), Some(named)) => Link::new(
            name,
            false,
            format!("Secret {named} is gone: a new pod of the agent could not start"),
        ),
        (Ok(Some(found)), _) => match &found.token {
            None => Link::new(name, false, format!("Secret {} holds no token", found.object.name)),
            Some(token) => {
                let mut text = format!("Secret {} holds {}", found.object.name, token.fingerprint());
                if found.formula().is_none() {
                    text.push_str("; its name is not the one that Rancher would give it");
                }
                for problem in &found.problems {
                    let _ = write!(text, "; {problem}");
                }
                Link::new(name, found.problems.is_empty(), text)
            }
        },
    }
}

fn pods(evidence: &Evidence) -> Link {
    let name = "pods";
    let all = match &evidence.pods {
        Err(gap) => return Link::unknown(name, gap),
        Ok(pods) => pods,
    };
    let named = evidence
        .credentials
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .map(|found| found.object.name.as_str());
    let pods: Vec<&Pod> = all.iter().filter(|pod| !pod.finished).collect();
    let elsewhere = pods.iter().filter(|pod| pod.secret.as_deref() != named).count();
    let ready = pods.iter().filter(|pod| pod.ready && !pod.terminating).count();
    let mut text = format!("{ready} of {} pods of the agent run", pods.len());
    if elsewhere > 0 {
        let _ = write!(text, "; {elsewhere} of them with another Secret");
    }
    for pod in &pods {
        if let Some(why) = &pod.waiting {
            let _ = write!(text, "; {} waits: {why}", pod.name);
        }
        if pod.terminating {
            let _ = write!(text, "; {} is ending", pod.name);
        }
    }
    Link::new(name, ready > 0 && ready == pods.len() && elsewhere == 0, text)
}

fn token(evidence: &Evidence) -> Link {
    let name = "token";
    let (tokens, value) = match (&evidence.tokens, evidence.token()) {
        (Err(gap), _) => return Link::unknown(name, gap),
        (Ok(_), None) => return Link::unknown(name, &Gap("the agent's token is not known".to_owned())),
        (Ok(tokens), Some(value)) => (tokens, value),
    };
    let (current, previous) = holders(tokens, value);
    if !current.is_empty() {
        return Link::new(
            name,
            true,
            format!("{value} is the value of registration token {}", current.join(", ")),
        );
    }
    if !previous.is_empty() {
        let text = format!(
            "{value} is the previous value of registration token {}",
            previous.join(", ")
        );
        return Link::new(
            name,
            false,
            format!("{text}, and stops being accepted when its grace ends"),
        );
    }
    if tokens.tokens.iter().any(|token| token.value.is_err()) || tokens.orphans_unknown {
        let text = format!("whose value {value} is cannot be told: not all registration tokens may be read");
        return Link::unknown(name, &Gap(text));
    }
    Link::new(
        name,
        false,
        format!("{value} is the value of no registration token of this cluster"),
    )
}

/// The names of the tokens that hold a value now, and of those that held it before.
fn holders(tokens: &Tokens, value: Fingerprint) -> (Vec<&str>, Vec<&str>) {
    let is = |held: Option<&Secret>| held.is_some_and(|held| held.fingerprint() == value);
    let named = |previous: bool| {
        let of_tokens = tokens
            .tokens
            .iter()
            .filter(move |token| is(if previous { token.previous() } else { token.current() }))
            .map(|token| token.object.name.as_str());
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
            .map(|secret| secret.object.name.as_str());
        of_tokens.chain(of_orphans).collect()
    };
    (named(false), named(true))
}

fn accepted(evidence: &Evidence) -> Link {
    let name = "accepted";
    match (&evidence.result, evidence.token()) {
        (Err(gap), _) => Link::unknown(name, gap),
        (Ok(_), None) => Link::unknown(name, &Gap("the agent's token is not known".to_owned())),
        (Ok(result), Some(value)) => asked(name, result, value, Some(&evidence.cluster.id)),
    }
}

/// What Rancher says of a token, as a link. `of` is the cluster that it should belong to.
pub fn asked(name: &'static str, result: &ProbeResult, value: Fingerprint, of: Option<&ClusterId>) -> Link {
    match result {
        ProbeResult::Accepted { cluster: Some(cluster) } if of.is_some_and(|wanted| wanted != cluster) => Link::new(
            name,
            false,
            format!("Rancher accepts {value}, but as a token of cluster {cluster}"),
        ),
        ProbeResult::Accepted { cluster: Some(cluster) } => Link::new(
            name,
            true,
            format!("Rancher accepts {value} as a token of cluster {cluster}"),
        ),
        ProbeResult::Accepted { cluster: None } => Link::new(name, true, format!("Rancher accepts {value}")),
        ProbeResult::Rejected => Link::new(name, false, format!("Rancher refuses {value}")),
        ProbeResult::Unknown(doubt) => Link::unknown(
            name,
            &Gap(format!("whether Rancher accepts {value} cannot be told: {doubt}")),
        ),
    }
}

/// Whether the next redeploy by Rancher would give the agent the token that it runs with.
fn deployed(evidence: &Evidence) -> Link {
    let name = "deployed";
    let (tokens, value) = match (&evidence.tokens, evidence.token()) {
        (Err(gap), _) => return Link::unknown(name, gap),
        (Ok(_), None) => return Link::unknown(name, &Gap("the agent's token is not known".to_owned())),
        (Ok(tokens), Some(value)) => (tokens, value),
    };
    let system = match tokens
        .named(SYSTEM)
        .map(|token| token.value.as_ref().map(Secret::fingerprint))
    {
        None => {
            let text =
                "there is no registration token system yet: the next redeploy by Rancher makes one, with a new value";
            return Link::new(name, false, text);
        }
        Some(Err(why)) => {
            let text = format!("what Rancher would deploy cannot be told: {why}");
            return Link::unknown(name, &Gap(text));
        }
        Some(Ok(system)) => system,
    };
    if system != value {
        let text = format!(
            "Rancher would deploy {system}, the value of system, at the next redeploy; the agent runs with {value}"
        );
        return Link::new(name, false, text);
    }
    match evidence.cluster.applied_token {
        Some(applied) if evidence.era == Ok(TokenStorage::Secret) && applied != value => Link::new(
            name,
            false,
            format!("Rancher has {value} in system, and has last applied {applied}"),
        ),
        _ => Link::new(name, true, "Rancher would deploy the same token again".to_owned()),
    }
}

/// Whether the next redeploy by Rancher would leave the agent where it connects to now.
fn address(evidence: &Evidence) -> Link {
    let name = "address";
    let deployment = match &evidence.deployment {
        Err(gap) => return Link::unknown(name, gap),
        Ok(None) => return Link::unknown(name, &Gap("the agent has no Deployment".to_owned())),
        Ok(Some(deployment)) => deployment,
    };
    let Some(wanted) = evidence::pushed_address(&evidence.settings) else {
        return Link::unknown(name, &Gap("Rancher's setting server-url is not known".to_owned()));
    };
    let secret = evidence.credentials.as_ref().ok().and_then(Option::as_ref);
    let unpushed = evidence::unpushed_address(deployment, secret, &evidence.settings, wanted);
    let as_set = || {
        let url = deployment.server_url.as_deref().unwrap_or_default();
        format!("the agent connects to {url}, as Rancher's settings say")
    };
    let changes = unpushed.map(|what| format!("{what}; the next redeploy by Rancher changes that"));
    Link::new(name, changes.is_none(), changes.unwrap_or_else(as_set))
}

/// What else writes the objects that a rotation changes.
fn owner(evidence: &Evidence) -> Link {
    let name = "owner";
    match &evidence.owned {
        Err(gap) => Link::unknown(name, gap),
        Ok(owned) if owned.is_empty() => Link::new(
            name,
            true,
            "nothing but Rancher manages the agent and its registration token",
        ),
        Ok(owned) => {
            let owned: Vec<_> = owned.iter().map(ToString::to_string).collect();
            Link {
                name,
                status: Standing::Caution,
                message: format!("{}, which would undo a rotation", owned.join("; ")),
            }
        }
    }
}

fn tunnels(evidence: &Evidence) -> Link {
    let name = "tunnels";
    match (&evidence.record, evidence.token()) {
        (Err(gap), _) => Link::unknown(name, gap),
        (Ok(None), _) => Link::new(
            name,
            false,
            "no agent has ever connected: there is no Secret stv-aggregation",
        ),
        (Ok(Some(record)), value) => recorded(name, record, value),
    }
}

fn recorded(name: &'static str, record: &StvAggregation, value: Option<Fingerprint>) -> Link {
    let print = |token: Option<Fingerprint>| token.map_or_else(|| "no token".to_owned(), |token| token.to_string());
    let (connected, second) = (print(record.token), print(record.tunnel_token));
    let mut text = if connected == second {
        format!("the agent that connected last did so with {connected}, and opens its second tunnel with it")
    } else {
        format!("the agent that connected last did so with {connected}, but the second tunnel is opened with {second}")
    };
    let Some(value) = value else {
        return Link::unknown(name, &Gap(format!("{text}; what its Deployment gives it is not known")));
    };
    if !record.names(value) {
        let _ = write!(text, "; its Deployment gives it {value}");
    }
    Link::new(name, record.names(value), text)
}

fn call(evidence: &Evidence) -> Link {
    let name = "call";
    match &evidence.call {
        None => Link {
            name,
            status: Standing::Skipped,
            message: "a call through Rancher was not tried: --context has no identity that Rancher knows".to_owned(),
        },
        Some(Ok(version)) => Link::new(
            name,
            true,
            format!("a fresh call through Rancher was answered (Kubernetes {version})"),
        ),
        Some(Err(gap)) => Link::new(name, false, format!("a fresh call through Rancher failed: {}", gap.0)),
    }
}

#[cfg(test)]
mod tests;
