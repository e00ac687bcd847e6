//! The tokens whose values this process knows: passed, drawn, or opened from the backup Secret.

use std::collections::BTreeMap;

use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::controller::Failure;
use engine::run::Draw;
use supervisor::{CaHash, ServerToken, TokenHash, TokenUser, TokenValue};

use super::Session;

/// By their fingerprints.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(BTreeMap<Fingerprint, TokenValue>);

impl Tokens {
    pub(crate) fn insert(&mut self, value: TokenValue) -> Fingerprint {
        let fingerprint = value.password().fingerprint();
        self.0.insert(fingerprint, value);
        fingerprint
    }

    pub(crate) fn get(&self, of: Fingerprint) -> Option<&TokenValue> {
        self.0.get(&of)
    }

    pub(crate) fn knows(&self, of: Fingerprint) -> bool {
        self.0.contains_key(&of)
    }

    /// The value of a token that a step needs.
    pub(crate) fn require(&self, of: Fingerprint) -> Result<TokenValue, Failure> {
        let found = self.get(of).cloned();
        found.ok_or_else(|| Failure::Permanent(Error::failed(format!("the value of token {of} is unknown"))))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Fingerprint, &TokenValue)> {
        self.0.iter().map(|(fingerprint, value)| (*fingerprint, value))
    }
}

/// A token as K3s writes it in its files, with the hash of the CA.
pub(crate) fn with_hash(value: &TokenValue, user: TokenUser, ca_hash: Option<&CaHash>) -> Secret {
    let password = value.password();
    match ca_hash {
        Some(hash) => hash.join_token(&Secret::new(format!("{}:{}", user.name(), password.expose()))),
        None => password.clone(),
    }
}

/// The value of a server token, if its servers can take it again.
pub(crate) fn value_of(text: &Secret) -> Option<TokenValue> {
    let token = ServerToken::parse(text).ok()?;
    (token.user == TokenUser::Server).then(|| token.value().ok()).flatten()
}

/// A `TokenHash` begins with the digits of the fingerprint of the same password.
pub(crate) fn fingerprint_of(hash: TokenHash) -> Option<Fingerprint> {
    hash.to_string().get(..10)?.parse().ok()
}

/// Draws tokens from the operating system, and keeps them for the step.
pub(crate) struct SystemRandom<'a>(pub(crate) &'a Session<'a>);

impl Draw for SystemRandom<'_> {
    fn credential(&mut self) -> Fingerprint {
        // Without random bytes no value is kept, and the step fails.
        let Ok(value) = TokenValue::generate() else {
            return Fingerprint::of("");
        };
        self.0.state().tokens.insert(value)
    }

    fn mark(&mut self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_in_a_snapshot_is_the_fingerprint_of_the_same_token() {
        let value = TokenValue::generate().unwrap();
        assert_eq!(fingerprint_of(value.hash()), Some(value.password().fingerprint()));
    }

    #[test]
    fn a_token_is_written_with_the_hash_and_read_again() {
        let value = TokenValue::generate().unwrap();
        let hash: CaHash = "a".repeat(64).parse().unwrap();
        for text in [Some(&hash), None].map(|hash| with_hash(&value, TokenUser::Server, hash)) {
            assert_eq!(value_of(&text), Some(value.clone()));
        }
        let agent = Secret::new(format!("K10{hash}::node:{}", value.password().expose()));
        assert_eq!(value_of(&agent), None);
    }
}
