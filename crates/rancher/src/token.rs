//! Cluster registration tokens: `clusterregistrationtokens.management.cattle.io`, and with storage `secret` the Secret of each.
//!
//! Storage `status` keeps the value in `status.token`. Storage `secret` keeps it in the Secret `crt-token-<name>` of the same
//! namespace, with the previous value, an expiry and an end of the grace period. The token's status has copies of the last two,
//! which may differ permanently after an upgrade (seen on Rancher 2.15.0). Rancher accepts both values. It also accepts those of
//! a Secret whose token does not exist: it goes by the Secret's name only.

mod generate;
mod listing;
mod write;

use std::collections::BTreeMap;

use client::ownership::Owner;
use client::request::{self, Item, ListOptions, Metadata, Resource, SECRET};
use client::secret::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use crate::cluster_id::ClusterId;
use crate::error::{Error, Result};
use crate::object::{self, Observed, Problem, WRONG_TYPE, decoded, time};

pub use generate::generate;
pub use listing::{Batch, Listing};
pub use write::{Change, NewToken, SecretChange, change_secret, change_status_grace, create, delete, set_status_value};

/// The token with which Rancher deploys the agent.
pub const SYSTEM: &str = "system";
/// The token that Rancher creates for every cluster and shows to users.
pub const DEFAULT: &str = "default-token";
/// The prefix of a Secret's name; the token's name follows.
const SECRET_PREFIX: &str = "crt-token-";

const TOKEN: Resource = object::management("ClusterRegistrationToken", "clusterregistrationtokens");

/// Why the value of a token is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueError {
    /// The caller has no permission to read the Secret.
    NoPermission,
    /// Rancher has not set a value yet, which takes less than a second while its leader runs.
    NotYet,
    /// Its Secret does not exist.
    NoSecret,
    /// The value is malformed; see the object's `problems`.
    Malformed,
}

impl std::fmt::Display for ValueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NoPermission => "no permission to read its Secret",
            Self::NotYet => "no value yet",
            Self::NoSecret => "its Secret does not exist",
            Self::Malformed => "its value is malformed",
        })
    }
}

/// A registration token of a cluster.
#[derive(Clone, Debug)]
pub struct RegistrationToken {
    /// Namespace (which is the cluster's id), name, uid and version of the object.
    pub object: Observed,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// It is being deleted. With storage `secret` that waits for a finalizer of Rancher's leader.
    pub deleting: bool,
    /// Its owner, if any.
    pub managed_by: Option<Owner>,
    /// Its value, or why that is not known.
    pub value: Result<Secret, ValueError>,
    /// Storage `secret`: its Secret, if it could be read.
    pub secret: Option<TokenSecret>,
    /// `status.tokenSecretName`: set with storage `secret`.
    pub secret_name: Option<String>,
    /// `status.expiresAt`, a copy.
    pub status_expires_at: Option<Timestamp>,
    /// `status.gracePeriodExpiresAt`. A copy, but the one that Rancher 2.13.8, 2.14.4 and 2.15.0 go by.
    pub status_grace_ends_at: Option<Timestamp>,
    /// Invalid fields, those of the Secret included.
    pub problems: Vec<Problem>,
}

/// Storage `secret`: the Secret of a token.
#[derive(Clone, Debug)]
pub struct TokenSecret {
    /// Namespace, name, uid and version of the Secret.
    pub object: Observed,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// `token`. None: missing, empty or malformed.
    pub current: Option<Secret>,
    /// `previousToken`, which Rancher accepts as long as it is there.
    pub previous: Option<Secret>,
    /// `expiresAt`: when Rancher rotates the token by itself.
    pub expires_at: Option<Timestamp>,
    /// `gracePeriodExpiresAt`: when Rancher removes `previousToken`. Not every release goes by it; see
    /// [`RegistrationToken::status_grace_ends_at`].
    pub grace_ends_at: Option<Timestamp>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its owner, if any.
    pub managed_by: Option<Owner>,
    /// Invalid fields.
    pub problems: Vec<Problem>,
}

impl RegistrationToken {
    /// The value, if it is known.
    pub fn current(&self) -> Option<&Secret> {
        self.value.as_ref().ok()
    }

    /// Storage `secret`: the previous value, which Rancher still accepts.
    pub fn previous(&self) -> Option<&Secret> {
        self.secret.as_ref()?.previous.as_ref()
    }

