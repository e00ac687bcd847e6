//! The preflight checks: each blocker has one sentence and a hint.

use client::access::Needed;
use client::error::Error;
use client::secret::Secret;
use engine::rotation::{Blocker, Check};
use rancher::TokenStorage;
use rancher::agent::Deployment;
use rancher::cluster::{Cluster, ClusterKind, ConditionStatus, Rendered};
use rancher::probe::ProbeResult;

use super::abstraction::{SURELY_HELD, Snapshot, Unread, of_agent};
use super::check;
use crate::connections::{Connections, DOWNSTREAM, Downstream, MANAGEMENT, Route};
use crate::report::{inputs, owners};
use crate::rights;
use crate::rotation::observed::Observed;
use crate::rotation::rescue::Rescue;

/// How to make Rancher redeploy the agent.
const REDEPLOY: &str =
    "annotate the cluster with io.cattle.agent.force.deploy=true, so that Rancher redeploys the agent";

/// Every blocker in what was read.
pub(super) fn blockers(
    connections: &Connections,
    snapshot: &Snapshot,
    seen: &Observed,
    is_rescue: bool,
) -> Vec<Blocker> {
    let mut found: Vec<Blocker> = unsupported(&snapshot.cluster)
        .into_iter()
        .chain(unconnected(&snapshot.cluster))
        .collect();
    // Rancher looks for tunnels every 15 s, and the rescue has just seen one.
    if !is_rescue {
        found.extend(connection(connections, &snapshot.cluster));
    }
    match &snapshot.deployment {
        // Its machines bring back an agent that has the new token.
        Err(Unread::Unreachable) => return found,
        Ok(deployment) => {
            found.extend(agent(connections, snapshot, deployment));
            found.extend(rollout(connections, snapshot, deployment));
        }
        Err(why) => found.extend(unread(connections, snapshot, why)),
    }
    found.extend(redeploy(connections, snapshot, seen));
    found.extend(address(connections, snapshot, seen));
    found.extend(tokens(connections, snapshot, seen));
    found
}

fn unless(check: Check, reason: impl Into<String>, hint: impl Into<String>) -> Blocker {
    Blocker::new(reason, hint).unless_forced(check.name)
}

/// Why this version does not rotate a cluster; nothing if it does.
pub(crate) fn unsupported(cluster: &Cluster) -> Option<Blocker> {
    if cluster.deleting {
        return Some(Blocker::new("it is being deleted", ""));
    }
    match &cluster.kind {
        ClusterKind::Imported | ClusterKind::Provisioned | ClusterKind::Hosted(_) | ClusterKind::Harvester => None,
        ClusterKind::Local => Some(Blocker::new(
            "it is the cluster that Rancher runs in, and has no agent",
            "no agent uses its registration tokens; on Harvester, nodes join with default-token",
        )),
        ClusterKind::Rke1 => Some(unless(
            check::UNMEASURED,
            "it is a cluster of RKE1, for which nothing was measured",
            "Rancher has no such clusters since 2.12; a custom cluster of RKE2 or K3s takes its place",
        )),
        _ => Some(Blocker::new(
            "its kind is not known: it has not been connected yet, or Rancher has a driver that this version does not know",
            "wait until Rancher shows it as active",
        )),
    }
}

/// The way to another Secret of the agent. Rancher deploys through the agent's tunnel.
fn another_secret(snapshot: &Snapshot) -> &'static str {
    if snapshot.cluster.connected() == Some(ConditionStatus::True) {
        REDEPLOY
    } else {
        "run the registration command that Rancher shows for the cluster on the downstream cluster: Rancher cannot redeploy an agent \
         that is not connected"
    }
}

/// How to bring back an agent that has lost its token.
fn rescue(connections: &Connections) -> String {
    let command = connections.commands.clone().resumed_with(Rescue::ACTION.verb).rotate();
    format!("`{command}` brings back an agent that has lost its token")
}

