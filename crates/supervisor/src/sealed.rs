//! A token that is encrypted with a key derived from another token, so that who has either can resume a rotation.
//!
//! The key is PBKDF2-HMAC-SHA256 of the other token with a random salt, the cipher AES-256-GCM. The cluster and the run are
//! authenticated with it, so that a sealed token cannot be moved to another run. A token that can be guessed can be guessed from this.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::secret::Secret;
use rand::TryRng as _;
use rand::rngs::SysRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::pbkdf2::{PBKDF2_HMAC_SHA256, derive};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

const VERSION: u32 = 1;
/// What OWASP recommends for PBKDF2-HMAC-SHA256 (2023).
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");
/// More would only hold the command.
const MOST_ROUNDS: u32 = 10_000_000;
const SALT: usize = 16;

/// What a sealed token belongs to.
#[derive(Clone, Copy, Debug)]
pub struct SealContext<'a> {
    /// The id of the cluster.
    pub cluster: &'a str,
    /// The id of the run.
    pub run: &'a str,
}

impl SealContext<'_> {
    /// With the lengths, so that no two contexts have the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let part = |text: &str| format!("{}:{text}", text.len());
        format!("server-token v{VERSION} {}{}", part(self.cluster), part(self.run)).into_bytes()
    }
}

/// An encrypted token. It is not secret, as far as the other token cannot be guessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedToken {
    version: u32,
    rounds: u32,
    salt: String,
    nonce: String,
    sealed: String,
}

/// Why a sealed token cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The token is another one, or the value was changed or belongs to another cluster or run.
    #[error("the token does not open it: it is another token, or of another run")]
    WrongToken,
    /// Another version of this program wrote it.
    #[error("it has version {0}, which this version does not read")]
    Version(u32),
    /// It is not what [`SealedToken::seal`] returns.
    #[error("it is malformed")]
    Malformed,
}

impl SealedToken {
    /// Encrypts `token` with a key that is derived from `with`. Takes some tenths of a second of processor time.
    pub fn seal(token: &Secret, with: &Secret, context: SealContext<'_>) -> Result<Self> {
        let (mut salt, mut nonce) = ([0; SALT], [0; NONCE_LEN]);
        for random in [&mut salt[..], &mut nonce[..]] {
            SysRng
                .try_fill_bytes(random)
                .map_err(|error| Error::NoRandomness(Box::new(error)))?;
        }
        let mut sealed = Zeroizing::new(Vec::with_capacity(token.expose().len() + AES_256_GCM.tag_len()));
        sealed.extend_from_slice(token.expose().as_bytes());
        key(with, &salt, ROUNDS)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.bytes()),
                &mut *sealed,
            )
            .expect("a token is shorter than the limit of the cipher");
        Ok(Self {
            version: VERSION,
            rounds: ROUNDS.get(),
            salt: STANDARD.encode(salt),
            nonce: STANDARD.encode(nonce),
            sealed: STANDARD.encode(&*sealed),
        })
    }

    /// Decrypts the token.
    pub fn open(&self, with: &Secret, context: SealContext<'_>) -> Result<Secret, OpenError> {
        if self.version != VERSION {
            return Err(OpenError::Version(self.version));
        }
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| OpenError::Malformed);
        let (salt, nonce) = (decode(&self.salt)?, decode(&self.nonce)?);
        let mut sealed = Zeroizing::new(decode(&self.sealed)?);
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| OpenError::Malformed)?;
        let rounds = NonZeroU32::new(self.rounds).filter(|rounds| (ROUNDS.get()..=MOST_ROUNDS).contains(&rounds.get()));
        let rounds = rounds.filter(|_| salt.len() == SALT).ok_or(OpenError::Malformed)?;
        let opened = key(with, &salt, rounds).open_in_place(nonce, Aad::from(context.bytes()), &mut sealed);
        let opened = opened.map_err(|_| OpenError::WrongToken)?;
        let text = std::str::from_utf8(opened).map_err(|_| OpenError::Malformed)?;
        Ok(Secret::new(text))
    }
}

