//! HTTPS servers on many loopback addresses with one listener: the address that a client dialled says which of the many it
//! means. To the client each is a server of its own: its own address, connection, handshake and keep-alive.

use std::convert::Infallible;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request that arrived whole.
pub struct Call {
    /// The address that was dialled.
    pub to: Ipv4Addr,
    /// Method, path and query.
    pub head: http::request::Parts,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// An answer with a JSON body.
pub fn json(status: u16, body: &Value) -> Answer {
    raw(status, body.to_string())
}

/// An answer with a body that is said to be JSON.
pub fn raw(status: u16, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

/// Serves on every loopback address at a free port, which is returned, for as long as the runtime runs. The socket is bound to
/// the loopback interface: nobody else can reach it.
///
/// # Errors
/// When it cannot listen.
pub fn serve<F, A>(tls: Arc<rustls::ServerConfig>, answer: F) -> Result<u16>
where
    F: Fn(Call) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind_device(Some(b"lo")).context("cannot bind a socket to the loopback interface")?;
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).context("cannot bind a port")?;
    socket.listen(4096).context("cannot listen")?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into())?;
    let port = listener.local_addr()?.port();
    let acceptor = TlsAcceptor::from(tls);
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("bench: cannot accept a connection: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(std::net::SocketAddr::V4(to)) = stream.local_addr() else { return };
                let to = *to.ip();
                let _ = stream.set_nodelay(true);
                // A client that goes away in the middle of something is its own affair.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                        Ok::<_, Infallible>(answer(Call { to, head, body }).await)
                    }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(port)
}
