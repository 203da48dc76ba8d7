//! Where the components of policies come from: a file or an OCI registry, and what makes one trusted.
//!
//! Everything that comes from outside goes through [`Sources::component`], which gives the bytes only when all of this holds:
//!
//! 1. they are no more than [`MOST_BYTES`], counted while they are read;
//! 2. they have the digest that is pinned: SHA-256 of a file, or of the manifest that an OCI reference names and, through it, of
//!    the component;
//! 3. where keys are trusted ([`Trust::Keys`]), one of them signed them.
//!
//! The bytes that were checked are the bytes that are given, so nothing can be exchanged in between. What is in them is not
//! looked at here: that is the affair of whoever runs them.
//!
//! Signatures are what common tools make: ECDSA on P-256 with SHA-256 (`openssl dgst -sha256 -sign`, `cosign sign-blob --key`)
//! and Ed25519 (`openssl pkeyutl -sign -rawin`), detached, as they are or in base64. In a registry they are where cosign puts
//! them ([`cosign`]).
//!
//! The subset of the OCI distribution specification 1.1 that is needed is written here ([`registry`]), over the HTTP client that
//! the engine has anyway. The client of the ORAS project was considered: it reads manifests and tokens whole before any limit
//! applies, so that a registry could fill the engine's memory, and brings twenty crates for six kinds of request.

pub mod artifact;
pub mod cosign;
mod credentials;
mod digest;
mod error;
mod file;
mod kept;
mod keys;
mod reference;
pub mod registry;
mod sources;

pub use credentials::Credentials;
pub use digest::Digest;
pub use error::SourceError;
pub use file::{SIGNATURE_SUFFIX, beside, read_component, signature_beside};
pub use keys::{PublicKey, SigningKey, Trust};
pub use reference::{Reference, Version};
pub use registry::{Registries, RegistryError};
pub use sources::{Component, Origin, Sources};

/// The most bytes of a component. Those written in Rust have 0.1 to 1 MB, those in Python 18 MB.
pub const MOST_BYTES: u64 = 32 << 20;
