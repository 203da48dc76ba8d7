//! What can go wrong in a lab, said so that the reader knows what to do.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::ConfigError;

/// Failures of starting, driving or stopping a lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or directory of the lab could not be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried: "read", "create" ...
        action: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// The reason from the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The provisioning network could not be made.
    #[error("cannot make the lab network: {step} failed: {detail}; `vmetal-lab doctor` says what this machine lacks")]
    Network {
        /// The step that failed.
        step: &'static str,
        /// What the tool or the kernel said.
        detail: String,
    },
    /// A listener could not be opened.
    #[error("cannot listen on {address} for {purpose}; is another lab running?")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What would have been served there.
        purpose: String,
        /// The reason from the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A certificate could not be made or read.
    #[error("cannot set up TLS for host {host}: {detail}")]
    Tls {
        /// The host whose BMC needs the certificate.
        host: String,
        /// What the TLS library said.
        detail: String,
    },
    /// QEMU did not start, or did not do as it was told.
    #[error("host {host}: {detail}")]
    Qemu {
        /// The host whose machine failed.
        host: String,
        /// What was expected and what was seen.
        detail: String,
    },
    /// The lab at this state directory does not answer.
    #[error("no lab is running at {state_dir}: {detail}")]
    NotRunning {
        /// The state directory asked for.
        state_dir: PathBuf,
        /// Why we think so.
        detail: String,
    },
    /// A running lab refused a command.
    #[error("the lab refused: {0}")]
    Refused(String),
}

impl LabError {
    /// Wraps an I/O error with the file it concerns.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
