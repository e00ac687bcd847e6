//! One cluster of Argo CD's as a row of `list`, for people and for machines. It holds names of tokens, no value.

use std::borrow::Cow;

use argocd::connection::Connection;
use argocd::{ClusterSecret, config::Method};
use cli::age;
use cli::output::Printable;
use cli::table::Column;
use client::secret::Secret;
use k8s_openapi::jiff::Timestamp;
use rancher::ClusterId;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{ApiToken, Credential, Expiry};
use serde::Serialize;

use crate::address::RancherAddress as _;
use crate::controller::BLIND;
use crate::mark::{self, API_VERSION};
use crate::report::product::Part;

/// In which state a cluster's token is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Argo CD cannot use the Secret.
    Broken,
    /// Another Secret gets into its way.
    Duplicate,
    /// Rancher refuses the token.
    Dead,
    /// It lives, but not for what it is there for.
    Failing,
    /// Rancher has no such token of ours any more.
    Revoked,
    /// Its time is over.
    Expired,
    /// It was switched off.
    Disabled,
    /// It is for another cluster.
    WrongScope,
    /// Another is about to take its place, or it is about to be restored.
    Rotating,
    /// It works for every cluster that its owner sees.
    Unscoped,
    /// As it should be, as far as was looked.
    Current,
    /// It is not ours, so Rancher tells us nothing of it.
    Unknown,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Duplicate => "duplicate",
            Self::Dead => "dead",
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

/// A row.
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
    /// The cluster that the token is for; `*`: all that its owner sees; `null`: not known.
    scope: Option<String>,
    expires_at: Option<Timestamp>,
    never_expires: bool,
    last_used_at: Option<Timestamp>,
    state: State,
    reasons: Vec<String>,
    /// What a call with the token showed just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    probed: Option<&'static str>,
    argocd: Option<View>,
    /// What else manages the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<String>,
    /// A rotation under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<Part>,
    #[serde(skip)]
    shown: [String; 2],
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    creation_timestamp: Option<Timestamp>,
}

/// What Argo CD itself says.
#[derive(Clone, Copy, Debug, Serialize)]
struct View {
    connected: Option<bool>,
    kinds: Option<u64>,
}

/// What a row needs to know besides the Secret.
#[derive(Clone, Debug)]
pub(crate) struct Scene<'a> {
    /// Our own tokens at the Rancher that the user named; `None`: the Secret is of another, or none was named.
    pub tokens: Option<&'a [ApiToken]>,
    /// Who we are there.
    pub me: Option<&'a str>,
    /// The duplicates that this Secret is part of, in words.
    pub duplicates: Vec<String>,
    /// What a call with the token showed.
    pub probed: Option<CallResult>,
    /// What Argo CD says.
    pub view: Option<Connection>,
    /// The rotation under way.
    pub rotation: Option<Part>,
    /// By Rancher's clock, or the nearest to it.
    pub now: Timestamp,
}

/// What is known of a token: from Rancher where it is ours, else from the notes on the Secret.
struct Known<'a> {
    ours: Option<&'a ApiToken>,
    owner: Option<String>,
    expiry: Option<Expiry>,
    /// It was ours, and Rancher does not know it any more.
    revoked: bool,
}

impl<'a> Known<'a> {
    fn of(cluster: &ClusterSecret, value: Option<&Secret>, scene: &Scene<'a>) -> Self {
        let credential = value.map(Credential::of);
        let name = credential.as_ref().and_then(Credential::api_token);
        let ours = scene
            .tokens
            .and_then(|tokens| tokens.iter().find(|token| Some(&token.name) == name));
        let note = |key: &str| cluster.annotations.get(key).map(String::as_str);
        // Notes are about the token that they were made with.
        let noted = name.is_some_and(|name| note(mark::TOKEN) == Some(name.as_str()));
        let owner = match ours {
            Some(token) => Some(token.user.clone()),
            None => note(mark::TOKEN_USER).filter(|_| noted).map(str::to_owned),
        };
        let expiry = match ours {
            Some(token) => Some(token.expiry),
            None => note(mark::TOKEN_EXPIRES)
                .filter(|_| noted)
                .map(|text| text.parse().map_or(Expiry::Never, Expiry::At)),
        };
        let was_ours = owner.is_some() && owner.as_deref() == scene.me;
        Self {
            revoked: scene.tokens.is_some() && ours.is_none() && was_ours,
            ours,
            owner,
            expiry,
        }
    }
}

