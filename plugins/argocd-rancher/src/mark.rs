//! What this program writes on cluster Secrets and on tokens, and how it recognizes them.
//!
//! A Secret gets annotations only: Argo CD keeps them, but drops unknown keys of `data`. They contain names, never values. They change
//! only with the token, because each change triggers every ApplicationSet that selects clusters.

use argocd::ClusterSecret;
use argocd::config::Method;
use cli::age;
use client::secret::Secret;
use engine::rotation::Blocker;
use k8s_openapi::jiff::Timestamp;
use rancher::Write;
use rancher::api_token::{ApiToken, Credential, Expiry, Lifetime, Mark};

pub(crate) use cli::rotation::API_VERSION;

/// The field manager, and the program in the mark of a token.
pub(crate) const TOOL: &str = "kubectl-argocd-rancher";
/// A token that was used within this time, in seconds, is in use: Argo CD lists a cluster again at least this often.
const RECENT: i64 = 15 * 60;
/// The name of the token in the Secret.
pub(crate) const TOKEN: &str = "kubectl-rotation.github.io/token";
/// The user who issued it.
pub(crate) const TOKEN_USER: &str = "kubectl-rotation.github.io/token-user";
/// When it expires, RFC 3339.
pub(crate) const TOKEN_EXPIRES: &str = "kubectl-rotation.github.io/token-expires-at";
/// The text of these annotations for the token of another user.
pub(crate) const UNKNOWN: &str = "unknown";
/// The text of [`TOKEN_EXPIRES`] for a token that never expires.
const NEVER: &str = "never";
/// The names of earlier tokens that stay valid on purpose, separated by commas.
const KEPT: &str = "kubectl-rotation.github.io/kept-tokens";
/// A cluster Secret of which there is no token to rotate.
pub(crate) const NO_BEARER_TOKEN: &str = "Argo CD does not authenticate with a bearer token";

/// The mark of a token that a run issues for the Secret `namespace/name` of the Argo CD with this identity.
pub(crate) fn of_run(run: &str, namespace: &str, secret: &str, identity: Option<&str>) -> Mark {
    let mut mark = Mark::new(TOOL, run, &format!("{namespace}/{secret}"));
    mark.cluster = identity.map(str::to_owned);
    mark
}

/// The mark of a token that this program issued for a Secret of the Argo CD with this identity. Another Argo CD may use the same
/// Rancher user, and have a Secret of the same name. The marks of earlier releases have no identity. They count only where the value
/// of the token was found in the Secret (`is_there`).
pub(crate) fn of_ours(token: &ApiToken, identity: Option<&str>, is_there: bool) -> Option<Mark> {
    let mark = Mark::read(&token.description).filter(|mark| mark.by == TOOL)?;
    let is_here = match &mark.cluster {
        Some(cluster) => identity == Some(cluster),
        None => is_there,
    };
    is_here.then_some(mark)
}

/// Why the token of a Secret cannot be replaced. `methods`: how Argo CD may authenticate now.
pub(crate) fn unchangeable(cluster: &ClusterSecret, methods: &[Method]) -> Vec<String> {
    let mut reasons = Vec::new();
    if cluster.deleting {
        reasons.push("it is being deleted".to_owned());
    }
    if cluster.immutable {
        reasons.push("it is immutable".to_owned());
    }
    reasons.extend(cluster.flaws_besides_token());
    let config = cluster.config.as_ref();
    if config.is_ok_and(|config| !methods.contains(&config.method())) {
        reasons.push(NO_BEARER_TOKEN.to_owned());
    }
    reasons
}

/// The earlier tokens of a Secret that stay valid on purpose.
pub(crate) fn kept(cluster: &ClusterSecret) -> Vec<&str> {
    let kept = cluster.annotations.get(KEPT).map_or("", String::as_str);
    kept.split(',').filter(|name| !name.is_empty()).collect()
}

/// A write that also records that this token stays valid, besides those of before that still exist.
pub(crate) fn keeping(write: Write, cluster: &ClusterSecret, token: &str, existing: &[ApiToken]) -> Write {
    let exists = |name: &&str| existing.iter().any(|token| token.name.as_str() == *name);
    let mut names: Vec<&str> = kept(cluster).into_iter().chain([token]).filter(exists).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() && kept(cluster).is_empty() {
        return write;
    }
    write.marked(KEPT, names.join(","))
}

