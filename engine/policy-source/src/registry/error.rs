//! What can go wrong with a registry.

use reqwest::StatusCode;

use crate::digest::Digest;

/// Why a registry did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No client for HTTPS can be made.
    #[error("no client for HTTPS can be made")]
    Client(#[source] reqwest::Error),
    /// No answer, or not the whole of it.
    #[error("the registry does not answer, or not to the end; check its address, its certificate and the network")]
    Unreachable(#[source] reqwest::Error),
    /// There is no such thing.
    #[error("the registry has no such artifact, or does not show it to us{explanation}")]
    NotFound {
        /// What the registry says.
        explanation: String,
    },
    /// We are not known there, and have nothing to show.
    #[error(
        "{registry} wants to know who we are ({status}{explanation}), and there are no credentials for it in {place}; \
         `docker login {registry}` or `podman login {registry}` writes them"
    )]
    Unknown {
        /// The registry.
        registry: String,
        /// Where credentials were looked for.
        place: String,
        /// Its answer.
        status: StatusCode,
        /// What it says.
        explanation: String,
    },
    /// We are known there, and may not.
    #[error("the registry does not let {user:?} (credentials from {place}) do that ({status}{explanation})")]
    Denied {
        /// As whom we went there.
        user: String,
        /// Where the credentials are from.
        place: String,
        /// Its answer.
        status: StatusCode,
        /// What it says.
        explanation: String,
    },
    /// Another answer than expected.
    #[error("the registry answered {status}{explanation}")]
    Refused {
        /// The answer.
        status: StatusCode,
        /// What it says.
        explanation: String,
    },
    /// More bytes than are read.
    #[error("{what} has more than the {most} bytes that are allowed")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        most: u64,
    },
    /// Not what was asked for.
    #[error(
        "the registry gave other bytes than were asked for: {what} has {seen}, expected {expected}; do not trust it"
    )]
    OtherBytes {
        /// What.
        what: &'static str,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes.
        seen: Digest,
    },
    /// An answer that makes no sense.
    #[error("the registry does not say {what} in a way that can be followed: {reason}")]
    Malformed {
        /// What.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl RegistryError {
    /// The URL of an upload or a token may hold secrets.
    pub(super) fn unreachable(error: reqwest::Error) -> Self {
        RegistryError::Unreachable(error.without_url())
    }
}
