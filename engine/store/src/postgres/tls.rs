//! TLS to the server, by the same library as everywhere else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use crate::error::OpenError;

/// Makes TLS connections whose certificates are verified, or none.
#[derive(Clone)]
pub(super) struct MakeTls(Option<TlsConnector>);

impl MakeTls {
    /// For connections in clear text.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// For connections to a server whose certificate one of `authorities` has signed; the system's, if not given.
    pub(super) fn verified(authorities: Option<Vec<CertificateDer<'static>>>) -> Result<Self, OpenError> {
        let mut roots = RootCertStore::empty();
        let given = authorities.unwrap_or_else(|| rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(given);
        if roots.is_empty() {
            let what =
                "there is no certificate authority to trust; install ca-certificates or name a file with sslrootcert";
            return Err(OpenError::Url { what: what.to_owned() });
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| OpenError::Url { what: format!("TLS cannot be set up: {error}") })?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl<S> MakeTlsConnect<S> for MakeTls
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = Cause;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Cause> {
        // Called for clear text connections too, also for those without a name: it matters in `connect` only.
        Ok(Handshake { connector: self.0.clone(), server: ServerName::try_from(host.to_owned()).ok() })
    }
}

/// One connection to be.
pub(super) struct Handshake {
    connector: Option<TlsConnector>,
    server: Option<ServerName<'static>>,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = Encrypted<S>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted<S>, Cause>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let connector = self.connector.ok_or("TLS was not asked for")?;
            let server = self.server.ok_or("the host is neither a name nor an address")?;
            Ok(Encrypted(connector.connect(server, stream).await?))
        })
    }
}

/// An encrypted connection.
pub(super) struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        // The certificate is verified, which is what binding would add to a client that does not.
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
