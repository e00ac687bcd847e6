//! The server token: a bare password, or `K10<hash of the CA>::<user>:<password>`.
//!
//! K3s accepts any text as a new token, and some texts leave the cluster without a way forward: white space at an end, the form of a
//! bootstrap token, a `K10` that is not a whole token (seen on K3s 1.36.3 and 1.33.3). So only a [`TokenValue`] can be sent.

use std::fmt;
use std::str::FromStr;

use client::secret::Secret;
use rand::TryRng as _;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::ca::{CaHash, InvalidCaHash};
use crate::error::{Error, Result};
use crate::hex;

/// What a token begins with if it contains the hash of the CA (k3s-io/k3s `pkg/clientaccess/token.go`).
pub(crate) const PREFIX: &str = "K10";
/// The random bytes of a generated token.
const GENERATED: usize = 32;
/// The fewest characters of a new token.
const SHORTEST: usize = 16;

/// Whom a token authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenUser {
    /// A server: all of the supervisor.
    Server,
    /// An agent.
    Node,
}

impl TokenUser {
    /// As it stands in a token.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Node => "node",
        }
    }
}

/// A server token, or an agent token. Its `Debug` shows a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerToken {
    /// The hash of the CA, in the `K10` form.
    pub ca_hash: Option<CaHash>,
    /// Whom it authenticates. A bare password: a server.
    pub user: TokenUser,
    password: Secret,
}

/// Why a text is not a server token. The message does not quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Nothing.
    #[error("the token is empty")]
    Empty,
    /// A line end after the token.
    #[error("the token ends with a line break")]
    TrailingLineBreak,
    /// More than one line.
    #[error("the token has several lines")]
    SeveralLines,
    /// K3s trims it in some places and not in others.
    #[error("the token has white space at an end")]
    WhiteSpace,
    /// The hash is malformed.
    #[error("the token begins with K10, but {0}")]
    CaHash(#[from] InvalidCaHash),
    /// `K10` without the rest.
    #[error("the token begins with K10, but is not K10<hash>::<user>:<password>")]
    Incomplete,
    /// Neither `server` nor `node`.
    #[error("the token begins with K10, but its user is neither \"server\" nor \"node\"")]
    UnknownUser,
    /// `abcdef.0123456789abcdef`.
    #[error("the token is a bootstrap token (ID.SECRET), not a server token")]
    BootstrapToken,
    /// `ext/…`.
    #[error("the token is a Rancher API token (ext/...), not a server token")]
    RancherToken,
    /// Too short for a new token.
    #[error("a new token needs at least {SHORTEST} characters")]
    TooShort,
    /// Not a character of a new token.
    #[error("a new token may contain only letters, digits, dots, underscores and dashes")]
    Character,
    /// An agent token.
    #[error("the token is an agent token (user \"node\"), not a server token")]
    AgentToken,
}

impl ServerToken {
    /// A bare password or the `K10` form, without a line break.
    pub fn parse(text: &Secret) -> Result<Self, InvalidToken> {
        let text = text.expose();
        one_word(text)?;
        let Some(rest) = text.strip_prefix(PREFIX) else {
            if text.starts_with("ext/") {
                return Err(InvalidToken::RancherToken);
            }
            return Self::of(None, TokenUser::Server, text);
        };
        let (hash, credential) = rest.split_once("::").ok_or(InvalidToken::Incomplete)?;
        // K3s accepts an empty hash, and then verifies nothing.
        let ca_hash = if hash.is_empty() { None } else { Some(hash.parse()?) };
        if is_bootstrap_token(credential) {
            return Err(InvalidToken::BootstrapToken);
        }
        match credential.split_once(':') {
            Some(("server", password)) => Self::of(ca_hash, TokenUser::Server, password),
            Some(("node", password)) => Self::of(ca_hash, TokenUser::Node, password),
            Some(_) => Err(InvalidToken::UnknownUser),
            None => Err(InvalidToken::Incomplete),
        }
    }

    /// The content of a file or of stdin: one token, with or without a line break at its end.
    pub fn of_line(content: &Secret) -> Result<Self, InvalidToken> {
        let text = content.expose();
        let text = text.strip_suffix('\n').unwrap_or(text);
        Self::parse(&Secret::new(text.strip_suffix('\r').unwrap_or(text)))
    }

