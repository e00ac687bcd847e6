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
use rancher::api_token::{ApiToken, Credential, Lifetime, Mark};

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

/// The hint for a Secret that Argo CD cannot use.
pub(crate) fn repair_hint(secret: &str) -> String {
    format!("correct it with `kubectl edit secret {secret}`, or delete the Secret and add the cluster again")
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

/// How long ago a token was used, if it is still in use.
pub(crate) fn recent_use(token: &ApiToken, now: Timestamp) -> Option<String> {
    // The clocks of two servers differ: the last use may be in the future.
    let ago = now.as_second() - token.last_used?.as_second();
    (ago < RECENT).then(|| age::human(ago.max(0)))
}

/// A write that records the new token.
pub(crate) fn write(token: &ApiToken) -> Write {
    let expires = token
        .expiry
        .at()
        .map_or_else(|| "never".to_owned(), |at| at.to_string());
    Write::by(TOOL)
        .marked(TOKEN, token.name.as_str())
        .marked(TOKEN_USER, token.user.as_str())
        .marked(TOKEN_EXPIRES, expires)
}

/// The same for another user's token, which Rancher does not list.
pub(crate) fn write_unknown(value: &Secret) -> Write {
    let write = Write::by(TOOL).marked(TOKEN, token_name(value));
    write.marked(TOKEN_USER, "unknown").marked(TOKEN_EXPIRES, "unknown")
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
