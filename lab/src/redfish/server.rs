//! The listener of one BMC: TCP, TLS, HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{ApiError, Bmc, Reply, Request, json_content_type};
use crate::LabError;
use crate::config::TlsMode;
use crate::tls::Identity;

/// Largest request body: more than any Redfish request the lab knows.
const MAX_BODY: usize = 1 << 20;

/// Time for the TLS handshake and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// A BMC that listens. Dropping it closes the listener and every connection.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) bmc: Arc<Bmc>,
    pub(crate) address: SocketAddr,
    /// SHA-256 of the certificate; `None` over plain HTTP.
    pub(crate) fingerprint: Option<String>,
    task: AbortHandle,
}

impl Running {
    pub(crate) fn base_url(&self) -> String {
        let scheme = if self.fingerprint.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens the listener of `bmc`. `identity` makes the certificate when TLS is on.
pub(crate) async fn start(
    bmc: Bmc,
    identity: impl FnOnce() -> Result<Identity, LabError>,
) -> Result<Running, LabError> {
    let config = bmc.machine.config();
    let listen = config.bmc.listen;
    let name = config.name.clone();
    let wrap = |source| LabError::Listen { address: listen, purpose: format!("the BMC of {name}"), source };
    let listener = TcpListener::bind(listen).await.map_err(wrap)?;
    let address = listener.local_addr().map_err(wrap)?;
    let (acceptor, fingerprint) = match config.bmc.tls {
        TlsMode::Off => (None, None),
        TlsMode::SelfSigned => {
            let identity = identity()?;
            let acceptor = TlsAcceptor::from(identity.server_config(&name)?);
            (Some(acceptor), Some(identity.fingerprint()))
        }
    };
    let bmc = Arc::new(bmc);
    let task = tokio::spawn(accept(listener, acceptor, bmc.clone())).abort_handle();
    Ok(Running { bmc, address, fingerprint, task })
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, bmc: Arc<Bmc>) {
    // Connections live in the set, so that aborting this task closes them too.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without it a small answer can wait 40 ms for an acknowledgement.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    let (acceptor, bmc) = (acceptor.clone(), bmc.clone());
                    connections.spawn(async move {
                        match acceptor {
                            None => serve(stream, bmc).await,
                            Some(acceptor) => {
                                match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                                    Ok(Ok(stream)) => serve(stream, bmc).await,
                                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                                    Err(_) => tracing::debug!("TLS handshake took too long"),
                                }
                            }
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a BMC connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The error that makes hyper close a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("dropped by a fault")]
struct Dropped;

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, bmc: Arc<Bmc>) {
    let service = service_fn(|request: http::Request<Incoming>| {
        let bmc = bmc.clone();
        async move {
            let request = match read(request).await {
                Ok(request) => request,
                Err(reply) => return Ok(render(reply)),
            };
            // In a task of its own: a BMC that has taken a request does it, whether or not the client still listens. An engine
            // that is killed in the middle of a power-on must not leave half a boot, with the override used up and no machine.
            match tokio::spawn(async move { bmc.handle(request).await }).await {
                Ok(Some(reply)) => Ok(render(reply)),
                Ok(None) | Err(_) => Err(Dropped),
            }
        }
    });
    let outcome = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE * 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "BMC connection ended");
    }
}

async fn read(request: http::Request<Incoming>) -> Result<Request, Reply> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|_| Reply::from(ApiError::injected(StatusCode::PAYLOAD_TOO_LARGE)))?
        .to_bytes();
    Ok(Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
    })
}

fn render(reply: Reply) -> http::Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>> {
    // hyper leaves the body out of answers to HEAD and 204 by itself.
    let text = reply.body.as_ref().map(|b| b.to_string()).unwrap_or_default();
    let mut response = http::Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if reply.body.is_some() {
        let (name, value) = json_content_type();
        response.headers_mut().insert(name, value);
    }
    response
}
