//! The preflight checks: one sentence for each blocker, with the way out.

use client::access::{self, Right};
use client::error::Error;
use client::secret::Secret;
use engine::rotation::{Blocker, Check};
use rancher::cluster::{Cluster, ClusterKind, ConditionStatus, Rendered};
use rancher::token_storage::TokenStorage;
use rancher::probe::ProbeResult;

use super::abstraction::{SURELY_HELD, Snapshot};
use super::check;
use crate::report::{evidence, owners};
use crate::rotation::observed::Observed;
use crate::sides::{DOWNSTREAM, Downstream, MANAGEMENT, Sides};

/// Every blocker, from what was read.
pub(super) fn blockers(sides: &Sides, snapshot: &Snapshot, seen: &Observed) -> Vec<Blocker> {
    not_rotated(&snapshot.cluster)
        .into_iter()
        .chain(agent(snapshot))
        .chain(rollout(snapshot))
        .chain(redeploy(sides, snapshot, seen))
        .chain(address(sides, snapshot, seen))
        .chain(tokens(snapshot, seen))
        .collect()
}

fn firm(reason: impl Into<String>, hint: impl Into<String>) -> Blocker {
    Blocker::new(reason, hint)
}

fn unless(check: Check, reason: impl Into<String>, hint: impl Into<String>) -> Blocker {
    Blocker::new(reason, hint).unless_forced(check.name)
}

/// Why a cluster is none of those that this version rotates; nothing if it is one.
pub(crate) fn not_rotated(cluster: &Cluster) -> Option<Blocker> {
    if cluster.deleting {
        return Some(firm("it is being deleted", "there is nothing to rotate any more"));
    }
    match &cluster.kind {
        ClusterKind::Imported => None,
        ClusterKind::Local => Some(firm(
            "it has no agent, being the cluster that Rancher runs in",
            "its registration tokens are not used by an agent; on Harvester default-token is the token by which nodes join",
        )),
        kind => Some(firm(
            format!("it is of kind {kind}, which this version does not rotate"),
            "imported (generic) clusters are rotated",
        )),
    }
}

fn agent(snapshot: &Snapshot) -> Vec<Blocker> {
    let cluster = &snapshot.cluster;
    let mut found = Vec::new();
    if !cluster.is("Provisioned") || cluster.pre_bootstrap() {
        found.push(firm(
            "it has not been connected yet",
            "wait until Rancher shows it as active",
        ));
    } else if cluster.connected() != Some(ConditionStatus::True) {
        found.push(unless(
            check::AGENT,
            "Rancher says that its agent is not connected",
            "look at `kubectl crt status`: an agent whose token is dead needs to be rescued first",
        ));
    }
    let deployment = &snapshot.deployment;
    if !deployment.opens_both_tunnels {
        found.push(firm(
            "the agent runs without the feature multi-cluster-management-agent, so it leaves no proof of its token",
            "annotate the cluster with io.cattle.agent.force.deploy=true, so that Rancher deploys it anew",
        ));
    }
    if !deployment.is_consistent() {
        found.push(firm(
            "the agent's Deployment names one Secret in its volume and another in CATTLE_CREDENTIAL_NAME",
            "annotate the cluster with io.cattle.agent.force.deploy=true, so that Rancher deploys it anew",
        ));
    }
    let last = snapshot.stv.as_ref().and_then(|stv| stv.token);
    let named = snapshot
        .named_credentials()
        .and_then(|credentials| credentials.token.as_ref())
        .map(Secret::fingerprint);
    match (named, last) {
        (None, _) => found.push(firm(
            "the Secret that the agent's Deployment names is gone or holds no token",
            "annotate the cluster with io.cattle.agent.force.deploy=true, so that Rancher deploys it anew",
        )),
        (Some(named), Some(last)) if named == last => {}
        (Some(named), last) => found.push(unless(
            check::LAST_AGENT,
            format!(
                "the agent is to run with {named}, but the one that connected last used {}",
                last.map_or_else(|| "an unknown token".to_owned(), |last| last.to_string())
            ),
            "restart the agent, and see it connect",
        )),
    }
    found
}

