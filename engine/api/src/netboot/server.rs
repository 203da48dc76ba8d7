//! The engine's side of the socket.

use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::StreamExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use vmetal_model::boot::BootEvent;

use super::{AgentReply, AgentRequest, NetbootBackend};
use crate::proto;
use crate::proto::netboot_server::{Netboot, NetbootServer};
use crate::server::{ServeError, Stopping, run, stopped};

/// How long calls under way may take once shutdown is asked for. Requests held for an installer are dropped: it asks again.
const GRACE: Duration = Duration::from_secs(2);

/// Serves the network boot process on a unix socket at `path` until `shutdown` completes, then removes the socket.
///
/// # Errors
/// [`ServeError::InUse`] when another process serves there, [`ServeError::Io`] when the socket cannot be made.
pub async fn serve<B: NetbootBackend>(
    path: &Path,
    backend: Arc<B>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (listener, owner) = bind(path).await?;
    let mine = move |stream: std::io::Result<UnixStream>| {
        std::future::ready(match stream {
            Ok(stream) => admitted(&stream, owner).then_some(Ok(stream)),
            Err(error) => Some(Err(error)),
        })
    };
    let incoming = UnixListenerStream::new(listener).filter_map(mine);
    let (stop, stopping) = watch::channel(Stopping::No);
    let service = NetbootServer::new(Service { backend, stopping: stopping.clone() })
        .max_decoding_message_size(crate::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(crate::MAX_MESSAGE_BYTES);
    // Each installer holds a question for its next order, and all of them come over one connection: the usual limit of 200
    // would have ten thousand installers wait for each other.
    let server = Server::builder()
        .max_concurrent_streams(HELD_QUESTIONS)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stopped(stopping));
    let ended = run(server, stop, shutdown, GRACE).await;
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "the socket was gone already");
    }
    ended
}

fn admitted(stream: &UnixStream, owner: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == owner => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), expected = owner, "turned away a process of another user");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "turned away a process whose user cannot be found out");
            false
        }
    }
}

/// Binds under another name, restricts the mode and only then gives the socket its name: at no moment is there a socket at
/// `path` that others could open. Returns the owner's user id, which is our own.
async fn bind(path: &Path) -> Result<(UnixListener, u32), ServeError> {
    let what = || path.display().to_string();
    let io = |source| ServeError::Io { verb: "listen on", what: what(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io(std::io::Error::new(ErrorKind::AlreadyExists, "something that is not a socket is there")));
        }
        // A socket that nobody answers on was left by a process that died.
        Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(ServeError::InUse { what: what() }),
        Ok(_) => {}
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(name);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary).map_err(io)?;
    let private = std::fs::Permissions::from_mode(0o600);
    let owner = std::fs::set_permissions(&temporary, private)
        .and_then(|()| std::fs::symlink_metadata(&temporary))
        .map(|metadata| metadata.uid())
        .and_then(|owner| std::fs::rename(&temporary, path).map(|()| owner))
        .map_err(io)?;
    Ok((listener, owner))
}

/// Questions of installers that may be held at the same time on one connection.
const HELD_QUESTIONS: u32 = 1 << 20;

struct Service<B> {
    backend: Arc<B>,
    stopping: watch::Receiver<Stopping>,
}

#[tonic::async_trait]
impl<B: NetbootBackend> Netboot for Service<B> {
    type WatchBootStream = Pin<Box<dyn futures::Stream<Item = Result<proto::BootNews, Status>> + Send>>;

    async fn watch_boot(&self, _: Request<proto::WatchBootRequest>) -> Result<Response<Self::WatchBootStream>, Status> {
        let news = self.backend.watch_boot().map(|news| match serde_json::to_vec(&news) {
            Ok(json) => Ok(proto::BootNews { json }),
            Err(error) => Err(Status::internal(format!("the boot table does not serialise: {error}"))),
        });
        Ok(Response::new(Box::pin(news.take_until(stopped(self.stopping.clone())))))
    }

    async fn agent(&self, request: Request<proto::AgentRequest>) -> Result<Response<proto::AgentReply>, Status> {
        let proto::AgentRequest { method, path, bearer_token, peer, body } = request.into_inner();
        let request = AgentRequest { method, path, bearer_token, peer, body };
        let AgentReply { status, body } = self.backend.agent(request).await;
        Ok(Response::new(proto::AgentReply { status: status.into(), body }))
    }

    async fn record(&self, request: Request<proto::RecordRequest>) -> Result<Response<proto::RecordResponse>, Status> {
        let events: Vec<BootEvent> = serde_json::from_slice(&request.into_inner().json)
            .map_err(|e| Status::invalid_argument(format!("the events do not read: {e}")))?;
        self.backend.record(events).await;
        Ok(Response::new(proto::RecordResponse {}))
    }
}
