//! Signatures in a registry, where `cosign sign --key` puts them (cosign's `SIGNATURE_SPEC.md`).
//!
//! Beside an artifact with the digest `sha256:D` the tag `sha256-D.sig` names another one. Each of its layers is a small JSON
//! document that says which artifact was signed; the layer's annotation `dev.cosignproject.cosign/signature` is the signature of
//! that document, in base64. A signature counts when a trusted key made it **and** the document names the artifact that is
//! wanted: otherwise one of yesterday's artifact could be laid beside today's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::artifact::{Descriptor, MANIFEST, Manifest};
use crate::digest::Digest;
use crate::error::SourceError;
use crate::file::names;
use crate::keys::{self, PublicKey, SigningKey, Verdict};
use crate::reference::Reference;
use crate::registry::{Access, Registries, RegistryError, Session};

/// The media type of a signed document.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Where a layer's signature is.
pub const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The media type of the configuration beside the documents.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// What the document says it is.
const TYPE: &str = "cosign container image signature";
/// The most signatures that are looked at.
const MOST: usize = 32;

/// A document and its signature, as the registry has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signed {
    /// In base64, so that it can be kept.
    payload: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    critical: Critical,
    /// Whatever the signer adds.
    optional: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Serialize, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

/// Where the signatures of an artifact are.
pub(crate) fn place(reference: &Reference, digest: Digest) -> Reference {
    reference.tagged(format!("sha256-{}.sig", digest.hex()))
}

/// The signatures of an artifact; none when there are none.
pub(crate) async fn fetch(
    session: &mut Session<'_>,
    reference: &Reference,
    digest: Digest,
) -> Result<Vec<Signed>, RegistryError> {
    let Some(found) = session.manifest(&place(reference, digest)).await? else { return Ok(Vec::new()) };
    let wrong =
        |error: serde_json::Error| RegistryError::Malformed { what: "its signatures", reason: error.to_string() };
    let manifest: Manifest = serde_json::from_slice(&found.bytes).map_err(wrong)?;
    let mut signed = Vec::new();
    for layer in manifest.layers.iter().filter(|layer| layer.media_type == PAYLOAD).take(MOST) {
        let Some(signature) = layer.annotations.get(ANNOTATION) else { continue };
        let payload = STANDARD.encode(session.blob(layer.digest, keys::MOST_BYTES).await?);
        signed.push(Signed { payload, signature: signature.clone() });
    }
    Ok(signed)
}

/// Which of the keys signed the artifact.
pub(crate) fn signer<'a>(
    keys: &'a [PublicKey],
    reference: &Reference,
    digest: Digest,
    signed: &[Signed],
) -> Result<&'a PublicKey, SourceError> {
    let (what, place) = (reference.pinned(digest).to_string(), place(reference, digest).to_string());
    if signed.is_empty() {
        return Err(SourceError::Unsigned { what, looked_at: place });
    }
    let mut of_another = None;
    let mut garbage = 0;
    for Signed { payload, signature } in signed {
        let payload = STANDARD.decode(payload).unwrap_or_default();
        let key = match keys::verify(keys, signature.as_bytes(), &payload) {
            Verdict::By(key) => key,
            Verdict::Other => continue,
            Verdict::Garbage => {
                garbage += 1;
                continue;
            }
        };
        let claims = serde_json::from_slice::<Payload>(&payload).ok().map(|payload| payload.critical);
        match claims.filter(|claims| claims.r#type == TYPE) {
            Some(claims) if claims.image.docker_manifest_digest == digest.to_string() => return Ok(key),
            claims => of_another = Some(claims.map_or_else(String::new, |claims| claims.image.docker_manifest_digest)),
        }
    }
    Err(match of_another {
        Some(claimed) => SourceError::SignedAnother { what, place, claimed },
        None if garbage == signed.len() => SourceError::NotASignature { what, place },
        None => SourceError::WrongSignature { what, place, keys: names(keys) },
    })
}

/// Signs an artifact: what is to be signed is written, signed and laid beside it, with the signatures that are there already.
///
/// # Errors
/// When the reference has no digest, the key cannot sign, or the registry refuses.
pub async fn sign(registries: &Registries, reference: &Reference, key: &SigningKey) -> Result<Reference, SourceError> {
    let Some(digest) = reference.digest() else {
        let reason = "what is signed is named by its digest".to_owned();
        return Err(SourceError::NotAReference { text: reference.to_string(), reason });
    };
    let failed =
        |source| SourceError::Registry { action: "sign", reference: reference.clone(), source: Box::new(source) };
    let unwritable = |error: serde_json::Error| {
        failed(RegistryError::Malformed { what: "what it would be given", reason: error.to_string() })
    };
    let payload = Bytes::from(serde_json::to_vec(&Payload::of(reference, digest)).map_err(unwritable)?);
    let mut layer = Descriptor::new(PAYLOAD, &payload);
    layer.annotations.insert(ANNOTATION.to_owned(), STANDARD.encode(key.sign(&payload)?));

    let place = place(reference, digest);
    let mut session = registries.session(reference, Access::Push);
    let mut layers = match session.manifest(&place).await.map_err(failed)? {
        Some(found) => serde_json::from_slice::<Manifest>(&found.bytes).map_err(unwritable)?.layers,
        None => Vec::new(),
    };
    layers.push(layer);
    let config = Bytes::from(serde_json::to_vec(&Config::of(&layers)).map_err(unwritable)?);
    let manifest = Manifest::new(Descriptor::new(CONFIG, &config), layers);
    let manifest = Bytes::from(serde_json::to_vec(&manifest).map_err(unwritable)?);
    for blob in [&config, &payload] {
        session.push_blob(blob).await.map_err(failed)?;
    }
    session.push_manifest(&place, MANIFEST, &manifest).await.map_err(failed)?;
    Ok(place)
}

impl Payload {
    fn of(reference: &Reference, digest: Digest) -> Self {
        let identity = Identity { docker_reference: format!("{}/{}", reference.registry(), reference.repository()) };
        let image = Image { docker_manifest_digest: digest.to_string() };
        Payload { critical: Critical { identity, image, r#type: TYPE.to_owned() }, optional: None }
    }
}

/// What other clients expect where an image has its configuration.
#[derive(Serialize)]
struct Config {
    architecture: &'static str,
    os: &'static str,
    rootfs: Rootfs,
}

#[derive(Serialize)]
struct Rootfs {
    r#type: &'static str,
    diff_ids: Vec<Digest>,
}

impl Config {
    fn of(layers: &[Descriptor]) -> Self {
        let diff_ids = layers.iter().map(|layer| layer.digest).collect();
        Config { architecture: "", os: "", rootfs: Rootfs { r#type: "layers", diff_ids } }
    }
}
