//! Why a cluster's agent cannot connect, and which way leads to it: the rows of `rescue --dry-run`, the last line of `status`, and the
//! alarm about a token that a rescue has made valid again.
//!
//! Pure: from what was read ([`DiagnosisInputs`]) and allowed ([`Means`]) to a [`Diagnosis`].

use std::borrow::Cow;
use std::fmt;

use cli::output::Printable;
use cli::rotation::Commands;
use cli::table::Column;
use client::secret::{Fingerprint, Secret};
use engine::rotation::Rotation as _;
use k8s_openapi::jiff::Timestamp;
use rancher::ClusterId;
use rancher::agent::Deployment;
use rancher::cluster::{Cluster, ClusterKind, ConditionStatus};
use rancher::probe::ProbeResult;
use rancher::token::Tokens;
use serde::Serialize;

use super::API_VERSION;
use super::inputs::DiagnosisInputs;
use super::rotation::ClusterRotation;
use super::row::ClusterName;
use crate::connections::Route;
use crate::controller::reactivation;
use crate::rotation::observed::Reactivated;
use crate::rotation::rescue::Rescue;

/// Whether an agent of this cluster was connected once, and is not now.
pub(crate) fn is_disconnected(cluster: &Cluster) -> bool {
    let connected = cluster.connected();
    cluster.kind != ClusterKind::Local && connected.is_some_and(|status| status != ConditionStatus::True)
}

/// What may be used to reach the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Means {
    /// The route to the downstream cluster. `None`: there is none.
    pub(crate) route: Option<Route>,
    /// What is needed on the downstream cluster may be written there.
    pub(crate) may_write: bool,
    /// The context is trusted where it cannot be verified (`--force=context`).
    pub(crate) trusts_context: bool,
    /// The old token may be made valid again.
    pub(crate) reactivates: bool,
    /// The old token that the user has given, and what Rancher answers to it.
    pub(crate) given: Option<(Fingerprint, ProbeResult)>,
}

/// What keeps the agent from connecting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// Nothing: it is connected, and its token is valid.
    None,
    /// Its token is valid. It is something else.
    Other,
    /// The cluster has no registration token.
    TokensDeleted,
    /// Rancher rejects its token.
    TokenRevoked,
    /// The Secret that its Deployment names does not exist.
    SecretMissing,
    /// That Secret has no token.
    SecretWithoutToken,
    /// Its token is one of another cluster.
    TokenOfAnotherCluster,
    /// It has no Deployment.
    NoAgent,
    /// It is not connected, and nothing more can be read.
    NotConnected,
    /// It cannot be read.
    Unknown,
}

/// The way to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Rancher's planner, through the machines that answer.
    ByRancher,
    /// Rancher's proxy answers.
    ThroughRancher,
    /// A context that does not go through Rancher.
    Context,
    /// Its old token is made valid again.
    OldToken,
}

/// What is missing for a rescue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// A context that does not go through Rancher, or the old token.
    Context,
    /// The permission to make the old token valid again: its value is known.
    Reactivation,
    /// The value of the old token.
    Value,
    /// The value that the agent has: the given one is accepted already.
    OtherValue,
    /// The given value is a token of another cluster.
    ForeignValue,
    /// The permission to write on the downstream cluster.
    Permission,
    /// A context that is proven: by a trusted one the agent of another cluster would be taken away from it.
    Proof,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Context => "--downstream-context",
            Self::Reactivation => "--reactivate-old-token",
            Self::Value => "--token-stdin",
            Self::OtherValue | Self::ForeignValue => "--token-stdin with the token of the agent",
            Self::Permission => "permissions on the downstream cluster",
            Self::Proof => "a context that is proven to lead to the cluster",
        })
    }
}

/// The diagnosis of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Diagnosis {
    pub(crate) cause: Cause,
    /// The cause in a sentence.
    pub(crate) message: String,
    /// `None`: nothing is to be rescued, or something is missing.
    pub(crate) way: Option<Way>,
    pub(crate) missing: Option<Missing>,
    /// The context of the way.
    context: Option<String>,
    cluster: ClusterName,
}

