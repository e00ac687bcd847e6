//! Cluster registration tokens: `clusterregistrationtokens.management.cattle.io`, and in era S the Secret behind each.
//!
//! Era P keeps the value in `status.token`. Era S keeps it in the Secret `crt-token-<name>` of the same namespace, with
//! the previous value, an expiry and an end of grace; of the last two the token's status has copies, which may differ
//! for good after an upgrade (seen on Rancher 2.15.0). Both values authenticate. So does a Secret whose token is gone:
//! Rancher goes by the Secret's name only.

mod generate;
mod listing;
mod write;

use std::collections::BTreeMap;

use client::ownership::Owner;
use client::request::{self, Item, Metadata, Resource, SECRET, Wanted};
use client::secret::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use crate::cluster_id::ClusterId;
use crate::error::{Error, Result};
use crate::object::{self, Observed, Problem, WRONG_TYPE, decoded, time};

pub use generate::{ALPHABET, LENGTH, generate};
pub use listing::{Batch, Listing};
pub use write::{
    Change, NewToken, SecretChange, StatusChange, change_secret, change_status, create, delete, delete_secret,
    set_plain_value,
};

/// The token that Rancher itself deploys the agent with.
pub const SYSTEM: &str = "system";
/// The token that Rancher makes for every cluster, and shows to users.
pub const DEFAULT: &str = "default-token";
/// What the name of a token's Secret begins with; the token's name follows.
pub const SECRET_PREFIX: &str = "crt-token-";

const TOKEN: Resource = object::management("ClusterRegistrationToken", "clusterregistrationtokens");

/// Why a token's value is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unknown {
    /// The caller may not read the Secret.
    NoRight,
    /// Rancher has not given it a value yet: that takes it less than a second, if its leader is alive.
    NotYet,
    /// Its Secret is not there.
    NoSecret,
    /// What is there is no token; see the object's `problems`.
    Malformed,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NoRight => "no right to read its Secret",
            Self::NotYet => "no value yet",
            Self::NoSecret => "its Secret is missing",
            Self::Malformed => "its value makes no sense",
        })
    }
}

/// A registration token of a cluster.
#[derive(Clone, Debug)]
pub struct RegistrationToken {
    /// Namespace (which is the cluster's id), name, uid and version of the object.
    pub object: Observed,
    /// `spec.clusterName`. Rancher's two tunnels look in different places if it is not the namespace.
    pub cluster_name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// It is being deleted: in era S that waits for Rancher's leader, which holds a finalizer.
    pub deleting: bool,
    /// What else writes it, by the marks on it.
    pub managed_by: Option<Owner>,
    /// The value that it stands for, or why it is not known.
    pub value: Result<Secret, Unknown>,
    /// Era S: the Secret behind it, if it could be read.
    pub secret: Option<TokenSecret>,
    /// `status.tokenSecretName`: what makes it a token of era S.
    pub secret_name: Option<String>,
    /// Era S: what stands in `status.token` all the same. It was put there by hand, is in clear for every reader of the
    /// token, and does not authenticate (seen on Rancher 2.15.0).
    pub leftover: Option<Secret>,
    /// `status.expiresAt`, a copy.
    pub status_expires_at: Option<Timestamp>,
    /// `status.gracePeriodExpiresAt`. A copy, but the one that Rancher 2.13.8, 2.14.4 and 2.15.0 go by.
    pub status_grace_ends_at: Option<Timestamp>,
    /// Rancher has filled in the commands, which it does last.
    pub has_commands: bool,
    /// Fields that make no sense, those of the Secret included.
    pub problems: Vec<Problem>,
}

/// The Secret behind a token of era S.
#[derive(Clone, Debug)]
pub struct TokenSecret {
    /// Namespace, name, uid and version of the Secret.
    pub object: Observed,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// `token`; None: not there, empty or malformed.
    pub current: Option<Secret>,
    /// `previousToken`, which authenticates as well for as long as it is there.
    pub previous: Option<Secret>,
    /// `expiresAt`: when Rancher rotates it by itself.
    pub expires_at: Option<Timestamp>,
    /// `gracePeriodExpiresAt`: when `previousToken` is to be removed. Not what every release goes by; see
    /// [`RegistrationToken::status_grace_ends_at`].
    pub grace_ends_at: Option<Timestamp>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// The uid of the registration token that owns it; none on one put there by hand.
    pub owner: Option<String>,
    /// What else writes it, by the marks on it.
    pub managed_by: Option<Owner>,
    /// Fields that make no sense.
    pub problems: Vec<Problem>,
}

