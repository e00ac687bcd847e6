//! The token that the user passes: a server token, an agent token or a bootstrap token.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cli::ui::Ui;
use client::error::Error;
use client::secret::{Fingerprint, Secret};
use supervisor::{CaHash, Credential, InvalidToken, ServerToken, TokenHash, TokenUser};

use super::probe::Role;
use crate::private_file;

/// A token with fewer characters may be guessed.
const SHORTEST: usize = 20;
/// So may one with less entropy, in bits, by the frequencies of its own characters.
const LEAST_ENTROPY: f64 = 60.0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GivenToken {
    /// A server token or an agent token. A bare one can be either.
    Server(ServerToken),
    Bootstrap {
        ca_hash: Option<CaHash>,
        /// `ID.SECRET`
        token: Secret,
    },
}

impl GivenToken {
    /// The content of a file or of stdin.
    pub(crate) fn of_line(content: &Secret) -> Result<Self, InvalidToken> {
        match ServerToken::of_line(content) {
            Err(InvalidToken::BootstrapToken) => Ok(Self::bootstrap(content)),
            parsed => parsed.map(Self::Server),
        }
    }

    /// `ID.SECRET` or `K10<hash>::ID.SECRET`.
    fn bootstrap(content: &Secret) -> Self {
        let text = content.expose().trim_end();
        let (form, token) = text.rsplit_once("::").unwrap_or(("", text));
        Self::Bootstrap {
            ca_hash: form.strip_prefix("K10").and_then(|hash| hash.parse().ok()),
            token: Secret::new(token),
        }
    }

    /// The hash of the CA, in the `K10` form.
    pub(crate) fn ca_hash(&self) -> Option<&CaHash> {
        match self {
            Self::Server(token) => token.ca_hash.as_ref(),
            Self::Bootstrap { ca_hash, .. } => ca_hash.as_ref(),
        }
    }

    /// The server token that it is.
    ///
    /// # Errors
    /// If it is an agent token or a bootstrap token.
    pub(crate) fn into_server_token(self) -> Result<ServerToken, InvalidToken> {
        match self {
            Self::Server(token) if token.user == TokenUser::Server => Ok(token),
            Self::Server(_) => Err(InvalidToken::AgentToken),
            Self::Bootstrap { .. } => Err(InvalidToken::BootstrapToken),
        }
    }

    /// Server tokens that were passed, each with its place: the files in their order, then stdin.
    ///
    /// # Errors
    /// If one of them is another kind of token, or none.
    pub(crate) async fn server_tokens(
        files: &[PathBuf],
        stdin: bool,
        ui: &Ui,
    ) -> Result<Vec<(String, ServerToken)>, Error> {
        let mut tokens = Vec::new();
        for path in files {
            let place = path.display().to_string();
            let token = Self::server_token(&private_file::read(path)?, &place)?;
            tokens.push((place, token));
        }
        if stdin {
            let token = Self::server_token(&ui.read_secret().await?, "stdin")?;
            tokens.push(("stdin".to_owned(), token));
        }
        Ok(tokens)
    }

    /// The server token in one place.
    pub(crate) fn server_token(text: &Secret, place: &str) -> Result<ServerToken, Error> {
        let token = Self::of_line(text).and_then(Self::into_server_token);
        token.map_err(|error| Error::usage(format!("invalid token in {place}: {error}")))
    }

    fn password(&self) -> &Secret {
        match self {
            Self::Server(token) => token.password(),
            Self::Bootstrap { token, .. } => token,
        }
    }

