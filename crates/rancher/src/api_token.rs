//! Rancher's v3 API tokens, with which a user or Argo CD authenticates to Rancher.
//!
//! A token belongs to the user who issued it, and only that user can list or delete it (`pkg/auth/tokens/api.go` of Rancher
//! 2.15.0). It may be scoped to one cluster. Then it is accepted at that cluster's paths only, so it can neither list, issue nor
//! delete tokens. A token cannot be renewed; it can only be replaced by another one.
//!
//! All requests go to Rancher's own URL, not to that of a cluster: the functions take a client of
//! [`RancherUrl::url`](crate::reach::RancherUrl::url). [`bearing`] makes a client that authenticates with a token.
//!
//! Rancher returns the value of a token once, in the response to [`issue`]. It is a [`Secret`] from there on.

mod cluster;
mod norman;
pub mod proof;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use client::request::Verb;
use client::secret::Secret;
use http::{HeaderValue, Method, Request, header};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cluster_id::ClusterId;
use crate::error::Result;
use crate::settings::Setting;

pub use cluster::{VisibleCluster, clusters, find_cluster};

const KIND: &str = "API token";
const TOKENS: &str = "/v3/tokens";
/// The longest lifetime in minutes; 0 or absent: no limit. 129600 (90 days) since Rancher 2.8.
const MAX_TTL: &str = "auth-token-max-ttl-minutes";

/// The name of a token, which is not secret: `token-abcde`, `kubeconfig-u-abcde`. It is the part of the value before the colon.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TokenName(String);

/// A text that is not a valid name. It is not repeated, since it may be a whole token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an API token: use lower-case letters, digits, dashes and dots")]
pub struct InvalidTokenName;

impl TokenName {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = InvalidTokenName;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
        let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        if bytes.len() <= 253 && bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTokenName)
        }
    }
}

impl<'de> Deserialize<'de> for TokenName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A kind of bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A v3 API token: `token-abcde:…`.
    Api(TokenName),
    /// A token of `ext.cattle.io/v1`: `ext/token-abcde:…` (Rancher 2.12 and later). Its `spec.clusterName` is stored but
    /// not enforced.
    Ext(TokenName),
    /// A JSON Web Token of a downstream ServiceAccount, which Rancher accepts where a `ClusterProxyConfig` allows it.
    ServiceAccount,
    /// Any other value.
    Unknown,
}

impl Credential {
    /// From the value.
    pub fn of(value: &Secret) -> Self {
        let text = value.expose();
        if text.starts_with("eyJ") && text.split('.').count() == 3 {
            return Self::ServiceAccount;
        }
        let (is_ext, rest) = match text.strip_prefix("ext/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        match rest.split_once(':').map(|(name, key)| (name.parse(), key)) {
            Some((Ok(name), key)) if !key.is_empty() && is_ext => Self::Ext(name),
            Some((Ok(name), key)) if !key.is_empty() => Self::Api(name),
            _ => Self::Unknown,
        }
    }

    /// Its name in Rancher's v3 API.
    pub fn api_token(&self) -> Option<&TokenName> {
        match self {
            Self::Api(name) => Some(name),
            _ => None,
        }
    }
}

/// When a token expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Never: its time to live is 0.
    Never,
    /// At this time. A token with a negative time to live expires when it is issued (seen on Rancher 2.15.0 and 2.12.0).
    At(Timestamp),
    /// Rancher does not say when it was created.
    Unknown,
}

impl Expiry {
    /// The time, if there is one.
    pub fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::Never | Self::Unknown => None,
        }
    }
}

/// A token as its owner sees it, without its value, which Rancher does not return again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Its name.
    pub name: TokenName,
    /// The user who owns it: `u-abcde`, `user-abcde`.
    pub user: String,
    /// Its description; [`Mark::read`] reads ours.
    pub description: String,
    /// The cluster that it is scoped to. `None`: all clusters of its owner.
    pub cluster: Option<ClusterId>,
    /// When it expires. Computed as Rancher computes it, creation plus time to live: `expiresAt` is empty in the response to
    /// [`issue`], and set seconds later (seen on Rancher 2.15.0 and 2.12.0).
    pub expiry: Expiry,
    /// Rancher reports it as expired.
    pub expired: bool,
    /// It is not disabled.
    pub enabled: bool,
    /// When it was issued.
    pub created: Option<Timestamp>,
    /// The time of the last request with it, to the second. `None` before the first one, and before Rancher 2.9.
    pub last_used: Option<Timestamp>,
    /// Issued with another token, not by a login. Only such a token can delete itself.
    pub derived: bool,
    /// It is the token of this request.
    pub current: bool,
}

impl ApiToken {
    /// Whether it is valid at this time, by what Rancher reports of it.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.enabled && !self.expired && self.expiry.at().is_none_or(|at| at > now)
    }
}

