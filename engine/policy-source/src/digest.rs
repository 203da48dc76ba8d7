//! SHA-256 as a name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// The SHA-256 of some bytes. Written `sha256:` and 64 hexadecimal digits, read also without the prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(sha2::Sha256::digest(bytes).into())
    }

    /// Without the prefix, as `sha256sum` prints it.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut digest = [0; 32];
        let wrong = || format!("{text:?} is no SHA-256; expected 64 hexadecimal digits, as `sha256sum FILE` prints");
        hex::decode_to_slice(digits, &mut digest).map_err(|_| wrong())?;
        Ok(Digest(digest))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_digest_is_read_in_both_forms_and_nothing_else() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [empty.to_owned(), empty.to_uppercase(), format!("sha256:{empty}")] {
            assert_eq!(text.parse::<Digest>().unwrap(), Digest::of(b""));
        }
        assert_eq!(Digest::of(b"").to_string(), format!("sha256:{empty}"));
        for wrong in ["", "ab", "sha512:ab", &empty[1..], &format!("{empty}0"), &empty.replace('e', "g")] {
            assert!(wrong.parse::<Digest>().unwrap_err().contains("64 hexadecimal digits"), "{wrong}");
        }
    }
}
