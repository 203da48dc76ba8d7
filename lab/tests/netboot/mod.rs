//! The least network boot server that SeaBIOS's iPXE accepts: DHCP for one client, TFTP for one file.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

const SERVER: Ipv4Addr = Ipv4Addr::new(172, 22, 9, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 22, 9, 50);
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// Answers DHCP and TFTP until `file` has been fetched once.
pub(crate) fn serve_once(file: &[u8], patience: Duration) -> std::io::Result<()> {
    let deadline = Instant::now() + patience;
    let dhcp = UdpSocket::bind("0.0.0.0:67")?;
    setsockopt(&dhcp, sockopt::Broadcast, &true)?;
    setsockopt(&dhcp, sockopt::BindToDevice, &"br0".into())?;
    let tftp = UdpSocket::bind((SERVER, 69))?;
    for socket in [&dhcp, &tftp] {
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    }
    let mut packet = [0_u8; 2048];
    while Instant::now() < deadline {
        if let Some((length, _)) = receive(&dhcp, &mut packet)?
            && let Some(reply) = dhcp_reply(&packet[..length])
        {
            dhcp.send_to(&reply, "255.255.255.255:68")?;
        }
        if let Some((length, peer)) = receive(&tftp, &mut packet)?
            && length > 2
            && packet[1] == 1
            && send_file(file, peer, &packet[2..length])?
        {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::TimedOut, "nobody fetched the boot file"))
}

fn receive(socket: &UdpSocket, packet: &mut [u8]) -> std::io::Result<Option<(usize, SocketAddr)>> {
    match socket.recv_from(packet) {
        Ok(received) => Ok(Some(received)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(e) => Err(e),
    }
}

/// RFC 2131: OFFER for DISCOVER, ACK for REQUEST.
fn dhcp_reply(request: &[u8]) -> Option<Vec<u8>> {
    let options = request.get(240..)?;
    if request[236..240] != MAGIC {
        return None;
    }
    let mut at = 0;
    let mut kind = None;
    while let Some(&code) = options.get(at) {
        match code {
            0 => at += 1,
            255 => break,
            _ => {
                let length = usize::from(*options.get(at + 1)?);
                if code == 53 {
                    kind = options.get(at + 2).copied();
                }
                at += 2 + length;
            }
        }
    }
    let answer = match kind? {
        1 => 2,
        3 => 5,
        _ => return None,
    };
    let mut reply = vec![0_u8; 240];
    reply[0] = 2;
    reply[1..4].copy_from_slice(&request[1..4]);
    reply[4..8].copy_from_slice(&request[4..8]);
    reply[10..12].copy_from_slice(&[0x80, 0]);
    reply[16..20].copy_from_slice(&CLIENT.octets());
    reply[20..24].copy_from_slice(&SERVER.octets());
    reply[28..44].copy_from_slice(&request[28..44]);
    reply[108..113].copy_from_slice(b"boot\0");
    reply[236..240].copy_from_slice(&MAGIC);
    reply.extend([53, 1, answer, 54, 4]);
    reply.extend(SERVER.octets());
    reply.extend([51, 4, 0, 0, 14, 16, 1, 4, 255, 255, 255, 0, 255]);
    Some(reply)
}

/// RFC 1350 and 2347 to 2349: one small file, with an acknowledgement of the options asked for. False when the client gave up early,
/// as it does after asking for the size only.
fn send_file(file: &[u8], peer: SocketAddr, request: &[u8]) -> std::io::Result<bool> {
    let socket = UdpSocket::bind((SERVER, 0))?;
    socket.connect(peer)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let words: Vec<String> =
        request.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).to_ascii_lowercase()).collect();
    let mut options = Vec::new();
    for pair in words.get(2..).unwrap_or_default().chunks_exact(2) {
        let value = match pair[0].as_str() {
            "tsize" => file.len().to_string(),
            "blksize" => pair[1].clone(),
            _ => continue,
        };
        options.extend([pair[0].as_bytes(), &[0], value.as_bytes(), &[0]].concat());
    }
    if !options.is_empty() && !acknowledged(&socket, &[&[0, 6][..], &options].concat())? {
        return Ok(false);
    }
    // Smaller than any block size, so the first block is the last.
    acknowledged(&socket, &[&[0, 3, 0, 1], file].concat())
}

fn acknowledged(socket: &UdpSocket, packet: &[u8]) -> std::io::Result<bool> {
    let mut answer = [0_u8; 512];
    for _ in 0..5 {
        socket.send(packet)?;
        match socket.recv(&mut answer) {
            Ok(length) if length >= 4 => return Ok(answer[1] == 4),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}
