//! One self-signed certificate per BMC, kept so that a pinned fingerprint stays right over restarts of the lab.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use crate::LabError;

/// A certificate with its key.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// Makes a certificate for `host` at `address`.
    pub(crate) fn generate(host: &str, address: IpAddr) -> Result<Self, LabError> {
        let fail = |e: rcgen::Error| LabError::Tls { host: host.to_owned(), detail: e.to_string() };
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = CertificateParams::new(vec![address.to_string()]).map_err(fail)?;
        params.distinguished_name.push(DnType::CommonName, format!("{host} BMC"));
        let certificate = params.self_signed(&key).map_err(fail)?;
        Ok(Self { certificate: certificate.der().clone(), key: PrivatePkcs8KeyDer::from(key.serialize_der()) })
    }

    /// Reads the certificate of `host` from `dir`, or makes and keeps one.
    pub(crate) fn load_or_generate(dir: &Path, host: &str, address: IpAddr) -> Result<Self, LabError> {
        let certificate_path = dir.join(format!("bmc-{host}.crt.der"));
        let key_path = dir.join(format!("bmc-{host}.key.der"));
        if certificate_path.exists() && key_path.exists() {
            let read = |path: &Path| std::fs::read(path).map_err(LabError::file("read", path));
            let (certificate, key) = (read(&certificate_path)?, read(&key_path)?);
            return Ok(Self { certificate: CertificateDer::from(certificate), key: PrivatePkcs8KeyDer::from(key) });
        }
        let identity = Self::generate(host, address)?;
        write_private(&key_path, identity.key.secret_pkcs8_der())?;
        std::fs::write(&certificate_path, &identity.certificate).map_err(LabError::file("write", &certificate_path))?;
        Ok(identity)
    }

    /// SHA-256 over the DER form of the certificate, lower-case hex without separators.
    pub(crate) fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.certificate))
    }

    /// The rustls configuration of a server with this certificate.
    pub(crate) fn server_config(&self, host: &str) -> Result<Arc<rustls::ServerConfig>, LabError> {
        let fail = |e: rustls::Error| LabError::Tls { host: host.to_owned(), detail: e.to_string() };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(fail)?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], PrivateKeyDer::Pkcs8(self.key.clone_key()))
            .map_err(fail)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), LabError> {
    let mut options = std::fs::File::options();
    options.create(true).write(true).truncate(true).mode(0o600);
    options.open(path).and_then(|mut file| file.write_all(content)).map_err(LabError::file("write", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_fingerprint_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let address = IpAddr::from([127, 0, 0, 1]);
        let first = Identity::load_or_generate(dir.path(), "a", address).unwrap();
        let again = Identity::load_or_generate(dir.path(), "a", address).unwrap();
        let other = Identity::load_or_generate(dir.path(), "b", address).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_ne!(first.fingerprint(), other.fingerprint());
        assert!(again.server_config("a").is_ok());
    }
}