impl Diagnosis {
    /// By what was read, and what is allowed.
    pub(crate) fn of(inputs: &DiagnosisInputs, means: &Means) -> Self {
        let (cause, message) = cause(inputs);
        let (way, missing) = match way(inputs, means, &cause) {
            Some(Ok(way)) => (Some(way), None),
            Some(Err(missing)) => (None, Some(missing)),
            None => (None, None),
        };
        let context = match &means.route {
            Some(Route::Context(name)) if way == Some(Way::Context) => Some(name.clone()),
            _ => None,
        };
        Self {
            cause,
            message,
            way,
            missing,
            context,
            cluster: ClusterName::of(&inputs.cluster),
        }
    }

    /// Whether there is something that a rescue is for.
    pub(crate) fn is_lost(&self) -> bool {
        self.way.is_some() || self.missing.is_some()
    }

    /// The command that rescues the cluster. `commands`: those about it, without a context if that is what is missing.
    pub(crate) fn command(&self, commands: &Commands) -> String {
        let commands = commands.clone().resumed_with(Rescue::ACTION.verb);
        let commands = match self.missing {
            Some(Missing::Context) => commands.with_to_rotate("--downstream-context", Some("CONTEXT")),
            Some(Missing::Reactivation) => commands.switched_on_to_rotate("--reactivate-old-token"),
            Some(Missing::Value | Missing::OtherValue | Missing::ForeignValue) => reactivating(commands),
            Some(Missing::Permission | Missing::Proof) | None => commands,
        };
        commands.rotate()
    }

    /// How to get what is missing, one hint each.
    pub(crate) fn hints(&self, commands: &Commands) -> Vec<String> {
        let command = self.command(commands);
        match self.missing {
            None => Vec::new(),
            Some(Missing::Context) => {
                let old = reactivating(commands.clone().resumed_with(Rescue::ACTION.verb)).rotate();
                vec![
                    format!("pass a context that does not go through Rancher: `{command}`"),
                    format!(
                        "or make the agent's old token valid again for the rescue: `{old}`, with the token on stdin"
                    ),
                ]
            }
            Some(Missing::Reactivation) => {
                vec![format!("make its old token valid again for the rescue: `{command}`")]
            }
            Some(Missing::Value) => vec![format!("pass the agent's old token on stdin: `{command}`")],
            Some(Missing::OtherValue | Missing::ForeignValue) => {
                vec!["pass the token that the agent of this cluster has".to_owned()]
            }
            Some(Missing::Permission) => vec!["request the permissions that the documentation lists".to_owned()],
            Some(Missing::Proof) => vec![
                "check that the context leads to this cluster, and omit --force=context: it may be the other cluster that you would take the \
                 agent from"
                    .to_owned(),
            ],
        }
    }
}

fn reactivating(commands: Commands) -> Commands {
    let flags = ["--reactivate-old-token", "--token-stdin", "--yes"];
    flags.into_iter().fold(commands, Commands::switched_on_to_rotate)
}

fn cause(inputs: &DiagnosisInputs) -> (Cause, String) {
    let cluster = &inputs.cluster;
    if cluster.kind == ClusterKind::Local {
        return (
            Cause::None,
            "it is the cluster that Rancher runs in, and has no agent".to_owned(),
        );
    }
    if cluster.connected().is_none() {
        let text = "no agent has ever connected: run the registration command that Rancher shows for it";
        return (Cause::NoAgent, text.to_owned());
    }
    if are_deleted(inputs) {
        return (
            Cause::TokensDeleted,
            "all its registration tokens were deleted".to_owned(),
        );
    }
    match &inputs.deployment {
        Ok(Some(deployment)) => of_secret(inputs, deployment),
        Ok(None) => {
            let text = "it has no Deployment cattle-system/cattle-cluster-agent: run the registration command that Rancher shows for it";
            (Cause::NoAgent, text.to_owned())
        }
        Err(_) if matches!(inputs.call, Some(Err(_))) => {
            (Cause::NotConnected, "its agent is not connected to Rancher".to_owned())
        }
        Err(why) => (Cause::Unknown, why.0.clone()),
    }
}

/// Whether Rancher has no registration token of the cluster, and no token Secret either.
fn are_deleted(inputs: &DiagnosisInputs) -> bool {
    let is_empty = |tokens: &Tokens| {
        let live = tokens.tokens.iter().any(|token| !token.deleting);
        !live && tokens.orphans.is_empty()
    };
    inputs.tokens.as_ref().is_ok_and(is_empty)
}