impl RegistrationToken {
    /// The cluster it belongs to, by its namespace. None if that is no id: the object stands where Rancher looks for
    /// nothing.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.object.namespace.parse().ok()
    }

    /// The value, if it is known.
    pub fn current(&self) -> Option<&Secret> {
        self.value.as_ref().ok()
    }

    /// The previous value, which still authenticates (era S).
    pub fn previous(&self) -> Option<&Secret> {
        self.secret.as_ref()?.previous.as_ref()
    }

    /// When Rancher rotates it by itself: the Secret's word, which is the one that counts, else the status' copy.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.secret
            .as_ref()
            .map_or(self.status_expires_at, |secret| secret.expires_at)
    }

    /// When the previous value stops being accepted: the status' word, which is the one that early releases go by, else
    /// the Secret's.
    pub fn grace_ends_at(&self) -> Option<Timestamp> {
        self.status_grace_ends_at
            .or_else(|| self.secret.as_ref()?.grace_ends_at)
    }

    /// Puts in what was learnt of its Secret.
    fn join(&mut self, secret: Result<TokenSecret, Unknown>) {
        match secret {
            Err(why) => self.value = Err(why),
            Ok(secret) => {
                self.problems.extend(secret.problems.iter().copied());
                self.value = secret.current.clone().ok_or(if secret.problems.is_empty() {
                    Unknown::NotYet
                } else {
                    Unknown::Malformed
                });
                self.secret = Some(secret);
            }
        }
    }

    /// The name under which Rancher looks for its Secret.
    fn expected_secret(&self) -> String {
        self.secret_name
            .clone()
            .unwrap_or_else(|| format!("{SECRET_PREFIX}{}", self.object.name))
    }
}

