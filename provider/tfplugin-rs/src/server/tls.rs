//! Mutual TLS between Terraform and the provider, as go-plugin's "AutoMTLS" does it.
//!
//! Each side makes a throw-away certificate; the client's arrives in an environment variable, ours leaves in the handshake
//! line. Two properties of the client's certificate rule out the usual verification by chain: its key is ECDSA P-521, and
//! it is its own certificate authority, which a path builder refuses as an end entity. Neither matters, because exactly
//! one certificate is right: it is compared byte for byte, and the handshake signature proves that the peer has its key.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;

/// Why the connection cannot be secured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// PLUGIN_CLIENT_CERT is not a certificate.
    #[error("PLUGIN_CLIENT_CERT does not hold a PEM certificate")]
    ClientCert(#[source] rustls::pki_types::pem::Error),
    /// No certificate of our own.
    #[error("cannot make a certificate")]
    OwnCert(#[from] rcgen::Error),
    /// The TLS library refused the configuration.
    #[error("the TLS configuration was refused")]
    Config(#[from] rustls::Error),
}

/// Our side of the connection.
pub(super) struct Server {
    certificate: CertificateDer<'static>,
    config: Arc<ServerConfig>,
}

impl Server {
    /// Makes a certificate and accepts exactly the client that shows `client_pem`.
    pub(super) fn for_client(client_pem: &str) -> Result<Self, TlsError> {
        let client = CertificateDer::from_pem_slice(client_pem.as_bytes()).map_err(TlsError::ClientCert)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key)?.der().clone();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(PinnedClient { expected: client, provider: Arc::clone(&provider) });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { certificate, config: Arc::new(config) })
    }

    /// Our certificate, DER.
    pub(super) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// Accepts one certificate and nothing else.
#[derive(Debug)]
struct PinnedClient {
    expected: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for PinnedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.expected.as_ref() {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(rustls::Error::General("the client is not the Terraform that started this provider".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rustls::{
        ClientConfig,
        client::danger::{ServerCertVerified, ServerCertVerifier},
        pki_types::ServerName,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Stands for Go's verifier, which trusts exactly the certificate of the handshake line (and, unlike webpki, does not
    /// mind that it is its own authority).
    impl ServerCertVerifier for PinnedClient {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            assert_eq!(end_entity.as_ref(), self.expected.as_ref());
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            ClientCertVerifier::verify_tls12_signature(self, message, cert, dss)
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            ClientCertVerifier::verify_tls13_signature(self, message, cert, dss)
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            ClientCertVerifier::supported_verify_schemes(self)
        }
    }

    /// A certificate the way go-plugin makes them: P-521, its own authority.
    fn go_plugin_cert() -> (String, CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (cert.pem(), cert.der().clone(), der)
    }

    async fn connect(
        server: &Server,
        client: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> std::io::Result<u8> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = PinnedClient { expected: server.certificate.clone(), provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match client {
            Some((cert, key)) => builder.with_client_auth_cert(vec![cert], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let (near, far) = duplex(16 * 1024);
        let acceptor = server.acceptor();
        let accepting = tokio::spawn(async move {
            let mut stream = acceptor.accept(far).await?;
            stream.write_u8(42).await?;
            stream.flush().await
        });
        let name = ServerName::try_from("localhost").unwrap();
        let answer = async {
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, near).await?;
            stream.read_u8().await
        };
        let answer = answer.await;
        accepting.await.unwrap()?;
        answer
    }

    #[tokio::test]
    async fn only_the_announced_client_gets_in() {
        let (pem, cert, key) = go_plugin_cert();
        let server = Server::for_client(&pem).unwrap();
        assert_eq!(connect(&server, Some((cert.clone(), key))).await.unwrap(), 42);
        assert!(connect(&server, None).await.is_err(), "a client without a certificate");
        let (_, stranger, stranger_key) = go_plugin_cert();
        assert!(connect(&server, Some((stranger, stranger_key.clone_key()))).await.is_err(), "another certificate");
        assert!(Server::for_client("nonsense").is_err());
    }
}
