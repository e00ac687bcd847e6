//! Rancher's v3 API tokens, as a client sees them: what a person, or Argo CD, calls Rancher with.
//!
//! A token belongs to the user who minted it, and only that user can list or delete it (`pkg/auth/tokens/api.go` of
//! Rancher 2.15.0). It may be scoped to one cluster: then it works at that cluster's paths and nowhere else, so it can
//! neither list, mint nor delete tokens. There is no renewal: the only way on is another token.
//!
//! Everything here goes to Rancher's own URL, not to a cluster's: the functions take a client of
//! [`RancherUrl::url`](crate::reach::RancherUrl::url). [`bearing`] makes one that calls with a given token.
//!
//! The value of a token is told once, in the answer to [`mint`]; it is a [`Secret`] from there on.

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

pub use cluster::{SeenCluster, clusters, find_cluster};

const KIND: &str = "API token";
const TOKENS: &str = "/v3/tokens";
/// What no lifetime is longer than, in minutes; 0 or absent: no limit. 129600 (90 days) since Rancher 2.8.
const MAX_TTL: &str = "auth-token-max-ttl-minutes";

/// The name of a token, which may be shown: `token-abcde`, `kubeconfig-u-abcde`. It stands before the colon of the value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TokenName(String);

/// A text that no token could be called. The text is not repeated: it may be a whole token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an API token: lower-case letters, digits, dashes and dots are expected")]
pub struct NotATokenName;

impl TokenName {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = NotATokenName;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
        let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        if bytes.len() <= 253 && bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotATokenName)
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

/// What sort of bearer value something calls Rancher with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A v3 token: `token-abcde:…`.
    Api(TokenName),
    /// A token of `ext.cattle.io/v1`: `ext/token-abcde:…` (Rancher 2.12 and later). Its `spec.clusterName` is stored but
    /// not enforced.
    Ext(TokenName),
    /// A JSON Web Token: a downstream ServiceAccount's, which Rancher accepts where a `ClusterProxyConfig` allows it.
    ServiceAccount,
    /// None of these.
    Strange,
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
            _ => Self::Strange,
        }
    }

    /// The name under which Rancher's v3 API knows it.
    pub fn api_token(&self) -> Option<&TokenName> {
        match self {
            Self::Api(name) => Some(name),
            _ => None,
        }
    }
}

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Its time to live is 0: never.
    Never,
    /// At this moment. A negative time to live ends a token when it is made (seen on Rancher 2.15.0 and 2.12.0).
    At(Timestamp),
    /// Rancher does not say when it was made.
    Unknown,
}

impl Expiry {
    /// The moment, if there is one.
    pub fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::Never | Self::Unknown => None,
        }
    }
}

/// A token as its owner sees it. No value: Rancher does not tell it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Its name.
    pub name: TokenName,
    /// The user who owns it: `u-abcde`, `user-abcde`.
    pub user: String,
    /// What its maker wrote; [`Mark::read`] finds ours.
    pub description: String,
    /// The only cluster that it works for. `None`: all that its owner sees.
    pub cluster: Option<ClusterId>,
    /// When it ends. Computed as Rancher computes it, creation plus time to live: `expiresAt` is empty in the answer to a
    /// mint, and filled seconds later (seen on Rancher 2.15.0 and 2.12.0).
    pub expiry: Expiry,
    /// Rancher counts it as expired.
    pub expired: bool,
    /// It has not been switched off.
    pub enabled: bool,
    /// Of the last request with it, to the second; `None` before the first, and where Rancher does not keep it
    /// (before 2.9).
    pub last_used: Option<Timestamp>,
    /// Made from another token, not by a login. Only such a token can delete itself.
    pub derived: bool,
    /// It is the token that the list was asked for with.
    pub current: bool,
}

impl ApiToken {
    /// Whether Rancher would let it in at this moment, by what it says of it.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.enabled && !self.expired && self.expiry.at().is_none_or(|at| at > now)
    }
}

/// A description that tells whose a token is, so that a run that was killed right after minting finds it again.
///
/// ```
/// use rancher::api_token::Mark;
/// let mut mark = Mark::new("kubectl-argocd-rancher", "x7k2p", "argocd/cluster-one");
/// assert_eq!(mark.to_string(), "kubectl-argocd-rancher run=x7k2p for=argocd/cluster-one");
/// assert_eq!(Mark::read(&mark.to_string()), Some(mark.clone()));
/// mark.cluster = Some("51a4b7f0".to_owned());
/// mark.replaces = Some("token-abcde".to_owned());
/// assert_eq!(Mark::read(&mark.to_string()), Some(mark));
/// assert_eq!(Mark::read("made by hand"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The program.
    pub by: String,
    /// Its run.
    pub run: String,
    /// What the token is for: `namespace/name` of the object that holds it.
    pub subject: String,
    /// The cluster that this object is in. `None`: the mark is of a release that did not tell.
    pub cluster: Option<String>,
    /// The token that it takes the place of.
    pub replaces: Option<String>,
}

impl Mark {
    /// A mark of these. White space, which would break it, is left out.
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

    /// From a description; `None` if it was written by others.
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

/// A time to live that can be asked for: at least a millisecond, since 0 means "as long as possible" and a negative one
/// makes a token that is dead (seen on Rancher 2.15.0 and 2.12.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(Duration);

/// A time to live of nothing, or of more than Rancher can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token must live for at least a second and at most 100 years")]
pub struct NotALifetime;

impl TryFrom<Duration> for Lifetime {
    type Error = NotALifetime;