impl Row {
    /// The row of a cluster; `None` if it does not lead through Rancher.
    pub(crate) fn of(cluster: &ClusterSecret, scene: &Scene<'_>) -> Option<Self> {
        let (_, id) = cluster.server.rancher()?;
        let value = cluster.token();
        let known = Known::of(cluster, value.as_ref(), scene);
        let (state, reasons) = judge(cluster, &id, &known, scene);
        let expires_at = known.expiry.and_then(Expiry::at);
        let never_expires = known.expiry == Some(Expiry::Never);
        let last_used_at = known.ours.and_then(|token| token.last_used);
        let expires = match (expires_at, never_expires) {
            (Some(_), _) => age::until(scene.now, expires_at),
            (None, true) => "<never>".to_owned(),
            (None, false) => "<unknown>".to_owned(),
        };
        let last_used = match last_used_at {
            Some(_) => age::since(scene.now, last_used_at),
            None if known.ours.is_some() => "<none>".to_owned(),
            None => "<unknown>".to_owned(),
        };
        Some(Self {
            api_version: API_VERSION,
            kind: "ArgoCDCluster",
            metadata: Metadata::of(cluster),
            cluster_name: cluster.name.clone(),
            server: cluster.server.to_string(),
            cluster: id,
            token: value.as_ref().map(mark::shown),
            scope: known.ours.map(|token| {
                token
                    .cluster
                    .as_ref()
                    .map_or_else(|| "*".to_owned(), ToString::to_string)
            }),
            owner: known.owner,
            expires_at,
            never_expires,
            last_used_at,
            state,
            reasons,
            probed: scene.probed.as_ref().map(CallResult::word),
            argocd: scene.view.map(Into::into),
            managed_by: cluster.owner().map(|owner| owner.to_string()),
            rotation: scene.rotation,
            shown: [expires, last_used],
        })
    }

    /// The page's first line.
    pub(crate) fn title(&self) -> String {
        format!("Cluster {} ({})", self.cluster_name, self.cluster)
    }

    /// The page's lines: a label and a text each.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let [expires, last_used] = &self.shown;
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "<unknown>".to_owned());
        let mut facts = vec![
            ("secret", format!("{}/{}", self.metadata.namespace, self.metadata.name)),
            ("server", self.server.clone()),
            ("token", self.token.clone().unwrap_or_else(|| "<none>".to_owned())),
            ("owner", or(&self.owner)),
            ("scope", or(&self.scope)),
            ("ends in", expires.clone()),
            ("last used", last_used.clone()),
            ("state", self.state.word().to_owned()),
        ];
        facts.extend(self.managed_by.iter().map(|owner| ("managed by", owner.clone())));
        facts.extend(self.reasons.iter().map(|reason| ("because", reason.clone())));
        let connected = self.argocd.and_then(|view| view.connected);
        facts.extend(connected.map(|connected| {
            let said = if connected {
                "connected"
            } else {
                "its last full look failed"
            };
            ("argo cd", format!("says: {said}"))
        }));
        facts
    }

    /// Whether somebody should do something about it.
    pub(crate) fn is_wrong(&self) -> bool {
        !matches!(
            self.state,
            State::Current | State::Rotating | State::Unscoped | State::Unknown
        )
    }
}

impl Metadata {
    fn of(cluster: &ClusterSecret) -> Self {
        let object = &cluster.object;
        Self {
            name: object.name.clone(),
            namespace: object.namespace.clone(),
            uid: object.uid.clone(),
            creation_timestamp: cluster.created,
        }
    }
}

