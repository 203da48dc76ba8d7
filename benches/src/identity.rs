//! The certificate of everything simulated: BMCs and tenants' API servers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

/// One self-signed certificate with its key. BMCs share one: what a handshake costs does not depend on whose key it is.
pub struct Identity {
    /// The certificate in PEM.
    pub pem: String,
    /// SHA-256 over its DER form, as hosts are declared with.
    pub fingerprint: String,
    /// A TLS server with it.
    pub server: Arc<rustls::ServerConfig>,
}

impl Identity {
    /// Makes a certificate for these addresses.
    ///
    /// # Errors
    /// When the TLS library refuses.
    pub fn new(name: &str, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Result<Self> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let names: Vec<String> = addresses.into_iter().map(|address| address.to_string()).collect();
        let mut params = CertificateParams::new(names).context("cannot make a certificate")?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).context("cannot make a certificate")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity {
            pem: certificate.pem(),
            fingerprint: hex::encode(Sha256::digest(certificate.der())),
            server: Arc::new(server),
        })
    }
}
