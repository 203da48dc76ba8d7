//! Sockets that belong to one interface.

use std::net::{Ipv4Addr, SocketAddrV4};

use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// A socket or interface that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// There is no such interface.
    #[error("there is no network interface {interface:?}; found {}", .found.join(", "))]
    NoInterface {
        /// The one that was asked for.
        interface: String,
        /// Those that exist.
        found: Vec<String>,
    },
    /// The interface does not have our address.
    #[error("interface {interface} does not have the address {expected}, only {}; add it (`ip address add {expected}/… dev {interface}`) or correct --address", or_none(.found))]
    NoAddress {
        /// The interface.
        interface: String,
        /// The address of the configuration.
        expected: Ipv4Addr,
        /// The IPv4 addresses it has.
        found: Vec<Ipv4Addr>,
    },
    /// The socket cannot be opened.
    #[error(
        "{protocol} cannot listen on {address} of interface {interface}: {source}; is another {protocol} server running, or the capability (CAP_NET_BIND_SERVICE, CAP_NET_RAW) missing?"
    )]
    Bind {
        /// Which protocol it is for.
        protocol: &'static str,
        /// Where.
        address: String,
        /// On which interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The kernel does not tell its interfaces.
    #[error("network interfaces cannot be listed: {0}")]
    List(#[source] std::io::Error),
}

fn or_none(found: &[Ipv4Addr]) -> String {
    if found.is_empty() {
        "none".to_owned()
    } else {
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Checks that the interface exists and has the address: a DHCP server that names an address which is not there serves
/// nobody, and nobody is told why.
///
/// # Errors
/// [`NetError`] with what there is instead.
pub fn check_interface(interface: &str, address: Ipv4Addr) -> Result<(), NetError> {
    let all = getifaddrs().map_err(|errno| NetError::List(errno.into()))?;
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    for one in all {
        if one.interface_name == interface
            && let Some(ip) = one.address.as_ref().and_then(|a| a.as_sockaddr_in().map(|a| a.ip()))
        {
            addresses.push(ip);
        }
        if !names.contains(&one.interface_name) {
            names.push(one.interface_name);
        }
    }
    if !names.iter().any(|name| name == interface) {
        return Err(NetError::NoInterface { interface: interface.to_owned(), found: names });
    }
    if !addresses.contains(&address) {
        return Err(NetError::NoAddress { interface: interface.to_owned(), expected: address, found: addresses });
    }
    Ok(())
}

/// A UDP socket that sends and receives on one interface only, broadcasts included.
///
/// # Errors
/// [`NetError::Bind`].
pub fn udp_socket(interface: &str, address: SocketAddrV4, protocol: &'static str) -> Result<UdpSocket, NetError> {
    let open = || -> std::io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    open().map_err(|source| NetError::Bind {
        protocol,
        address: address.to_string(),
        interface: interface.to_owned(),
        source,
    })
}
