//! Rancher's v3 API tokens: issuing, the user of a bearer value, and where it is valid (`pkg/auth/tokens/manager.go`
//! and `pkg/auth/requests/authenticate.go`, 2.15.0).
//!
//! The configured users log in with the tokens of their configuration. Here those are sessions, without scope or
//! expiry.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Request;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::config::User;
use crate::server::bearer;
use crate::token::{new_token, suffix};
use crate::ttl::rfc3339;
use crate::world::World;

/// The longest TTL that Rancher grants, in minutes. 0: no limit (`pkg/settings/setting.go`, 2.15.0).
pub(crate) const MAX_TTL: &str = "auth-token-max-ttl-minutes";
/// `expiresAt` is empty in the response, and filled by a controller seconds later (seen on Rancher 2.15.0 and 2.12.0).
const EXPIRY_SHOWN_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// One token.
#[derive(Clone)]
pub(crate) struct ApiToken {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) user: String,
    pub(crate) cluster: Option<String>,
    /// Milliseconds. 0: unlimited; negative: expired at once (seen on Rancher 2.15.0 and 2.12.0).
    pub(crate) ttl: i64,
    pub(crate) description: String,
    pub(crate) created: Timestamp,
    pub(crate) enabled: bool,
    /// It is a token of `ext.cattle.io`, whose value begins with `ext/`.
    pub(crate) ext: bool,
    pub(crate) last_used: Option<Timestamp>,
}

impl ApiToken {
    /// `GetIsExpired`: creation and TTL decide; `expiresAt` is only shown.
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.ttl != 0 && self.ends().is_none_or(|ends| now >= ends)
    }

    fn ends(&self) -> Option<Timestamp> {
        self.created.checked_add(SignedDuration::from_millis(self.ttl)).ok()
    }

    fn is_valid(&self, now: Timestamp, scope: Option<&str>) -> bool {
        let in_scope = self.cluster.as_deref().is_none_or(|cluster| Some(cluster) == scope);
        self.enabled && !self.is_expired(now) && in_scope
    }

    /// As `/v3/tokens` shows it (`pkg/client/generated/management/v3/zz_generated_token.go`, 2.15.0). Only the response
    /// that issues it has the value.
    pub(crate) fn shown(&self, now: Timestamp, current: bool) -> Value {
        let expiry_is_shown = now.duration_since(self.created) >= EXPIRY_SHOWN_AFTER;
        let expires = self.ends().filter(|_| expiry_is_shown && self.ttl != 0).map(rfc3339);
        json!({
            "authProvider": "local", "baseType": "token", "clusterId": self.cluster, "created": rfc3339(self.created),
            "createdTS": self.created.as_millisecond(), "current": current, "description": self.description,
            "enabled": self.enabled, "expired": self.is_expired(now), "expiresAt": expires.unwrap_or_default(),
            "id": self.name, "isDerived": true, "lastUsedAt": self.last_used.map(rfc3339), "name": self.name,
            "ttl": self.ttl, "type": "token", "userId": self.user,
        })
    }
}

/// All issued tokens, by name.
#[derive(Default)]
pub(crate) struct ApiTokens(Mutex<BTreeMap<String, ApiToken>>);

impl ApiTokens {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ApiToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Issues a token. The TTL of `asked` is silently clamped: 0 and values above the limit become the limit (seen on
    /// Rancher
    /// 2.15.0 and 2.12.0).
    pub(crate) fn issue(&self, user: &str, asked: &TokenRequest, limit_minutes: i64) -> ApiToken {
        let limit = limit_minutes * 60_000;
        let clamped = limit > 0 && (asked.ttl == 0 || asked.ttl > limit);
        let token = ApiToken {
            name: format!("token-{}", suffix(5)),
            key: new_token(),
            user: user.to_owned(),
            cluster: asked.cluster_id.clone().filter(|id| !id.is_empty()),
            ttl: if clamped { limit } else { asked.ttl },
            description: asked.description.clone(),
            created: Timestamp::now(),
            enabled: true,
            ext: false,
            last_used: None,
        };
        self.lock().insert(token.name.clone(), token.clone());
        token
    }

    /// The tokens of a user.
    pub(crate) fn of(&self, user: &str) -> Vec<ApiToken> {
        self.lock()
            .values()
            .filter(|token| token.user == user && !token.ext)
            .cloned()
            .collect()
    }

    /// Revokes a token of the user. `false`: the user has none with that name.
    pub(crate) fn delete(&self, user: &str, name: &str) -> bool {
        let mut tokens = self.lock();
        let own = tokens.get(name).is_some_and(|token| token.user == user);
        own && tokens.remove(name).is_some()
    }

    /// Makes a token one of `ext.cattle.io`. `false`: no such token.
    pub(crate) fn make_ext(&self, name: &str) -> bool {
        self.lock().get_mut(name).map(|token| token.ext = true).is_some()
    }

    /// Changes a token, like an administrator or time. `false`: no such token.
    pub(crate) fn change(&self, name: &str, enabled: Option<bool>, expired: bool) -> bool {
        let mut tokens = self.lock();
        let Some(token) = tokens.get_mut(name) else {
            return false;
        };
        token.enabled = enabled.unwrap_or(token.enabled);
        if expired {
            token.ttl = -1;
        }
        true
    }

    /// The token of a bearer value, if it is valid at a path of this cluster. Each use is recorded, to the second.
    fn used(&self, value: &str, scope: Option<&str>) -> Option<ApiToken> {
        let (is_ext, value) = value.strip_prefix("ext/").map_or((false, value), |rest| (true, rest));
        let (name, key) = value.split_once(':')?;
        let mut tokens = self.lock();
        let token = tokens
            .get_mut(name)
            .filter(|token| token.key == key && token.ext == is_ext)?;
        let now = Timestamp::now();
        if !token.is_valid(now, scope) {
            return None;
        }
        token.last_used = Some(now);
        Some(token.clone())
    }
}

/// The fields of a request for a token. All others are ignored, and the cluster need not exist (seen on Rancher 2.15.0
/// and 2.12.0).
#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TokenRequest {
    pub(crate) ttl: i64,
    pub(crate) description: String,
    pub(crate) cluster_id: Option<String>,
}

