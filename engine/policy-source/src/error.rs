//! Why a component is not taken, each reason with a name of its own.

use std::path::PathBuf;

use crate::digest::Digest;
use crate::reference::Reference;
use crate::registry::RegistryError;

/// Why a component cannot be had, or is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("cannot read policy {}; correct the path, or build the shipped ones with `make policies`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are not the pinned ones.
    #[error("policy {what} has {seen}, but {expected} is pinned; install the pinned one or change the pin")]
    DigestMismatch {
        /// The file, or the part of an artifact.
        what: String,
        /// The pin.
        expected: Digest,
        /// The digest of the bytes.
        seen: Digest,
    },
    /// Nothing is there to be held against the trusted keys.
    #[error(
        "policy {what} is not signed, and trusted keys are configured: there is no signature at {looked_at}; sign it with one of \
         them (docs/policies.md shows how)"
    )]
    Unsigned {
        /// The component.
        what: String,
        /// Where a signature was looked for.
        looked_at: String,
    },
    /// The signature's file is there and cannot be read.
    #[error("cannot read the signature {}; correct the path, or who may read it", path.display())]
    UnreadableSignature {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What should be a signature is none.
    #[error(
        "the signature {place} of policy {what} is none: expected one by ECDSA P-256 or Ed25519, as it is or in base64, as \
         `openssl dgst -sha256 -sign KEY` makes it"
    )]
    NotASignature {
        /// The component.
        what: String,
        /// Where it is.
        place: String,
    },
    /// It is a signature, but of something else or by somebody else.
    #[error(
        "the signature {place} of policy {what} does not hold: it is of other bytes, or by none of the trusted keys ({keys}); \
         do not use the component before you know why"
    )]
    WrongSignature {
        /// The component.
        what: String,
        /// Where it is.
        place: String,
        /// The trusted keys.
        keys: String,
    },
    /// An empty list of keys.
    #[error(
        "the list of trusted keys is empty; name at least one, or leave the list out to trust every pinned component"
    )]
    NoKeys,
    /// The file of a key, public or private, cannot be read.
    #[error("cannot read the key {}; correct the path, or who may read it", path.display())]
    UnreadableKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What should be a public key is none, or of an unknown kind.
    #[error(
        "{place} is no public key that signatures can be checked with: {reason}; expected PEM, \"-----BEGIN PUBLIC KEY-----\""
    )]
    NotAKey {
        /// The file.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// What should be a private key is none, or of an unknown kind.
    #[error("{place} is no private key to sign with: {reason}; expected PEM, as `openssl genpkey` writes it")]
    NotASigningKey {
        /// The file.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A trusted key signed another artifact, and the signature lies beside this one.
    #[error(
        "the signature {place} of policy {what} is by a trusted key, but of another artifact ({claimed}); do not use this one \
         before you know why"
    )]
    SignedAnother {
        /// The component.
        what: String,
        /// Where the signature is.
        place: String,
        /// What was signed.
        claimed: String,
    },
    /// Not a reference to an artifact in a registry.
    #[error("{text:?} is no OCI reference: {reason}; expected REGISTRY/REPOSITORY@sha256:DIGEST, or with :TAG")]
    NotAReference {
        /// What was given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// A tag where a digest is needed.
    #[error("{reference} may be another artifact tomorrow, a digest is needed; at this moment it is {pinned}")]
    NotPinned {
        /// What was given.
        reference: Reference,
        /// The same with the digest of now.
        pinned: Box<Reference>,
    },
    /// The artifact is no component, or more than one.
    #[error("{reference} is no policy: {reason}; `vmetal policy push` makes one")]
    NotAPolicy {
        /// The artifact.
        reference: Reference,
        /// What is wrong.
        reason: String,
    },
    /// More bytes than a policy may have.
    #[error("policy {what} is {size} bytes large, at most {limit} are allowed")]
    TooLarge {
        /// The component.
        what: String,
        /// Its size as far as it is known.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The registry cannot be asked, or says no.
    #[error("cannot {action} {reference}")]
    Registry {
        /// What was wanted: `fetch`, `push` or the like.
        action: &'static str,
        /// The artifact.
        reference: Reference,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
}

impl SourceError {
    /// True when what was given is at fault, and not what became of it.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            SourceError::Unreadable { .. }
                | SourceError::NoKeys
                | SourceError::UnreadableKey { .. }
                | SourceError::NotAKey { .. }
                | SourceError::NotASigningKey { .. }
                | SourceError::NotAReference { .. }
        )
    }
}