/// What remains of the proofs where the agent cannot be looked at must be possible.
fn unread(connections: &Connections, snapshot: &Snapshot, unread: &Unread) -> Vec<Blocker> {
    let Unread::Forbidden(error) = unread else {
        return Vec::new();
    };
    let reason = format!("cannot read the agent on {DOWNSTREAM}: {}", error.message);
    let forbidden = if snapshot.storage == TokenStorage::Secret || snapshot.provisioned.is_some() {
        unless(
            check::WEAK_PROOF,
            reason,
            "request that permission; with --force=weak-proof Rancher deploys the new token without a held rollout, and what Rancher \
             says of it is trusted",
        )
    } else {
        Blocker::new(
            reason,
            "request that permission: with token storage `status` Rancher does not deploy a new token by itself",
        )
    };
    let tunnel = (snapshot.tunnel_works != Some(true)).then(|| {
        Blocker::new(
            "the agent can neither be looked at nor called through Rancher, so nothing would prove it",
            format!(
                "request a role in cluster {}, and pass a context of Rancher with --context",
                connections.cluster.id
            ),
        )
    });
    std::iter::once(forbidden).chain(tunnel).collect()
}

/// Every blocker of a rescue in what was read. An agent that is not connected is none.
pub(super) fn of_rescue(connections: &Connections, snapshot: &Snapshot) -> Vec<Blocker> {
    let mut found: Vec<Blocker> = unsupported(&snapshot.cluster)
        .into_iter()
        .chain(unconnected(&snapshot.cluster))
        .chain(unreadable(snapshot))
        .collect();
    if let Some(deployment) = snapshot.deployment() {
        found.extend(single_tunnel(deployment));
        found.extend(paused(connections, deployment));
        found.extend(applied_by_hand(snapshot, deployment));
    }
    found
}

fn unconnected(cluster: &Cluster) -> Option<Blocker> {
    (!cluster.is("Provisioned") || cluster.pre_bootstrap())
        .then(|| Blocker::new("it has not been connected yet", "wait until Rancher shows it as active"))
}

fn connection(connections: &Connections, cluster: &Cluster) -> Option<Blocker> {
    let is_known = cluster.is("Provisioned") && !cluster.pre_bootstrap();
    (is_known && cluster.connected() != Some(ConditionStatus::True)).then(|| {
        unless(
            check::AGENT,
            "Rancher reports its agent as not connected",
            format!(
                "`{}` shows what fails; {}",
                connections.commands.status(),
                rescue(connections)
            ),
        )
    })
}

fn single_tunnel(deployment: &Deployment) -> Option<Blocker> {
    (!deployment.opens_both_tunnels).then(|| {
        Blocker::new(
            "its agent runs without the feature multi-cluster-management-agent, so its token cannot be proven",
            REDEPLOY,
        )
    })
}

fn agent(connections: &Connections, snapshot: &Snapshot, deployment: &Deployment) -> Vec<Blocker> {
    let mut found: Vec<Blocker> = single_tunnel(deployment).into_iter().collect();
    if !deployment.is_consistent() {
        found.push(Blocker::new(
            "the agent's Deployment names one Secret in its volume and another in CATTLE_CREDENTIAL_NAME",
            another_secret(snapshot),
        ));
    }
    let last = snapshot.stv.as_ref().and_then(|stv| stv.token);
    let named = snapshot
        .named_credentials()
        .and_then(|credentials| credentials.token.as_ref())
        .map(Secret::fingerprint);
    match (named, last) {
        (None, _) => found.push(Blocker::new(
            "the Secret that the agent's Deployment names does not exist or has no token",
            rescue(connections),
        )),
        (Some(named), Some(last)) if named == last => {}
        (Some(named), last) => found.push(unless(
            check::LAST_AGENT,
            format!(
                "the agent's Secret has {named}, but the agent that connected last used {}",
                last.map_or_else(|| "an unknown token".to_owned(), |last| last.to_string())
            ),
            "restart the agent, and wait until it connects",
        )),
    }
    found
}

fn paused(connections: &Connections, deployment: &Deployment) -> Option<Blocker> {
    let resume = || {
        connections
            .on_downstream
            .kubectl("-n cattle-system rollout resume deployment/cattle-cluster-agent")
    };
    deployment.paused.then(|| {
        Blocker::new(
            "the agent's Deployment is paused",
            format!("run `{}` on the downstream cluster", resume()),
        )
    })
}

/// With storage `status` no step waits for Rancher's apply.
fn applied_by_hand(snapshot: &Snapshot, deployment: &Deployment) -> Option<Blocker> {
    let is_kept = snapshot.storage == TokenStorage::Secret && deployment.rollout_settings_were_applied();
    is_kept.then(|| {
        Blocker::new(
            "the agent's Deployment was applied by hand with progressDeadlineSeconds or minReadySeconds, so Rancher cannot apply the \
             new token while the rollout is held",
            format!("{REDEPLOY} and no longer keeps these fields"),
        )
    })
}