fn of_secret(inputs: &DiagnosisInputs, deployment: &Deployment) -> (Cause, String) {
    let name = deployment.volume_secret.as_deref().unwrap_or_default();
    let found = match &inputs.credentials {
        Err(why) => return (Cause::Unknown, why.0.clone()),
        Ok(found) => found.as_ref(),
    };
    let Some(found) = found else {
        let text = format!("Secret {name}, which its agent's Deployment names, does not exist");
        return (Cause::SecretMissing, text);
    };
    let Some(token) = found.token.as_ref().map(Secret::fingerprint) else {
        return (
            Cause::SecretWithoutToken,
            format!("its agent's Secret {name} has no token"),
        );
    };
    match &inputs.probe {
        Ok(ProbeResult::Rejected) => (
            Cause::TokenRevoked,
            format!("Rancher rejects {token}, the token of its agent"),
        ),
        Ok(ProbeResult::Accepted { cluster: Some(other) }) if *other != inputs.cluster.id => (
            Cause::TokenOfAnotherCluster,
            format!("its agent has {token}, a token of cluster {other}"),
        ),
        Ok(ProbeResult::Accepted { .. }) if is_connected(inputs) => {
            let text = "its agent is connected, and Rancher accepts its token";
            (Cause::None, text.to_owned())
        }
        Ok(ProbeResult::Accepted { .. }) => {
            let text =
                format!("Rancher accepts {token}, the token of its agent: something else keeps it from connecting");
            (Cause::Other, text)
        }
        Ok(ProbeResult::Unknown(reason)) => (
            Cause::Unknown,
            format!("cannot tell whether Rancher accepts {token}: {reason}"),
        ),
        Err(why) => (Cause::Unknown, why.0.clone()),
    }
}

fn is_connected(inputs: &DiagnosisInputs) -> bool {
    match &inputs.call {
        Some(call) => call.is_ok(),
        None => inputs.cluster.connected() == Some(ConditionStatus::True),
    }
}

/// The way, or what is missing for one. `None`: there is nothing to rescue, or nothing that can be rescued.
fn way(inputs: &DiagnosisInputs, means: &Means, cause: &Cause) -> Option<Result<Way, Missing>> {
    let is_connected = is_connected(inputs);
    if matches!(cause, Cause::None | Cause::Other | Cause::NoAgent) || (*cause == Cause::Unknown && is_connected) {
        return None;
    }
    let is_direct = matches!(means.route, Some(Route::Context(_)));
    if *cause == Cause::TokenOfAnotherCluster && is_direct && means.trusts_context {
        return Some(Err(Missing::Proof));
    }
    let is_readable = matches!(inputs.deployment, Ok(Some(_)));
    if is_readable && means.may_write {
        match means.route {
            Some(Route::Context(_)) => return Some(Ok(Way::Context)),
            Some(Route::ThroughRancher) => return Some(Ok(Way::ThroughRancher)),
            None => {}
        }
    }
    if answers(inputs) {
        return Some(Ok(Way::ByRancher));
    }
    let is_rejected = matches!(inputs.probe, Ok(ProbeResult::Rejected));
    let of_secret = inputs.token().filter(|_| is_rejected);
    Some(match (&means.given, of_secret) {
        (Some((_, ProbeResult::Accepted { cluster: Some(other) })), _) if is_foreign(inputs, other) => {
            Err(Missing::ForeignValue)
        }
        (Some((_, ProbeResult::Accepted { .. })), _) => Err(Missing::OtherValue),
        (Some(_), _) | (None, Some(_)) if means.reactivates => Ok(Way::OldToken),
        (_, Some(_)) => Err(Missing::Reactivation),
        _ if is_readable => Err(Missing::Permission),
        _ if means.reactivates => Err(Missing::Value),
        _ => Err(Missing::Context),
    })
}

fn is_foreign(inputs: &DiagnosisInputs, owner: &ClusterId) -> bool {
    *owner != inputs.cluster.id
}

