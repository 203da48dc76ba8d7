//! Three requests to the kernel's routing socket (rtnetlink(7)): interface up, address, default route.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

const HEADER: usize = 16;
const SEQUENCE: u32 = 1;

/// Brings an interface up.
pub(super) fn set_up(index: u32) -> io::Result<()> {
    // struct ifinfomsg: family, pad, type, index, flags, change.
    let mut body = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    let up = libc::IFF_UP as u32;
    body.extend(up.to_ne_bytes());
    body.extend(up.to_ne_bytes());
    request(libc::RTM_NEWLINK, 0, &body)
}

/// Gives an interface an address. Giving the same again is no error.
pub(super) fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut body = vec![libc::AF_INET as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, libc::IFA_LOCAL, &address.octets());
    attribute(&mut body, libc::IFA_ADDRESS, &address.octets());
    if prefix < 31 {
        let broadcast = Ipv4Addr::from(u32::from(address) | (u32::MAX >> prefix));
        attribute(&mut body, libc::IFA_BROADCAST, &broadcast.octets());
    }
    request(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
}

/// Sets the default route.
pub(super) fn add_default_route(index: u32, router: Ipv4Addr) -> io::Result<()> {
    // struct rtmsg: family, destination and source prefix length, type of service, table, protocol, scope, type, flags.
    let mut body = vec![
        libc::AF_INET as u8,
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    attribute(&mut body, libc::RTA_GATEWAY, &router.octets());
    attribute(&mut body, libc::RTA_OIF, &index.to_ne_bytes());
    request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
}

/// Appends an attribute; all values here are multiples of four bytes, so that no padding is needed.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn request(kind: u16, flags: i32, body: &[u8]) -> io::Result<()> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(SEQUENCE.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);

    let fd: OwnedFd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    error_of(&answer[..length])
}

/// The answer to a request with an acknowledgement is one error message, whose number is 0 or negative.
fn error_of(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|b| b.first_chunk()).map(|b| u16::from_ne_bytes(*b));
    let code = answer.get(HEADER..).and_then(|b| b.first_chunk()).map(|b| i32::from_ne_bytes(*b));
    match (kind, code) {
        (Some(kind), Some(0)) if i32::from(kind) == libc::NLMSG_ERROR => Ok(()),
        (Some(kind), Some(code)) if i32::from(kind) == libc::NLMSG_ERROR => Err(Errno::from_raw(-code).into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected answer from the routing socket")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_kernel_understands_and_refuses_what_is_not_there() {
        // No interface has this number, so that nothing is changed whoever runs the test.
        let absent = i32::MAX as u32;
        let code = |result: io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
        // A message that the kernel cannot read would be EINVAL.
        let expected = [libc::ENODEV, libc::EPERM, libc::ENETUNREACH];
        assert!(expected.contains(&code(set_up(absent))));
        assert!(expected.contains(&code(add_address(absent, Ipv4Addr::new(192, 0, 2, 1), 24))));
        assert!(expected.contains(&code(add_default_route(absent, Ipv4Addr::new(192, 0, 2, 254)))));
        assert!(error_of(&[]).is_err());
    }
}
