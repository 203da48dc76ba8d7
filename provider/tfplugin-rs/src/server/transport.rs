//! One unix socket, with or without TLS, under the gRPC server.

use std::{
    collections::hash_map::RandomState,
    env, fs,
    hash::{BuildHasher, Hasher},
    io,
    path::{Path, PathBuf},
    pin::Pin,
    process,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Connected};

use super::{ServeError, provider::ProviderService, services, tls};
use crate::{
    resource::Provider,
    wire::{
        health::health_server::HealthServer,
        plugin::{
            grpc_broker_server::GrpcBrokerServer, grpc_controller_server::GrpcControllerServer,
            grpc_stdio_server::GrpcStdioServer,
        },
        provider_server::ProviderServer,
    },
};

/// The largest message accepted and sent, bytes: what Terraform's own SDKs allow.
pub(super) const MESSAGE_LIMIT: usize = 256 << 20;

/// Serves until the future is dropped. `stop` is cancelled when Terraform asks the process to end.
pub(super) async fn serve<P: Provider>(
    service: ProviderService<P>,
    listener: UnixListener,
    tls: Option<tls::Server>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let provider =
        ProviderServer::new(service).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
    Server::builder()
        .add_service(provider)
        .add_service(GrpcControllerServer::new(services::Controller::new(stop)))
        .add_service(GrpcStdioServer::new(services::Stdio))
        .add_service(GrpcBrokerServer::new(services::Broker))
        .add_service(HealthServer::new(services::Healthy))
        .serve_with_incoming(incoming(listener, tls))
        .await?;
    Ok(())
}

/// Accepts connections. Each TLS handshake runs on its own, so that a peer that stalls in one holds up nobody.
fn incoming(listener: UnixListener, tls: Option<tls::Server>) -> ReceiverStream<io::Result<Connection>> {
    let (send, receive) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(target: "provider", %error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(tls) = &tls else {
                if send.send(Ok(Connection::Plain(stream))).await.is_err() {
                    return;
                }
                continue;
            };
            let (acceptor, send) = (tls.acceptor(), send.clone());
            tokio::spawn(async move {
                match acceptor.accept(stream).await {
                    Ok(stream) => {
                        // A closed channel means that the server is gone, and with it the need for connections.
                        let _ = send.send(Ok(Connection::Tls(Box::new(stream)))).await;
                    }
                    Err(error) => tracing::warn!(target: "provider", %error, "refused a connection"),
                }
            });
        }
    });
    ReceiverStream::new(receive)
}

/// A connection with or without TLS.
enum Connection {
    Plain(UnixStream),
    Tls(Box<TlsStream<UnixStream>>),
}

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The path of a socket, which is removed when this goes.
pub(super) struct SocketGuard(PathBuf);

impl SocketGuard {
    /// A path nobody else uses or can guess, in `dir` or the directory for temporary files.
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        let dir = dir.unwrap_or_else(env::temp_dir);
        // The seed of a hash map is random: enough to keep others from taking the name first.
        let random = RandomState::new().build_hasher().finish();
        Self(dir.join(format!("plugin-{}-{random:016x}.sock", process::id())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
