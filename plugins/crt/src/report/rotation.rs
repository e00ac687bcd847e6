//! The texts of a rotation: where it starts, what else it invalidates, and its summary.

use cli::rotation::commands::{Commands, OtherKind};
use cli::rotation::leases::LeasedRotation;
use cli::rotation::target::{LeaseName, Target};
use client::secret::{Fingerprint, Secret};
use engine::journal::Unreadable;
use engine::plan::Plan;
use engine::rotation::{Action, Rotation as _};
use rancher::TokenStorage;
use rancher::cluster::{Cluster, ClusterId};
use rancher::token::{RegistrationToken, SYSTEM, Tokens};
use serde_json::{Map, Value, json};

use super::row::ClusterName;
use crate::connections::MANAGEMENT;
use crate::rotation::Crt;
use crate::rotation::observed::{Observed, Plans, no_token};
use crate::rotation::record::Record;
use crate::rotation::rescue::Rescue;

/// The name of the Lease of a cluster, in the cluster's own namespace on the management cluster.
pub(crate) const LEASE: &str = "kubectl-crt";

/// What the Lease of one cluster says.
pub(crate) type ClusterRotation = LeasedRotation<Crt>;

/// The registration token in Harvester's setting. `Err`: it is not known.
pub(crate) type HarvesterToken = Result<Option<Fingerprint>, ()>;

/// Harvester reads it only when it changes (harvester/harvester `pkg/controller/master/setting/cluster_registration_url.go`).
pub(crate) fn harvester(token: HarvesterToken, record: &Record) -> Option<String> {
    const SETTING: &str = "Harvester's setting cluster-registration-url";
    const LEAVE: &str =
        "Harvester does not read it again, and needs no other one. Do not empty it: that deletes the agent.";
    let changed = |token: &Fingerprint| {
        let mut others = record.others.values();
        *token == record.old || Some(*token) == record.system || others.any(|other| other == token)
    };
    Some(match token {
        Ok(None) => return None,
        Ok(Some(token)) if changed(&token) => {
            format!("{token} ({SETTING}): it has an import URL with this value. {LEAVE}")
        }
        Ok(Some(token)) => {
            format!("{SETTING} has an import URL with {token}, which this rotation does not revoke. {LEAVE}")
        }
        Err(()) => format!("{SETTING} may have an import URL with a value that is revoked. {LEAVE}"),
    })
}

/// Where a rotation starts.
pub(crate) fn start(seen: &Observed, record: &Record) -> String {
    let system = match record.system {
        Some(system) if system == record.old => "the value of registration token \"system\"".to_owned(),
        Some(system) => format!("registration token \"system\" has {system}"),
        None => "there is no registration token \"system\" yet".to_owned(),
    };
    let (old, storage) = (record.old, seen.storage);
    let plans_are_unreadable = seen
        .provisioned()
        .is_some_and(|provisioned| matches!(provisioned.plans, Plans::Unreadable(_)));
    if seen.is_downstream_readable() {
        let secret = &record.old_secret;
        return format!("the agent uses {old} from Secret {secret}, {system} (token storage: {storage})");
    }
    let mut proofs = Vec::new();
    if storage == TokenStorage::Secret {
        proofs.push("Rancher's record of the token that it has applied");
    }
    if plans_are_unreadable {
        proofs.push("the condition Ready of the provisioning cluster");
    } else if seen.provisioned().is_some() {
        proofs.push("the plans that the control-plane machines have applied");
    }
    proofs.push("a call through the agent's tunnel");
    format!(
        "Rancher has deployed {old} last, {system} (token storage: {storage}); without permissions on the downstream cluster the agent is \
         proven by {} alone",
        proofs.join(" and ")
    )
}

