//! What this program leaves on a Secret and on a token, so that it knows its own again.
//!
//! On the Secret only annotations: Argo CD keeps those through every write of its own, and drops whatever it does not know
//! in `data`. They hold names, never values, and nothing that changes without a new token: each change of an annotation
//! wakes all ApplicationSets that select clusters.

use kubectl_core::secret::Secret;
use rancher::Write;
use rancher::api_token::{ApiToken, Mark};
use rand::RngExt as _;

/// Who writes.
pub const TOOL: &str = "kubectl-argocd-rancher";
/// `apiVersion` of everything that is printed for machines.
pub const API_VERSION: &str = "kubectl-rotation.github.io/v1alpha1";
/// The name of the token in the Secret.
pub const TOKEN: &str = "kubectl-rotation.github.io/token";
/// The user who minted it.
pub const TOKEN_USER: &str = "kubectl-rotation.github.io/token-user";
/// When it ends, RFC 3339.
pub const TOKEN_EXPIRES: &str = "kubectl-rotation.github.io/token-expires-at";

/// The mark of a new token for the Secret `namespace/name`.
pub fn of_run(namespace: &str, secret: &str) -> Mark {
    // No vowels and nothing that looks alike, as Rancher draws names.
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    let run: String = (0..5)
        .map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]))
        .collect();
    Mark::new(TOOL, &run, &format!("{namespace}/{secret}"))
}

/// Whether this program minted a token for that Secret.
pub fn is_ours(token: &ApiToken, namespace: &str, secret: &str) -> bool {
    let mark = Mark::read(&token.description);
    mark.is_some_and(|mark| mark.by == TOOL && mark.subject == format!("{namespace}/{secret}"))
}

/// A write that leaves what is known of the new token.
pub fn write(token: &ApiToken) -> Write {
    let write = Write::by(TOOL)
        .marked(TOKEN, token.name.as_str())
        .marked(TOKEN_USER, token.user.as_str());
    match token.expiry.at() {
        Some(at) => write.marked(TOKEN_EXPIRES, at.to_string()),
        None => write.marked(TOKEN_EXPIRES, "never"),
    }
}

/// The name by which a value may be shown: of the token, or of what it is instead.
pub fn shown(value: &Secret) -> String {
    use rancher::api_token::Credential;
    match Credential::of(value) {
        Credential::Api(name) => name.to_string(),
        Credential::Ext(name) => format!("ext/{name}"),
        Credential::ServiceAccount => "<service account>".to_owned(),
        Credential::Strange => format!("<{}>", value.fingerprint()),
    }
}