/// Set if something else manages the Secret, unless that is overridden.
pub(crate) fn owned(cluster: &ClusterSecret, is_overridden: bool) -> Option<Blocker> {
    let (name, owner) = (&cluster.object.name, cluster.owner().filter(|_| !is_overridden)?);
    let blocker = Blocker::new(
        format!("Secret {name} is managed by {owner}, which may revert the change at any time"),
        format!("change it in {owner}; --force=owner changes it here, but {owner} may restore the old token later"),
    );
    Some(blocker.unless_forced("owner"))
}

/// How long ago a token was used or issued, if it may still be in use: `was used 5s ago`.
pub(crate) fn recent_use(token: &ApiToken, now: Timestamp) -> Option<String> {
    let recent = |what: &str, at: Option<Timestamp>| {
        // The clocks of two servers differ: the last use may be in the future.
        let ago = now.as_second() - at?.as_second();
        (ago < RECENT).then(|| format!("was {what} {} ago", age::human(ago.max(0))))
    };
    recent("used", token.last_used).or_else(|| recent("issued", token.created))
}

/// A write that records the new token.
pub(crate) fn write(token: &ApiToken) -> Write {
    let expires = token.expiry.at().map_or_else(|| NEVER.to_owned(), |at| at.to_string());
    Write::by(TOOL)
        .marked(TOKEN, token.name.as_str())
        .marked(TOKEN_USER, token.user.as_str())
        .marked(TOKEN_EXPIRES, expires)
}

/// The same for another user's token, which Rancher does not list.
pub(crate) fn write_unknown(value: &Secret) -> Write {
    let write = Write::by(TOOL).marked(TOKEN, token_name(value));
    write.marked(TOKEN_USER, UNKNOWN).marked(TOKEN_EXPIRES, UNKNOWN)
}

/// The expiry in the annotation [`TOKEN_EXPIRES`].
pub(crate) fn expiry(text: &str) -> Expiry {
    match text.parse() {
        Ok(at) => Expiry::At(at),
        Err(_) if text == NEVER => Expiry::Never,
        Err(_) => Expiry::Unknown,
    }
}

/// The message if Rancher granted a shorter validity than requested.
pub(crate) fn shortened(token: &ApiToken, requested: Lifetime, now: Timestamp) -> Option<String> {
    let at = token.expiry.at()?;
    let granted = u64::try_from(at.as_second() - now.as_second()).unwrap_or_default();
    let requested = requested.duration();
    // The clocks of two servers differ, and minutes do not matter here.
    (granted + 600 < requested.as_secs()).then(|| {
        format!(
            "Rancher granted {} instead of {}, the limit of its setting auth-token-max-ttl-minutes",
            age::human(granted.next_multiple_of(60).cast_signed()),
            age::human(requested.as_secs().cast_signed()),
        )
    })
}

/// The name of a token, or what else the value is.
pub(crate) fn token_name(value: &Secret) -> String {
    match Credential::of(value) {
        Credential::Api(name) => name.to_string(),
        Credential::Ext(name) => format!("ext/{name}"),
        Credential::ServiceAccount => "<service account>".to_owned(),
        Credential::Unknown => format!("<{}>", value.fingerprint()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::fixtures;

    #[test]
    fn a_token_that_was_just_issued_may_be_in_use() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let mut token = fixtures::api_token("token-a", Expiry::Never);
        assert_eq!(recent_use(&token, now), None);
        token.created = at("2026-11-22T11:59:55Z");
        assert_eq!(recent_use(&token, now).as_deref(), Some("was issued 5s ago"));
        token.last_used = at("2026-11-22T11:59:58Z");
        assert_eq!(recent_use(&token, now).as_deref(), Some("was used 2s ago"));
        (token.created, token.last_used) = (at("2026-11-22T11:00:00Z"), at("2026-11-22T11:01:00Z"));
        assert_eq!(recent_use(&token, now), None);
    }

    #[test]
    fn kept_tokens_are_recorded_while_they_exist() {
        let mut cluster = fixtures::cluster("one", &fixtures::config("token-c"), ObjectMeta::default());
        cluster.annotations.insert(KEPT.into(), "token-a,token-gone".into());
        let existing = ["token-a", "token-b", "token-c"].map(|name| fixtures::api_token(name, Expiry::Never));
        let write = keeping(Write::by(TOOL), &cluster, "token-b", &existing);
        assert_eq!(write.annotations[KEPT], "token-a,token-b");
        assert_eq!(kept(&cluster), ["token-a", "token-gone"]);
    }
}