/// Where a rescue starts.
pub(crate) fn start_of_rescue(seen: &Observed, record: &Record) -> String {
    let agent = if !seen.is_downstream_readable() {
        "the agent is not connected".to_owned()
    } else if record.old == no_token() {
        format!("the agent's Secret {} has no token", record.old_secret)
    } else if seen.foreign.contains(&record.old) {
        format!("the agent has {}, a token of another cluster", record.old)
    } else if seen.acceptance_of(record.old).is_accepted() {
        format!(
            "the agent's Secret {} with {} is missing",
            record.old_secret, record.old
        )
    } else {
        format!(
            "the agent has {} from Secret {}, which Rancher rejects",
            record.old, record.old_secret
        )
    };
    let target = match (record.new, seen.system.is_some()) {
        (Some(new), true) => format!("registration token \"system\" has {new}"),
        (Some(new), false) => format!("there is no registration token \"system\"; \"default-token\" has {new}"),
        (None, _) => "there is no registration token".to_owned(),
    };
    format!("{agent}, {target} (token storage: {})", seen.storage)
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
    more: impl IntoIterator<Item = Option<String>>,
) -> String {
    let restart = commands.kubectl("-n cattle-system rollout restart deployment/rancher");
    let cluster = display(cluster);
    let old = plan.map_or_else(|| "the old token".to_owned(), |plan| plan.record.old.to_string());
    let left = plan.zip(tokens).map(|(plan, tokens)| {
        let system = tokens.named(SYSTEM).and_then(RegistrationToken::current);
        let new = system.map(Secret::fingerprint);
        let is_new = |name: &str, value: Option<Fingerprint>| {
            name == SYSTEM || plan.record.others.contains_key(name) || value.is_some() && value == new
        };
        still_accepted(tokens, is_new)
    });
    let unchanged = match left {
        None => format!("Which other registration tokens of {cluster} are still accepted is unknown."),
        Some((left, previous)) => {
            let rotated = match left.as_slice() {
                [] => format!("All registration tokens of {cluster} were rotated."),
                left => format!("Not rotated in {cluster}: {}.", left.join(", ")),
            };
            let previous = previous.iter().map(|text| format!(" Rancher still accepts {text}."));
            previous.fold(rotated, |all, text| all + &text)
        }
    };
    let connections = format!(
        "{unchanged} Connections opened earlier with {old} stay open until Rancher restarts \
         ({restart}, on the management cluster)."
    );
    std::iter::once(connections)
        .chain(more.into_iter().flatten())
        .collect::<Vec<_>>()
        .join("\n")
}

/// What a rescue has reached: its agent works, and what a third party may have is still accepted.
pub(crate) fn summary_of_rescue(cluster: &Cluster) -> String {
    format!(
        "The agent of {} is connected. Its registration tokens are not rotated yet.",
        display(cluster)
    )
}

/// The registration tokens that were not rotated, each with the values that Rancher still accepts; and the previous values of those that
/// were.
fn still_accepted(tokens: &Tokens, is_new: impl Fn(&str, Option<Fingerprint>) -> bool) -> (Vec<String>, Vec<String>) {
    let of_tokens = tokens.tokens.iter().map(|token| {
        let values = (token.current(), token.previous(), token.grace_ends_at());
        ("registration token", &token.object.name, values)
    });
    let of_orphans = tokens.orphans.iter().map(|secret| {
        let values = (secret.current.as_ref(), secret.previous.as_ref(), secret.grace_ends_at);
        ("orphaned token Secret", &secret.object.name, values)
    });
    let (mut left, mut previous_values) = (Vec::new(), Vec::new());
    for (kind, name, (current, previous, until)) in of_tokens.chain(of_orphans) {
        let current = current.map(Secret::fingerprint);
        let until = until.map_or_else(|| " without an end".to_owned(), |until| format!(" until {until}"));
        let previous = previous.map(|value| value.fingerprint().to_string());
        if is_new(name, current) {
            let text = |previous: String| format!("{previous}, the previous value of {kind} {name},{until}");
            previous_values.extend(previous.map(text));
        } else {
            let current = current.map_or_else(|| "its value".to_owned(), |value| value.to_string());
            let previous = previous.map_or_else(String::new, |previous| format!(", and {previous}{until}"));
            left.push(format!("{kind} {name} (Rancher still accepts {current}{previous})"));
        }
    }
    (left, previous_values)
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

/// The same cluster as the target of a rescue.
pub(crate) fn target_of_rescue(target: &Target) -> Target {
    let commands = target.commands.clone().resumed_with(Rescue::ACTION.verb);
    Target {
        action: Rescue::ACTION,
        restored: "no old token is valid again",
        commands: commands.or_of(OtherKind {
            kind: Crt::KIND,
            display: "a rotation",
            commands: target.commands.clone(),
        }),
        ..target.clone()
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
        // A rescue sets no token's value.
        None | Some(Err(Unreadable::OtherKind(_))) => false,
        Some(Err(_)) => true,
        Some(Ok(journal)) => token == rancher::token::SYSTEM || journal.run().record.others.contains_key(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{print, system, token, token_secret};

    #[test]
    fn each_value_that_is_still_accepted_is_named() {
        let rotated = RegistrationToken {
            secret: Some(token_secret("D", Some("O"))),
            status_grace_ends_at: "2026-11-29T19:00:00Z".parse().ok(),
            ..token("default-token", "D")
        };
        let other = RegistrationToken {
            secret: Some(token_secret("R", Some("Q"))),
            ..token("renewed", "R")
        };
        let tokens = Tokens {
            tokens: vec![rotated, system("N"), other, token("crt-first", "N")],
            ..Tokens::default()
        };
        let is_new = |name: &str, value: Option<Fingerprint>| name == "renewed" || value == Some(print("N"));
        assert_eq!(
            still_accepted(&tokens, is_new),
            (
                vec![format!(
                    "registration token default-token (Rancher still accepts {}, and {} until 2026-11-29T19:00:00Z)",
                    print("D"),
                    print("O")
                )],
                vec![format!(
                    "{}, the previous value of registration token renewed, without an end",
                    print("Q")
                )]
            )
        );
    }
}
