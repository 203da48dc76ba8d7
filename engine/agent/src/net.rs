//! Bringing up the interface that the machine was booted over, and nothing else.
//!
//! The kernel's own `ip=dhcp` is not compiled into Debian's cloud kernel and knows nothing of retries, so address and
//! route are set here: a DHCPv4 client ([`dhcp`]) on a packet socket and a few netlink messages. The address is a
//! reservation that the engine holds for the host, so that the lease is not renewed: nobody else gets the address while
//! the installer runs, and it runs for minutes.

pub mod dhcp;
mod netlink;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use vmetal_model::MacAddr;

use crate::clock;
use crate::console::say;
use crate::inventory::{self, Sysfs};
use crate::sys::PacketSocket;
use dhcp::{Client, Lease, MessageKind};

/// How long one round waits: for the interface, its carrier and an address together.
const ROUND: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// First wait for an answer; doubles up to the last (RFC 2131 section 4.1 suggests 4 to 64 s; an installer that waits a
/// minute for a lost packet helps nobody).
const ANSWER_MIN: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The interface is not there.
    #[error("no interface has the address {mac}; there are: {seen}; the installer may lack the driver")]
    NoInterface {
        /// The boot interface's address.
        mac: MacAddr,
        /// What there is.
        seen: String,
    },
    /// No link.
    #[error("{0} has no carrier: check cable and switch port")]
    NoCarrier(String),
    /// Nobody answered.
    #[error("no DHCP server answered on {interface} within {seconds} s; {reason}")]
    NoLease {
        /// Interface.
        interface: String,
        /// Time spent.
        seconds: u64,
        /// What was seen last.
        reason: String,
    },
    /// The kernel refuses.
    #[error("cannot {doing} {interface}")]
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// Interface.
        interface: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Brings the interface up and gives it an address. One round; call again when it fails.
///
/// # Errors
/// [`NetError`].
pub fn bring_up(sysfs: &Sysfs, mac: MacAddr) -> Result<Lease, NetError> {
    let end = clock::now() + ROUND;
    let name = wait_for_interface(sysfs, mac, end)?;
    let kernel = |doing: &'static str| {
        let interface = name.clone();
        move |source| NetError::Kernel { doing, interface, source }
    };
    let text = |file: &str| {
        fs::read_to_string(sysfs.path("sys/class/net").join(&name).join(file)).unwrap_or_default().trim().to_owned()
    };
    let index: u32 = text("ifindex").parse().map_err(io::Error::other).map_err(kernel("find the index of"))?;
    netlink::set_up(index).map_err(kernel("bring up"))?;
    say(&format!("{name} ({mac}) is up, waiting for its carrier"));
    while text("carrier") != "1" {
        if clock::now() >= end {
            return Err(NetError::NoCarrier(name));
        }
        thread::sleep(LOOK_AGAIN);
    }
    say(&format!("{name} has carrier, asking for an address"));
    let socket = PacketSocket::open(index).map_err(kernel("listen on"))?;
    let lease = lease(&socket, mac, end).map_err(|reason| NetError::NoLease {
        interface: name.clone(),
        seconds: ROUND.as_secs(),
        reason,
    })?;
    netlink::add_address(index, lease.address, lease.prefix).map_err(kernel("give an address to"))?;
    if let Some(router) = lease.router {
        netlink::add_default_route(index, router).map_err(kernel("set the default route over"))?;
    }
    Ok(lease)
}

fn wait_for_interface(sysfs: &Sysfs, mac: MacAddr, end: Instant) -> Result<String, NetError> {
    loop {
        if let Some(name) = inventory::interface_of(sysfs, mac) {
            return Ok(name);
        }
        if clock::now() >= end {
            let nics = inventory::read(sysfs, None).nics;
            let seen: Vec<String> = nics.iter().map(|nic| format!("{} {}", nic.name, nic.mac)).collect();
            let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
            return Err(NetError::NoInterface { mac, seen });
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// DISCOVER to ACK, from the start again after each silence.
fn lease(socket: &PacketSocket, mac: MacAddr, end: Instant) -> Result<Lease, String> {
    let mut client = Client::new(mac, transaction(mac));
    let begun = clock::now();
    let mut patience = ANSWER_MIN;
    let mut reason = "nothing was received".to_owned();
    while clock::now() < end {
        let seconds = u16::try_from(begun.elapsed().as_secs()).unwrap_or(u16::MAX);
        let offer = exchange(socket, &client, &client.discover(seconds), &[MessageKind::Offer], patience);
        match offer {
            Err(what) => reason = what,
            Ok((_, offer)) => {
                let request = client.request(&offer, seconds);
                match exchange(socket, &client, &request, &[MessageKind::Ack, MessageKind::Nak], patience) {
                    Ok((MessageKind::Ack, lease)) => return Ok(lease),
                    Ok(_) => reason = format!("{} was offered and then refused", offer.address),
                    Err(_) => reason = format!("{} was offered and then not confirmed", offer.address),
                }
            }
        }
        say(&format!("no address yet: {reason}"));
        client = Client::new(mac, transaction(mac));
        patience = (patience * 2).min(ANSWER_MAX);
    }
    Err(reason)
}

/// Sends one message and waits for an answer of the wanted kinds.
fn exchange(
    socket: &PacketSocket,
    client: &Client,
    message: &[u8],
    wanted: &[MessageKind],
    patience: Duration,
) -> Result<(MessageKind, Lease), String> {
    let packet = dhcp::datagram(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, message);
    socket.broadcast(&packet).map_err(|e| format!("sending failed: {e}"))?;
    let end = clock::now() + patience;
    let mut buffer = [0; 2048];
    loop {
        let left = end.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err("nothing was received".to_owned());
        }
        match socket.receive(&mut buffer, left) {
            Ok(Some(length)) => {
                if let Some(answer) = dhcp::payload(&buffer[..length]).and_then(|payload| client.answer(payload))
                    && wanted.contains(&answer.0)
                {
                    return Ok(answer);
                }
            }
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("receiving failed: {e}")),
        }
    }
}

/// A number that other machines on the link will not have chosen in the same minute.
fn transaction(mac: MacAddr) -> u32 {
    let mut bytes = [0; 4];
    let random = fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    if random.is_err() {
        // Answers are also matched by hardware address, so that this does well enough.
        bytes.copy_from_slice(&mac.0[2..]);
    }
    u32::from_le_bytes(bytes)
}