/// A description that says what a token is for, so that a run that was killed right after it issued a token finds it again.
///
/// ```
/// use rancher::api_token::Mark;
/// let mut mark = Mark::new("kubectl-argocd-rancher", "x7k2p", "argocd/cluster-one");
/// assert_eq!(mark.to_string(), "kubectl-argocd-rancher run=x7k2p for=argocd/cluster-one");
/// assert_eq!(Mark::read(&mark.to_string()), Some(mark.clone()));
/// mark.cluster = Some("51a4b7f0".to_owned());
/// mark.replaces = Some("token-abcde".to_owned());
/// assert_eq!(Mark::read(&mark.to_string()), Some(mark));
/// assert_eq!(Mark::read("created by hand"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The program.
    pub by: String,
    /// Its run.
    pub run: String,
    /// What the token is for: `namespace/name` of the object with the token.
    pub subject: String,
    /// The cluster of this object. `None`: the mark was written by a release without this field.
    pub cluster: Option<String>,
    /// The token that it replaces.
    pub replaces: Option<String>,
}

impl Mark {
    /// White space, which separates the words of a mark, is left out.
    pub fn new(by: &str, run: &str, subject: &str) -> Self {
        let word = |text: &str| text.split_whitespace().collect();
        Self {
            by: word(by),
            run: word(run),
            subject: word(subject),
            cluster: None,
            replaces: None,
        }
    }

    /// From a description. `None`: it is no mark.
    pub fn read(description: &str) -> Option<Self> {
        let mut words = description.split(' ');
        let mut mark = Self {
            by: words.next().filter(|by| !by.is_empty())?.to_owned(),
            run: words.next()?.strip_prefix("run=")?.to_owned(),
            subject: words.next()?.strip_prefix("for=")?.to_owned(),
            cluster: None,
            replaces: None,
        };
        for word in words {
            match word.split_once('=')? {
                ("in", cluster) if mark.cluster.is_none() => mark.cluster = Some(cluster.to_owned()),
                ("replaces", name) if mark.replaces.is_none() => mark.replaces = Some(name.to_owned()),
                _ => return None,
            }
        }
        Some(mark)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} run={} for={}", self.by, self.run, self.subject)?;
        if let Some(cluster) = &self.cluster {
            write!(f, " in={cluster}")?;
        }
        self.replaces
            .as_ref()
            .map_or(Ok(()), |name| write!(f, " replaces={name}"))
    }
}

/// A time to live that can be requested. Not 0, which means "as long as possible", and not negative, which issues an expired token
/// (seen on Rancher 2.15.0 and 2.12.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(Duration);

/// A time to live that is too short, or longer than Rancher supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lifetime of a token must be between 1 second and 100 years")]
pub struct InvalidLifetime;

impl TryFrom<Duration> for Lifetime {
    type Error = InvalidLifetime;

    fn try_from(duration: Duration) -> std::result::Result<Self, Self::Error> {
        const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);
        let fits = (Duration::from_secs(1)..=LONGEST).contains(&duration);
        fits.then_some(Self(duration)).ok_or(InvalidLifetime)
    }
}

impl Lifetime {
    /// As a duration.
    pub fn duration(self) -> Duration {
        self.0
    }

    /// What Rancher grants with its limit ([`max_ttl`]): the shorter of both. Rancher does not report the difference.
    #[must_use]
    pub fn granted(self, limit: Option<Duration>) -> Self {
        limit.map_or(self, |limit| Self(self.0.min(limit)))
    }
}

/// A token to be issued.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The cluster that it is scoped to. Rancher does not check that the cluster exists.
    pub cluster: Option<ClusterId>,
    /// Its lifetime, which Rancher may shorten.
    pub lifetime: Lifetime,
    /// What it is for.
    pub mark: Mark,
}

/// A token that was just issued, and its value, which Rancher does not return again.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: ApiToken,
    /// The whole bearer value, `token-abcde:…`.
    pub value: Secret,
}

/// A client that authenticates with this token. `client` must have no other credentials. `None`: the token is no valid header.
pub fn bearing(client: &kube::Client, token: &Secret) -> Option<kube::Client> {
    let bearer = Secret::new(format!("Bearer {}", token.expose()));
    let mut value = HeaderValue::from_str(bearer.expose()).ok()?;
    value.set_sensitive(true);
    let client = client.clone();
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let client = client.clone();
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        async move { client.send(request).await }
    });
    Some(kube::Client::new(service, "default"))
}

/// Issues a token for the caller. Never sent twice: if the response is lost, [`list`] and the mark find the token.
pub async fn issue(client: &kube::Client, new: &NewToken) -> Result<IssuedToken> {
    let body = json!({
        "type": "token",
        "description": new.mark.to_string(),
        "ttl": u64::try_from(new.lifetime.duration().as_millis()).unwrap_or(u64::MAX),
        "clusterId": new.cluster,
    });
    let operation = norman::Operation::new(Verb::Create, KIND, None);
    let raw: RawToken = norman::send(client, &operation, Method::POST, TOKENS, Some(&body)).await?;
    let value = raw.token.clone().filter(|value| !value.is_empty());
    match (raw.read(), value) {
        (Some(token), Some(value)) => Ok(IssuedToken {
            token,
            value: Secret::new(value),
        }),
        _ => Err(operation.invalid()),
    }
}

