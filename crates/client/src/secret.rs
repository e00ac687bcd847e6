//! Secrets that cannot be printed, and the fingerprint that is shown in their place.
//!
//! A [`Secret`] has no `Display`, its `Debug` shows the fingerprint, it is not `Serialize`, and its memory is wiped when
//! it is dropped. The only way to the value is [`Secret::expose`], so that `grep expose` lists every place where a
//! credential leaves its wrapper.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A credential: a token, a password, a key.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a value. The caller's own copy should not outlive this call.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value itself, for sending it to its system.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Its fingerprint, which is safe to print.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.expose())
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint())
    }
}

/// The first ten hexadecimal digits of the SHA-256 of a credential.
///
/// It is the form that Rancher itself uses, in the annotation `io.cattle.agent.registration-token-hash` of a cluster
/// (seen on Rancher 2.15.0), so the two can be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 5]);

impl Fingerprint {
    /// The fingerprint of a value.
    pub fn of(value: &str) -> Self {
        let digest = Sha256::digest(value.as_bytes());
        let mut first = [0; 5];
        first.copy_from_slice(&digest[..5]);
        Self(first)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not ten hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: ten hexadecimal digits are expected")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 10 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(NotAFingerprint);
        }
        let mut bytes = [0; 5];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NotAFingerprint)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NotAFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_its_fingerprint() {
        let secret = Secret::new("dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87");
        assert_eq!(format!("{secret:?}"), "Secret(739e2d9420)");
    }

    #[test]
    fn the_fingerprint_is_the_one_that_rancher_writes() {
        // A throw-away token and the annotation that Rancher 2.15.0 put on its cluster.
        let of = Fingerprint::of("dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87");
        assert_eq!(of.to_string(), "739e2d9420");
        assert_eq!("739e2d9420".parse(), Ok(of));
    }

    #[test]
    fn a_fingerprint_of_the_wrong_shape_is_refused() {
        for text in ["", "739e2d942", "739e2d94200", "739e2d942g", "739e2d94é"] {
            assert_eq!(text.parse::<Fingerprint>(), Err(NotAFingerprint), "{text:?}");
        }
    }
}
