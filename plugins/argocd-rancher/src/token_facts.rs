//! What is known about the token of a cluster Secret without a call with it: from Rancher if it lists the token, or else from what this
//! program has noted on the Secret.

use argocd::ClusterSecret;
use client::secret::Secret;
use k8s_openapi::jiff::Timestamp;
use rancher::ClusterId;
use rancher::api_token::{ApiToken, Credential, Expiry};

use crate::controller::WrittenDetails;
use crate::mark;
use crate::row::State;

/// The facts about a token.
pub(crate) struct TokenFacts<'a> {
    pub(crate) listed: Option<&'a ApiToken>,
    pub(crate) owner: Option<String>,
    pub(crate) expiry: Option<Expiry>,
    /// It belonged to this user, and Rancher does not list it any more.
    pub(crate) revoked: bool,
}

impl<'a> TokenFacts<'a> {
    /// `tokens`: those of the Rancher user `user`. `None`: there is no connection to the Rancher of this cluster.
    pub(crate) fn of(
        cluster: &ClusterSecret,
        value: Option<&Secret>,
        tokens: Option<&'a [ApiToken]>,
        user: Option<&str>,
    ) -> Self {
        let credential = value.map(Credential::of);
        let name = credential.as_ref().and_then(Credential::api_token);
        let listed = tokens.into_iter().flatten();
        let listed = listed.into_iter().find(|token| Some(&token.name) == name);
        let annotation = |key: &str| cluster.annotations.get(key).map(String::as_str);
        // The annotations are about the token that they name.
        let is_annotated = name.is_some_and(|name| annotation(mark::TOKEN) == Some(name.as_str()));
        let annotation = |key: &str| annotation(key).filter(|text| is_annotated && *text != mark::UNKNOWN);
        // A stale copy that was written back holds an earlier token, which the details of the rotation name.
        let of_rotation = || {
            let details = WrittenDetails::read(cluster)?.details;
            let is_one = name.is_some_and(|name| details.names(name.as_str()));
            is_one.then_some(details.user)
        };
        let (owner, expiry) = match listed {
            Some(token) => (Some(token.user.clone()), Some(token.expiry)),
            None => (
                annotation(mark::TOKEN_USER).map(str::to_owned).or_else(of_rotation),
                annotation(mark::TOKEN_EXPIRES).map(mark::expiry),
            ),
        };
        let is_own = owner.is_some() && owner.as_deref() == user;
        Self {
            revoked: tokens.is_some() && listed.is_none() && is_own,
            listed,
            owner,
            expiry,
        }
    }

    /// What is wrong or remarkable about the token of this cluster.
    pub(crate) fn states(&self, cluster: &ClusterId, now: Timestamp) -> Vec<(State, String)> {
        let mut states = Vec::new();
        let mut add = |state, reason: String| states.push((state, reason));
        if self.revoked {
            add(
                State::Revoked,
                "Rancher does not have this token any more: it was revoked, or it expired and was removed".to_owned(),
            );
        }
        match self.expiry.and_then(Expiry::at).filter(|at| *at <= now) {
            Some(at) => add(State::Expired, format!("it expired at {at}")),
            None if self.listed.is_some_and(|token| token.expired) => add(State::Expired, "it has expired".to_owned()),
            None => {}
        }
        let Some(token) = self.listed else { return states };
        if !token.enabled {
            add(State::Disabled, "it is disabled".to_owned());
        }
        match &token.cluster {
            None => add(
                State::Unscoped,
                "it works for every cluster that its owner sees".to_owned(),
            ),
            Some(scope) if scope != cluster => add(State::WrongScope, format!("it is scoped to cluster {scope}")),
            Some(_) => {}
        }
        states
    }

    /// Why Rancher rejects the token, if that is known.
    pub(crate) fn why_rejected(&self, cluster: &ClusterId, now: Timestamp) -> Option<String> {
        let mut states = self.states(cluster, now).into_iter();
        let rejecting = |state| state != State::Unscoped;
        states.find(|(state, _)| rejecting(*state)).map(|(_, reason)| reason)
    }
}