/// One of the caller's tokens. `None` if none has that name, or another user owns it.
pub async fn get(client: &kube::Client, name: &TokenName) -> Result<Option<ApiToken>> {
    let operation = norman::Operation::new(Verb::Get, KIND, Some(name.as_str()));
    let path = format!("{TOKENS}/{name}");
    let raw: Option<RawToken> = norman::optional(norman::send(client, &operation, Method::GET, &path, None).await)?;
    raw.map(|raw| raw.read().ok_or_else(|| operation.invalid())).transpose()
}

/// All tokens of the caller. Expired ones are listed until Rancher's hourly purge.
pub async fn list(client: &kube::Client) -> Result<Vec<ApiToken>> {
    let operation = norman::Operation::new(Verb::List, KIND, None);
    let raw: Vec<RawToken> = norman::list(client, &operation, TOKENS).await?;
    Ok(raw.into_iter().filter_map(RawToken::read).collect())
}

/// Revokes one of the caller's tokens: Rancher rejects it within 60 ms (seen on Rancher 2.15.0 and 2.12.0). `false`: the caller has
/// no token of that name.
pub async fn delete(client: &kube::Client, name: &TokenName) -> Result<bool> {
    let operation = norman::Operation::new(Verb::Delete, KIND, Some(name.as_str()));
    let path = format!("{TOKENS}/{name}");
    let gone = norman::send::<serde::de::IgnoredAny>(client, &operation, Method::DELETE, &path, None).await;
    norman::optional(gone).map(|found| found.is_some())
}

/// A user of Rancher.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct User {
    /// `u-abcde`, `user-abcde`.
    pub id: String,
    /// The login name; may be empty.
    #[serde(default)]
    pub username: String,
}

/// The caller's user. A token that is scoped to a cluster is rejected here (401).
pub async fn whoami(client: &kube::Client) -> Result<User> {
    let operation = norman::Operation::new(Verb::Get, "user", Some("me"));
    let users: Vec<User> = norman::list(client, &operation, "/v3/users?me=true").await?;
    users.into_iter().next().ok_or_else(|| operation.invalid())
}

/// A setting by name, as any user can read it. `None` if it does not exist, or this user has no permission.
pub async fn setting(client: &kube::Client, name: &str) -> Result<Option<Setting>> {
    let operation = norman::Operation::new(Verb::Get, "Setting", Some(name));
    let path = format!("/v3/settings/{name}");
    match norman::send(client, &operation, Method::GET, &path, None).await {
        Err(error) if error.is_forbidden() => Ok(None),
        other => norman::optional(other),
    }
}

/// The longest lifetime that Rancher grants. `None`: no limit, or unknown.
pub async fn max_ttl(client: &kube::Client) -> Result<Option<Duration>> {
    let setting = setting(client, MAX_TTL).await?.unwrap_or_default();
    let minutes: u64 = setting
        .effective()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    Ok((minutes > 0).then(|| Duration::from_mins(minutes)))
}

/// A token as Rancher's v3 API writes it. (`pkg/client/generated/management/v3/zz_generated_token.go`, 2.15.0.)
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawToken {
    id: String,
    name: String,
    /// Only in the response to [`issue`].
    token: Option<String>,
    user_id: Option<String>,
    description: Option<String>,
    cluster_id: Option<String>,
    /// Milliseconds.
    ttl: i64,
    created: Option<String>,
    /// Milliseconds since 1970.
    #[serde(rename = "createdTS")]
    created_ts: Option<i64>,
    expires_at: Option<String>,
    expired: bool,
    enabled: Option<bool>,
    last_used_at: Option<String>,
    is_derived: bool,
    current: bool,
}

impl RawToken {
    /// `None`: it has no valid name.
    fn read(self) -> Option<ApiToken> {
        let (expiry, created) = (self.expiry(), self.created());
        let name = if self.name.is_empty() { self.id } else { self.name };
        Some(ApiToken {
            name: name.parse().ok()?,
            user: self.user_id.unwrap_or_default(),
            description: self.description.unwrap_or_default(),
            cluster: self.cluster_id.and_then(|id| id.parse().ok()),
            expiry,
            expired: self.expired,
            enabled: self.enabled != Some(false),
            created,
            last_used: time(self.last_used_at.as_deref()),
            derived: self.is_derived,
            current: self.current,
        })
    }

    fn created(&self) -> Option<Timestamp> {
        let created = self.created_ts.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        time(self.created.as_deref()).or(created)
    }

    fn expiry(&self) -> Expiry {
        match (self.ttl, self.created(), time(self.expires_at.as_deref())) {
            (0, _, _) => Expiry::Never,
            (ttl, Some(created), _) => {
                let ends = created.saturating_add(SignedDuration::from_millis(ttl.max(0)));
                ends.map_or(Expiry::Never, Expiry::At)
            }
            (_, None, Some(ends)) => Expiry::At(ends),
            (_, None, None) => Expiry::Unknown,
        }
    }
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}
