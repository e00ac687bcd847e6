//! The formulas of a cluster registration token: its format, its fingerprint, and the names derived from it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt;
use sha2::{Digest, Sha256};

/// The alphabet of Rancher's names and tokens: no vowels, no characters that look alike (`github.com/rancher/wrangler`
/// `pkg/randomtoken/token.go`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

fn draw(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

/// A new registration token: 54 characters (`pkg/randomtoken/token.go` of rancher/wrangler).
pub(crate) fn new_token() -> String {
    draw(54)
}

/// The random end of a generated name.
pub(crate) fn suffix(length: usize) -> String {
    draw(length)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// First 10 hex digits of SHA-256: the form of the annotation `io.cattle.agent.registration-token-hash`
/// (`pkg/controllers/management/clusterdeploy/clusterdeploy.go`, 2.15.0), and all that the log shows of a token.
pub(crate) fn fingerprint(token: &str) -> String {
    hex(&Sha256::digest(token))[..10].to_owned()
}

/// How a client names a token to `/cacerts` (`pkg/cacerts/handler.go`, 2.15.0).
pub(crate) fn cacerts_name(token: &str) -> String {
    STANDARD.encode(Sha256::digest(token))
}

/// The formula for the name of the agent's credential Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamePattern {
    /// `pkg/systemtemplate/import.go` since 2.9.9, 2.10.5 and 2.11.1.
    Sha256,
    /// The same file before.
    Md5,
    /// As the import manifest names it: the cluster id is left out of the sum.
    Import,
}

impl NamePattern {
    pub(crate) fn secret_name(self, url: &str, token: &str, cluster: &str) -> String {
        let key = match self {
            Self::Sha256 => hex(&Sha256::digest(format!("{url}.{token}.{cluster}")))[..10].to_owned(),
            Self::Import => hex(&Sha256::digest(format!("{url}.{token}.")))[..10].to_owned(),
            Self::Md5 => hex(&md5::Md5::digest(format!("{url}{token}{cluster}")))[..7].to_owned(),
        };
        format!("cattle-credentials-{key}")
    }
}

/// SHA-256 of the CA certificates with exactly one newline at their end (`pkg/systemtemplate/import.go`, 2.15.0).
pub(crate) fn ca_checksum(cacerts: &str) -> String {
    if cacerts.is_empty() {
        return String::new();
    }
    hex(&Sha256::digest(format!("{}\n", cacerts.trim_end_matches('\n'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a deleted test server (Rancher 2.15.0).
    const TOKEN: &str = "dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87";

    #[test]
    fn names_and_fingerprints_match_rancher_2_15_0() {
        assert_eq!(fingerprint(TOKEN), "739e2d9420");
        assert_eq!(
            NamePattern::Sha256.secret_name("https://rancher.example.com", TOKEN, "c-gsrbc"),
            "cattle-credentials-43cbefdd06"
        );
    }

    #[test]
    fn a_new_token_has_the_format_of_rancher() {
        let token = new_token();
        assert_eq!(token.len(), TOKEN.len());
        assert!(token.bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_ne!(token, new_token());
    }

    #[test]
    fn the_ca_checksum_counts_one_newline() {
        assert_eq!(ca_checksum("x"), ca_checksum("x\n\n"));
        assert_eq!(ca_checksum(""), "");
    }
}
