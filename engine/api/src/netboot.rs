//! The network boot process' side of the engine, over a unix socket.
//!
//! The process that answers DHCP, TFTP and HTTP on the provisioning network parses what strangers send. It therefore runs
//! apart from the engine, holds no secrets but the boot tokens it is given, and reaches the engine only by the three calls
//! below. The socket is created with mode 0600, and a peer with another user id is turned away (`SO_PEERCRED`), so that
//! neither a wrong umask nor a wrong directory opens it.

mod client;
mod server;

use std::fmt;
use std::future::Future;

use futures::stream::BoxStream;
use vmetal_model::boot::{BootEvent, BootNews};

pub use client::{BootFeed, NetbootClient};
pub use server::serve;

/// One request of an installer or an installed system, passed on.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct AgentRequest {
    /// The HTTP method.
    pub method: String,
    /// Path and query, for example `/agent/v1/order?after=3&wait=20`.
    pub path: String,
    /// The bearer token; empty when none was given.
    pub bearer_token: String,
    /// The peer's address on the provisioning network.
    pub peer: String,
    /// The body.
    pub body: Vec<u8>,
}

impl fmt::Debug for AgentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} from {} ({} bytes, token redacted)", self.method, self.path, self.peer, self.body.len())
    }
}

/// The answer to pass back. The body may hold join credentials.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct AgentReply {
    /// The HTTP status.
    pub status: u16,
    /// The body: JSON, or nothing.
    pub body: Vec<u8>,
}

impl fmt::Debug for AgentReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes, redacted)", self.status, self.body.len())
    }
}

/// The engine, as the network boot process sees it.
pub trait NetbootBackend: Send + Sync + 'static {
    /// The boot table, whole, at once; then what changes. A stream that ends is asked for again.
    fn watch_boot(&self) -> BoxStream<'static, BootNews>;

    /// Answers one request. May hold it for as long as the request's own `wait` says.
    fn agent(&self, request: AgentRequest) -> impl Future<Output = AgentReply> + Send;

    /// Takes note of what was seen on the network.
    fn record(&self, events: Vec<BootEvent>) -> impl Future<Output = ()> + Send;
}