fn rollout(snapshot: &Snapshot) -> Vec<Blocker> {
    let deployment = &snapshot.deployment;
    let mut found = Vec::new();
    if deployment.paused {
        found.push(firm(
            "the roll-outs of the agent's Deployment are paused",
            "kubectl -n cattle-system rollout resume deployment/cattle-cluster-agent, on the downstream cluster",
        ));
    }
    if !deployment.strategy.keeps_old_pods() {
        found.push(firm(
            "the agent's Deployment may remove the old pod before the new one is up",
            "give it the strategy RollingUpdate with maxUnavailable 0 and maxSurge 1, as Rancher does",
        ));
    }
    if deployment.hold.min_ready_seconds >= SURELY_HELD {
        found.push(unless(
            check::AGENT,
            format!(
                "the roll-out of the agent is held (minReadySeconds {}), and no rotation is under way: a run that was lost has left it",
                deployment.hold.min_ready_seconds
            ),
            "it completes by itself within twenty minutes; with --force=agent the rotation begins from here, and releases it at its end",
        ));
    } else if !deployment.is_rolled_out() {
        let why = deployment
            .failure
            .clone()
            .unwrap_or_else(|| "not every pod is available".to_owned());
        found.push(unless(
            check::AGENT,
            format!("the agent's Deployment is not rolled out: {why}"),
            "wait for it, or look at its pods",
        ));
    }
    found
}

fn redeploy(sides: &Sides, snapshot: &Snapshot, seen: &Observed) -> Vec<Blocker> {
    let tokens: Vec<_> = match snapshot.era {
        TokenStorage::Status => Vec::new(),
        TokenStorage::Secret => seen
            .system
            .iter()
            .flat_map(|holder| std::iter::once(holder.token).chain(holder.previous))
            .collect(),
    };
    let rendered = Rendered {
        agent_image: sides.settings.agent_image.as_deref(),
        tokens: &tokens,
    };
    let pending = snapshot.cluster.redeploy_pending(&rendered);
    let blocker = |reason: &rancher::cluster::Redeploy| {
        unless(
            check::REDEPLOY,
            reason.to_string(),
            "wait until Rancher has deployed the agent, and try again",
        )
    };
    pending.iter().map(blocker).collect()
}

/// A push takes along whatever Rancher's settings say by then. Rancher pushes a changed URL or CA only with the next token, or
/// when it is told to (seen on Rancher 2.15.0).
fn address(sides: &Sides, snapshot: &Snapshot, seen: &Observed) -> Option<Blocker> {
    let secret = snapshot.named_credentials();
    let what = evidence::unpushed_address(&snapshot.deployment, secret, &sides.settings, seen.pushes?)?;
    Some(unless(
        check::ADDRESS,
        format!(
            "a change of Rancher's address or CA has not been pushed to the agent: {what}; a new token would push it too"
        ),
        "push it first (annotate the cluster with io.cattle.agent.force.deploy=true) and see the agent connect; \
         --force=address takes the change along and releases the rollout only when the agent has connected there",
    ))
}

/// An owner of the objects that a rotation changes would write their old state back.
pub(super) async fn owned(sides: &Sides, downstream: &Downstream, snapshot: &Snapshot) -> Result<Vec<Blocker>, Error> {
    let secret = snapshot.deployment.volume_secret.as_deref();
    let (agent, tokens) = futures::try_join!(
        owners::of_agent(downstream, secret),
        owners::of_system(sides, snapshot.system())
    )?;
    let owned = agent.into_iter().chain(tokens).map(|owned| {
        unless(
            check::OWNER,
            format!("{owned}, which would write the old state back"),
            "change it there, or pause it for the rotation; with --force=owner the rotation turns back when the old state is \
             written back for the third time",
        )
    });
    Ok(owned.collect())
}