/// Whether a control-plane machine of a cluster that Rancher provisioned answers, so that its planner deploys the agent.
fn answers(inputs: &DiagnosisInputs) -> bool {
    let (Ok(plans), Ok(machines)) = (&inputs.plans, &inputs.machines) else {
        return false;
    };
    let is_unhealthy = |name: &String| {
        let machine = machines.iter().find(|machine| machine.name == *name);
        machine.is_some_and(|machine| machine.healthy == Some(ConditionStatus::False))
    };
    plans.iter().any(|(name, plan)| plan.is_applied || !is_unhealthy(name))
}

/// A token that only a rescue has made valid again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReactivatedToken {
    pub(crate) fingerprint: Fingerprint,
    /// When it becomes invalid by itself. `None`: never.
    pub(crate) until: Option<Timestamp>,
}

impl fmt::Display for ReactivatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.until.map_or_else(String::new, |until| format!(" until {until}"));
        write!(
            f,
            "a rescue has made the revoked token {} valid again{until}",
            self.fingerprint
        )
    }
}

impl ReactivatedToken {
    /// What it means, and the command that revokes it.
    pub(crate) fn alarm(&self, rotation: Option<&ClusterRotation>, commands: &Commands) -> String {
        let in_progress = rotation.is_some_and(|rotation| rotation.is_of(Rescue::KIND));
        let command = if in_progress {
            commands.rollback()
        } else {
            commands.rotate()
        };
        format!("{self}; `{command}` revokes it")
    }
}

/// Those of a cluster.
pub(crate) fn reactivated<'t>(
    tokens: impl IntoIterator<Item = &'t rancher::token::RegistrationToken>,
) -> Vec<ReactivatedToken> {
    let of = |token: &rancher::token::RegistrationToken| {
        let (fingerprint, by) = reactivation(token)?;
        let until = match by {
            Reactivated::Temporary => None,
            Reactivated::Previous(_) => token.grace_ends_at(),
        };
        Some(ReactivatedToken { fingerprint, until })
    };
    tokens.into_iter().filter_map(of).collect()
}

/// A row of `rescue --dry-run`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    cluster: ClusterName,
    cause: Cause,
    message: String,
    way: Option<Way>,
    context: Option<String>,
    missing: Option<String>,
    /// The command that rescues it. `None`: there is nothing to rescue.
    command: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Metadata {
    name: String,
}

impl Row {
    /// Of one cluster.
    pub(crate) fn of(diagnosis: &Diagnosis, commands: &Commands) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "RescueDiagnosis",
            metadata: Metadata {
                name: diagnosis.cluster.id.clone(),
            },
            cluster: diagnosis.cluster.clone(),
            cause: diagnosis.cause.clone(),
            message: diagnosis.message.clone(),
            way: diagnosis.way.clone(),
            context: diagnosis.context.clone(),
            missing: diagnosis.missing.map(|missing| missing.to_string()),
            command: diagnosis.is_lost().then(|| diagnosis.command(commands)),
        }
    }

    /// The line at the end of `status`.
    pub(crate) fn line(&self) -> String {
        let command = self.command.as_deref().unwrap_or_default();
        match self.cause {
            Cause::NotConnected | Cause::Unknown => {
                format!("To find out what keeps the agent from connecting, and to bring it back: {command}")
            }
            _ => format!("To bring the agent back: {command}"),
        }
    }

    fn way_cell(&self) -> Cow<'_, str> {
        match (&self.way, &self.context) {
            (None, _) => "<none>".into(),
            (Some(Way::ByRancher), _) => "by Rancher".into(),
            (Some(Way::ThroughRancher), _) => "through Rancher".into(),
            (Some(Way::Context), context) => format!("by context {}", context.as_deref().unwrap_or_default()).into(),
            (Some(Way::OldToken), _) => "with the old token".into(),
        }
    }
}

impl Printable for Row {
    const COLUMNS: &'static [Column] = &[
        Column::new("CLUSTER"),
        Column::new("NAME"),
        Column::new("WAY"),
        Column::new("MISSING"),
        Column::new("CAUSE"),
    ];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        vec![
            self.cluster.id.as_str().into(),
            self.cluster.display_name.as_deref().unwrap_or_default().into(),
            self.way_cell(),
            self.missing.as_deref().unwrap_or("<none>").into(),
            self.message.as_str().into(),
        ]
    }

    fn name(&self) -> String {
        format!("cluster.management.cattle.io/{}", self.cluster.id)
    }
}

#[cfg(test)]
mod tests;
