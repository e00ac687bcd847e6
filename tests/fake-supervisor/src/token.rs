//! Tokens as K3s reads them: `pkg/clientaccess/token.go` and `pkg/util/token.go` of v1.36.3+k3s1.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The suffix of the datastore key, and the fingerprint in annotations: 12 digits of the SHA-256.
pub(crate) fn hash12(text: &str) -> String {
    sha256_hex(text.as_bytes())[..12].to_owned()
}

/// `abcdef.0123456789abcdef`
pub(crate) fn is_bootstrap_shape(text: &str) -> bool {
    let part =
        |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split_once('.')
        .is_some_and(|(id, secret)| part(id, 6) && part(secret, 16))
}

/// User and password of `K10<hash>::<user>:<password>`. The hash is not checked.
pub(crate) fn parse_full(token: &str) -> Option<(&str, &str)> {
    let (hash, rest) = token.strip_prefix("K10")?.split_once("::")?;
    let (user, password) = rest.split_once(':')?;
    ((hash.is_empty() || hash.len() == 64) && !password.is_empty()).then_some((user, password))
}

pub(crate) const NOT_NORMAL: &str =
    "failed to normalize server token; must be in format K10<CA-HASH>::<USERNAME>:<PASSWORD> or <PASSWORD>";

/// The password part of a server token. White space is kept.
pub(crate) fn normalize(token: &str) -> Result<&str, &'static str> {
    if token.starts_with("K10") {
        return parse_full(token).map(|(_, password)| password).ok_or(NOT_NORMAL);
    }
    if token.is_empty() || is_bootstrap_shape(token) {
        return Err(NOT_NORMAL);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_token_is_a_password_or_a_k10_form() {
        let full = format!("K10{}::server:pw:x", "a".repeat(64));
        assert_eq!(normalize(&full), Ok("pw:x"));
        assert_eq!(normalize("a:b:c"), Ok("a:b:c"));
        assert_eq!(normalize("pw\n"), Ok("pw\n"));
        for wrong in ["", "abcdef.0123456789abcdef", "K10foo", "K10ab::server:pw"] {
            assert_eq!(normalize(wrong), Err(NOT_NORMAL), "{wrong}");
        }
    }

    #[test]
    fn the_fingerprint_has_twelve_digits() {
        assert_eq!(hash12("abc"), "ba7816bf8f01");
    }
}