impl TokenSecret {
    /// The name of the registration token that it stands for, by its own name.
    pub fn token_name(&self) -> &str {
        self.object
            .name
            .strip_prefix(SECRET_PREFIX)
            .unwrap_or(&self.object.name)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawToken {
    metadata: Metadata,
    spec: Option<RawSpec>,
    status: Option<RawStatus>,
    #[serde(skip)]
    broken: bool,
}

impl Item for RawToken {
    fn unreadable(metadata: Metadata) -> Option<Self> {
        Some(Self {
            metadata,
            broken: true,
            ..Self::default()
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    cluster_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    token: Option<String>,
    token_secret_name: Option<String>,
    expires_at: Option<String>,
    grace_period_expires_at: Option<String>,
    manifest_url: Option<Presence>,
}

/// Whether a text is there, without keeping it: the commands are long and repeat the token.
#[derive(Debug)]
struct Presence(bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self(!text.is_empty()))
    }
}

impl RawToken {
    fn read(self) -> RegistrationToken {
        let Self {
            metadata,
            spec,
            status,
            broken,
        } = self;
        let status = status.unwrap_or_default();
        let mut problems = Vec::from_iter(broken.then_some(WRONG_TYPE));
        let in_status = status.token.filter(|token| !token.is_empty()).map(Secret::new);
        let secret_name = status.token_secret_name.filter(|name| !name.is_empty());
        let (value, leftover) = match &secret_name {
            Some(_) => (Err(Unknown::NoSecret), in_status),
            None if broken => (Err(Unknown::Malformed), None),
            None => (in_status.ok_or(Unknown::NotYet), None),
        };
        let cluster_name = spec.and_then(|spec| spec.cluster_name).unwrap_or_default();
        if !broken && cluster_name != metadata.namespace {
            problems.push(Problem {
                field: "spec.clusterName",
                what: "is not the namespace that it stands in",
            });
        }
        RegistrationToken {
            object: metadata.observed(),
            created: metadata.created(),
            deleting: metadata.deletion_timestamp.is_some(),
            managed_by: metadata.owner(),
            cluster_name,
            value,
            secret: None,
            secret_name,
            leftover,
            status_expires_at: time(status.expires_at.as_deref(), "status.expiresAt", &mut problems),
            status_grace_ends_at: time(
                status.grace_period_expires_at.as_deref(),
                "status.gracePeriodExpiresAt",
                &mut problems,
            ),
            has_commands: status.manifest_url.is_some_and(|url| url.0),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            problems,
        }
    }
}

/// Other Secrets are listed too.
type RawSecret = object::RawSecret<RawData>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawData {
    token: Option<String>,
    previous_token: Option<String>,
    expires_at: Option<String>,
    grace_period_expires_at: Option<String>,
}

impl RawSecret {
    /// None for a Secret that is no token's.
    fn read(self) -> Option<TokenSecret> {
        if !self.metadata.name.starts_with(SECRET_PREFIX) {
            return None;
        }
        let data = self.data.unwrap_or_default();
        let mut problems = Vec::from_iter(self.broken.then_some(WRONG_TYPE));
        let mut text = |encoded: Option<String>, field| decoded(encoded.as_deref(), field, &mut problems);
        let current = text(data.token, "data.token");
        let previous = text(data.previous_token, "data.previousToken");
        let expires_at = text(data.expires_at, "data.expiresAt");
        let grace_ends_at = text(data.grace_period_expires_at, "data.gracePeriodExpiresAt");
        let owner = self
            .metadata
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.kind == TOKEN.kind);
        Some(TokenSecret {
            object: self.metadata.observed(),
            created: self.metadata.created(),
            deleting: self.metadata.deletion_timestamp.is_some(),
            owner: owner.map(|owner| owner.uid.clone()),
            managed_by: self.metadata.owner(),
            annotations: self.metadata.annotations.unwrap_or_default(),
            current: current.map(Secret::new),
            previous: previous.map(Secret::new),
            expires_at: time(expires_at.as_deref(), "data.expiresAt", &mut problems),
            grace_ends_at: time(grace_ends_at.as_deref(), "data.gracePeriodExpiresAt", &mut problems),
            problems,
        })
    }
}

/// The tokens of one cluster, and the Secrets that look like a token's but have none.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// By name.
    pub tokens: Vec<RegistrationToken>,
    /// Era S: valid credentials without a registration token (seen on Rancher 2.15.0).
    pub orphans: Vec<TokenSecret>,
    /// The caller may not list the namespace's Secrets, so orphans are not known.
    pub orphans_unknown: bool,
}

impl Tokens {
    /// A token by its name.
    pub fn named(&self, name: &str) -> Option<&RegistrationToken> {
        self.tokens.iter().find(|token| token.object.name == name)
    }
}

/// All metadata of a registration token; None if there is none.
pub async fn metadata(client: &kube::Client, cluster: &ClusterId, name: &str) -> Result<Option<ObjectMeta>> {
    Ok(request::get_metadata(client, TOKEN, Some(cluster.as_str()), name).await?)
}

/// All metadata of the Secret of one; None if there is none.
pub async fn secret_metadata(client: &kube::Client, cluster: &ClusterId, name: &str) -> Result<Option<ObjectMeta>> {
    Ok(request::get_metadata(client, SECRET, Some(cluster.as_str()), name).await?)
}

/// One token by its name, joined with its Secret. None if there is none.
pub async fn get(client: &kube::Client, cluster: &ClusterId, name: &str) -> Result<Option<RegistrationToken>> {
    let raw: Option<RawToken> = request::get(client, TOKEN, Some(cluster.as_str()), name).await?;
    let Some(mut token) = raw.map(RawToken::read) else {
        return Ok(None);
    };
    if token.secret_name.is_some() {
        token.join(secret_of(client, &token).await?);
    }
    Ok(Some(token))
}

/// The Secret of a token by its name; what cannot be known is no error.
async fn secret_of(client: &kube::Client, token: &RegistrationToken) -> Result<Result<TokenSecret, Unknown>> {
    let namespace = Some(token.object.namespace.as_str());
    match request::get::<RawSecret>(client, SECRET, namespace, &token.expected_secret()).await {
        Ok(found) => Ok(found.and_then(RawSecret::read).ok_or(Unknown::NoSecret)),
        Err(error) if error.is_forbidden() => Ok(Err(Unknown::NoRight)),
        Err(error) => Err(error.into()),
    }
}

/// All registration tokens of one cluster, joined with their Secrets.
///
/// Secrets are looked for in both eras, since a token of era P beside a Secret is what a half-done migration looks like.
/// A caller who may not list them but may read single ones by name (Rancher's role `crt-token-reader` gives that) gets
/// the values; one who may do neither gets [`Unknown::NoRight`].
pub async fn list(client: &kube::Client, cluster: &ClusterId) -> Result<Tokens> {
    let wanted = Wanted {
        namespace: Some(cluster.as_str()),
        ..Wanted::default()
    };
    let secrets = Wanted {
        fields: Some(listing::OPAQUE),
        ..wanted.clone()
    };
    let (tokens, secrets) = futures::future::join(
        request::list_all::<RawToken>(client, TOKEN, &wanted),
        request::list_all::<RawSecret>(client, SECRET, &secrets),
    )
    .await;
    let mut tokens: Vec<_> = tokens?.into_iter().map(RawToken::read).collect();
    let mut secrets: BTreeMap<String, TokenSecret> = match secrets {
        Ok(found) => found
            .into_iter()
            .filter_map(RawSecret::read)
            .map(|secret| (secret.object.name.clone(), secret))
            .collect(),
        Err(error) if error.is_forbidden() => return one_by_one(client, tokens).await,
        Err(error) => return Err(error.into()),
    };
    for token in &mut tokens {
        match secrets.remove(&token.expected_secret()) {
            Some(secret) if token.secret_name.is_some() => token.join(Ok(secret)),
            // Era P by its status, era S by its Secret: the value of the status stays, `Era` says what is wrong.
            Some(secret) => token.secret = Some(secret),
            None if token.secret_name.is_some() => token.join(Err(Unknown::NoSecret)),
            None => {}
        }
    }
    Ok(Tokens {
        tokens,
        orphans: secrets.into_values().collect(),
        orphans_unknown: false,
    })
}

async fn one_by_one(client: &kube::Client, mut tokens: Vec<RegistrationToken>) -> Result<Tokens> {
    for token in tokens.iter_mut().filter(|token| token.secret_name.is_some()) {
        let secret = secret_of(client, token).await?;
        token.join(secret);
    }
    Ok(Tokens {
        tokens,
        orphans: Vec::new(),
        orphans_unknown: true,
    })
}

/// Refuses what must never be written.
fn not_blank(value: &Secret) -> Result<()> {
    if value.expose().trim().is_empty() {
        Err(Error::BlankToken)
    } else {
        Ok(())
    }
}
