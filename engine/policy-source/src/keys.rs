//! Whose signatures count.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, ParsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::{PemObject as _, SectionKind};

use crate::digest::Digest;
use crate::error::SourceError;

/// The most bytes of a file with a key or a signature; usual are 64 to 200.
pub(crate) const MOST_BYTES: u64 = 16 << 10;

/// What must have been signed.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Nothing: a pinned digest is enough.
    #[default]
    Anyone,
    /// Every component from outside, by one of these.
    Keys(Arc<[PublicKey]>),
}

impl Trust {
    /// Of these keys, each the text of a PEM file or the path of one; nobody's signature is needed where there is no list.
    ///
    /// # Errors
    /// When one is no public key, or the list is empty: that would be a way to trust nobody that reads like one to trust
    /// everybody.
    pub fn of(keys: Option<&[String]>) -> Result<Self, SourceError> {
        let Some(keys) = keys else { return Ok(Trust::Anyone) };
        if keys.is_empty() {
            return Err(SourceError::NoKeys);
        }
        Ok(Trust::Keys(keys.iter().map(|key| PublicKey::from_setting(key)).collect::<Result<_, _>>()?))
    }

    /// The keys; none where nothing has to be signed.
    pub fn keys(&self) -> &[PublicKey] {
        match self {
            Trust::Anyone => &[],
            Trust::Keys(keys) => keys,
        }
    }
}

impl Trust {
    /// Who signed these bytes: one of the keys, or nobody where nothing has to be signed. `what` they are and the `place` of the
    /// signature are for messages.
    ///
    /// # Errors
    /// When a signature is needed and there is none, or it is none, or does not hold.
    pub fn signer(
        &self,
        what: &str,
        place: &str,
        signature: Option<&[u8]>,
        bytes: &[u8],
    ) -> Result<Option<PublicKey>, SourceError> {
        let Trust::Keys(keys) = self else { return Ok(None) };
        let (what, place) = (what.to_owned(), place.to_owned());
        let Some(signature) = signature else { return Err(SourceError::Unsigned { what, looked_at: place }) };
        match verify(keys, signature, bytes) {
            Verdict::By(key) => Ok(Some(key.clone())),
            Verdict::Other => Err(SourceError::WrongSignature { what, place, keys: crate::file::names(keys) }),
            Verdict::Garbage => Err(SourceError::NotASignature { what, place }),
        }
    }
}

/// A public key that components may be signed with.
#[derive(Clone)]
pub struct PublicKey {
    /// The SHA-256 of its DER form.
    fingerprint: Digest,
    /// The file that it was read from; none when it was given as text.
    place: Option<String>,
    form: Form,
    key: Arc<ParsedPublicKey>,
}

/// What a signature by a key looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// ECDSA on P-256 over SHA-256: two numbers in DER (RFC 3279, section 2.2.3).
    EcdsaP256,
    /// Ed25519: 64 bytes (RFC 8032).
    Ed25519,
}

impl PublicKey {
    /// From the text of a PEM file, or the path of one.
    ///
    /// # Errors
    /// When there is no public key of a kind that is known.
    pub fn from_setting(given: &str) -> Result<Self, SourceError> {
        if given.contains("-----BEGIN") {
            return Self::from_pem(given.as_bytes(), None);
        }
        Self::from_file(Path::new(given))
    }

    /// From a PEM file.
    ///
    /// # Errors
    /// When it cannot be read, or there is no public key of a kind that is known in it.
    pub fn from_file(path: &Path) -> Result<Self, SourceError> {
        let pem = crate::file::read(path, MOST_BYTES)
            .map_err(|source| SourceError::UnreadableKey { path: path.to_owned(), source })?;
        Self::from_pem(&pem, Some(path.display().to_string()))
    }

    fn from_pem(pem: &[u8], place: Option<String>) -> Result<Self, SourceError> {
        let wrong = |reason: &str| SourceError::NotAKey {
            place: place.clone().unwrap_or_else(|| "the text that is given".to_owned()),
            reason: reason.to_owned(),
        };
        let (kind, der) =
            <(SectionKind, Vec<u8>)>::from_pem_slice(pem).map_err(|_| wrong("there is no PEM block in it"))?;
        match kind {
            SectionKind::PublicKey => {}
            SectionKind::Certificate => {
                return Err(wrong(
                    "it is a certificate; `openssl x509 -pubkey -noout -in FILE` takes the key out of it",
                ));
            }
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                return Err(wrong(
                    "it is a private key, which does not belong here; `openssl pkey -pubout -in FILE` makes the public one",
                ));
            }
            _ => return Err(wrong("its PEM block is not \"PUBLIC KEY\"")),
        }
        let parsed = [
            (Form::EcdsaP256, ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &der)),
            (Form::Ed25519, ParsedPublicKey::new(&ED25519, &der)),
        ];
        let found = parsed.into_iter().find_map(|(form, key)| key.ok().map(|key| (form, key)));
        let (form, key) = found.ok_or_else(|| wrong("it is neither a P-256 nor an Ed25519 key"))?;
        Ok(PublicKey { fingerprint: Digest::of(&der), place, form, key: Arc::new(key) })
    }

    /// Whether this key made this signature of these bytes.
    fn made(&self, signature: &[u8], bytes: &[u8]) -> bool {
        self.form.fits(signature) && self.key.verify_sig(bytes, signature).is_ok()
    }
}

