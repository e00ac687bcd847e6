//! A token as it stands in a target: alone, or as the token of a kubeconfig's user.
//!
//! A new token takes the place of the old one letter by letter: comments, order and unknown fields stay as they are.

use bootstrap::Token;
use client::secret::Secret;
use serde::Deserialize;

/// The token could not be put in: what is there does not spell it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token stands there in a form that cannot be replaced")]
pub(crate) struct NotReplaced;

/// The token that is in there: the whole of it but for white space around, or that of the user of the current context.
pub(crate) fn token_in(content: &Secret) -> Option<Token> {
    let bare = Token::parse(&Secret::new(content.expose().trim()));
    bare.ok().or_else(|| of_kubeconfig(content.expose()))
}

/// The certificate authority of a kubeconfig's current cluster, where it is spelled out, in base64.
pub(crate) fn authority_in(content: &Secret) -> Option<String> {
    let kubeconfig: Kubeconfig = serde_saphyr::from_str(content.expose()).ok()?;
    let named = |named: &&NamedContext| named.name == kubeconfig.current_context;
    let current = kubeconfig
        .contexts
        .iter()
        .find(named)
        .map(|named| &named.context.cluster);
    let cluster = match (current, kubeconfig.clusters.as_slice()) {
        (Some(name), clusters) => clusters.iter().find(|cluster| cluster.name == *name)?,
        (None, [only]) => only,
        (None, _) => return None,
    };
    cluster.cluster.certificate_authority_data.clone()
}

/// The content with `new` wherever `old` stands.
///
/// # Errors
/// The result would not be read as `new`.
pub(crate) fn with(content: &Secret, old: &Token, new: &Token) -> Result<Secret, NotReplaced> {
    let (old, text) = (old.text(), new.text());
    let replaced = Secret::new(content.expose().replace(old.expose(), text.expose()));
    if token_in(&replaced).as_ref() == Some(new) {
        Ok(replaced)
    } else {
        Err(NotReplaced)
    }
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

/// What the parser has to say about a text that is none is not repeated: it quotes it.
fn of_kubeconfig(text: &str) -> Option<Token> {
    let kubeconfig: Kubeconfig = serde_saphyr::from_str(text).ok()?;
    let named = |named: &&NamedContext| named.name == kubeconfig.current_context;
    let current = kubeconfig.contexts.iter().find(named).map(|named| &named.context.user);
    let user = match (current, kubeconfig.users.as_slice()) {
        (Some(name), users) => users.iter().find(|user| user.name == *name)?,
        (None, [only]) => only,
        (None, _) => return None,
    };
    let token = Secret::new(user.user.token.clone()?);
    Token::parse(&token).ok()
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
    fn in_a_kubeconfig_it_is_that_of_the_current_user_and_nothing_else_is_touched() {
        let (old, new) = (token("abcdef.ghijklmnopqrstuv"), token("0a1b2c.0123456789abcdez"));
        let content = Secret::new(KUBECONFIG);
        assert_eq!(token_in(&content), Some(old.clone()));
        let replaced = with(&content, &old, &new).unwrap();
        let expected = KUBECONFIG.replace("abcdef.ghijklmnopqrstuv", "0a1b2c.0123456789abcdez");
        assert!(replaced.expose() == expected);
    }

    #[test]
    fn alone_it_keeps_its_end_of_line() {
        let (old, new) = (token("abcdef.ghijklmnopqrstuv"), token("0a1b2c.0123456789abcdez"));
        let replaced = with(&Secret::new("abcdef.ghijklmnopqrstuv\n"), &old, &new).unwrap();
        assert!(replaced.expose() == "0a1b2c.0123456789abcdez\n");
    }

    #[test]
    fn what_is_spelled_in_another_way_is_left_alone() {
        let (old, new) = (token("abcdef.ghijklmnopqrstuv"), token("0a1b2c.0123456789abcdez"));
        let content = Secret::new(KUBECONFIG.replace("abcdef.", "\\x61bcdef."));
        assert_eq!(token_in(&content), Some(old.clone()));
        assert_eq!(with(&content, &old, &new).unwrap_err(), NotReplaced);
        assert_eq!(token_in(&Secret::new("a password")), None);
    }
}
