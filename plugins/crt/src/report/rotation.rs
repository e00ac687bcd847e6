//! The texts of a rotation: where it starts, what else it invalidates, and its summary.

use cli::rotation::commands::Commands;
use cli::rotation::leases::LeasedRotation;
use cli::rotation::target::{LeaseName, Target};
use client::secret::Fingerprint;
use engine::plan::Plan;
use engine::rotation::Action;
use rancher::cluster::{Cluster, ClusterId, ClusterKind};
use rancher::token::{SYSTEM, Tokens};
use serde_json::{Map, Value, json};

use super::row::ClusterName;
use crate::connections::MANAGEMENT;
use crate::rotation::Crt;
use crate::rotation::observed::Observed;
use crate::rotation::record::Record;

/// The name of the Lease of a cluster, in the cluster's own namespace on the management cluster.
pub(crate) const LEASE: &str = "kubectl-crt";

/// What the Lease of one cluster says.
pub(crate) type ClusterRotation = LeasedRotation<Crt>;

/// Harvester reads it only when it changes (harvester/harvester `pkg/controller/master/setting/cluster_registration_url.go`).
const HARVESTER: &str = "Harvester's setting cluster-registration-url may still have an import URL with the revoked token. Harvester does \
                         not read it again, and needs no other one. Do not empty it: that deletes the agent.";

/// Where a rotation starts.
pub(crate) fn start(seen: &Observed, record: &Record) -> String {
    let system = match record.system {
        Some(system) if system == record.old => "the value of registration token \"system\"".to_owned(),
        Some(system) => format!("registration token \"system\" has {system}"),
        None => "there is no registration token \"system\" yet".to_owned(),
    };
    format!(
        "the agent uses {} from Secret {}, {system} (token storage: {})",
        record.old, record.old_secret, seen.storage
    )
}

/// The token is also part of every command and URL that Rancher has shown for it.
pub(crate) fn also_invalidated(plan: &Plan<Crt>) -> Vec<String> {
    let record = &plan.record;
    if plan.direction.is_rollback() {
        return Vec::new();
    }
    let with = |value: &Fingerprint, of: &str| {
        format!("{value} ({of}): import URLs, registration and node join commands, and Terraform state that contain it")
    };
    let agents = record
        .others
        .iter()
        .filter(|(_, value)| **value == record.old)
        .map(|(name, _)| name.as_str());
    let mut of = vec!["the agent's"];
    of.extend(agents);
    let mut lines = vec![with(&record.old, &of.join(", "))];
    if let Some(system) = record.system.filter(|system| *system != record.old) {
        lines.push(with(&system, "system"));
    }
    let others = record.others.iter().filter(|(_, value)| **value != record.old);
    lines.extend(others.map(|(name, value)| with(value, name)));
    lines
}

/// What was not rotated and is still accepted, and what remains open. `tokens` are those of the cluster now, if they can be read.
pub(crate) fn summary(
    cluster: &Cluster,
    plan: Option<&Plan<Crt>>,
    tokens: Option<&Tokens>,
    commands: &Commands,
    after_a_leak: Option<String>,
) -> String {
    let restart = commands.kubectl("-n cattle-system rollout restart deployment/rancher");
    let (cluster, kind) = (display(cluster), &cluster.kind);
    let old = plan.map_or_else(|| "the old token".to_owned(), |plan| plan.record.old.to_string());
    let left = plan.zip(tokens).map(|(plan, tokens)| {
        let renewed = |name: &str| plan.record.others.contains_key(name);
        still_accepted(tokens, renewed)
    });
    let unchanged = match left {
        None => format!("Which other registration tokens of {cluster} are still accepted is unknown."),
        Some(left) if left.is_empty() => format!("All registration tokens of {cluster} were rotated."),
        Some(left) => format!("Not rotated in {cluster}: {}.", left.join(", ")),
    };
    let connections = format!(
        "{unchanged} Connections opened earlier with {old} stay open until Rancher restarts \
         ({restart}, on the management cluster)."
    );
    let harvester = (kind == &ClusterKind::Harvester).then(|| HARVESTER.to_owned());
    std::iter::once(connections)
        .chain(harvester)
        .chain(after_a_leak)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The registration tokens that were not rotated, each with the values that Rancher still accepts.
fn still_accepted(tokens: &Tokens, renewed: impl Fn(&str) -> bool) -> Vec<String> {
    let of_tokens = tokens.tokens.iter().map(|token| {
        let values = (token.current(), token.previous(), token.grace_ends_at());
        ("registration token", &token.object.name, values)
    });
    let of_orphans = tokens.orphans.iter().map(|secret| {
        let values = (secret.current.as_ref(), secret.previous.as_ref(), secret.grace_ends_at);
        ("orphaned token Secret", &secret.object.name, values)
    });
    let all = of_tokens.chain(of_orphans);
    let left = all.filter(|(_, name, _)| name.as_str() != SYSTEM && !renewed(name));
    left.map(|(kind, name, (current, previous, until))| {
        let current = current.map_or_else(|| "its value".to_owned(), |value| value.fingerprint().to_string());
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        let previous = previous.map_or_else(String::new, |value| format!(", and {}{until}", value.fingerprint()));
        format!("{kind} {name} (Rancher still accepts {current}{previous})")
    })
    .collect()
}

/// A cluster as the target of a rotation.
pub(crate) fn target(cluster: &Cluster, commands: Commands) -> Target {
    let details = match json!({ "cluster": ClusterName::of(cluster) }) {
        Value::Object(details) => details,
        _ => Map::new(),
    };
    Target {
        object: format!("cluster.management.cattle.io/{}", cluster.id),
        name: cluster.id.to_string(),
        display: display(cluster),
        details,
        action: Action::ROTATE,
        restored: "its agent runs with the old token as before",
        commands,
        lease: lease(&cluster.id),
    }
}

/// The Lease of a cluster.
pub(crate) fn lease(cluster: &ClusterId) -> LeaseName {
    LeaseName {
        namespace: cluster.to_string(),
        name: LEASE.to_owned(),
        side: MANAGEMENT,
    }
}

/// A cluster in a sentence: `cluster oslo (c-x7k2p)`.
fn display(cluster: &Cluster) -> String {
    if cluster.display_name.is_empty() || cluster.display_name == cluster.id.as_str() {
        format!("cluster {}", cluster.id)
    } else {
        format!("cluster {} ({})", cluster.display_name, cluster.id)
    }
}

/// Whether the rotation in progress changes this registration token. If its journal cannot be read, it may change any.
pub(crate) fn changes(rotation: &ClusterRotation, token: &str) -> bool {
    match &rotation.journal {
        None => false,
        Some(Err(_)) => true,
        Some(Ok(journal)) => token == rancher::token::SYSTEM || journal.run().record.others.contains_key(token),
    }
}

#[cfg(test)]
mod tests {
    use rancher::token::RegistrationToken;

    use super::*;
    use crate::fixtures::{print, system, token, token_secret};

    #[test]
    fn each_value_that_is_still_accepted_is_named() {
        let rotated = RegistrationToken {
            secret: Some(token_secret("D", Some("O"))),
            status_grace_ends_at: "2026-11-29T19:00:00Z".parse().ok(),
            ..token("default-token", "D")
        };
        let tokens = Tokens {
            tokens: vec![rotated, system("N"), token("renewed", "R")],
            ..Tokens::default()
        };
        assert_eq!(
            still_accepted(&tokens, |name| name == "renewed"),
            [format!(
                "registration token default-token (Rancher still accepts {}, and {} until 2026-11-29T19:00:00Z)",
                print("D"),
                print("O")
            )]
        );
    }
}
