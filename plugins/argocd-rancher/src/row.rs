//! A row of `list`: one cluster of Argo CD, and its token. It contains no secret.

use std::borrow::Cow;

use argocd::connection::Connection;
use argocd::{ClusterSecret, config::Method};
use cli::age;
use cli::output::Printable;
use cli::table::Column;
use k8s_openapi::jiff::Timestamp;
use rancher::ClusterId;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{ApiToken, Expiry};
use serde::Serialize;

use crate::address::RancherAddress as _;
use crate::controller::{BLIND, SYNC_FAILED};
use crate::mark::{self, API_VERSION};
use crate::report::Part;
use crate::token_facts::TokenFacts;

/// The state of a cluster's token, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Argo CD cannot use the Secret.
    Broken,
    /// Argo CD confuses it with another Secret.
    Duplicate,
    /// Rancher rejects the token.
    Rejected,
    /// The token is valid, but Argo CD cannot use the cluster with it.
    Failing,
    /// The token belonged to this user, and does not exist any more.
    Revoked,
    /// The token has expired.
    Expired,
    /// The token is disabled.
    Disabled,
    /// The token is scoped to another cluster.
    WrongScope,
    /// A rotation is in progress.
    Rotating,
    /// The token works for every cluster that its owner sees.
    Unscoped,
    /// No problem was found.
    Current,
    /// The token belongs to another user, and was not probed.
    Unknown,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Duplicate => "duplicate",
            Self::Rejected => "rejected",
            Self::Failing => "failing",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::WrongScope => "wrong-scope",
            Self::Rotating => "rotating",
            Self::Unscoped => "unscoped",
            Self::Current => "current",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    cluster_name: String,
    server: String,
    cluster: ClusterId,
    token: Option<String>,
    owner: Option<String>,
    /// The only cluster of the token. `*`: all that its owner sees. `null`: unknown.
    scope: Option<String>,
    expires_at: Option<Timestamp>,
    never_expires: bool,
    last_used_at: Option<Timestamp>,
    state: State,
    reasons: Vec<String>,
    /// The result of a call with the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    probed: Option<&'static str>,
    argocd: Option<Connection>,
    /// The earlier tokens that stay valid on purpose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept_tokens: Vec<String>,
    /// What else manages the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<Part>,
    /// The cells of the columns EXPIRES IN and LAST USED.
    #[serde(skip)]
    ages: [String; 2],
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    creation_timestamp: Option<Timestamp>,
}

/// What a row is made of besides the Secret.
#[derive(Clone, Debug)]
pub(crate) struct RowInputs<'a> {
    /// The tokens of the Rancher user. `None`: the Secret belongs to another Rancher, or there is no connection to Rancher.
    pub tokens: Option<&'a [ApiToken]>,
    pub user: Option<&'a str>,
    /// The duplicates of the Secret, in words.
    pub duplicates: Vec<String>,
    /// The result of a call with the token.
    pub probed: Option<CallResult>,
    /// Why no call could be made with the token.
    pub unprobed: Option<String>,
    /// The connection state that Argo CD reports.
    pub connection: Option<Connection>,
    pub rotation: Option<Part>,
    /// By the clock of Argo CD's API server.
    pub now: Timestamp,
}

impl Row {
    /// The row of a cluster. `None`: it is not reached through Rancher.
    pub(crate) fn of(cluster: &ClusterSecret, inputs: &RowInputs<'_>) -> Option<Self> {
        let (_, id) = cluster.server.rancher()?;
        let object = &cluster.object;
        let value = cluster.token();
        let facts = TokenFacts::of(cluster, value.as_ref(), inputs.tokens, inputs.user);
        let (state, reasons) = state(cluster, &id, &facts, inputs);
        let scope = |token: &ApiToken| {
            token
                .cluster
                .as_ref()
                .map_or_else(|| "*".to_owned(), ToString::to_string)
        };
        Some(Self {
            api_version: API_VERSION,
            kind: "ArgoCDCluster",
            metadata: Metadata {
                name: object.name.clone(),
                namespace: object.namespace.clone(),
                uid: object.uid.clone(),
                creation_timestamp: cluster.created,
            },
            cluster_name: cluster.name.clone(),
            server: cluster.server.to_string(),
            cluster: id,
            token: value.as_ref().map(mark::token_name),
            scope: facts.listed.map(scope),
            expires_at: facts.expiry.and_then(Expiry::at),
            never_expires: facts.expiry == Some(Expiry::Never),
            last_used_at: facts.listed.and_then(|token| token.last_used),
            ages: ages(&facts, inputs.now),
            owner: facts.owner,
            state,
            reasons,
            probed: inputs.probed.as_ref().map(CallResult::word),
            argocd: inputs.connection,
            kept_tokens: mark::kept(cluster).into_iter().map(str::to_owned).collect(),
            managed_by: cluster.owner().map(|owner| owner.to_string()),
            rotation: inputs.rotation,
        })
    }

    /// The first line of the page of `status`.
    pub(crate) fn title(&self) -> String {
        format!("Cluster {} ({})", self.cluster_name, self.cluster)
    }

