//! A signed token in its compact form: `header.claims.signature` (RFC 7515, section 7.1).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use vmetal_api::identity::Refusal;

/// The most bytes of a token. Those of platforms have one to four KiB.
const MOST_BYTES: usize = 16 * 1024;

/// A public key and with it the one way to verify with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// RS256 (RFC 7518, section 3.3): modulus and exponent, big-endian. Moduli below 2048 bits verify nothing.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// ES256 (RFC 7518, section 3.4): a point, uncompressed.
    P256(Vec<u8>),
}

impl Key {
    fn algorithm(&self) -> &'static str {
        match self {
            Key::Rsa { .. } => "RS256",
            Key::P256(_) => "ES256",
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Key::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Key::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
        }
    }
}

/// A token whose form is right. Nothing in it is verified yet.
#[derive(Debug)]
pub(super) struct Jws<'a> {
    key_id: String,
    algorithm: String,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > MOST_BYTES {
            return Err(malformed("is longer than any that a platform makes"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("has no signature"))?;
        let (header, claims) = signed.split_once('.').ok_or_else(|| malformed("has less than three parts"))?;
        let signature =
            URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("has a signature that is not base64url"))?;
        let header = object(header, "header")?;
        if header.contains_key("crit") {
            // What must be understood and is not makes the whole token invalid.
            return Err(malformed("has critical extensions, and none is known here"));
        }
        let field = |name| header.get(name).and_then(Value::as_str).map(str::to_owned);
        if field("typ").is_some_and(|typ| !typ.eq_ignore_ascii_case("jwt")) {
            return Err(malformed("is of another type than JWT"));
        }
        Ok(Jws {
            key_id: field("kid").ok_or_else(|| malformed("does not say which key signed it (kid)"))?,
            algorithm: field("alg").ok_or_else(|| malformed("does not say how it is signed (alg)"))?,
            claims: object(claims, "claims")?,
            signed,
            signature,
        })
    }

    /// Which key it says signed it.
    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// What it says, whoever wrote it: good for looking up whom to ask, and for nothing else.
    pub(super) fn unverified_claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// What it says, when the holder of this key signed it.
    pub(super) fn verified(self, key: &Key) -> Result<Map<String, Value>, Refusal> {
        let expected = key.algorithm();
        if self.algorithm != expected {
            let reason =
                format!("it is signed by {:?}, but the key {:?} is for {expected}", self.algorithm, self.key_id);
            return Err(Refusal::NotBelieved(reason));
        }
        if !key.verify(self.signed.as_bytes(), &self.signature) {
            return Err(Refusal::NotBelieved("its signature is not the issuer's".to_owned()));
        }
        Ok(self.claims)
    }
}

fn object(part: &str, what: &str) -> Result<Map<String, Value>, Refusal> {
    let json = URL_SAFE_NO_PAD.decode(part).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    json.ok_or_else(|| malformed(&format!("has no readable {what}")))
}

fn malformed(what: &str) -> Refusal {
    Refusal::NotBelieved(format!("it is not a signed token: it {what}"))
}