    fn of(ca_hash: Option<CaHash>, user: TokenUser, password: &str) -> Result<Self, InvalidToken> {
        one_word(password)?;
        // Before the fix of k3s-io/k3s#12982 a rotation could make such a password the server's. It is then in the K10 form.
        if ca_hash.is_none() && is_bootstrap_token(password) {
            return Err(InvalidToken::BootstrapToken);
        }
        let password = Secret::new(password);
        Ok(Self {
            ca_hash,
            user,
            password,
        })
    }

    /// What authenticates, without hash and user.
    pub fn password(&self) -> &Secret {
        &self.password
    }

    /// Its fingerprint, as K3s writes it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.password)
    }

    /// The same token with the hash of a CA.
    #[must_use]
    pub fn with_ca_hash(self, ca_hash: CaHash) -> Self {
        Self {
            ca_hash: Some(ca_hash),
            ..self
        }
    }

    /// As K3s writes it in its files: in the `K10` form if the hash of the CA is known.
    pub fn text(&self) -> Secret {
        match &self.ca_hash {
            None => self.password.clone(),
            Some(hash) => hash.join_token(&Secret::new(format!("{}:{}", self.user.name(), self.password.expose()))),
        }
    }

    /// The value to send if this token is to be the server token again.
    ///
    /// # Errors
    /// If it is an agent token, or would harm the cluster.
    pub fn value(&self) -> Result<TokenValue, InvalidToken> {
        if self.user == TokenUser::Node {
            return Err(InvalidToken::AgentToken);
        }
        TokenValue::harmless(&self.password)
    }
}

/// What K3s can take as its server token without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenValue(Secret);

impl TokenValue {
    /// A random token of 64 hexadecimal digits.
    pub fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; GENERATED]);
        SysRng
            .try_fill_bytes(&mut *bytes)
            .map_err(|error| Error::NoRandomness(Box::new(error)))?;
        Ok(Self(Secret::new(hex(&*bytes))))
    }

    /// A new token that the user supplies: at least 16 characters of `[A-Za-z0-9._-]`, without hash and user.
    pub fn supplied(text: &Secret) -> Result<Self, InvalidToken> {
        let value = Self::harmless(text)?;
        let text = text.expose();
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(InvalidToken::Character);
        }
        if text.len() < SHORTEST {
            return Err(InvalidToken::TooShort);
        }
        Ok(value)
    }

    fn harmless(text: &Secret) -> Result<Self, InvalidToken> {
        let value = text.expose();
        one_word(value)?;
        if value.starts_with(PREFIX) {
            return Err(InvalidToken::Incomplete);
        }
        if is_bootstrap_token(value) {
            return Err(InvalidToken::BootstrapToken);
        }
        Ok(Self(text.clone()))
    }

    /// The password.
    pub fn password(&self) -> &Secret {
        &self.0
    }

    /// Its fingerprint, as K3s writes it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

/// The first 12 hexadecimal digits of the SHA-256 of a password. K3s uses it in the key of its datastore and in the annotation
/// `snapshot-token-hash` of snapshots (`ShortHash` in k3s-io/k3s `pkg/util/token.go`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 6]);

/// A text that is not 12 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the hash of a token: 12 lower-case hexadecimal digits are expected")]
pub struct NotATokenHash;

impl TokenHash {
    /// That of a password.
    pub fn of(password: &Secret) -> Self {
        let digest = Sha256::digest(password.expose());
        let mut first = [0; 6];
        first.copy_from_slice(&digest[..6]);
        Self(first)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenHash {
    type Err = NotATokenHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NotATokenHash),
        };
        let digits: Vec<u8> = text.bytes().map(digit).collect::<Result<_, _>>()?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect();
        match digits.len() {
            12 => bytes.try_into().map(Self).map_err(|_| NotATokenHash),
            _ => Err(NotATokenHash),
        }
    }
}

impl Serialize for TokenHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The token of an agent without the hash of the CA: `K10<hash>::<token>`, or the text itself.
pub fn without_ca_hash(text: &Secret) -> Secret {
    let parts = text
        .expose()
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once("::"));
    match parts {
        // An agent refuses upper-case digits. That is no reason not to find the token.
        Some((hash, token)) if hash.to_ascii_lowercase().parse::<CaHash>().is_ok() => Secret::new(token),
        _ => text.clone(),
    }
}

