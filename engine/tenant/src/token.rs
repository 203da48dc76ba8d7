//! Bootstrap tokens: `id.secret`, as kubeadm and the API server know them.
//!
//! The API server takes any text for a token Secret, even one that can never work, so the form is kept by the types here.

use std::fmt;

use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// The secret half of a bootstrap token. Shown by no formatter; [`TokenSecret::expose`] hands it out.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(String);

impl TokenSecret {
    /// Makes a secret from 256 bits of entropy. Each half gives eight of the sixteen characters; taking 41 bits out of
    /// 128 leaves no bias that could be measured.
    pub(crate) fn from_entropy(entropy: &[u8; 32]) -> Self {
        let (head, tail) = entropy.split_at(16);
        TokenSecret([head, tail].into_iter().flat_map(|half| base36(half, SECRET_LENGTH / 2)).collect())
    }

    /// Takes over a secret that was read back; `None` when it has not the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        has_form(text, SECRET_LENGTH).then(|| TokenSecret(text.to_owned()))
    }

    /// The secret itself, for the node's user data and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(redacted)")
    }
}

/// The claim's token id. It follows from the claim, so that a retry after a crash finds its own Secret and does not leave
/// a second key to the cluster behind. `attempt` counts on when an id turns out to be taken by somebody else.
pub(crate) fn token_id(claim_uid: &str, attempt: u32) -> String {
    let digest = Sha256::new()
        .chain_update(b"vmetal bootstrap token\0")
        .chain_update(attempt.to_be_bytes())
        .chain_update(claim_uid.as_bytes())
        .finalize();
    base36(&digest[..16], ID_LENGTH).collect()
}

/// Whether `text` has the form of a token id.
pub(crate) fn is_token_id(text: &str) -> bool {
    has_form(text, ID_LENGTH)
}

fn has_form(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

fn base36(bytes: &[u8], length: usize) -> impl Iterator<Item = char> {
    let mut number = bytes.iter().fold(0u128, |number, byte| (number << 8) | u128::from(*byte));
    std::iter::repeat_with(move || {
        let digit = (number % 36) as usize;
        number /= 36;
        char::from(ALPHABET[digit])
    })
    .take(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_follow_from_the_claim_and_the_attempt() {
        let id = token_id("7d0c", 0);
        assert_eq!(id, token_id("7d0c", 0));
        assert_ne!(id, token_id("7d0c", 1));
        assert_ne!(id, token_id("7d0d", 0));
    }

    #[test]
    fn the_secret_uses_all_of_the_entropy() {
        let secret = TokenSecret::from_entropy(&[7; 32]);
        for position in 0..32 {
            let mut entropy = [7; 32];
            entropy[position] ^= 1;
            assert_ne!(secret, TokenSecret::from_entropy(&entropy), "byte {position} has no effect");
        }
    }

    #[test]
    fn nothing_prints_the_secret() {
        let secret = TokenSecret::from_entropy(&[9; 32]);
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }

    #[test]
    fn malformed_secrets_are_not_taken_over() {
        for text in ["", "0123456789abcde", "0123456789abcdefg", "0123456789ABCDEF", "0123456789abcde\n"] {
            assert!(TokenSecret::parse(text).is_none(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_token_has_the_form_that_kubernetes_wants(uid in ".*", entropy: [u8; 32], attempt: u32) {
            prop_assert!(is_token_id(&token_id(&uid, attempt)));
            let secret = TokenSecret::from_entropy(&entropy);
            prop_assert_eq!(TokenSecret::parse(secret.expose()), Some(secret));
        }
    }
}