    /// The other lines: a label and a text each.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let [expires, last_used] = &self.ages;
        let mut facts = vec![
            ("secret", format!("{}/{}", self.metadata.namespace, self.metadata.name)),
            ("server", self.server.clone()),
            ("token", or(self.token.as_ref(), "<none>").into_owned()),
            ("owner", or(self.owner.as_ref(), "<unknown>").into_owned()),
            ("scope", or(self.scope.as_ref(), "<unknown>").into_owned()),
            ("expires in", expires.clone()),
            ("last used", last_used.clone()),
            ("state", self.state.word().to_owned()),
        ];
        facts.extend(self.managed_by.iter().map(|owner| ("managed by", owner.clone())));
        if !self.kept_tokens.is_empty() {
            facts.push(("kept", self.kept_tokens.join(", ")));
        }
        facts.extend(self.reasons.iter().map(|reason| ("reason", reason.clone())));
        let connected = self.argocd.and_then(|argocd| argocd.connected);
        facts.extend(connected.map(|connected| {
            let state = if connected { "connected" } else { "its last sync failed" };
            ("argo cd", state.to_owned())
        }));
        facts
    }

    /// Whether the token or the Secret must be corrected.
    pub(crate) fn is_wrong(&self) -> bool {
        !matches!(
            self.state,
            State::Current | State::Rotating | State::Unscoped | State::Unknown
        )
    }
}

fn or<'a>(text: Option<&'a String>, none: &'static str) -> Cow<'a, str> {
    text.map_or(none, String::as_str).into()
}

/// The worst state that there is a reason for, and all reasons, worst first.
fn state(
    cluster: &ClusterSecret,
    id: &ClusterId,
    facts: &TokenFacts<'_>,
    inputs: &RowInputs<'_>,
) -> (State, Vec<String>) {
    let mut reasons = of_secret(cluster);
    reasons.extend(inputs.duplicates.iter().map(|text| (State::Duplicate, text.clone())));
    reasons.extend(inputs.probed.as_ref().and_then(of_probe));
    reasons.extend(inputs.unprobed.clone().map(|why| (State::Unknown, why)));
    reasons.extend(inputs.connection.and_then(of_connection));
    reasons.extend(facts.states(id, inputs.now));
    reasons.extend(inputs.rotation.map(|part| (State::Rotating, part.to_string())));
    reasons.sort_by_key(|(state, _)| *state);
    let is_checked = inputs.probed.as_ref().is_some_and(CallResult::is_accepted) || facts.listed.is_some();
    let otherwise = if is_checked { State::Current } else { State::Unknown };
    let state = reasons.first().map_or(otherwise, |(state, _)| *state);
    (state, reasons.into_iter().map(|(_, reason)| reason).collect())
}

fn of_secret(cluster: &ClusterSecret) -> Vec<(State, String)> {
    let flaws = cluster.flaws().into_iter();
    let mut reasons: Vec<(State, String)> = flaws.map(|flaw| (State::Broken, flaw)).collect();
    let has_token = |method| matches!(method, Method::Bearer | Method::Anonymous);
    if cluster.config.as_ref().is_ok_and(|config| !has_token(config.method())) {
        reasons.push((State::Unknown, mark::NO_BEARER_TOKEN.to_owned()));
    }
    reasons
}

fn of_connection(connection: Connection) -> Option<(State, String)> {
    match (connection.connected?, connection.kinds) {
        (false, _) => Some((State::Failing, SYNC_FAILED.to_owned())),
        (true, Some(0)) => Some((State::Failing, BLIND.to_owned())),
        _ => None,
    }
}

fn of_probe(result: &CallResult) -> Option<(State, String)> {
    match result {
        CallResult::Accepted { .. } => None,
        CallResult::Rejected => Some((State::Rejected, result.to_string())),
        // Rancher accepted the token before it reported that.
        other if other.is_valid() || matches!(other, CallResult::AgentOffline) => {
            Some((State::Failing, other.to_string()))
        }
        other => Some((State::Unknown, other.to_string())),
    }
}

/// The cells of the columns EXPIRES IN and LAST USED.
fn ages(facts: &TokenFacts<'_>, now: Timestamp) -> [String; 2] {
    let expires = match facts.expiry {
        Some(Expiry::At(at)) => age::until(now, Some(at)),
        Some(Expiry::Never) => "<never>".to_owned(),
        _ => "<unknown>".to_owned(),
    };
    let last_used = match facts.listed.map(|token| token.last_used) {
        Some(Some(at)) => age::since(now, Some(at)),
        Some(None) => "<none>".to_owned(),
        None => "<unknown>".to_owned(),
    };
    [expires, last_used]
}

impl Printable for Row {
    const COLUMNS: &'static [Column] = &[
        Column::new("SECRET"),
        Column::new("NAME"),
        Column::new("CLUSTER"),
        Column::new("TOKEN"),
        Column::new("SCOPE"),
        Column::new("OWNER"),
        Column::new("EXPIRES IN"),
        Column::new("LAST USED"),
        Column::new("STATE"),
        Column::wide("ARGOCD"),
        Column::wide("MANAGED BY"),
        Column::wide("SERVER"),
        Column::wide("REASON"),
    ];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        let [expires, last_used] = &self.ages;
        let argocd = match self.argocd.and_then(|argocd| argocd.connected) {
            Some(true) => "connected",
            Some(false) => "failed",
            None => "<unknown>",
        };
        vec![
            self.metadata.name.as_str().into(),
            self.cluster_name.as_str().into(),
            self.cluster.to_string().into(),
            or(self.token.as_ref(), "<none>"),
            or(self.scope.as_ref(), "<unknown>"),
            or(self.owner.as_ref(), "<unknown>"),
            expires.as_str().into(),
            last_used.as_str().into(),
            self.state.word().into(),
            argocd.into(),
            or(self.managed_by.as_ref(), "<none>"),
            self.server.as_str().into(),
            self.reasons.join("; ").into(),
        ]
    }

    fn name(&self) -> String {
        format!("secret/{}", self.metadata.name)
    }
}

#[cfg(test)]
mod tests;