fn one_word(text: &str) -> Result<(), InvalidToken> {
    let is_line_break = |c: char| c == '\n' || c == '\r';
    let trimmed = text.trim_end_matches(is_line_break);
    if text.trim().is_empty() {
        Err(InvalidToken::Empty)
    } else if trimmed.contains(is_line_break) {
        Err(InvalidToken::SeveralLines)
    } else if trimmed.len() < text.len() {
        Err(InvalidToken::TrailingLineBreak)
    } else if text.trim().len() < text.len() {
        Err(InvalidToken::WhiteSpace)
    } else {
        Ok(())
    }
}

/// `[a-z0-9]{6}.[a-z0-9]{16}`.
fn is_bootstrap_token(text: &str) -> bool {
    let is_made_of_symbols = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    text.split_once('.').is_some_and(|(id, secret)| {
        id.len() == 6 && secret.len() == 16 && is_made_of_symbols(id) && is_made_of_symbols(secret)
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HASH: &str = "7cc358aa45100f42d57b76e9b235253bfc6fc830b3e45858d2bc473657aae3f7";

    fn parse(text: &str) -> Result<ServerToken, InvalidToken> {
        ServerToken::parse(&Secret::new(text))
    }

    #[rstest]
    #[case::bare("hunter2", None, TokenUser::Server, "hunter2")]
    #[case::colons("a:b:c", None, TokenUser::Server, "a:b:c")]
    #[case::inner_space("a b", None, TokenUser::Server, "a b")]
    #[case::server(&format!("K10{HASH}::server:pw"), Some(HASH), TokenUser::Server, "pw")]
    #[case::node(&format!("K10{HASH}::node:pw:2"), Some(HASH), TokenUser::Node, "pw:2")]
    #[case::no_hash("K10::server:pw", None, TokenUser::Server, "pw")]
    #[case::stuck(&format!("K10{HASH}::server:abcdef.0123456789abcdef"), Some(HASH), TokenUser::Server, "abcdef.0123456789abcdef")]
    fn both_forms_are_parsed_and_composed(
        #[case] text: &str,
        #[case] hash: Option<&str>,
        #[case] user: TokenUser,
        #[case] password: &str,
    ) {
        let token = parse(text).unwrap();
        assert_eq!(token.ca_hash.as_ref().map(ToString::to_string).as_deref(), hash);
        assert_eq!((token.user, token.password().expose()), (user, password));
        if hash.is_some() || !text.starts_with(PREFIX) {
            assert_eq!(token.text().expose(), text);
        }
        let line = Secret::new(format!("{text}\r\n"));
        assert_eq!(ServerToken::of_line(&line).unwrap(), token);
        assert!(!format!("{token:?}").contains(password), "{token:?}");
    }

    #[rstest]
    #[case("", "the token is empty")]
    #[case(" \n", "the token is empty")]
    #[case("secret\n", "the token ends with a line break")]
    #[case("secret\nsecret", "the token has several lines")]
    #[case("secret\n\nsecret\n", "the token has several lines")]
    #[case(" secret", "the token has white space at an end")]
    #[case("secret\u{a0}", "the token has white space at an end")]
    #[case(
        "K10abc::server:pw",
        "the token begins with K10, but the hash of the CA has 3 characters instead of 64"
    )]
    #[case(
        "K107CC358aa45100f42d57b76e9b235253bfc6fc830b3e45858d2bc473657aae3f7::server:pw",
        "the token begins with K10, but the hash of the CA has upper-case digits, which K3s does not accept"
    )]
    #[case(
        "K10zcc358aa45100f42d57b76e9b235253bfc6fc830b3e45858d2bc473657aae3f7::server:pw",
        "the token begins with K10, but the hash of the CA is not hexadecimal"
    )]
    #[case("K10foo", "the token begins with K10, but is not K10<hash>::<user>:<password>")]
    #[case("K10::pw", "the token begins with K10, but is not K10<hash>::<user>:<password>")]
    #[case("K10::server:", "the token is empty")]
    #[case("K10::server: pw", "the token has white space at an end")]
    #[case(
        "K10::admin:pw",
        "the token begins with K10, but its user is neither \"server\" nor \"node\""
    )]
    #[case(
        "abcdef.0123456789abcdef",
        "the token is a bootstrap token (ID.SECRET), not a server token"
    )]
    #[case(
        "K107cc358aa45100f42d57b76e9b235253bfc6fc830b3e45858d2bc473657aae3f7::abcdef.0123456789abcdef",
        "the token is a bootstrap token (ID.SECRET), not a server token"
    )]
    #[case(
        "ext/token-abcde:secret",
        "the token is a Rancher API token (ext/...), not a server token"
    )]
    fn an_invalid_token_is_rejected_with_its_reason(#[case] text: &str, #[case] reason: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), reason);
    }

    #[test]
    fn a_file_has_one_token_and_at_most_one_line_break() {
        let of = |text: &str| ServerToken::of_line(&Secret::new(text));
        assert!(of("secret").is_ok() && of("secret\n").is_ok());
        assert_eq!(of("secret\n\n"), Err(InvalidToken::TrailingLineBreak));
        assert_eq!(of("one\ntwo\n"), Err(InvalidToken::SeveralLines));
    }

    #[rstest]
    #[case("abcdefghijklmnop", None)]
    #[case("A0._-_.-abcdefgh", None)]
    #[case("abcdefghijklmno", Some(InvalidToken::TooShort))]
    #[case("abcdefghijklmnop:", Some(InvalidToken::Character))]
    #[case("abcdefgh ijklmnop", Some(InvalidToken::Character))]
    #[case("abcdefghijklmnopé", Some(InvalidToken::Character))]
    #[case("abcdefghijklmnop ", Some(InvalidToken::WhiteSpace))]
    #[case("abcdefghijklmnop\n", Some(InvalidToken::TrailingLineBreak))]
    #[case("abcdef.0123456789abcdef", Some(InvalidToken::BootstrapToken))]
    #[case("K10abcdefghijklmnop", Some(InvalidToken::Incomplete))]
    #[case("", Some(InvalidToken::Empty))]
    fn a_supplied_new_token_is_checked(#[case] text: &str, #[case] expected: Option<InvalidToken>) {
        assert_eq!(TokenValue::supplied(&Secret::new(text)).err(), expected);
    }

    #[test]
    fn a_generated_token_is_valid_and_random() {
        let (one, other) = (TokenValue::generate().unwrap(), TokenValue::generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.password().expose().len(), 64);
        assert!(one.password().expose().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(TokenValue::supplied(one.password()), Ok(one));
    }

    #[test]
    fn an_old_token_may_be_placed_again_unless_it_does_harm() {
        let value = |text: &str| parse(text).unwrap().value();
        assert_eq!(value("x y").unwrap().password().expose(), "x y");
        assert_eq!(value("K10::node:pw"), Err(InvalidToken::AgentToken));
        let stuck = format!("K10{HASH}::server:abcdef.0123456789abcdef");
        assert_eq!(value(&stuck), Err(InvalidToken::BootstrapToken));
        assert_eq!(value("K10::server:K10x"), Err(InvalidToken::Incomplete));
    }

    #[test]
    fn the_hash_is_the_one_of_k3s() {
        // `printf hunter2 | sha256sum`.
        let hash = parse("hunter2").unwrap().hash();
        assert_eq!(hash.to_string(), "f52fbd32b2b3");
        assert_eq!("f52fbd32b2b3".parse(), Ok(hash));
        for text in [
            "",
            "f52fbd32b2b",
            "f52fbd32b2b3a",
            "F52FBD32B2B3",
            "f52fbd32b2bg",
            "f52fbd32b2bé",
        ] {
            assert_eq!(text.parse::<TokenHash>(), Err(NotATokenHash), "{text}");
        }
    }

    #[test]
    fn the_hash_of_the_ca_can_be_removed() {
        let without = |text: &str| without_ca_hash(&Secret::new(text)).expose().to_owned();
        assert_eq!(
            without(&format!("K10{HASH}::abcdef.ghijklmnopqrstuv")),
            "abcdef.ghijklmnopqrstuv"
        );
        let upper = format!("K10{}::abcdef.ghijklmnopqrstuv", HASH.to_uppercase());
        assert_eq!(without(&upper), "abcdef.ghijklmnopqrstuv");
        for other in ["abcdef.ghijklmnopqrstuv", "K10abc::abcdef.ghijklmnopqrstuv", "K10"] {
            assert_eq!(without(other), other);
        }
    }
}