fn rollout(connections: &Connections, snapshot: &Snapshot, deployment: &Deployment) -> Vec<Blocker> {
    let mut found: Vec<Blocker> = paused(connections, deployment).into_iter().collect();
    if !deployment.strategy.keeps_old_pods() {
        found.push(Blocker::new(
            "the agent's Deployment may remove the old pod before the new one is ready",
            "set its strategy to RollingUpdate with maxUnavailable 0 and maxSurge 1, as in Rancher's manifest",
        ));
    }
    found.extend(applied_by_hand(snapshot, deployment));
    let is_held = deployment.rollout.min_ready_seconds >= SURELY_HELD;
    // On a cluster that Rancher provisioned a hold is the first write of a rotation, which has left no mark yet when it is killed.
    if is_held && snapshot.provisioned.is_none() {
        found.push(unless(
            check::AGENT,
            format!(
                "the rollout of the agent is held (minReadySeconds {}) without a rotation in progress: an earlier run has left it \
                 behind",
                deployment.rollout.min_ready_seconds
            ),
            "wait up to twenty minutes until it completes; with --force=agent the rotation starts from here and releases it at its \
             end",
        ));
    } else if !is_held && !deployment.is_rolled_out() {
        let why = deployment
            .failure
            .clone()
            .unwrap_or_else(|| "not every pod is available".to_owned());
        found.push(unless(
            check::AGENT,
            format!("the agent's Deployment is not rolled out: {why}"),
            "wait for the rollout, or check the agent's pods",
        ));
    }
    found
}

fn redeploy(connections: &Connections, snapshot: &Snapshot, seen: &Observed) -> Vec<Blocker> {
    let tokens: Vec<_> = match snapshot.storage {
        TokenStorage::Status => Vec::new(),
        TokenStorage::Secret => seen
            .system
            .iter()
            .flat_map(|system| std::iter::once(system.token).chain(system.previous))
            .collect(),
    };
    let rendered = Rendered {
        agent_image: connections.settings.agent_image.as_deref(),
        tokens: &tokens,
    };
    let pending = snapshot.cluster.redeploy_pending(&rendered);
    let blocker = |reason: &rancher::cluster::Redeploy| {
        unless(
            check::REDEPLOY,
            reason.to_string(),
            "wait until Rancher has redeployed the agent, and run the command again",
        )
    };
    pending.iter().map(blocker).collect()
}

/// A push applies everything in Rancher's settings. Rancher pushes a changed URL or CA only with the next token, or when it is
/// forced to (seen on Rancher 2.15.0).
fn address(connections: &Connections, snapshot: &Snapshot, seen: &Observed) -> Option<Blocker> {
    let (deployment, secret) = (snapshot.deployment()?, snapshot.named_credentials());
    let what = inputs::unpushed_address(deployment, secret, &connections.settings, seen.pushes?)?;
    Some(unless(
        check::ADDRESS,
        format!(
            "a change of Rancher's address or CA was not pushed to the agent: {what}; a new token would push the change too"
        ),
        format!(
            "{REDEPLOY}, and wait until it connects; with --force=address the rotation applies the change, and releases the rollout \
             once the agent has connected there"
        ),
    ))
}

/// An owner of the objects that a rotation changes would restore their old state.
pub(super) async fn owned(
    connections: &Connections,
    downstream: &Downstream,
    snapshot: &Snapshot,
) -> Result<Vec<Blocker>, Error> {
    let of_agent = async {
        match snapshot.deployment {
            Ok(_) => owners::of_agent(downstream, snapshot.named_secret()).await,
            Err(_) => Ok(Vec::new()),
        }
    };
    let (agent, tokens) = futures::try_join!(of_agent, owners::of_system(connections, snapshot.system()))?;
    let owned = agent.into_iter().chain(tokens).map(|owned| {
        unless(
            check::OWNER,
            format!("{owned}, which would restore the old state"),
            "change it there, or pause it during the rotation; with --force=owner the rotation is rolled back when the old state is \
             restored for the third time",
        )
    });
    Ok(owned.collect())
}

