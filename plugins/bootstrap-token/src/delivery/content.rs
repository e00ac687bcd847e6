//! The token in a delivery: bare, or as the token of a user in a kubeconfig.
//!
//! Only the text of the token is replaced: comments, order and unknown fields stay.

use bootstrap::Token;
use client::secret::Secret;
use client::yaml;
use serde::Deserialize;
use supervisor::token::without_ca_hash;

/// The token, either bare (or with K3s' hash) with white space around it, or of the user of the current context.
pub(crate) fn token_in(content: &Secret) -> Option<Token> {
    let bare = Token::parse(&without_ca_hash(&Secret::new(content.expose().trim())));
    bare.ok().or_else(|| of_kubeconfig(content.expose()))
}

/// The `certificate-authority-data` of the current cluster of a kubeconfig.
pub(crate) fn authority_in(content: &Secret) -> Option<String> {
    let kubeconfig: Kubeconfig = yaml::from_str(content.expose()).ok()?;
    let name = kubeconfig.current().map(|context| context.cluster.as_str());
    let cluster = named_or_only(&kubeconfig.clusters, name, |cluster| &cluster.name)?;
    cluster.cluster.certificate_authority_data.clone()
}

/// The content with `old` replaced by `new`. `None`: the token is not there as plain text.
pub(crate) fn with(content: &Secret, old: &Token, new: &Token) -> Option<Secret> {
    let (old, text) = (old.text(), new.text());
    let replaced = Secret::new(content.expose().replace(old.expose(), text.expose()));
    (token_in(&replaced).as_ref() == Some(new)).then_some(replaced)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    user: String,
    #[serde(default)]
    cluster: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
struct User {
    token: Option<String>,
}

impl Kubeconfig {
    fn current(&self) -> Option<&Context> {
        let current = self.contexts.iter().find(|named| named.name == self.current_context);
        current.map(|named| &named.context)
    }
}

/// The entry with this name, or, without a name, the only one.
fn named_or_only<'a, T>(entries: &'a [T], name: Option<&str>, name_of: fn(&T) -> &str) -> Option<&'a T> {
    match (name, entries) {
        (Some(name), entries) => entries.iter().find(|entry| name_of(entry) == name),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// Errors of the parser are dropped: they quote the text.
fn of_kubeconfig(text: &str) -> Option<Token> {
    let kubeconfig: Kubeconfig = yaml::from_str(text).ok()?;
    let name = kubeconfig.current().map(|context| context.user.as_str());
    let user = named_or_only(&kubeconfig.users, name, |user| &user.name)?;
    Token::parse(&Secret::new(user.user.token.clone()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "\
# from the installer
apiVersion: v1
kind: Config
current-context: default
contexts:
- name: default
  context: {cluster: c, user: kubelet}
users:
- name: other
  user: {token: zzzzzz.zzzzzzzzzzzzzzzz}
- name: kubelet
  user:
    token: \"abcdef.ghijklmnopqrstuv\"  # until the certificate is there
unknown: {kept: true}
";

    fn token(text: &str) -> Token {
        Token::parse(&Secret::new(text)).unwrap()
    }

    #[test]
    fn only_the_token_of_the_current_user_is_replaced_in_a_kubeconfig() {
        let (old, new) = (token("abcdef.ghijklmnopqrstuv"), token("0a1b2c.0123456789abcdez"));
        let content = Secret::new(KUBECONFIG);
        assert_eq!(token_in(&content), Some(old.clone()));
        let replaced = with(&content, &old, &new).unwrap();
        let expected = KUBECONFIG.replace("abcdef.ghijklmnopqrstuv", "0a1b2c.0123456789abcdez");
        assert!(replaced.expose() == expected);
    }

    #[test]
    fn a_bare_token_keeps_its_newline() {
        let (old, new) = (token("abcdef.ghijklmnopqrstuv"), token("0a1b2c.0123456789abcdez"));
        let replaced = with(&Secret::new("abcdef.ghijklmnopqrstuv\n"), &old, &new).unwrap();
        assert!(replaced.expose() == "0a1b2c.0123456789abcdez\n");
    }

    #[test]
    fn a_token_keeps_the_hash_of_the_certificate_authority() {
        let (old, new) = (token("abcdef.ghijklmnopqrstuv"), token("0a1b2c.0123456789abcdez"));
        let with_hash = |token: &Token| Secret::new(format!("K10{}::{}\n", "0f".repeat(32), token.text().expose()));
        let replaced = with(&with_hash(&old), &old, &new).unwrap();
        assert!(replaced.expose() == with_hash(&new).expose());
    }

    #[test]
    fn a_token_in_another_form_is_not_replaced() {
        let (old, new) = (token("abcdef.ghijklmnopqrstuv"), token("0a1b2c.0123456789abcdez"));
        let content = Secret::new(KUBECONFIG.replace("abcdef.", "\\x61bcdef."));
        assert_eq!(token_in(&content), Some(old.clone()));
        assert!(with(&content, &old, &new).is_none());
        assert_eq!(token_in(&Secret::new("a password")), None);
    }
}
