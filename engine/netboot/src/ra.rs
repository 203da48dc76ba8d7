//! IPv6 router advertisements that route nothing.
//!
//! iPXE configures IPv6 next to IPv4 and waits for a router before it goes on, though DHCPv4 was done within a second. A
//! router advertisement with lifetime 0, no prefix and no flags (RFC 4861 section 4.2: "not a default router", "no DHCPv6
//! here") ends that wait at once. Nobody gets an IPv6 address or a route from it.
//!
//! Solicitations are answered to all nodes (`ff02::1`): a unicast answer would need a neighbour entry first. Besides, an
//! advertisement goes out every few seconds, since iPXE does not repeat a solicitation that was lost while a bridge or
//! switch port was not forwarding yet.

use std::io::Read as _;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::NetError;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// ICMPv6 types (RFC 4861 sections 4.1 and 4.2).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Between unsolicited advertisements.
pub const EVERY: Duration = Duration::from_secs(4);
/// The longest wait for a solicitation before looking at the clock.
const TICK: Duration = Duration::from_millis(250);
/// A flood of solicitations must not become a flood of multicasts.
const NOT_SOONER: Duration = Duration::from_millis(100);

/// The advertisement. The kernel fills in the checksum (RFC 3542 section 3.1).
pub fn advertisement() -> [u8; 16] {
    let mut message = [0; 16];
    message[0] = ROUTER_ADVERTISEMENT;
    // Current hop limit 64; flags 0: addresses and everything else are not to be had by DHCPv6; router lifetime 0.
    message[4] = 64;
    message
}

/// True for a router solicitation (RFC 4861 section 6.1.1, as far as the message itself tells).
pub fn is_solicitation(message: &[u8]) -> bool {
    message.len() >= 8 && message[0] == ROUTER_SOLICITATION && message[1] == 0
}

/// Advertises on one interface.
#[derive(Debug)]
pub struct Advertiser {
    socket: Socket,
    to: SocketAddrV6,
}

/// Ends the advertising thread when its future is dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Advertiser {
    /// Opens the raw socket.
    ///
    /// # Errors
    /// [`NetError::Bind`] without CAP_NET_RAW or without IPv6 in the kernel.
    pub fn bind(interface: &str) -> Result<Self, NetError> {
        let open = || -> std::io::Result<Advertiser> {
            let index = if_nametoindex(interface)?;
            let socket = Socket::new(Domain::IPV6, Type::RAW.cloexec(), Some(Protocol::ICMPV6))?;
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.set_multicast_hops_v6(255)?;
            socket.set_unicast_hops_v6(255)?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_loop_v6(false)?;
            socket.join_multicast_v6(&ALL_ROUTERS, index)?;
            socket.set_read_timeout(Some(TICK))?;
            Ok(Advertiser { socket, to: SocketAddrV6::new(ALL_NODES, 0, 0, index) })
        };
        open().map_err(|source| NetError::Bind {
            protocol: "router advertisement",
            address: "ICMPv6".to_owned(),
            interface: interface.to_owned(),
            source,
        })
    }

    /// Advertises until the future is dropped.
    ///
    /// A thread of its own with a blocking socket: tokio has no raw sockets, and this one sees a packet a minute.
    pub async fn run(self) {
        let stop = Stop(Arc::default());
        let stopped = Arc::clone(&stop.0);
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("router-adv".to_owned()).spawn(move || {
            self.advertise(&stopped);
            drop(ended);
        });
        match thread {
            // The sender is dropped, never used: this waits for the thread to end.
            Ok(_) => _ = end.await,
            Err(error) => tracing::error!(%error, "no thread for router advertisements"),
        }
    }

    fn advertise(&self, stopped: &AtomicBool) {
        let mut last: Option<Instant> = None;
        let mut failing = false;
        let mut buffer = [0; 1500];
        while !stopped.load(Ordering::Relaxed) {
            let wait = match (&self.socket).read(&mut buffer) {
                Ok(length) if is_solicitation(&buffer[..length]) => NOT_SOONER,
                // Another message, or nothing for a moment.
                Ok(_) | Err(_) => EVERY,
            };
            // After a failure the next attempt does not wait: the first port may have come up.
            if !failing && last.is_some_and(|at| at.elapsed() < wait) {
                continue;
            }
            // A bridge has no address to send from until its first port is up.
            match self.socket.send_to(&advertisement(), &self.to.into()) {
                Ok(_) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::debug!(%error, "router advertisement not sent; is the interface up and IPv6 enabled?");
                    }
                    failing = true;
                    std::thread::sleep(TICK);
                }
            }
            last = Some(crate::clock::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advertisement_offers_no_route_no_prefix_and_no_dhcpv6() {
        let message = advertisement();
        assert_eq!((message[0], message[1]), (134, 0));
        assert_eq!(message[5], 0, "M and O flags");
        assert_eq!(message[6..8], [0, 0], "router lifetime");
        assert_eq!(message.len(), 16, "no options");
    }

    #[test]
    fn only_solicitations_are_answered() {
        assert!(is_solicitation(&[133, 0, 0, 0, 0, 0, 0, 0]));
        assert!(is_solicitation(&[133, 0, 1, 2, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0, 0, 1]));
        for message in
            [&[][..], &[133], &[133, 0, 0, 0, 0, 0, 0], &[134, 0, 0, 0, 0, 0, 0, 0], &[133, 1, 0, 0, 0, 0, 0, 0]]
        {
            assert!(!is_solicitation(message), "{message:?}");
        }
    }
}