impl Form {
    /// Whether these bytes could be one.
    fn fits(self, bytes: &[u8]) -> bool {
        match (self, bytes) {
            // A sequence in short form that takes up the whole and begins with an integer. Two of 33 bytes are the longest.
            (Form::EcdsaP256, [0x30, length, 0x02, ..]) => {
                usize::from(*length) + 2 == bytes.len() && (8..=72).contains(&bytes.len())
            }
            (Form::EcdsaP256, _) => false,
            (Form::Ed25519, _) => bytes.len() == 64,
        }
    }
}

impl std::fmt::Display for PublicKey {
    /// `/etc/vmetal/policies.pub (sha256:…)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place} ({})", self.fingerprint),
            None => self.fingerprint.fmt(f),
        }
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What came of holding a signature against keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict<'a> {
    /// This key made it.
    By(&'a PublicKey),
    /// It is a signature, but of other bytes or by another key.
    Other,
    /// It is no signature of a known form.
    Garbage,
}

/// Holds a signature, as it is or in base64, against keys.
pub(crate) fn verify<'a>(keys: &'a [PublicKey], signature: &[u8], bytes: &[u8]) -> Verdict<'a> {
    let text: Vec<u8> = signature.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let known = |bytes: &Vec<u8>| Form::EcdsaP256.fits(bytes) || Form::Ed25519.fits(bytes);
    let readings = [Some(signature.to_vec()), STANDARD.decode(text).ok()];
    let readings: Vec<Vec<u8>> = readings.into_iter().flatten().filter(known).collect();
    if readings.is_empty() {
        return Verdict::Garbage;
    }
    let by = keys.iter().find(|key| readings.iter().any(|signature| key.made(signature, bytes)));
    by.map_or(Verdict::Other, Verdict::By)
}

/// A signature in base64, whichever way it is written. What is none comes out as it is, and is refused where it is looked at.
pub(crate) fn in_base64(signature: &[u8]) -> String {
    let text: Vec<u8> = signature.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    match (STANDARD.decode(&text), String::from_utf8(text)) {
        (Ok(_), Ok(text)) => text,
        _ => STANDARD.encode(signature),
    }
}

/// A private key to sign with.
pub struct SigningKey {
    place: String,
    pair: Pair,
}

enum Pair {
    EcdsaP256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// From a PEM file without a passphrase, as `openssl genpkey` and `openssl ecparam -genkey` write it.
    ///
    /// # Errors
    /// When it cannot be read, or there is no private key of a kind that is known in it.
    pub fn from_file(path: &Path) -> Result<Self, SourceError> {
        let unreadable = |source| SourceError::UnreadableKey { path: path.to_owned(), source };
        let pem = crate::file::read(path, MOST_BYTES).map_err(unreadable)?;
        let place = path.display().to_string();
        let wrong = |reason: &str| SourceError::NotASigningKey { place: place.clone(), reason: reason.to_owned() };
        let text = String::from_utf8_lossy(&pem);
        if text.contains("ENCRYPTED") {
            return Err(wrong("it has a passphrase, which is not asked for here; sign with cosign or openssl"));
        }
        // `openssl ecparam` puts the curve's parameters into a block in front.
        let blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem).filter_map(Result::ok);
        let private = |kind: &SectionKind| matches!(kind, SectionKind::PrivateKey | SectionKind::EcPrivateKey);
        let block = blocks.into_iter().find(|(kind, _)| private(kind));
        let (_, der) = block.ok_or_else(|| wrong("there is no private key in it"))?;
        let ecdsa = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).map(Pair::EcdsaP256);
        let pair = ecdsa.or_else(|_| Ed25519KeyPair::from_pkcs8(&der).map(Pair::Ed25519));
        let pair = pair.map_err(|_| wrong("it is neither a P-256 nor an Ed25519 key"))?;
        Ok(SigningKey { place, pair })
    }

    /// A detached signature of these bytes, as `openssl` makes it.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, SourceError> {
        let made = match &self.pair {
            Pair::EcdsaP256(pair) => pair.sign(&SystemRandom::new(), bytes).map(|made| made.as_ref().to_vec()),
            Pair::Ed25519(pair) => pair.try_sign(bytes).map(|made| made.as_ref().to_vec()),
        };
        made.map_err(|_| SourceError::NotASigningKey {
            place: self.place.clone(),
            reason: "the cryptographic library does not sign with it".to_owned(),
        })
    }
}

impl std::fmt::Debug for SigningKey {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("place", &self.place).finish_non_exhaustive()
    }
}
