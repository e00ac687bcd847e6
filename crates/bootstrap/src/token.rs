//! A token and its two halves: the public id and the secret.

use std::fmt;
use std::str::FromStr;

use client::secret::{Fingerprint, Secret};
use rand::TryRng as _;
use rand::rngs::SysRng;
use serde::Serialize;

use crate::error::{Error, Result};

/// The length of an id.
pub(crate) const ID_LENGTH: usize = 6;
/// The length of the secret half: with 36 symbols, 82.7 bits.
pub(crate) const SECRET_LENGTH: usize = 16;
/// The symbols of both halves.
pub const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// The prefix of the name of a token's Secret, before the id.
pub const SECRET_PREFIX: &str = "bootstrap-token-";
/// The prefix of the user name that a token authenticates as, before the id.
pub const USER_PREFIX: &str = "system:bootstrap:";

/// The public half: six characters of `a-z` and `0-9`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TokenId(String);

/// A text that is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token id has 6 characters, each a lower-case letter or a digit")]
pub struct NotAnId;

/// A text that is not a token. The message does not quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is an id of 6 characters, a dot, and a secret of 16, all of them lower-case letters or digits")]
pub struct NotAToken;

fn is_made_of_symbols(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

impl TokenId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the token's Secret.
    pub fn secret_name(&self) -> String {
        format!("{SECRET_PREFIX}{}", self.0)
    }

    /// The user that the token authenticates as.
    pub fn user(&self) -> String {
        format!("{USER_PREFIX}{}", self.0)
    }

    /// The id in the name of a Secret (`ParseName` in `util/secrets/secrets.go`).
    pub(crate) fn of_secret_name(name: &str) -> Option<Self> {
        name.strip_prefix(SECRET_PREFIX)?.parse().ok()
    }
}

impl FromStr for TokenId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        is_made_of_symbols(text, ID_LENGTH)
            .then(|| Self(text.to_owned()))
            .ok_or(NotAnId)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether a text could be the secret half of a token.
pub(crate) fn is_secret(text: &str) -> bool {
    is_made_of_symbols(text, SECRET_LENGTH)
}

/// A whole token. Its `Debug` shows the id and a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The public half.
    pub id: TokenId,
    secret: Secret,
}

impl Token {
    /// A token from its two halves.
    pub fn new(id: TokenId, secret: Secret) -> Result<Self, NotAToken> {
        if is_secret(secret.expose()) {
            Ok(Self { id, secret })
        } else {
            Err(NotAToken)
        }
    }

    /// Parses `id.secret` as the authenticator does: no surrounding spaces, no upper case.
    pub fn parse(text: &Secret) -> Result<Self, NotAToken> {
        let (id, secret) = text.expose().split_once('.').ok_or(NotAToken)?;
        let id = id.parse().map_err(|NotAnId| NotAToken)?;
        Self::new(id, Secret::new(secret))
    }

    /// A random token. Each symbol has the same probability.
    pub fn generate() -> Result<Self> {
        let id = TokenId(symbols(ID_LENGTH)?);
        let secret = Secret::new(symbols(SECRET_LENGTH)?);
        Ok(Self { id, secret })
    }

    /// The secret half.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The whole token, as it is sent in an `Authorization` header.
    pub fn text(&self) -> Secret {
        Secret::new(format!("{}.{}", self.id, self.secret.expose()))
    }

    /// The fingerprint of the whole token.
    pub fn fingerprint(&self) -> Fingerprint {
        self.text().fingerprint()
    }

    /// Why the token can be guessed, if it can.
    pub fn weakness(&self) -> Option<&'static str> {
        const PUBLISHED: [&str; 2] = ["f395accd246ae52d", "0123456789abcdef"];
        let secret = self.secret.expose();
        if PUBLISHED.contains(&secret) {
            Some("its secret is published in documentation")
        } else if secret.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Some("its secret has only hexadecimal digits: 64 bits instead of 82")
        } else {
            None
        }
    }
}

fn symbols(length: usize) -> Result<String> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 32];
    while text.len() < length {
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Error::NoRandomness(Box::new(error)))?;
        let missing = length - text.len();
        text.extend(bytes.iter().filter_map(|byte| symbol(*byte)).take(missing));
    }
    bytes.fill(0);
    Ok(text)
}

/// The symbol of a random byte. The last 4 of 256 have none, so that all symbols have the same probability.
fn symbol(byte: u8) -> Option<char> {
    let limit = 256 / ALPHABET.len() * ALPHABET.len();
    let byte = usize::from(byte);
    (byte < limit).then(|| char::from(ALPHABET[byte % ALPHABET.len()]))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn parse(text: &str) -> Option<(String, String)> {
        let token = Token::parse(&Secret::new(text)).ok()?;
        Some((token.id.to_string(), token.secret.expose().to_owned()))
    }

    #[test]
    fn generated_tokens_are_valid_and_distinct() {
        let tokens: HashSet<String> = (0..1000)
            .map(|_| Token::generate().unwrap().text().expose().to_owned())
            .collect();
        assert_eq!(tokens.len(), 1000);
        assert!(tokens.iter().all(|token| parse(token).is_some()));
    }

    #[test]
    fn all_symbols_have_the_same_probability() {
        let mut count = BTreeMap::new();
        for symbol in (0..=255).filter_map(symbol) {
            *count.entry(symbol).or_insert(0) += 1;
        }
        assert_eq!(count.len(), 36);
        assert!(count.values().all(|times| *times == 7), "{count:?}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = Token::parse(&Secret::new("abcdef.0123456789abcdef")).unwrap();
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
        assert!(token.weakness().unwrap().contains("published"));
    }

    /// Texts similar to tokens.
    fn similar() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9]{6}\\.[a-z0-9]{16}",
            "[a-z0-9]{5,7}\\.[a-z0-9]{15,17}",
            "[a-zA-Z0-9]{6}[.:]?[a-zA-Z0-9]{16}",
            "\\s?[a-z0-9]{6}\\.[a-z0-9]{16}\\s?",
            "[a-z0-9.]{23}",
            "\\PC{0,30}",
        ]
    }

    proptest! {
        /// `BootstrapTokenPattern` in `token/api/types.go` of cluster-bootstrap v0.36.3.
        #[test]
        fn tokens_match_the_pattern_of_kubernetes(text in similar()) {
            let pattern = Regex::new(r"\A([a-z0-9]{6})\.([a-z0-9]{16})\z").unwrap();
            let theirs = pattern.captures(&text).map(|found| (found[1].to_owned(), found[2].to_owned()));
            prop_assert_eq!(parse(&text), theirs);
        }

        #[test]
        fn secret_names_match_the_pattern_of_kubernetes(name in prop_oneof!["bootstrap-token-[a-zA-Z0-9]{5,7}\\n?", "\\PC{0,24}"]) {
            let pattern = Regex::new(r"^bootstrap\-token\-([a-z0-9]{6})$").unwrap();
            let theirs = pattern.captures(&name).map(|found| found[1].to_owned());
            prop_assert_eq!(TokenId::of_secret_name(&name).map(|id| id.to_string()), theirs);
        }
    }
}
