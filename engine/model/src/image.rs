//! An operating system image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::Object;
use crate::wait::Failure;

/// An operating system image, imported once into verified chunks.
pub type Image = Object<ImageSpec, ImageStatus>;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// An absolute path on the engine's machine, or an `http://` or `https://` URL that the engine can fetch.
    pub source: String,
    /// `sha256:` and 64 hexadecimal digits, over the source file as it is. Recommended; required for `http://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// The source's format; found from its first bytes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ImageFormat>,
}

/// Formats that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU copy-on-write, version 2 or 3, without backing file.
    Qcow2,
}

/// What has become of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ImageStatus {
    /// How far the import is.
    pub phase: ImagePhase,
    /// Digest of the manifest, hexadecimal: names the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Size of the disk in bytes.
    #[serde(default)]
    pub size_bytes: u64,
    /// Bytes kept, after compression and without holes.
    #[serde(default)]
    pub stored_bytes: u64,
    /// Why the import failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What was imported: an image is imported again only when this differs from the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<ImageSpec>,
    /// The generation of the spec that the status speaks of.
    #[serde(default)]
    pub observed_generation: u64,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImagePhase {
    /// Not begun.
    #[default]
    Pending,
    /// Being read, checked and cut.
    Importing,
    /// Can be installed.
    Ready,
    /// Cannot be used; the failure says why.
    Failed,
}
