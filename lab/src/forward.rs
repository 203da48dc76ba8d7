//! TCP ports inside the lab network that lead to loopback of this machine.
//!
//! A lab host cannot reach this machine's loopback, and must not reach anything else. A forward lets it reach one port: a listener
//! socket made inside the namespace, served from outside it.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::LabError;
use crate::config::ForwardConfig;
use crate::netns::Namespace;

/// Opens the listener of `forward` and serves it on `tasks` until they are dropped.
pub(crate) async fn start(
    forward: &ForwardConfig,
    namespace: &Namespace,
    tasks: &mut JoinSet<()>,
) -> Result<(), LabError> {
    let ForwardConfig { listen, to } = *forward;
    let wrap = |source| LabError::Listen { address: listen, purpose: format!("the forward to {to}"), source };
    let listener = namespace.listen(listen).await.map_err(wrap)?;
    let listener = TcpListener::from_std(listener).map_err(wrap)?;
    tasks.spawn(serve(listener, to));
    Ok(())
}

async fn serve(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((inside, peer)) => {
                    connections.spawn(async move {
                        if let Err(error) = relay(inside, to).await {
                            tracing::info!(%peer, %to, %error, "forwarded connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, %to, "cannot accept a forwarded connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut inside: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut outside = TcpStream::connect(to).await?;
    inside.set_nodelay(true)?;
    outside.set_nodelay(true)?;
    copy_bidirectional(&mut inside, &mut outside).await.map(|_| ())
}