/// The public part of a bearer value.
pub(crate) fn name_of(value: &str) -> Option<&str> {
    value.split_once(':').map(|(name, _)| name)
}

fn session(world: &World, value: &str) -> Option<User> {
    let users = world.users.read().unwrap_or_else(PoisonError::into_inner);
    users.iter().find(|user| user.token == value).cloned()
}

fn user(world: &World, name: &str) -> Option<User> {
    let users = world.users.read().unwrap_or_else(PoisonError::into_inner);
    users.iter().find(|user| user.name == name).cloned()
}

/// The user of a bearer value, valid or not, for the log.
pub(crate) fn owner(world: &World, value: &str) -> Option<User> {
    session(world, value).or_else(|| {
        let name = name_of(value)?;
        let token = world.tokens.lock().get(name).cloned()?;
        user(world, &token.user)
    })
}

/// The user of a request to a path of `scope`, the cluster in it (`GetClusterID`: `/k8s/clusters/<id>` and
/// `/v3/clusters/<id>` have one, `/v3/tokens` has none). `None`: unauthenticated for any reason.
pub(crate) fn authenticate<B>(world: &World, request: &Request<B>, scope: Option<&str>) -> Option<User> {
    let value = bearer(request)?;
    session(world, value).or_else(|| {
        let token = world.tokens.used(value, scope)?;
        // A token of a deleted user is invalid.
        user(world, &token.user)
    })
}

/// Whether this is the session's own token.
pub(crate) fn is_session(world: &World, value: &str) -> bool {
    session(world, value).is_some()
}

/// All issued tokens, for tests.
pub(crate) fn report(world: &World) -> Value {
    let now = Timestamp::now();
    let tokens = world.tokens.lock();
    let shown = tokens.values().map(|token| {
        let is_valid = token.is_valid(now, token.cluster.as_deref()) && user(world, &token.user).is_some();
        json!({
            "name": token.name, "user": token.user, "clusterId": token.cluster, "valid": is_valid,
            "lastUsedAt": token.last_used.map(rfc3339), "description": token.description,
        })
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(ttl: i64, cluster: Option<&str>) -> TokenRequest {
        TokenRequest {
            ttl,
            description: "x".into(),
            cluster_id: cluster.map(str::to_owned),
        }
    }

    fn value(token: &ApiToken) -> String {
        format!("{}:{}", token.name, token.key)
    }

    #[test]
    fn a_ttl_is_silently_clamped_to_the_limit() {
        let tokens = ApiTokens::default();
        let granted = |ttl, limit| tokens.issue("u-a", &asked(ttl, None), limit).ttl;
        assert_eq!(granted(0, 129_600), 7_776_000_000);
        assert_eq!(granted(31_536_000_000, 129_600), 7_776_000_000);
        assert_eq!(granted(1000, 129_600), 1000);
        assert_eq!(granted(0, 0), 0);
        assert_eq!(granted(-1, 129_600), -1);
    }

    #[test]
    fn a_scoped_token_is_valid_at_its_cluster_only() {
        let tokens = ApiTokens::default();
        let scoped = value(&tokens.issue("u-a", &asked(60_000, Some("c-aaaaa")), 0));
        let open = value(&tokens.issue("u-a", &asked(60_000, Some("")), 0));
        for (scope, valid) in [
            (Some("c-aaaaa"), true),
            (Some("c-bbbbb"), false),
            (Some("local"), false),
            (None, false),
        ] {
            assert_eq!(tokens.used(&scoped, scope).is_some(), valid, "{scope:?}");
            assert!(tokens.used(&open, scope).is_some(), "{scope:?}");
        }
    }

    #[test]
    fn expired_disabled_and_deleted_tokens_are_invalid_and_only_the_owner_deletes() {
        let tokens = ApiTokens::default();
        let live = tokens.issue("u-a", &asked(0, None), 0);
        let expired = tokens.issue("u-a", &asked(-1, None), 0);
        assert!(tokens.used(&value(&expired), None).is_none());
        assert!(tokens.used(&value(&live), None).is_some());
        assert!(tokens.used(&format!("{}:wrong", live.name), None).is_none());
        assert!(tokens.change(&live.name, Some(false), false));
        assert!(tokens.used(&value(&live), None).is_none());
        assert!(tokens.change(&live.name, Some(true), false));
        assert!(tokens.used(&value(&live), None).is_some());
        assert!(!tokens.delete("u-b", &live.name));
        assert!(tokens.delete("u-a", &live.name));
        assert!(!tokens.delete("u-a", &live.name));
        assert!(tokens.used(&value(&live), None).is_none());
    }

    #[test]
    fn the_last_use_is_recorded_and_the_value_is_not_returned_again() {
        let tokens = ApiTokens::default();
        let token = tokens.issue("u-a", &asked(60_000, None), 0);
        let shown = token.shown(Timestamp::now(), false);
        assert_eq!((&shown["lastUsedAt"], &shown["expiresAt"]), (&Value::Null, &json!("")));
        assert!(!shown.to_string().contains(&token.key));
        tokens.used(&value(&token), None).unwrap();
        assert!(tokens.of("u-a")[0].last_used.is_some());
    }
}
