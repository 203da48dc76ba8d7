//! How a BMC's certificate is trusted.
//!
//! BMCs ship with self-signed certificates, and most tools answer by verifying nothing. Here the default verifies; a
//! self-signed certificate is refused with its fingerprint in the error, so that pinning it is one line. A pin is over
//! the whole certificate (SHA-256 of the DER form), and says "this one and no other": name and dates are not looked at.
//! In every mode the handshake's signature is verified: the peer must have the key of the certificate it shows. Even
//! `Insecure` therefore reports a fingerprint that means something.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use vmetal_model::TlsTrust;

use crate::error::CertificateProblem;

/// TLS tickets kept by one line. It leads to one server; the default keeps room for 32, some 20 KiB per line.
const TICKETS: usize = 8;

/// The fingerprint of a certificate in DER form: 64 hexadecimal digits.
pub fn fingerprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

/// What all lines of one engine share: the cryptography, and the roots that chains are verified against.
pub(crate) struct Anchors {
    provider: Arc<CryptoProvider>,
    /// None when there are no roots, and then nothing is trusted.
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl Anchors {
    /// The system's roots and `extra`. Roots that cannot be read are left out.
    pub(crate) fn new(extra: &[Vec<u8>]) -> Self {
        let mut store = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "some of the system's root certificates could not be read");
        }
        let extra = extra.iter().map(|der| CertificateDer::from(der.as_slice()).into_owned());
        let (_, ignored) = store.add_parsable_certificates(native.certs.into_iter().chain(extra));
        if ignored > 0 {
            tracing::warn!(ignored, "some root certificates are malformed and were left out");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // Without a root there is nothing to build, and without revocation lists nothing else that could be wrong.
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider)).build().ok();
        Anchors { provider, chain }
    }
}

/// What the last handshake showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    pub(crate) fingerprint: Option<String>,
    pub(crate) problem: Option<CertificateProblem>,
}

/// Shared between the verifier and the gateway that owns the connection.
pub(crate) type Witness = Arc<Mutex<Seen>>;

pub(crate) fn seen(witness: &Witness) -> Seen {
    witness.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

enum Mode {
    /// A chain to a root; `None` when there are no roots, and then nothing is trusted.
    Chain(Option<Arc<WebPkiServerVerifier>>),
    Pin([u8; 32]),
    Any,
}

struct Verifier {
    mode: Mode,
    provider: Arc<CryptoProvider>,
    witness: Witness,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.mode {
            Mode::Chain(_) => "Verifier(chain)",
            Mode::Pin(_) => "Verifier(pin)",
            Mode::Any => "Verifier(any)",
        })
    }
}

/// The TLS side of one gateway.
///
/// # Errors
/// A sentence, when the pin is not a fingerprint or TLS cannot be set up.
pub(crate) fn client_config(trust: &TlsTrust, anchors: &Anchors) -> Result<(ClientConfig, Witness), String> {
    let provider = &anchors.provider;
    let mode = match trust {
        TlsTrust::Verify => Mode::Chain(anchors.chain.clone()),
        TlsTrust::Fingerprint(text) => Mode::Pin(
            trust
                .fingerprint_bytes()
                .ok_or_else(|| format!("{text:?} is not a SHA-256 fingerprint (64 hexadecimal digits)"))?,
        ),
        TlsTrust::Insecure => Mode::Any,
    };
    let witness = Witness::default();
    let verifier = Verifier { mode, provider: Arc::clone(provider), witness: Arc::clone(&witness) };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(TICKETS);
    Ok((config, witness))
}

impl Verifier {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), (CertificateProblem, Error)> {
        let unknown = || (CertificateProblem::UnknownIssuer, CertificateError::UnknownIssuer.into());
        match &self.mode {
            Mode::Any => Ok(()),
            Mode::Pin(pinned) if <[u8; 32]>::from(Sha256::digest(end_entity)) == *pinned => Ok(()),
            Mode::Pin(pinned) => Err((
                CertificateProblem::NotThePinned { pinned: hex::encode(pinned) },
                CertificateError::ApplicationVerificationFailure.into(),
            )),
            Mode::Chain(None) => Err(unknown()),
            Mode::Chain(Some(verifier)) => {
                match verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                    Ok(_) => Ok(()),
                    // What a self-signed certificate looks like depends on whether it calls itself an authority.
                    Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Err(unknown()),
                    Err(error) => Err((problem(&error), error)),
                }
            }
        }
    }
}

fn problem(error: &Error) -> CertificateProblem {
    let text = match error {
        // Mostly a self-signed certificate that calls itself an authority.
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            format!("it is not a proper server certificate ({other}), as is common for self-signed ones")
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "it has expired (or the engine's clock is wrong)".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "it is not valid yet (or the engine's clock is wrong)".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "it is for another name than the address has".to_owned(),
        other => other.to_string(),
    };
    CertificateProblem::Invalid(text)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.judge(end_entity, intermediates, name, ocsp, now);
        let seen = Seen {
            fingerprint: Some(fingerprint(end_entity)),
            problem: verdict.as_ref().err().map(|(problem, _)| problem.clone()),
        };
        *self.witness.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        verdict.map(|()| ServerCertVerified::assertion()).map_err(|(_, error)| error)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
