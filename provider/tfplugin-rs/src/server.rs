//! The process Terraform starts: handshake, transport, services, and an orderly end.
//!
//! Terraform starts a provider several times per command, so nothing here touches the network or the disk beyond one
//! socket, and everything is ready within milliseconds.

mod handshake;
mod log;
mod managed;
mod operations;
mod provider;
mod redact;
mod registry;
mod services;
mod tls;
mod transport;
mod unmanaged;

pub use handshake::{HandshakeError, MAGIC_COOKIE_KEY, MAGIC_COOKIE_VALUE};
pub use provider::ProviderService;

use std::{
    env,
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{self, ExitCode},
    time::Duration,
};

use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::resource::Provider;
use handshake::Handshake;
use transport::SocketGuard;

/// How often a provider looks whether the Terraform that started it still runs.
const PARENT_CHECK: Duration = Duration::from_secs(2);
/// How long the reply to Shutdown gets to leave before the process ends.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(20);

/// Why a provider could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Not started by Terraform, or by one that speaks other protocols.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// No socket could be made.
    #[error("cannot listen on the unix socket {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The certificates for the connection could not be made or read.
    #[error("cannot set up the encrypted connection to Terraform: {0}")]
    Tls(#[from] tls::TlsError),
    /// The system gave no handler for the signals that end a process.
    #[error("cannot listen for signals")]
    Signal(#[source] io::Error),
    /// The gRPC server failed.
    #[error("the connection to Terraform failed")]
    Transport(#[from] tonic::transport::Error),
    /// The handshake line could not be written.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

/// Serves `provider` until Terraform says goodbye. Call it from `main`, inside a tokio runtime, and return its result.
///
/// With `--debug` as an argument it serves without Terraform having started it and prints the value for
/// `TF_REATTACH_PROVIDERS`; `address` is the provider's source address for that (`registry.terraform.io/vmetal/vmetal`).
pub async fn serve<P: Provider>(provider: P, address: &str) -> ExitCode {
    log::install(provider.name());
    let debug = env::args().skip(1).any(|arg| arg == "--debug" || arg == "-debug");
    let result = if debug { serve_debug(provider, address).await } else { serve_terraform(provider).await };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = error.to_string();
            let mut cause: &dyn std::error::Error = &error;
            while let Some(next) = cause.source() {
                message = format!("{message}: {next}");
                cause = next;
            }
            // Standard error is where go-plugin hosts look for the reason of a failed start.
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve_terraform<P: Provider>(provider: P) -> Result<(), ServeError> {
    let handshake = Handshake::from_env(|name| env::var(name).ok())?;
    let tls = handshake.client_cert.as_deref().map(tls::Server::for_client).transpose()?;
    let (listener, socket) = listen(handshake.socket_dir.clone())?;
    let line = handshake.line(socket.path(), tls.as_ref().map(tls::Server::certificate));
    let stop = CancellationToken::new();
    watch_parent(stop.clone());
    stop_on(SignalKind::terminate(), stop.clone())?;
    ignore_interrupts()?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).map_err(ServeError::Stdout)?;
    drop(stdout);
    serve_until_stopped(ProviderService::new(provider), listener, tls, stop).await
}

async fn serve_debug<P: Provider>(provider: P, address: &str) -> Result<(), ServeError> {
    let (listener, socket) = listen(None)?;
    let stop = CancellationToken::new();
    stop_on(SignalKind::terminate(), stop.clone())?;
    stop_on(SignalKind::interrupt(), stop.clone())?;
    let line = handshake::reattach_line(address, socket.path(), process::id());
    writeln!(io::stdout(), "TF_REATTACH_PROVIDERS='{line}'").map_err(ServeError::Stdout)?;
    serve_until_stopped(ProviderService::new(provider), listener, None, stop).await
}

/// Streams of go-plugin stay open for the life of a connection, so waiting for them to drain would wait for ever: once
/// stopped, the reply gets a moment to leave and the server is dropped. `socket` guards end with their scope.
async fn serve_until_stopped<P: Provider>(
    service: ProviderService<P>,
    listener: UnixListener,
    tls: Option<tls::Server>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let last = service.finish();
    let stopped = async {
        stop.cancelled().await;
        tokio::join!(last, tokio::time::sleep(SHUTDOWN_GRACE));
    };
    tokio::select! {
        result = transport::serve(service, listener, tls, stop.clone()) => result,
        () = stopped => Ok(()),
    }
}

fn listen(dir: Option<PathBuf>) -> Result<(UnixListener, SocketGuard), ServeError> {
    let socket = SocketGuard::new(dir);
    let failed = |source| ServeError::Socket { path: socket.path().to_owned(), source };
    let listener = UnixListener::bind(socket.path()).map_err(failed)?;
    // Without TLS (--debug) the file mode is what keeps other users out.
    std::fs::set_permissions(socket.path(), Permissions::from_mode(0o600)).map_err(failed)?;
    Ok((listener, socket))
}

/// Ctrl-C reaches every process of the terminal's group. Terraform tells its providers what to do about it
/// (StopProvider); dying on our own would lose the state of whatever is being made.
fn ignore_interrupts() -> Result<(), ServeError> {
    let mut interrupted = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    tokio::spawn(async move { while interrupted.recv().await.is_some() {} });
    Ok(())
}

/// A polite request to end, from a service manager, a terminal, or a host that lost its patience: the socket is removed on the
/// way out.
///
/// The handler is in place when this returns, before anybody is told where the socket is: whoever knows the provider can
/// end it tidily at once.
fn stop_on(kind: SignalKind, stop: CancellationToken) -> Result<(), ServeError> {
    let mut told = signal(kind).map_err(ServeError::Signal)?;
    tokio::spawn(async move {
        told.recv().await;
        stop.cancel();
    });
    Ok(())
}

/// A Terraform that is killed cannot say goodbye. Its providers notice that they have another parent and end, instead of
/// staying behind for ever.
fn watch_parent(stop: CancellationToken) {
    let parent = std::os::unix::process::parent_id();
    tokio::spawn(async move {
        while std::os::unix::process::parent_id() == parent {
            tokio::time::sleep(PARENT_CHECK).await;
        }
        tracing::warn!(target: "provider", "terraform is gone; stopping");
        stop.cancel();
    });
}