impl From<Connection> for View {
    fn from(Connection { connected, kinds, .. }: Connection) -> Self {
        Self { connected, kinds }
    }
}

/// The worst of all states that something speaks for, and everything that does, worst first.
fn judge(cluster: &ClusterSecret, id: &ClusterId, known: &Known<'_>, scene: &Scene<'_>) -> (State, Vec<String>) {
    let mut reasons = of_secret(cluster);
    reasons.extend(scene.duplicates.iter().map(|text| (State::Duplicate, text.clone())));
    reasons.extend(scene.probed.as_ref().and_then(of_probe));
    reasons.extend(scene.view.and_then(of_view));
    reasons.extend(of_token(known, id, scene.now));
    reasons.extend(scene.rotation.map(|part| (State::Rotating, part.to_string())));
    reasons.sort_by_key(|(state, _)| *state);
    let looked = scene.probed.as_ref().is_some_and(CallResult::is_accepted) || known.ours.is_some();
    let otherwise = if looked { State::Current } else { State::Unknown };
    let state = reasons.first().map_or(otherwise, |(state, _)| *state);
    (state, reasons.into_iter().map(|(_, reason)| reason).collect())
}

fn of_secret(cluster: &ClusterSecret) -> Vec<(State, String)> {
    let mut reasons: Vec<(State, String)> = cluster
        .problems
        .iter()
        .map(|problem| (State::Broken, problem.to_string()))
        .collect();
    match &cluster.config {
        Err(bad) => reasons.push((State::Broken, bad.to_string())),
        Ok(config) => {
            reasons.extend(
                config
                    .flaws()
                    .iter()
                    .map(|flaw| (State::Broken, format!("config {flaw}"))),
            );
            if !matches!(config.method(), Method::Bearer | Method::Anonymous) {
                reasons.push((State::Unknown, "Argo CD does not log in with a token here".to_owned()));
            }
        }
    }
    reasons
}

fn of_view(view: Connection) -> Option<(State, String)> {
    match (view.connected?, view.kinds) {
        (false, _) => Some((
            State::Failing,
            "Argo CD's last full look at the cluster failed".to_owned(),
        )),
        (true, Some(0)) => Some((State::Failing, BLIND.to_owned())),
        _ => None,
    }
}

fn of_probe(standing: &CallResult) -> Option<(State, String)> {
    match standing {
        CallResult::Accepted { .. } => None,
        CallResult::Rejected => Some((State::Dead, standing.to_string())),
        other if other.is_valid() => Some((State::Failing, other.to_string())),
        other => Some((State::Unknown, other.to_string())),
    }
}

fn of_token(known: &Known<'_>, cluster: &ClusterId, now: Timestamp) -> Vec<(State, String)> {
    let mut reasons = Vec::new();
    let mut say = |state, reason: &str| reasons.push((state, reason.to_owned()));
    if known.revoked {
        say(
            State::Revoked,
            "Rancher has no such token of ours any more: it was revoked, or expired and was removed",
        );
    }
    let over = known.expiry.and_then(Expiry::at).is_some_and(|at| at <= now);
    if over || known.ours.is_some_and(|token| token.expired) {
        say(State::Expired, "its time to live is over");
    }
    let Some(token) = known.ours else { return reasons };
    if !token.enabled {
        say(State::Disabled, "it was switched off");
    }
    match &token.cluster {
        None => say(State::Unscoped, "it works for every cluster that its owner sees"),
        Some(scope) if scope != cluster => say(State::WrongScope, &format!("it is for cluster {scope}")),
        Some(_) => {}
    }
    reasons
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
        fn or<'a>(text: Option<&'a String>, none: &'static str) -> Cow<'a, str> {
            text.map_or(none, String::as_str).into()
        }
        let [expires, last_used] = &self.shown;
        let argocd = match self.argocd.and_then(|view| view.connected) {
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
