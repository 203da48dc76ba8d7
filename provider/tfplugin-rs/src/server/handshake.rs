//! What go-plugin hosts and plugins tell each other before the first byte of gRPC.
//!
//! The host passes environment variables; the plugin answers with one line on standard output:
//! `core-version|protocol|network|address|grpc|certificate`.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde_json::json;

/// The variable that shows a plugin was started by Terraform and not by hand.
pub const MAGIC_COOKIE_KEY: &str = "TF_PLUGIN_MAGIC_COOKIE";
/// Its value for Terraform and OpenTofu; a fact of the protocol, not a secret.
pub const MAGIC_COOKIE_VALUE: &str = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2";

const CORE_PROTOCOL: u32 = 1;
const PROTOCOL: u32 = 6;

/// Why the environment is not one to serve in.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HandshakeError {
    /// No magic cookie.
    #[error(
        "this program is a Terraform provider and is started by terraform, not by hand. Put it into a filesystem mirror \
         or run it with --debug to attach it to a terraform of your own"
    )]
    NotTerraform,
    /// The host cannot speak protocol 6.
    #[error(
        "this provider speaks plugin protocol 6, which needs Terraform 1.0 or later; this host offers protocol {offered}"
    )]
    Protocol {
        /// What it can.
        offered: String,
    },
}

/// What the host asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handshake {
    /// The one certificate a client must show, PEM; absent when the host turned TLS off.
    pub(super) client_cert: Option<String>,
    /// Where sockets must be made.
    pub(super) socket_dir: Option<PathBuf>,
    /// Whether the host asks about multiplexing, and so wants a seventh field.
    multiplexing_asked: bool,
}

impl Handshake {
    pub(super) fn from_env(var: impl Fn(&str) -> Option<String>) -> Result<Self, HandshakeError> {
        if var(MAGIC_COOKIE_KEY).as_deref() != Some(MAGIC_COOKIE_VALUE) {
            return Err(HandshakeError::NotTerraform);
        }
        let offered = var("PLUGIN_PROTOCOL_VERSIONS").unwrap_or_default();
        if !offered.split(',').any(|version| version.trim().parse() == Ok(PROTOCOL)) {
            return Err(HandshakeError::Protocol { offered });
        }
        let set = |name: &str| var(name).filter(|value| !value.is_empty());
        Ok(Self {
            client_cert: set("PLUGIN_CLIENT_CERT"),
            socket_dir: set("PLUGIN_UNIX_SOCKET_DIR").map(PathBuf::from),
            multiplexing_asked: set("PLUGIN_MULTIPLEX_GRPC").is_some(),
        })
    }

    /// The answer, newline included.
    pub(super) fn line(&self, socket: &Path, certificate: Option<&[u8]>) -> String {
        let certificate = certificate.map(|der| STANDARD_NO_PAD.encode(der)).unwrap_or_default();
        let multiplexing = if self.multiplexing_asked { "|false" } else { "" };
        format!("{CORE_PROTOCOL}|{PROTOCOL}|unix|{}|grpc|{certificate}{multiplexing}\n", socket.display())
    }
}

/// The value of `TF_REATTACH_PROVIDERS` for a provider that is already running.
pub(super) fn reattach_line(address: &str, socket: &Path, pid: u32) -> String {
    json!({
        address: {
            "Protocol": "grpc",
            "ProtocolVersion": PROTOCOL,
            "Pid": pid,
            "Test": true,
            "Addr": { "Network": "unix", "String": socket.display().to_string() },
        }
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn env<'a>(vars: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn refuses_strangers() {
        assert_eq!(Handshake::from_env(env(&[])), Err(HandshakeError::NotTerraform));
        let old = [(MAGIC_COOKIE_KEY, MAGIC_COOKIE_VALUE), ("PLUGIN_PROTOCOL_VERSIONS", "4,5")];
        assert_eq!(Handshake::from_env(env(&old)), Err(HandshakeError::Protocol { offered: "4,5".into() }));
    }

    #[test]
    fn answers_in_the_expected_fields() {
        let vars = [(MAGIC_COOKIE_KEY, MAGIC_COOKIE_VALUE), ("PLUGIN_PROTOCOL_VERSIONS", "5,6")];
        let handshake = Handshake::from_env(env(&vars)).unwrap();
        assert_eq!(handshake.line(Path::new("/s"), None), "1|6|unix|/s|grpc|\n");
        assert_eq!(handshake.line(Path::new("/s"), Some(b"der")), "1|6|unix|/s|grpc|ZGVy\n");
        let vars = [vars[0], vars[1], ("PLUGIN_MULTIPLEX_GRPC", "true")];
        let handshake = Handshake::from_env(env(&vars)).unwrap();
        assert_eq!(handshake.line(Path::new("/s"), None), "1|6|unix|/s|grpc||false\n");
    }
}
