//! New token values.

use client::secret::Secret;
use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::error::{Error, Result};

/// The characters of a token: those of Kubernetes' random names (`k8s.io/apimachinery/pkg/util/rand`), without vowels and
/// ambiguous characters.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The length of Rancher's own tokens (`wrangler/pkg/randomtoken`; seen on Rancher 2.12.0 and 2.15.0): some 256 bits.
const LENGTH: usize = 54;

/// A new value from the operating system's random source. Every character is equally likely.
pub fn generate() -> Result<Secret> {
    let mut value = String::with_capacity(LENGTH);
    let mut bytes = [0; LENGTH];
    while value.len() < LENGTH {
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Error::RandomBytes(Box::new(error)))?;
        let missing = LENGTH - value.len();
        value.extend(bytes.iter().filter_map(|byte| letter(*byte)).take(missing));
    }
    bytes.fill(0);
    Ok(Secret::new(value))
}

/// The letter for a random byte. The last 13 of 256 have none: 256 is not a multiple of 27, and using them would make the first
/// letters more likely.
fn letter(byte: u8) -> Option<char> {
    let fair = 256 / ALPHABET.len() * ALPHABET.len();
    let byte = usize::from(byte);
    (byte < fair).then(|| char::from(ALPHABET[byte % ALPHABET.len()]))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn a_new_token_has_the_form_of_ranchers_own() {
        let token = generate().unwrap();
        assert_eq!(token.expose().len(), 54);
        assert!(token.expose().bytes().all(|c| ALPHABET.contains(&c)), "{token:?}");
    }

    #[test]
    fn tokens_are_unique() {
        let tokens: HashSet<String> = (0..1000).map(|_| generate().unwrap().expose().to_owned()).collect();
        assert_eq!(tokens.len(), 1000);
    }

    #[test]
    fn every_letter_is_equally_likely() {
        let mut count = BTreeMap::new();
        for letter in (0..=255).filter_map(letter) {
            *count.entry(letter).or_insert(0) += 1;
        }
        assert_eq!(count.len(), 27);
        assert!(count.values().all(|times| *times == 9), "{count:?}");
    }
}