    /// The roles in which servers may accept it. The password of a bare token, or of one for a server, is also that of agents, unless
    /// the cluster has a separate agent token.
    pub(crate) fn roles(&self) -> &'static [Role] {
        match self {
            Self::Server(token) if token.user == TokenUser::Server => &[Role::Server, Role::Agent],
            Self::Server(_) => &[Role::Agent],
            Self::Bootstrap { .. } => &[Role::BootstrapToken],
        }
    }

    pub(crate) fn credential(&self, role: Role) -> Credential<'_> {
        match role {
            Role::Server => Credential::Server(self.password()),
            Role::Agent => Credential::Node(self.password()),
            Role::BootstrapToken => Credential::BootstrapToken(self.password()),
        }
    }

    /// What snapshots show if it is the server token.
    pub(crate) fn server_hash(&self) -> Option<TokenHash> {
        match self {
            Self::Server(token) if token.user == TokenUser::Server => Some(token.hash()),
            _ => None,
        }
    }

    /// `None`: a dictionary would find the token by its fingerprint.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        (!self.is_guessable()).then(|| self.password().fingerprint())
    }

    /// Whether a person may have made it up. It is a rule of thumb: what a machine generated is long, and has digits and many different
    /// characters.
    pub(crate) fn is_guessable(&self) -> bool {
        let text = self.password().expose();
        let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
        text.chars().count() < SHORTEST || !has_digit || entropy(text) < LEAST_ENTROPY
    }
}

/// The bits of a text of independent characters with these frequencies.
fn entropy(text: &str) -> f64 {
    let mut counts = BTreeMap::<char, u32>::new();
    for character in text.chars() {
        *counts.entry(character).or_default() += 1;
    }
    let total = f64::from(counts.values().sum::<u32>());
    let bits = counts
        .values()
        .map(|count| f64::from(*count) * (total / f64::from(*count)).log2());
    bits.sum()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HASH: &str = "7cc358aa45100f42d57b76e9b235253bfc6fc830b3e45858d2bc473657aae3f7";

    fn parse(text: &str) -> GivenToken {
        GivenToken::of_line(&Secret::new(text)).unwrap()
    }

    #[rstest]
    #[case("hunter2", &[Role::Server, Role::Agent], "hunter2", false)]
    #[case(&format!("K10{HASH}::server:pw\n"), &[Role::Server, Role::Agent], "pw", true)]
    #[case(&format!("K10{HASH}::node:pw"), &[Role::Agent], "pw", true)]
    #[case("abcdef.0123456789abcdef\n", &[Role::BootstrapToken], "abcdef.0123456789abcdef", false)]
    #[case(&format!("K10{HASH}::abcdef.0123456789abcdef\r\n"), &[Role::BootstrapToken], "abcdef.0123456789abcdef", true)]
    #[case("K10::abcdef.0123456789abcdef", &[Role::BootstrapToken], "abcdef.0123456789abcdef", false)]
    fn every_form_is_read(#[case] text: &str, #[case] roles: &[Role], #[case] password: &str, #[case] has_hash: bool) {
        let token = parse(text);
        assert_eq!((token.roles(), token.password().expose()), (roles, password));
        assert_eq!(
            token.ca_hash().map(ToString::to_string),
            has_hash.then(|| HASH.to_owned())
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "K10abc::server:pw", "two\nlines", "ext/token-abcde:secret"] {
            assert!(GivenToken::of_line(&Secret::new(text)).is_err(), "{text:?}");
        }
    }

    #[rstest]
    #[case::by_k3s("0f1e2d3c4b5a69788796a5b4c3d2e1f0", false)]
    #[case::by_this_project(HASH, false)]
    #[case::base64("q8Zr5sV1nXk2wYt7LmPdJb0GhCfEaUoi", false)]
    #[case::short("K3sR0cks!2024", true)]
    #[case::words("correct-horse-battery-staple", true)]
    #[case::repeated("1212121212121212121212121212121212", true)]
    fn a_token_that_a_person_made_up_has_no_fingerprint(#[case] text: &str, #[case] is_guessable: bool) {
        let token = parse(text);
        assert_eq!(token.is_guessable(), is_guessable, "{}", entropy(text));
        assert_eq!(token.fingerprint().is_none(), is_guessable);
    }
}
