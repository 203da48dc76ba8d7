//! Operating system images: cut once into verified chunks, written many times.
//!
//! # Why chunks
//! An image that travels as one stream can only be checked when it is all there, so either the disk is written before
//! the content is known to be right, or the node needs memory for the whole image; and one stream is one hash and one
//! connection. Cut into chunks of [`CHUNK_BYTES`], each with its own digest, an image is fetched over several
//! connections, unpacked by several threads in bounded memory, and **verified before a byte reaches the disk**: a bad
//! chunk costs a retry of 4 MiB, not of the image. Chunks that are all zero are holes and do not exist at all.
//!
//! # What is trusted
//! The image's name is the BLAKE3 digest of its [`Manifest`]'s bytes and the manifest names every chunk by the BLAKE3
//! digest of its raw content. Who has the name can fetch the rest from anyone. Foreign formats (qcow2) are read at
//! import, on the engine's machine; a node being installed never parses them.
//!
//! # Parts
//! * [`Manifest`], [`ChunkDecoder`]: what the installer and the server need;
//! * [`ImageStore`]: the directory that the server serves;
//! * [`import`]: from a raw or qcow2 file to a published image.

mod chunk;
mod import;
mod manifest;
mod store;

pub use chunk::{ChunkDecoder, ChunkError, is_zero};
pub use import::{ImportError, ImportOptions, ImportProgress, Imported, import};
pub use manifest::{CHUNK_BYTES, ChunkEntry, Digest, DigestError, MAX_MANIFEST_BYTES, Manifest, ManifestError};
pub use store::{ImageStore, StoreError};