/// Every value must be known, and every object that is valid as one.
fn unreadable(snapshot: &Snapshot) -> Vec<Blocker> {
    let mut found = Vec::new();
    let unknown: Vec<_> = snapshot
        .tokens
        .tokens
        .iter()
        .filter(|token| !token.deleting && token.current().is_none())
        .collect();
    if let Some(token) = unknown.first() {
        let why = token.value.as_ref().err().map(ToString::to_string).unwrap_or_default();
        found.push(Blocker::new(
            format!(
                "cannot read the value of registration token {:?}: {why}",
                token.object.name
            ),
            "repair or delete that token",
        ));
    }
    if snapshot.tokens.orphans_unknown && snapshot.storage == TokenStorage::Secret {
        found.push(Blocker::new(
            format!("no permission to list Secrets in namespace {}", snapshot.cluster.id),
            "request that permission: an orphaned token Secret is a valid credential",
        ));
    }
    found
}

fn tokens(connections: &Connections, snapshot: &Snapshot, seen: &Observed) -> Vec<Blocker> {
    let mut found = unreadable(snapshot);
    let Some(old) = of_agent(seen) else { return found };
    match snapshot.probe_results.get(&old) {
        Some(ProbeResult::Accepted { cluster: Some(cluster) }) if *cluster != snapshot.cluster.id => found.push(unless(
            check::AGENT,
            format!("the agent's token {old} belongs to cluster {cluster}: the agent is connected as that cluster"),
            "check that you have named the right cluster; with --force=agent the agent gets a token of this cluster, which cannot be \
             rolled back",
        )),
        Some(ProbeResult::Accepted { .. }) => {}
        Some(ProbeResult::Rejected) => found.push(Blocker::new(
            format!("Rancher rejects {old}, the agent's token: the cluster is lost when the agent restarts"),
            rescue(connections),
        )),
        Some(ProbeResult::Unknown(reason)) => found.push(Blocker::new(
            format!("cannot tell whether Rancher accepts {old}, the agent's token: {reason}"),
            "check that Rancher answers at its server-url, and run the command again",
        )),
        None => found.push(Blocker::new(
            format!("cannot tell whether Rancher accepts {old}, the agent's token: its value is unknown"),
            another_secret(snapshot),
        )),
    }
    let third = seen
        .system
        .as_ref()
        .and_then(|system| system.previous)
        .filter(|previous| *previous != old);
    if let Some(third) = third.filter(|third| seen.is_in_use(*third)) {
        let (uses, hint) = if seen.is_downstream_readable() {
            (
                "uses",
                "wait until the rollout of the agent is complete, which takes at most twenty minutes",
            )
        } else {
            ("may use", "wait until its grace period ends")
        };
        found.push(Blocker::new(
            format!(
                "registration token \"system\" accepts its previous value {third} only until its next change, and an agent {uses} it"
            ),
            hint,
        ));
    } else if let Some(third) = third {
        found.push(unless(
            check::THIRD_TOKEN,
            format!(
                "registration token \"system\" still accepts its previous value {third}, which is not the agent's token"
            ),
            "wait until its grace period ends; with --force=third-token an agent that uses it is disconnected",
        ));
    }
    found
}

/// The permissions that a rotation needs on both clusters. On the downstream cluster none where Rancher deploys the token.
pub(super) fn needs<'a>(
    connections: &'a Connections,
    downstream: &'a Downstream,
    snapshot: &Snapshot,
) -> Vec<Needed<'a>> {
    let storage = snapshot.storage;
    let conditions = [
        snapshot.deployment().map(|_| rights::POINTS),
        (storage == TokenStorage::Secret).then_some(rights::IN_SECRETS),
        (downstream.route != Route::ThroughRancher).then_some(rights::DIRECT),
        downstream.proxied.is_none().then_some(rights::NO_RANCHER),
    ];
    let conditions: Vec<&str> = conditions.into_iter().flatten().collect();
    let on = |server, side| Needed {
        server,
        side,
        rights: rights::TABLE.required(
            "rotate",
            side,
            &conditions,
            &[(rights::CLUSTER_ID, connections.cluster.id.as_str())],
        ),
    };
    let of_agent = snapshot.deployment().map(|_| on(&downstream.server, DOWNSTREAM));
    std::iter::once(on(&connections.management, MANAGEMENT))
        .chain(of_agent)
        .collect()
}
