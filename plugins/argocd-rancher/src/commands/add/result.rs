//! What `add` did for one cluster.

use argocd::rights::SyncAccess;
use k8s_openapi::jiff::Timestamp;
use rancher::ClusterId;
use rancher::api_token::{ApiToken, VisibleCluster};
use serde::Serialize;

/// The result for one cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AddResult {
    pub(super) cluster: ClusterId,
    pub(super) display_name: String,
    pub(super) secret: String,
    pub(super) result: AddOutcome,
    pub(super) token: Option<String>,
    /// `null`: it never expires, or there is no token yet.
    pub(super) expires_at: Option<Timestamp>,
    /// The previous token, if it is still valid.
    pub(super) replaced_token: Option<String>,
    /// The earlier tokens that stay valid on purpose.
    #[serde(skip)]
    pub(super) kept: Vec<String>,
    /// What a sync may change. `null`: unknown, or there is no token yet.
    pub(super) sync: Option<SyncAccess>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AddOutcome {
    Created,
    Adopted,
    Unchanged,
    WouldCreate,
    WouldAdopt,
}

impl AddResult {
    pub(super) fn planned(cluster: &VisibleCluster, secret: &str, result: AddOutcome) -> Self {
        Self {
            cluster: cluster.id.clone(),
            display_name: cluster.name.clone(),
            secret: secret.to_owned(),
            result,
            token: None,
            expires_at: None,
            replaced_token: None,
            kept: Vec::new(),
            sync: None,
        }
    }

    pub(super) fn with(self, token: &ApiToken) -> Self {
        Self {
            token: Some(token.name.to_string()),
            expires_at: token.expiry.at(),
            ..self
        }
    }

    pub(super) fn sentence(&self) -> String {
        let what = match self.result {
            AddOutcome::Created => "created",
            AddOutcome::Adopted => "adopted",
            AddOutcome::Unchanged => "unchanged",
            AddOutcome::WouldCreate => "would be created",
            AddOutcome::WouldAdopt => "would be adopted, its token replaced",
        };
        let token = match (&self.token, self.expires_at) {
            (Some(token), Some(at)) => format!(" (token {token}, valid until {at})"),
            (Some(token), None) => format!(" (token {token})"),
            (None, _) => String::new(),
        };
        let replaced = self.replaced_token.as_ref().map_or_else(String::new, |old| {
            format!("; the previous token {old} is still valid: revoke it if nothing else uses it")
        });
        format!(
            "secret/{} {what} for cluster {}{token}{replaced}",
            self.secret, self.cluster
        )
    }
}