    fn try_from(duration: Duration) -> std::result::Result<Self, Self::Error> {
        const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);
        let fits = (Duration::from_secs(1)..=LONGEST).contains(&duration);
        fits.then_some(Self(duration)).ok_or(NotALifetime)
    }
}

impl Lifetime {
    /// The time itself.
    pub fn duration(self) -> Duration {
        self.0
    }

    /// What Rancher makes of it under its limit ([`max_ttl`]): the shorter of both. It says nothing; the answer to a mint
    /// has what was granted.
    #[must_use]
    pub fn granted(self, limit: Option<Duration>) -> Self {
        limit.map_or(self, |limit| Self(self.0.min(limit)))
    }
}

/// A token to be minted.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The one cluster that it shall work for. Rancher does not check that there is such a cluster.
    pub cluster: Option<ClusterId>,
    /// How long it shall live; Rancher may shorten it without a word.
    pub lifetime: Lifetime,
    /// Whose it is.
    pub mark: Mark,
}

/// A token that was just made, and its value, which nobody will be told again.
#[derive(Debug)]
pub struct Minted {
    /// The token.
    pub token: ApiToken,
    /// The whole bearer value, `token-abcde:…`.
    pub value: Secret,
}

/// A client that calls with this token, in the place of any other identity: `client` should have none.
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

/// Makes a token for the caller. Never sent twice: a lost answer is found by [`list`] and the mark.
pub async fn mint(client: &kube::Client, new: &NewToken) -> Result<Minted> {
    let body = json!({
        "type": "token",
        "description": new.mark.to_string(),
        "ttl": u64::try_from(new.lifetime.duration().as_millis()).unwrap_or(u64::MAX),
        "clusterId": new.cluster,
    });
    let asked = norman::Asked::new(Verb::Create, KIND, None);
    let raw: RawToken = norman::send(client, &asked, Method::POST, TOKENS, Some(&body)).await?;
    let value = raw.token.clone().filter(|value| !value.is_empty());
    match (raw.read(), value) {
        (Some(token), Some(value)) => Ok(Minted {
            token,
            value: Secret::new(value),
        }),
        _ => Err(asked.senseless()),
    }
}

/// One of the caller's tokens; `None` if there is none of that name, or it is somebody else's.
pub async fn get(client: &kube::Client, name: &TokenName) -> Result<Option<ApiToken>> {
    let asked = norman::Asked::new(Verb::Get, KIND, Some(name.as_str()));
    let path = format!("{TOKENS}/{name}");
    let raw: Option<RawToken> = norman::optional(norman::send(client, &asked, Method::GET, &path, None).await)?;
    raw.map(|raw| raw.read().ok_or_else(|| asked.senseless())).transpose()
}

/// All tokens of the caller. Those that expired are in it until Rancher's hourly purge.
pub async fn list(client: &kube::Client) -> Result<Vec<ApiToken>> {
    let asked = norman::Asked::new(Verb::List, KIND, None);
    let raw: Vec<RawToken> = norman::list(client, &asked, TOKENS).await?;
    Ok(raw.into_iter().filter_map(RawToken::read).collect())
}

/// Ends one of the caller's tokens: Rancher refuses it within 60 ms (seen on Rancher 2.15.0 and 2.12.0). `false`: there
/// was none of that name among the caller's.
pub async fn delete(client: &kube::Client, name: &TokenName) -> Result<bool> {
    let asked = norman::Asked::new(Verb::Delete, KIND, Some(name.as_str()));
    let path = format!("{TOKENS}/{name}");
    let gone = norman::send::<serde::de::IgnoredAny>(client, &asked, Method::DELETE, &path, None).await;
    norman::optional(gone).map(|found| found.is_some())
}

/// A user of Rancher.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct User {
    /// `u-abcde`, `user-abcde`.
    pub id: String,
    /// What the user logs in as; may be empty.
    #[serde(default)]
    pub username: String,
}

/// Who the caller is to Rancher. A token that is scoped to a cluster is refused here (401).
pub async fn whoami(client: &kube::Client) -> Result<User> {
    let asked = norman::Asked::new(Verb::Get, "user", Some("me"));
    let users: Vec<User> = norman::list(client, &asked, "/v3/users?me=true").await?;
    users.into_iter().next().ok_or_else(|| asked.senseless())
}

/// A setting by name, as any user may read it; `None` if there is none of that name, or it is not for this user.
pub async fn setting(client: &kube::Client, name: &str) -> Result<Option<Setting>> {
    let asked = norman::Asked::new(Verb::Get, "Setting", Some(name));
    let path = format!("/v3/settings/{name}");
    match norman::send(client, &asked, Method::GET, &path, None).await {
        Err(error) if error.is_forbidden() => Ok(None),
        other => norman::optional(other),
    }
}

/// The longest time to live that Rancher grants; `None`: it has no limit, or does not tell.
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
    /// Only in the answer to a mint.
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
    /// `None`: it has no usable name.
    fn read(self) -> Option<ApiToken> {
        let expiry = self.expiry();
        let name = if self.name.is_empty() { self.id } else { self.name };
        Some(ApiToken {
            name: name.parse().ok()?,
            user: self.user_id.unwrap_or_default(),
            description: self.description.unwrap_or_default(),
            cluster: self.cluster_id.and_then(|id| id.parse().ok()),
            expiry,
            expired: self.expired,
            enabled: self.enabled != Some(false),
            last_used: time(self.last_used_at.as_deref()),
            derived: self.is_derived,
            current: self.current,
        })
    }

    fn expiry(&self) -> Expiry {
        let created = self.created_ts.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let created = time(self.created.as_deref()).or(created);
        match (self.ttl, created, time(self.expires_at.as_deref())) {
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
