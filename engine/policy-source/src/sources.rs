//! One way in for every component from outside.

use std::path::PathBuf;
use std::sync::Arc;

use crate::artifact::Manifest;
use crate::cosign::{self, Signed};
use crate::digest::Digest;
use crate::error::SourceError;
use crate::file;
use crate::kept::Kept;
use crate::keys::{PublicKey, Trust};
use crate::reference::Reference;
use crate::registry::{Access, MOST_MANIFEST, Registries, RegistryError};
use crate::{MOST_BYTES, keys};

/// The most bytes of what is kept of an artifact's signatures.
const MOST_KEPT: u64 = 32 * 2 * keys::MOST_BYTES;
/// Where signatures are kept, beside their artifact.
const SIGNATURES: &str = "signatures";

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File {
        /// The file.
        path: PathBuf,
        /// What its digest must be, when it is pinned.
        sha256: Option<Digest>,
        /// Where its signature is; beside it unless it is said.
        signature: Option<PathBuf>,
    },
    /// An artifact in a registry, by its digest.
    Oci(Reference),
}

impl Origin {
    /// A file that nothing is said about.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Origin::File { path: path.into(), sha256: None, signature: None }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File { path, .. } => path.display().fmt(f),
            Origin::Oci(reference) => reference.fmt(f),
        }
    }
}

/// A component that passed every check of its origin.
#[derive(Debug, Clone)]
pub struct Component {
    /// What messages call it: the file, or the reference with its digest.
    pub name: String,
    /// The bytes.
    pub bytes: Arc<[u8]>,
    /// Their digest.
    pub digest: Digest,
    /// Whose signature it has; none where none is needed.
    pub signer: Option<PublicKey>,
}

/// Fetches components and lets through those that are what they should be.
#[derive(Debug)]
pub struct Sources {
    trust: Trust,
    registries: Registries,
    kept: Option<Kept>,
}

impl Sources {
    /// With these keys and registries. `kept` is a directory for what comes from registries, so that it need not be fetched again.
    pub fn new(trust: Trust, registries: Registries, kept: Option<PathBuf>) -> Self {
        Sources { trust, registries, kept: kept.map(Kept::new) }
    }

    /// What must have been signed.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Fetches a component and checks size, digest and signature.
    ///
    /// # Errors
    /// [`SourceError`]; a reference with a tag is refused with the digest that it has now.
    pub async fn component(&self, origin: &Origin) -> Result<Component, SourceError> {
        match origin {
            Origin::File { path, sha256, signature } => {
                let bytes = file::read_component(path)?;
                let (name, digest) = (path.display().to_string(), Digest::of(&bytes));
                if let Some(expected) = sha256.filter(|expected| *expected != digest) {
                    return Err(SourceError::DigestMismatch { what: name, expected, seen: digest });
                }
                let signer = file::signer(path, &bytes, signature.as_deref(), &self.trust)?;
                Ok(Component { name, bytes, digest, signer })
            }
            Origin::Oci(reference) => match reference.digest() {
                Some(digest) => self.artifact(reference, digest).await,
                None => {
                    let pinned = self.resolve(reference).await?;
                    Err(SourceError::NotPinned { reference: reference.clone(), pinned: Box::new(pinned) })
                }
            },
        }
    }

    /// The same reference with its digest: the one that it has, or the one that its tag has now.
    ///
    /// # Errors
    /// When the registry has no such tag, or does not answer.
    pub async fn resolve(&self, reference: &Reference) -> Result<Reference, SourceError> {
        if reference.digest().is_some() {
            return Ok(reference.clone());
        }
        let mut session = self.registries.session(reference, Access::Pull);
        let found = session.manifest(reference).await.map_err(failed(reference))?;
        let found = found.ok_or_else(|| failed(reference)(RegistryError::NotFound { explanation: String::new() }))?;
        Ok(reference.pinned(found.digest))
    }

    async fn artifact(&self, reference: &Reference, digest: Digest) -> Result<Component, SourceError> {
        let kept = |digest, most| self.kept.as_ref().and_then(|kept| kept.get(digest, most));
        let failed = failed(reference);
        let mut session = self.registries.session(reference, Access::Pull);
        let manifest = match kept(digest, MOST_MANIFEST) {
            Some(bytes) => bytes,
            None => {
                let found = session.manifest(reference).await.map_err(failed)?;
                found.ok_or_else(|| failed(RegistryError::NotFound { explanation: String::new() }))?.bytes
            }
        };
        let layer = Manifest::component(&manifest, reference)?;
        let bytes = match kept(layer.digest, MOST_BYTES) {
            Some(bytes) => bytes,
            None => session.blob(layer.digest, layer.size).await.map_err(failed)?,
        };
        // Who signed is asked before anything is kept.
        let signer = self.artifact_signer(reference, digest).await?;
        if let Some(kept) = &self.kept {
            for (digest, bytes) in [(digest, &manifest), (layer.digest, &bytes)] {
                if kept.get(digest, MOST_BYTES).is_none() {
                    kept.put(digest, bytes);
                }
            }
        }
        Ok(Component { name: reference.to_string(), bytes: bytes.into(), digest: layer.digest, signer })
    }

    /// Who signed an artifact: signatures that are kept count as much as those in the registry, and save asking.
    async fn artifact_signer(&self, reference: &Reference, digest: Digest) -> Result<Option<PublicKey>, SourceError> {
        let Trust::Keys(keys) = &self.trust else { return Ok(None) };
        let kept = self.kept.as_ref().and_then(|kept| kept.note(digest, SIGNATURES, MOST_KEPT));
        let kept: Vec<Signed> = kept.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if let Ok(key) = cosign::signer(keys, reference, digest, &kept) {
            return Ok(Some(key.clone()));
        }
        let mut session = self.registries.session(reference, Access::Pull);
        let signed = cosign::fetch(&mut session, reference, digest).await.map_err(failed(reference))?;
        let key = cosign::signer(keys, reference, digest, &signed)?;
        if let (Some(kept), Ok(text)) = (&self.kept, serde_json::to_vec(&signed)) {
            kept.put_note(digest, SIGNATURES, &text);
        }
        Ok(Some(key.clone()))
    }
}

fn failed(reference: &Reference) -> impl Fn(RegistryError) -> SourceError + Copy {
    move |source| SourceError::Registry { action: "fetch", reference: reference.clone(), source: Box::new(source) }
}
