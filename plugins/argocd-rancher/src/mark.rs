//! What this program leaves on a Secret and on a token, so that it knows its own again.
//!
//! On the Secret only annotations: Argo CD keeps those through every write of its own, and drops whatever it does not know
//! in `data`. They hold names, never values, and nothing that changes without a new token: each change of an annotation
//! wakes all ApplicationSets that select clusters.

use argocd::ClusterSecret;
use cli::age;
use client::secret::Secret;
use k8s_openapi::jiff::Timestamp;
use rancher::Write;
use rancher::api_token::{ApiToken, Lifetime, Mark};

/// Who writes.
pub(crate) const TOOL: &str = "kubectl-argocd-rancher";
pub(crate) use cli::rotation::API_VERSION;
/// Argo CD lists a cluster anew at least this often. In seconds.
const LATELY: i64 = 15 * 60;
/// The name of the token in the Secret.
pub(crate) const TOKEN: &str = "kubectl-rotation.github.io/token";
/// The user who minted it.
pub(crate) const TOKEN_USER: &str = "kubectl-rotation.github.io/token-user";
/// When it ends, RFC 3339.
pub(crate) const TOKEN_EXPIRES: &str = "kubectl-rotation.github.io/token-expires-at";

/// The mark of a token that a run makes for the Secret `namespace/name` of the Argo CD with this identity.
pub(crate) fn of_run(run: &str, namespace: &str, secret: &str, identity: Option<&str>) -> Mark {
    let mut mark = Mark::new(TOOL, run, &format!("{namespace}/{secret}"));
    mark.cluster = identity.map(str::to_owned);
    mark
}

/// The mark of a token that this program made for a Secret of the Argo CD with this identity. Another Argo CD may use the same
/// user of Rancher, and have a Secret of the same name. A mark without an identity is of an earlier release; that such a token
/// is for the Secret is only known where `is_there`: its value was found there.
pub(crate) fn of_ours(token: &ApiToken, identity: Option<&str>, is_there: bool) -> Option<Mark> {
    let mark = Mark::read(&token.description).filter(|mark| mark.by == TOOL)?;
    let is_here = match &mark.cluster {
        Some(cluster) => identity == Some(cluster),
        None => is_there,
    };
    is_here.then_some(mark)
}

/// What to do about a Secret that Argo CD could not work with.
pub(crate) fn cure(secret: &str) -> String {
    format!("correct it with `kubectl edit secret {secret}`, or delete the Secret and add the cluster again")
}

/// What speaks against changing a Secret that something else puts back.
pub(crate) fn owned(cluster: &ClusterSecret) -> Option<(String, String)> {
    let (name, owner) = (&cluster.object.name, cluster.owner()?);
    Some((
        format!("Secret {name} belongs to {owner}, which may write its own state back at any time"),
        format!(
            "change it at {owner}; --force=owner changes it here, and whatever {owner} writes later brings the old token back"
        ),
    ))
}

/// How long ago a token was used, if that was so lately that somebody still relies on it.
pub(crate) fn used_lately(token: &ApiToken, now: Timestamp) -> Option<String> {
    let ago = now.as_second() - token.last_used?.as_second();
    // The clocks of two servers differ: a use in the future is one of this moment.
    (ago < LATELY).then(|| age::human(ago.max(0)))
}

/// A write that leaves what is known of the new token.
pub(crate) fn write(token: &ApiToken) -> Write {
    let write = Write::by(TOOL)
        .marked(TOKEN, token.name.as_str())
        .marked(TOKEN_USER, token.user.as_str());
    match token.expiry.at() {
        Some(at) => write.marked(TOKEN_EXPIRES, at.to_string()),
        None => write.marked(TOKEN_EXPIRES, "never"),
    }
}

/// The same of a token that we can see nothing of: it is somebody else's.
pub(crate) fn write_unknown(value: &Secret) -> Write {
    let write = Write::by(TOOL).marked(TOKEN, shown(value));
    write.marked(TOKEN_USER, "unknown").marked(TOKEN_EXPIRES, "unknown")
}

/// Says so where Rancher has granted less than was asked for.
pub(crate) fn cut_short(token: &ApiToken, asked: Lifetime, now: Timestamp) -> Option<String> {
    let at = token.expiry.at()?;
    let granted = u64::try_from(at.as_second() - now.as_second()).unwrap_or_default();
    let asked = asked.duration();
    // The clocks of two servers differ, and minutes do not matter here.
    (granted + 600 < asked.as_secs()).then(|| {
        format!(
            "Rancher has granted {} instead of {}: that is the limit of its setting auth-token-max-ttl-minutes",
            age::human(granted.next_multiple_of(60).cast_signed()),
            age::human(asked.as_secs().cast_signed()),
        )
    })
}

/// The name by which a value may be shown: of the token, or of what it is instead.
pub(crate) fn shown(value: &Secret) -> String {
    use rancher::api_token::Credential;
    match Credential::of(value) {
        Credential::Api(name) => name.to_string(),
        Credential::Ext(name) => format!("ext/{name}"),
        Credential::ServiceAccount => "<service account>".to_owned(),
        Credential::Unknown => format!("<{}>", value.fingerprint()),
    }
}