fn tokens(snapshot: &Snapshot, seen: &Observed) -> Vec<Blocker> {
    let mut found = Vec::new();
    let unknown: Vec<_> = snapshot
        .tokens
        .tokens
        .iter()
        .filter(|token| !token.deleting && token.current().is_none())
        .collect();
    if let Some(token) = unknown.first() {
        let why = token.value.as_ref().err().map(ToString::to_string).unwrap_or_default();
        found.push(firm(
            format!(
                "the value of registration token {} cannot be read: {why}",
                token.object.name
            ),
            "put it right, or delete that token",
        ));
    }
    if snapshot.tokens.orphans_unknown && snapshot.era == TokenStorage::Secret {
        found.push(firm(
            format!("the Secrets in namespace {} may not be listed", snapshot.cluster.id),
            "ask for the right to list Secrets there: an orphaned one is a valid token",
        ));
    }
    let Some(old) = seen.deployed else { return found };
    match snapshot.probe_results.get(&old) {
        Some(ProbeResult::Accepted { cluster: Some(cluster) }) if *cluster != snapshot.cluster.id => found.push(unless(
            check::AGENT,
            format!("the token {old} that the agent runs with belongs to cluster {cluster}: the agent is connected as that cluster"),
            "see that the downstream side is the cluster that you mean; with --force=agent it gets a token of this cluster, and \
             there is no way back",
        )),
        Some(result) if result.is_accepted() => {}
        Some(result) if result.is_dead() => found.push(firm(
            format!("the token {old} that the agent runs with is dead: at its next restart the cluster is lost"),
            "create a registration token with that value again, or give the agent a living one",
        )),
        _ => found.push(firm(
            format!("Rancher does not say whether it accepts {old}, the token that the agent runs with"),
            "see that Rancher answers at its server-url, and try again",
        )),
    }
    let third = seen
        .system
        .as_ref()
        .and_then(|holder| holder.previous)
        .filter(|previous| *previous != old);
    if let Some(third) = third {
        found.push(unless(
            check::THIRD_TOKEN,
            format!("registration token system still accepts {third}, its previous value, which is not what the agent runs with"),
            "wait until its grace has ended; with --force=third-token whoever uses it is cut off",
        ));
    }
    found
}

/// The permissions that a rotation needs, on both sides.
pub(super) async fn permissions(sides: &Sides, downstream: &Downstream, era: TokenStorage) -> Result<(), Error> {
    let id = sides.cluster.id.as_str();
    let group = "management.cattle.io";
    let in_cluster = |verb: &str, group: &str, resource: &str| Right::new(verb, group, resource).in_namespace(id);
    let mut management = vec![
        Right::new("get", group, "clusters").named(id),
        in_cluster("get", "coordination.k8s.io", "leases"),
        in_cluster("create", "coordination.k8s.io", "leases"),
        in_cluster("patch", "coordination.k8s.io", "leases"),
    ];
    management.extend(
        ["get", "list", "create", "patch", "delete"].map(|verb| in_cluster(verb, group, "clusterregistrationtokens")),
    );
    if era == TokenStorage::Secret {
        management.push(Right::new("patch", group, "clusters").named(id));
        management.extend(["get", "list", "patch"].map(|verb| in_cluster(verb, "", "secrets")));
    }
    let there =
        |verb: &str, group: &str, resource: &str| Right::new(verb, group, resource).in_namespace("cattle-system");
    let mut below: Vec<_> = ["get", "create", "delete"]
        .map(|verb| there(verb, "", "secrets"))
        .into();
    below.push(there("list", "", "pods"));
    below.extend(["get", "patch"].map(|verb| there(verb, "apps", "deployments").named("cattle-cluster-agent")));
    let (management, below) = futures::join!(
        access::require(&sides.management, MANAGEMENT, &management),
        access::require(&downstream.server, DOWNSTREAM, &below)
    );
    management.and(below)
}
