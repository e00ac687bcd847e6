//! The tokens whose values are at hand, the ones to prefer first.

use client::error::Error;
use client::secret::{Fingerprint, Secret};
use supervisor::{ServerToken, TokenHash, TokenValue};

/// Each once.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownTokens(Vec<ServerToken>);

impl KnownTokens {
    /// Returns whether it is a new one.
    pub(super) fn add(&mut self, token: ServerToken) -> bool {
        let is_new = self.get(token.hash()).is_none();
        if is_new {
            self.0.push(token);
        }
        is_new
    }

    fn get(&self, of: TokenHash) -> Option<&ServerToken> {
        self.0.iter().find(|token| token.hash() == of)
    }

    pub(super) fn has(&self, of: TokenHash) -> bool {
        self.get(of).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that can be made the token of the servers.
    pub(super) fn at_hand(&self) -> Vec<TokenHash> {
        self.values().map(|value| value.hash()).collect()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = TokenValue> {
        self.0.iter().filter_map(|token| token.value().ok())
    }

    /// What servers are asked with.
    pub(super) fn passwords(&self) -> impl Iterator<Item = (TokenHash, Secret)> {
        self.0.iter().map(|token| (token.hash(), token.password().clone()))
    }

    pub(super) fn password(&self, of: TokenHash) -> Result<Secret, Error> {
        let token = self.get(of).ok_or_else(|| unknown(of))?;
        Ok(token.password().clone())
    }

    pub(super) fn value(&self, of: TokenHash) -> Result<TokenValue, Error> {
        let token = self.get(of).ok_or_else(|| unknown(of))?;
        let invalid = |error| Error::failed(format!("token {of} cannot be the token of the servers: {error}"));
        token.value().map_err(invalid)
    }

    /// A record has the fingerprint, which is shorter.
    pub(super) fn hash_of(&self, fingerprint: Fingerprint) -> Option<TokenHash> {
        let mut tokens = self.0.iter();
        let token = tokens.find(|token| token.password().fingerprint() == fingerprint)?;
        Some(token.hash())
    }
}

fn unknown(of: TokenHash) -> Error {
    Error::failed(format!("the value of token {of} is not known"))
}
