//! A component as an artifact in a registry: the layout of the CNCF's working group for WebAssembly.
//!
//! One manifest with a small configuration and one layer, which is the component as it is. The same component makes the same
//! artifact, digest and all: there is no time in it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::MOST_BYTES;
use crate::digest::Digest;
use crate::error::SourceError;
use crate::reference::{Reference, Version};
use crate::registry::{Access, Registries, RegistryError};

/// The media type of a manifest (OCI image specification 1.1).
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of the configuration (CNCF, Wasm OCI artifact layout).
pub const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The media type of the layer that is the component.
pub const LAYER: &str = "application/wasm";

/// A manifest, as far as it matters here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    /// Of an index: the manifests that it lists.
    #[serde(default, skip_serializing)]
    manifests: Vec<serde::de::IgnoredAny>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// What a manifest says of a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, bytes: &[u8]) -> Self {
        let (media_type, size) = (media_type.to_owned(), bytes.len() as u64);
        Descriptor { media_type, digest: Digest::of(bytes), size, annotations: BTreeMap::new() }
    }
}

impl Manifest {
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            config: Some(config),
            layers,
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// The layer that is the component.
    pub(crate) fn component(bytes: &[u8], reference: &Reference) -> Result<Descriptor, SourceError> {
        let wrong = |reason: String| SourceError::NotAPolicy { reference: reference.clone(), reason };
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| wrong(format!("its manifest cannot be read: {error}")))?;
        if !manifest.manifests.is_empty() {
            return Err(wrong(format!("it is a list of {} artifacts, name one of them", manifest.manifests.len())));
        }
        let seen = || manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect::<Vec<_>>().join(", ");
        // The configuration's type is not asked: some registries take only types that they know.
        let [layer] = manifest.layers.as_slice() else {
            return Err(wrong(format!("it has {} layers ({}), expected one", manifest.layers.len(), seen())));
        };
        if layer.media_type != LAYER {
            return Err(wrong(format!("its layer is {:?}, expected {LAYER:?}", layer.media_type)));
        }
        if layer.size > MOST_BYTES {
            return Err(SourceError::TooLarge { what: reference.to_string(), size: layer.size, limit: MOST_BYTES });
        }
        Ok(layer.clone())
    }
}

/// What is said of a component where it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The policy's name.
    pub name: String,
    /// The policy's own version.
    pub version: String,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
}

/// The configuration of an artifact.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [Digest; 1],
    component: World<'a>,
}

#[derive(Serialize)]
struct World<'a> {
    exports: &'a [String],
    imports: &'a [String],
}

/// A component on its way into a registry.
struct Package {
    config: Bytes,
    component: Bytes,
    manifest: Bytes,
}

impl Package {
    fn new(component: Bytes, label: &Label) -> Result<Self, serde_json::Error> {
        let mut layer = Descriptor::new(LAYER, &component);
        layer.annotations.insert("org.opencontainers.image.title".to_owned(), format!("{}.wasm", label.name));
        let config = Config {
            // The layout wants one; the same component is to be the same artifact.
            created: "1970-01-01T00:00:00Z",
            architecture: "wasm",
            // What the layout says for components, whatever they import.
            os: "wasip2",
            layer_digests: [layer.digest],
            component: World { exports: &label.exports, imports: &label.imports },
        };
        let config = Bytes::from(serde_json::to_vec(&config)?);
        let mut manifest = Manifest::new(Descriptor::new(CONFIG, &config), vec![layer]);
        manifest.annotations = BTreeMap::from([
            ("org.opencontainers.image.title".to_owned(), label.name.clone()),
            ("org.opencontainers.image.version".to_owned(), label.version.clone()),
        ]);
        let manifest = Bytes::from(serde_json::to_vec(&manifest)?);
        Ok(Package { config, component, manifest })
    }
}

/// Publishes a component and gives its name with the digest, as an engine wants it. What the registry has already is not sent
/// again.
///
/// # Errors
/// When the reference names another digest than the component has there, or the registry refuses.
pub async fn push(
    registries: &Registries,
    reference: &Reference,
    component: Bytes,
    label: &Label,
) -> Result<Reference, SourceError> {
    if component.len() as u64 > MOST_BYTES {
        let size = component.len() as u64;
        return Err(SourceError::TooLarge { what: label.name.clone(), size, limit: MOST_BYTES });
    }
    let failed =
        |source| SourceError::Registry { action: "push", reference: reference.clone(), source: Box::new(source) };
    let package = Package::new(component, label).map_err(|error| {
        failed(RegistryError::Malformed { what: "what it would be given", reason: error.to_string() })
    })?;
    let digest = Digest::of(&package.manifest);
    if let Version::Digest(expected) = reference.version()
        && *expected != digest
    {
        return Err(SourceError::DigestMismatch { what: reference.to_string(), expected: *expected, seen: digest });
    }
    let mut session = registries.session(reference, Access::Push);
    for blob in [&package.config, &package.component] {
        session.push_blob(blob).await.map_err(failed)?;
    }
    session.push_manifest(reference, MANIFEST, &package.manifest).await.map_err(failed)?;
    Ok(reference.pinned(digest))
}
