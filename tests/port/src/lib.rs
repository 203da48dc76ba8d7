//! Ports for programs that tests and the demo start.

use std::hash::{BuildHasher, RandomState};
use std::io::{Error, ErrorKind};
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below it are ports that people configure.
const FIRST: u16 = 10_000;

/// A TCP port that is free on 127.0.0.1 now. The kernel gives it to no outgoing connection, and this process hands it out once,
/// so it stays free for a program that is started or started again later, unless another one is told to use it.
///
/// # Errors
/// [`ErrorKind::AddrInUse`] when there is none.
pub fn free_port() -> Result<u16, Error> {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // ip(7): the range of ports for outgoing connections; ours are below it.
    let outgoing = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = outgoing.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let count = end.max(FIRST + 1000) - FIRST;
    // Each process begins elsewhere: what is free now is another's only a moment later.
    let next = NEXT.get_or_init(|| AtomicU16::new(RandomState::new().hash_one(std::process::id()) as u16));
    let mut tries = (0..count).map(|_| FIRST + next.fetch_add(1, Ordering::Relaxed) % count);
    let free = tries.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.ok_or_else(|| {
        Error::new(ErrorKind::AddrInUse, "no port below the range of outgoing connections is free on 127.0.0.1")
    })
}
