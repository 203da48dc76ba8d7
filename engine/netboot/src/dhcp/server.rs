//! Moves DHCP packets between one interface and [`super::answer`].

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use dhcproto::v4;
use tokio::net::UdpSocket;

use super::{DhcpConfig, answer, request};
use crate::net::{NetError, udp_socket};
use crate::record::Recorder;
use crate::shared::Shared;
use crate::table::Tables;

/// Room for any packet of an Ethernet with jumbo frames; DHCP messages that are longer are not from firmware.
const PACKET: usize = 9216;

/// The server and what it answers from.
#[derive(Debug)]
pub struct DhcpServer {
    socket: UdpSocket,
    config: DhcpConfig,
    shared: Arc<Shared>,
}

impl DhcpServer {
    /// Opens port 67 on one interface.
    ///
    /// # Errors
    /// [`NetError`] when the port cannot be had; usually another DHCP server runs, or the capability is missing.
    pub fn bind(interface: &str, config: DhcpConfig, shared: Arc<Shared>) -> Result<Self, NetError> {
        let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, v4::SERVER_PORT);
        let socket = udp_socket(interface, address, "DHCP")?;
        Ok(DhcpServer { socket, config, shared })
    }

    /// Answers for ever.
    pub async fn run(self) {
        let mut buffer = vec![0; PACKET];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((length, from)) => self.packet(&buffer[..length], from).await,
                Err(error) => {
                    // An interface that goes down and comes back answers again; do not spin meanwhile.
                    tracing::warn!(%error, "DHCP: receiving failed");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn packet(&self, packet: &[u8], from: SocketAddr) {
        let request = match request::parse(packet) {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(%from, %error, "DHCP: packet dropped");
                return;
            }
        };
        let answer = {
            let table = Tables::load(&self.shared.tables);
            let mut sessions = self.shared.sessions();
            answer(&request, &table, &mut sessions, &self.config, crate::clock::now())
        };
        if let Some(reply) = &answer.reply {
            match reply.encode() {
                Ok(bytes) => {
                    if let Err(error) = self.socket.send_to(&bytes, reply.to).await {
                        tracing::warn!(mac = %request.mac, to = %reply.to.0, %error, "DHCP: sending failed");
                    }
                }
                Err(error) => tracing::error!(mac = %request.mac, %error, "DHCP: the reply cannot be encoded"),
            }
        }
        record(&self.shared.recorder, answer.notes);
    }
}

fn record(recorder: &Recorder, notes: Vec<super::Note>) {
    for note in notes {
        recorder.note(note.mac, note.host, note.what);
    }
}
