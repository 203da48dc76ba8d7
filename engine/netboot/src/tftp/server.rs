//! Moves TFTP packets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;

use super::transfer::{Next, Transfer};
use super::wire::{self, ErrorCode, Packet, ReadRequest};
use crate::dhcp::boot::LOCAL_DISK;
use crate::net::{NetError, udp_socket};
use crate::session::Stage;
use crate::shared::{Peer, Shared};

/// Transfers of one client at a time: firmware asks for the size, aborts and asks again, sometimes before the first ended.
const PER_CLIENT: usize = 4;
/// Silence after which a window is sent again, unless the client asked for another time.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How often a window is sent again before the client is given up.
const TRIES: u32 = 6;

/// Files by name.
pub type Loaders = HashMap<&'static str, Bytes>;

/// The server.
#[derive(Debug)]
pub struct TftpServer {
    interface: String,
    address: Ipv4Addr,
    socket: UdpSocket,
    files: Arc<Loaders>,
    shared: Arc<Shared>,
    busy: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl TftpServer {
    /// Opens port 69 on one interface.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn bind(
        interface: &str,
        address: SocketAddrV4,
        files: Arc<Loaders>,
        shared: Arc<Shared>,
    ) -> Result<Self, NetError> {
        let socket = udp_socket(interface, address, "TFTP")?;
        Ok(TftpServer {
            interface: interface.to_owned(),
            address: *address.ip(),
            socket,
            files,
            shared,
            busy: Arc::default(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves for ever.
    pub async fn run(self) {
        let mut buffer = vec![0; 2048];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((length, from)) => {
                    if let Some(packet) = wire::parse(&buffer[..length]) {
                        self.packet(packet, from).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "TFTP: receiving failed");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn packet(&self, packet: Packet, from: SocketAddr) {
        // A stranger gets no answer at all: no amplifier, and nothing to learn.
        let Some(peer) = self.shared.peer(from.ip()) else {
            tracing::debug!(%from, "TFTP: not an address of the boot table; ignored");
            return;
        };
        let refusal = match packet {
            Packet::Read(request) => match self.begin(&request, &peer, from) {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
            Packet::Write => (ErrorCode::AccessViolation, "this server only reads"),
            // Acknowledgements belong to the port of their transfer.
            Packet::Ack(_) => (ErrorCode::UnknownTransfer, "no such transfer"),
            Packet::Error { .. } => return,
        };
        if let Err(error) = self.socket.send_to(&wire::error(refusal.0, refusal.1), from).await {
            tracing::debug!(%from, %error, "TFTP: sending failed");
        }
    }

    fn begin(&self, request: &ReadRequest, peer: &Peer, from: SocketAddr) -> Result<(), (ErrorCode, &'static str)> {
        if request.mode != "octet" {
            return Err((ErrorCode::Undefined, "only octet mode is served"));
        }
        let name = request.file.trim_start_matches(['/', '\\']);
        let Some((&name, file)) = self.files.get_key_value(name) else {
            if name == LOCAL_DISK {
                self.shared.note(peer, "TFTP: told the firmware to go on to its own disk".to_owned());
                return Err((ErrorCode::NotFound, "this host boots from its own disk"));
            }
            self.shared.note(peer, format!("TFTP: there is no file {:?}", shortened(name)));
            return Err((ErrorCode::NotFound, "no such boot loader"));
        };
        let Some(place) = Place::take(&self.busy, from.ip()) else {
            return Err((ErrorCode::Undefined, "too many transfers at once; try again"));
        };
        // Port 0: each transfer has a port of its own (RFC 1350 section 4).
        let address = SocketAddrV4::new(self.address, 0);
        let socket = udp_socket(&self.interface, address, "TFTP").map_err(|error| {
            tracing::error!(%error, "TFTP: no socket for a transfer");
            (ErrorCode::Undefined, "the server has no socket left; try again")
        })?;
        let timeout = request.timeout.map_or(TIMEOUT, |seconds| Duration::from_secs(seconds.into()));
        let transfer = Transfer::new(file.clone(), request);
        let job = Job { name, size: file.len(), peer: peer.clone(), shared: Arc::clone(&self.shared), timeout };
        tokio::spawn(async move {
            job.run(&socket, from, transfer).await;
            drop(place);
        });
        Ok(())
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(80).collect()
}

/// One of a client's places; given back when dropped.
struct Place {
    busy: Arc<Mutex<HashMap<IpAddr, usize>>>,
    client: IpAddr,
}

impl Place {
    fn take(busy: &Arc<Mutex<HashMap<IpAddr, usize>>>, client: IpAddr) -> Option<Place> {
        let mut all = busy.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(client).or_default();
        if *count >= PER_CLIENT {
            return None;
        }
        *count += 1;
        Some(Place { busy: Arc::clone(busy), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.client);
            }
        }
    }
}

struct Job {
    name: &'static str,
    size: usize,
    peer: Peer,
    shared: Arc<Shared>,
    timeout: Duration,
}

impl Job {
    async fn run(&self, socket: &UdpSocket, client: SocketAddr, mut transfer: Transfer) {
        let started = crate::clock::now();
        let mut tries = 0;
        let mut packets = transfer.current();
        let mut buffer = vec![0; 2048];
        'sending: loop {
            for packet in &packets {
                if let Err(error) = socket.send_to(packet, client).await {
                    tracing::debug!(%client, %error, "TFTP: sending failed");
                }
            }
            let deadline = tokio::time::Instant::now() + self.timeout;
            loop {
                let received = tokio::time::timeout_at(deadline, socket.recv_from(&mut buffer)).await;
                let (length, from) = match received {
                    Ok(Ok(received)) => received,
                    Ok(Err(error)) => {
                        self.failed(&transfer, &format!("the client refuses packets ({error})"));
                        return;
                    }
                    Err(_) if tries < TRIES => {
                        tries += 1;
                        packets = transfer.current();
                        continue 'sending;
                    }
                    Err(_) => {
                        self.failed(&transfer, "the client fell silent");
                        return;
                    }
                };
                if from != client {
                    // RFC 1350 section 4: tell the stranger, go on with the transfer.
                    let refusal = wire::error(ErrorCode::UnknownTransfer, "not your transfer");
                    if let Err(error) = socket.send_to(&refusal, from).await {
                        tracing::debug!(%from, %error, "TFTP: sending failed");
                    }
                    continue;
                }
                match wire::parse(&buffer[..length]) {
                    Some(Packet::Ack(number)) => match transfer.on_ack(number) {
                        Next::Send(next) => {
                            tries = 0;
                            packets = next;
                            continue 'sending;
                        }
                        Next::Ignore => {}
                        Next::Done => {
                            self.done(started.elapsed());
                            return;
                        }
                    },
                    Some(Packet::Error { code, message }) => {
                        // Nothing delivered yet: the client only wanted to know the size.
                        if transfer.delivered() == 0 {
                            tracing::debug!(%client, code, message, "TFTP: client looked at the options only");
                        } else {
                            self.failed(&transfer, &format!("the client gave up: error {code} {message}"));
                        }
                        return;
                    }
                    Some(Packet::Read(_) | Packet::Write) | None => {}
                }
            }
        }
    }

    fn done(&self, elapsed: Duration) {
        self.shared.reached(&self.peer, Stage::LoaderServed);
        let what = format!("TFTP {} {} KiB in {:.1} s", self.name, self.size.div_ceil(1024), elapsed.as_secs_f64());
        self.shared.note(&self.peer, what);
    }

    fn failed(&self, transfer: &Transfer, why: &str) {
        let what = format!("TFTP {} stopped after {} of {} bytes: {why}", self.name, transfer.delivered(), self.size);
        self.shared.note(&self.peer, what);
    }
}
