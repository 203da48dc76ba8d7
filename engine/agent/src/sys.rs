//! The system calls that nix does not wrap. The only file of this crate with unsafe code.
#![allow(unsafe_code, reason = "ioctl, finit_module and packet socket addresses have no safe wrapper")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Ioctl numbers of `linux/fs.h`.
mod ioctl {
    nix::ioctl_none!(blkrrpart, 0x12, 95);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), libc::c_int);
    nix::ioctl_read!(blkgetsize64, 0x12, 114, libc::size_t);
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

/// Capacity of a block device in bytes.
pub(crate) fn block_size(file: &File) -> io::Result<u64> {
    let mut size: libc::size_t = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 (declared as size_t) to the pointer, which outlives the call.
    unsafe { ioctl::blkgetsize64(file.as_raw_fd(), &mut size) }?;
    Ok(size as u64)
}

/// Logical sector size of a block device in bytes.
pub(crate) fn sector_size(file: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int to the pointer, which outlives the call.
    unsafe { ioctl::blksszget(file.as_raw_fd(), &mut size) }?;
    u32::try_from(size).map_err(io::Error::other)
}

/// Discards a range of a block device (BLKDISCARD). What is read afterwards is up to the device.
pub(crate) fn discard(file: &File, offset: u64, length: u64) -> io::Result<()> {
    // SAFETY: BLKDISCARD reads two u64 from the pointer, which outlives the call.
    unsafe { ioctl::blkdiscard(file.as_raw_fd(), &[offset, length]) }?;
    Ok(())
}

/// Makes the kernel read the partition table again.
pub(crate) fn reread_partitions(file: &File) -> io::Result<()> {
    // SAFETY: BLKRRPART takes no argument.
    unsafe { ioctl::blkrrpart(file.as_raw_fd()) }?;
    Ok(())
}

/// Loads a kernel module from an opened file.
pub(crate) fn load_module(file: &File) -> io::Result<()> {
    let parameters: &CStr = c"";
    // SAFETY: the descriptor is open, the string ends with NUL, and both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket that sends and receives IPv4 packets on one interface, below the kernel's own IP: usable before the
/// interface has an address (packet(7)).
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    interface: i32,
}

impl PacketSocket {
    pub(crate) fn open(interface: u32) -> io::Result<Self> {
        let protocol = i32::from((libc::ETH_P_IP as u16).to_be());
        // SAFETY: socket takes no pointers.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let socket = PacketSocket { fd, interface: i32::try_from(interface).map_err(io::Error::other)? };
        let address = socket.address([0; 6]);
        // SAFETY: the address is a sockaddr_ll of the given length and outlives the call.
        let result = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                mem::size_of_val(&address) as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
    }

    fn address(&self, mac: [u8; 6]) -> libc::sockaddr_ll {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&mac);
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_IP as u16).to_be(),
            sll_ifindex: self.interface,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: address,
        }
    }

    /// Sends an IPv4 packet to everyone on the link.
    pub(crate) fn broadcast(&self, packet: &[u8]) -> io::Result<()> {
        let address = self.address([0xff; 6]);
        // SAFETY: packet and address are valid for the given lengths and outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                mem::size_of_val(&address) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for an IPv4 packet. `None` when none came in time.
    pub(crate) fn receive(&self, buffer: &mut [u8], timeout: std::time::Duration) -> io::Result<Option<usize>> {
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which outlives the call.
        match unsafe { libc::poll(&mut poll, 1, milliseconds) } {
            0 => return Ok(None),
            n if n < 0 => return Err(io::Error::last_os_error()),
            _ => {}
        }
        // SAFETY: the buffer is valid for its length and outlives the call.
        let got = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(Some(got as usize)) }
    }
}