fn key(token: &Secret, salt: &[u8], rounds: NonZeroU32) -> LessSafeKey {
    let mut bytes = Zeroizing::new([0; 32]);
    derive(PBKDF2_HMAC_SHA256, rounds, salt, token.expose().as_bytes(), &mut *bytes);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*bytes).expect("the length is the algorithm's"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const CONTEXT: SealContext<'_> = SealContext {
        cluster: "41c0",
        run: "r1",
    };

    fn sealed() -> SealedToken {
        SealedToken::seal(&Secret::new("new-token"), &Secret::new("old-token"), CONTEXT).unwrap()
    }

    #[test]
    fn the_other_token_opens_it_after_a_round_trip_through_json() {
        let json = serde_json::to_string(&sealed()).unwrap();
        let parsed: SealedToken = serde_json::from_str(&json).unwrap();
        let opened = parsed.open(&Secret::new("old-token"), CONTEXT).unwrap();
        assert_eq!(opened.expose(), "new-token");
        assert_ne!(sealed(), parsed, "salt and nonce are random");
        for form in [
            "new-token".to_owned(),
            STANDARD.encode("new-token"),
            "old-token".to_owned(),
        ] {
            assert!(!json.contains(&form), "{json}");
        }
    }

    #[test]
    fn nothing_else_opens_it() {
        let sealed = sealed();
        let open = |with: &str, cluster, run| sealed.open(&Secret::new(with), SealContext { cluster, run });
        assert_eq!(open("new-token", "41c0", "r1"), Err(OpenError::WrongToken));
        assert_eq!(open("old-token", "41c1", "r1"), Err(OpenError::WrongToken));
        assert_eq!(open("old-token", "41c0", "r2"), Err(OpenError::WrongToken));
        assert_ne!(
            SealContext {
                cluster: "a",
                run: "bc"
            }
            .bytes(),
            SealContext {
                cluster: "ab",
                run: "c"
            }
            .bytes()
        );
    }

    #[rstest]
    #[case::version(|sealed: &mut SealedToken| sealed.version = 2, OpenError::Version(2))]
    #[case::few_rounds(|sealed: &mut SealedToken| sealed.rounds = 1, OpenError::Malformed)]
    #[case::many_rounds(|sealed: &mut SealedToken| sealed.rounds = u32::MAX, OpenError::Malformed)]
    #[case::salt(|sealed: &mut SealedToken| sealed.salt = String::new(), OpenError::Malformed)]
    #[case::nonce(|sealed: &mut SealedToken| sealed.nonce = "AAAA".into(), OpenError::Malformed)]
    #[case::not_base64(|sealed: &mut SealedToken| sealed.sealed = "?".into(), OpenError::Malformed)]
    #[case::cut(|sealed: &mut SealedToken| sealed.sealed = "AAAA".into(), OpenError::WrongToken)]
    fn a_changed_value_is_a_typed_error(#[case] change: fn(&mut SealedToken), #[case] expected: OpenError) {
        let mut sealed = sealed();
        change(&mut sealed);
        assert_eq!(sealed.open(&Secret::new("old-token"), CONTEXT), Err(expected));
    }

    #[test]
    fn the_key_is_pbkdf2_as_others_compute_it() {
        // Python: hashlib.pbkdf2_hmac("sha256", b"old-token", bytes(16), 600000) and AESGCM of the package cryptography.
        let vector = SealedToken {
            version: 1,
            rounds: 600_000,
            salt: STANDARD.encode([0; 16]),
            nonce: STANDARD.encode([0; 12]),
            sealed: "V8g5nZchexrzqqP3qdH2lPjzJyPMja8RnQ==".into(),
        };
        let opened = vector.open(&Secret::new("old-token"), CONTEXT).unwrap();
        assert_eq!(opened.expose(), "new-token");
    }
}