    /// When Rancher rotates it by itself: by the Secret, which counts, else by the copy in the status.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.secret
            .as_ref()
            .map_or(self.status_expires_at, |secret| secret.expires_at)
    }

    /// When Rancher stops accepting the previous value: by the status, which early releases go by, else by the Secret.
    pub fn grace_ends_at(&self) -> Option<Timestamp> {
        self.status_grace_ends_at
            .or_else(|| self.secret.as_ref()?.grace_ends_at)
    }

    /// Adds a Secret that it does not name: an unfinished migration, or a newer Rancher has left it behind.
    fn leave(&mut self, secret: TokenSecret) {
        self.problems.push(Problem {
            field: "status.tokenSecretName",
            what: "does not name the token's Secret: Rancher's migration is not finished, or Rancher was downgraded",
        });
        self.secret = Some(secret);
    }

    /// Adds its Secret.
    fn join(&mut self, secret: Result<TokenSecret, ValueError>) {
        match secret {
            Err(why) => self.value = Err(why),
            Ok(secret) => {
                self.problems.extend(secret.problems.iter().copied());
                self.value = secret.current.clone().ok_or(if secret.problems.is_empty() {
                    ValueError::NotYet
                } else {
                    ValueError::Malformed
                });
                self.secret = Some(secret);
            }
        }
    }

    /// The name of its Secret.
    fn expected_secret(&self) -> String {
        self.secret_name
            .clone()
            .unwrap_or_else(|| format!("{SECRET_PREFIX}{}", self.object.name))
    }
}

impl TokenSecret {
    /// The name of its registration token, by its own name.
    fn token_name(&self) -> &str {
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
        let value = match &secret_name {
            Some(_) => Err(ValueError::NoSecret),
            None if broken => Err(ValueError::Malformed),
            None => in_status.ok_or(ValueError::NotYet),
        };
        let cluster_name = spec.and_then(|spec| spec.cluster_name).unwrap_or_default();
        if !broken && cluster_name != metadata.namespace {
            problems.push(Problem {
                field: "spec.clusterName",
                what: "differs from the namespace",
            });
        }
        RegistrationToken {
            object: metadata.observed(),
            created: metadata.created(),
            deleting: metadata.deletion_timestamp.is_some(),
            managed_by: metadata.owner(),
            value,
            secret: None,
            secret_name,
            status_expires_at: time(status.expires_at.as_deref(), "status.expiresAt", &mut problems),
            status_grace_ends_at: time(
                status.grace_period_expires_at.as_deref(),
                "status.gracePeriodExpiresAt",
                &mut problems,
            ),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            problems,
        }
    }
}

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
    /// None for any other Secret.
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
        Some(TokenSecret {
            object: self.metadata.observed(),
            created: self.metadata.created(),
            deleting: self.metadata.deletion_timestamp.is_some(),
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

/// The tokens of one cluster, and orphaned token Secrets.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// By name.
    pub tokens: Vec<RegistrationToken>,
    /// Storage `secret`: Secrets without a registration token, which Rancher accepts (seen on Rancher 2.15.0).
    pub orphans: Vec<TokenSecret>,
    /// The caller has no permission to list the namespace's Secrets, so orphans are not known.
    pub orphans_unknown: bool,
}

impl Tokens {
    /// A token by its name.
    pub fn named(&self, name: &str) -> Option<&RegistrationToken> {
        self.tokens.iter().find(|token| token.object.name == name)
    }
}

/// All metadata of a registration token. None if it does not exist.
pub async fn metadata(client: &kube::Client, cluster: &ClusterId, name: &str) -> Result<Option<ObjectMeta>> {
    Ok(request::get_metadata(client, TOKEN, Some(cluster.as_str()), name).await?)
}

/// All metadata of its Secret. None if it does not exist.
pub async fn secret_metadata(client: &kube::Client, cluster: &ClusterId, name: &str) -> Result<Option<ObjectMeta>> {
    Ok(request::get_metadata(client, SECRET, Some(cluster.as_str()), name).await?)
}

/// One token by its name, joined with its Secret. None if it does not exist.
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

/// The Secret of a token by its name. One that cannot be read is not an error.
async fn secret_of(client: &kube::Client, token: &RegistrationToken) -> Result<Result<TokenSecret, ValueError>> {
    let namespace = Some(token.object.namespace.as_str());
    match request::get::<RawSecret>(client, SECRET, namespace, &token.expected_secret()).await {
        Ok(found) => Ok(found.and_then(RawSecret::read).ok_or(ValueError::NoSecret)),
        Err(error) if error.is_forbidden() => Ok(Err(ValueError::NoPermission)),
        Err(error) => Err(error.into()),
    }
}

/// All registration tokens of one cluster, joined with their Secrets.
///
/// Secrets are listed with both kinds of storage, since a token with a value in its status beside a Secret shows an unfinished
/// migration. A caller who cannot list them but can read single ones by name (Rancher's role `crt-token-reader`) gets the values.
/// A caller without either permission gets [`ValueError::NoPermission`].
pub async fn list(client: &kube::Client, cluster: &ClusterId) -> Result<Tokens> {
    let options = ListOptions {
        namespace: Some(cluster.as_str()),
        ..ListOptions::default()
    };
    let secrets = ListOptions {
        fields: Some(listing::OPAQUE),
        ..options.clone()
    };
    let (tokens, secrets) = futures::future::join(
        request::list_all::<RawToken>(client, TOKEN, &options),
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
            // Mixed storage: the value of the status stays, and `TokenStorage::of` reports it.
            Some(secret) => token.leave(secret),
            None if token.secret_name.is_some() => token.join(Err(ValueError::NoSecret)),
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

/// A blank value must never be written.
fn not_blank(value: &Secret) -> Result<()> {
    if value.expose().trim().is_empty() {
        Err(Error::BlankToken)
    } else {
        Ok(())
    }
}
