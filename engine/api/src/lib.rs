//! The engine's API: the contract between the engine and everything that is not the engine.
//!
//! The wire is gRPC (`proto/vmetal/v1/vmetal.proto`), but nothing of it shows here. Callers speak the model's types:
//!
//! * [`Client`] is what the Terraform provider and the command line use. It is cheap to clone, connects when it is first
//!   needed, keeps the connection alive, gives every call a deadline and repeats calls that are safe to repeat while the
//!   engine is away, within the patience the caller grants. Every error is an [`ApiError`]: words for an operator, and
//!   advice; never a transport's own text alone.
//! * [`Backend`] is what the engine implements and [`server::serve`] puts on a socket, behind bearer tokens
//!   ([`TokenStore`]). Nothing is open without one, but for the way to get one: [`identity`].
//! * [`netboot`] is the other socket: the network boot process' side, over a unix socket that only its own user can use.
//!
//! Objects travel as their JSON form. [`AnyObject`] keeps that form, so that a client passes on fields it does not know;
//! [`Resource`] ties each kind to its Rust type, and [`AnyObject::typed`] converts.

pub mod client;
mod component;
mod convert;
pub mod credential;
pub mod error;
pub mod identity;
pub mod netboot;
mod proto;
pub mod resource;
pub mod server;
pub mod token;
pub mod types;

pub use client::{Client, ClientConfig, Following, IdentitySource, TokenSource};
pub use credential::{ApiToken, ApiTokenRequest, BmcCredential, IssuedToken, JoinToken, JoinTokenRequest};
pub use error::{ApiError, BackendError, ObjectRef};
pub use resource::{AnyObject, DecodeError, Resource};
pub use server::{Backend, Caller, ServeError, ServerConfig, TlsIdentity, serve};
pub use token::{Holder, Role, TokenError, TokenStore};
pub use types::{
    Annotate, Apply, EventEntry, EventsQuery, Follow, Listing, LogPart, Precondition, Secret, Secrets, VersionInfo,
    WatchItem, WatchQuery,
};

/// The protocol level of this crate. It grows when a client may need something that older engines lack.
pub const API_LEVEL: u32 = 5;

/// The most bytes one message may have, either way. A host with 64 disks and 300 PCI functions takes about 60 KiB.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// As many bytes of a component as one message has on its way to the engine.
const COMPONENT_PART: usize = 64 * 1024;

/// About as many bytes as one page of a listing has.
const PAGE_BYTES: usize = 1024 * 1024;
