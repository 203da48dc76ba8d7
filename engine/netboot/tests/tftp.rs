//! The TFTP server as clients see it, over loopback sockets.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which measure real time")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use support::{agent, host};
use vmetal_model::boot::BootTable;
use vmetal_netboot::assets::Assets;
use vmetal_netboot::record::{Events, Recorder};
use vmetal_netboot::shared::Shared;
use vmetal_netboot::table::Table;
use vmetal_netboot::tftp::server::TftpServer;

/// Longer than anything takes that happens at all.
const PATIENT: Duration = Duration::from_mins(1);

struct Server {
    address: SocketAddr,
    events: Events,
    runtime: tokio::runtime::Runtime,
}

/// Serves the test assets to 127.0.0.1 alone. `None` without the right to bind to a device.
fn server() -> Option<Server> {
    let dir = tempfile::tempdir().unwrap();
    support::assets(dir.path());
    let loaders = Arc::new(Assets::load(dir.path()).unwrap().loaders());
    let (recorder, events) = Recorder::new();
    let shared = Arc::new(Shared::new(recorder));
    let mut entry = host("a", 1, agent("1", "t"));
    entry.address = Ipv4Addr::LOCALHOST;
    shared.tables.store(Table::new(BootTable { revision: 1, entries: vec![entry] }).0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let entered = runtime.enter();
    let bound = TftpServer::bind("lo", SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), loaders, shared);
    drop(entered);
    let server = match bound {
        Ok(server) => server,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            return None;
        }
    };
    let address = server.local_addr().unwrap();
    runtime.spawn(server.run());
    Some(Server { address, events, runtime })
}

impl Server {
    fn next_event(&mut self) -> String {
        let next = async { tokio::time::timeout(PATIENT, self.events.next()).await };
        self.runtime.block_on(next).expect("an event").unwrap().what
    }
}

fn client(address: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENT)).unwrap();
    socket
}

fn request(operation: u8, file: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = vec![0, operation];
    for text in [file, "octet"].into_iter().chain(options.iter().flat_map(|(name, value)| [*name, *value])) {
        packet.extend_from_slice(text.as_bytes());
        packet.push(0);
    }
    packet
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from)
}

/// Fetches a file as firmware would; drops every `lose`th data packet.
fn fetch(server: &Server, file: &str, block: usize, options: &[(&str, &str)], window: u16, lose: usize) -> Vec<u8> {
    let socket = client(Ipv4Addr::LOCALHOST);
    socket.send_to(&request(1, file, options), server.address).unwrap();
    let (mut got, mut last, mut seen, mut in_window) = (Vec::new(), 0u16, 0usize, 0u16);
    loop {
        let (packet, from) = receive(&socket);
        let ack = |number: u16| {
            let [high, low] = number.to_be_bytes();
            socket.send_to(&[0, 4, high, low], from).unwrap();
        };
        match packet[1] {
            6 => ack(0),
            3 => {
                seen += 1;
                if lose > 0 && seen % lose == 0 {
                    continue;
                }
                let number = u16::from_be_bytes([packet[2], packet[3]]);
                if number != last.wrapping_add(1) {
                    // A gap: say what arrived; the server sends the window again.
                    ack(last);
                    in_window = 0;
                    continue;
                }
                last = number;
                in_window += 1;
                got.extend_from_slice(&packet[4..]);
                let end = packet.len() - 4 < block;
                if end || in_window == window {
                    ack(last);
                    in_window = 0;
                }
                if end {
                    return got;
                }
            }
            other => panic!("operation {other}: {}", String::from_utf8_lossy(&packet[4..])),
        }
    }
}

#[test]
fn loaders_arrive_whole_with_and_without_options_and_are_recorded() {
    let Some(mut server) = server() else { return };
    let wanted = support::contents("snponly.efi");
    assert_eq!(fetch(&server, "snponly.efi", 512, &[], 1, 0), wanted);
    let what = server.next_event();
    assert!(what.starts_with("TFTP snponly.efi 684 KiB in "), "{what}");
    let large = [("tsize", "0"), ("blksize", "1468")];
    assert_eq!(fetch(&server, "/snponly.efi", 1468, &large, 1, 0), wanted, "a leading slash is forgiven");
    let windowed = [("blksize", "1024"), ("windowsize", "16")];
    assert_eq!(fetch(&server, "snponly.efi", 1024, &windowed, 16, 0), wanted);
    assert_eq!(fetch(&server, "undionly.kpxe", 512, &[], 1, 0), support::contents("undionly.kpxe"));
}

#[test]
fn lost_packets_are_sent_again() {
    let Some(server) = server() else { return };
    let options = [("blksize", "1468"), ("windowsize", "8")];
    assert_eq!(fetch(&server, "snponly.efi", 1468, &options, 8, 101), support::contents("snponly.efi"));
}

#[test]
fn firmware_that_asks_for_the_size_and_aborts_is_no_failure() {
    let Some(mut server) = server() else { return };
    let socket = client(Ipv4Addr::LOCALHOST);
    socket.send_to(&request(1, "snponly.efi", &[("tsize", "0")]), server.address).unwrap();
    let (packet, from) = receive(&socket);
    assert_eq!(&packet[..2], [0, 6]);
    assert_eq!(&packet[2..], b"tsize\x00700000\0");
    assert_ne!(from, server.address, "a transfer has a port of its own");
    socket.send_to(b"\0\x05\0\x08User aborted the transfer\0", from).unwrap();
    assert_eq!(fetch(&server, "snponly.efi", 512, &[], 1, 0).len(), 700_000);
    assert!(server.next_event().starts_with("TFTP snponly.efi 684 KiB"), "the abort is not in the record");
}

#[test]
fn nothing_else_is_to_be_had() {
    let Some(mut server) = server() else { return };
    let socket = client(Ipv4Addr::LOCALHOST);
    for (packet, code) in [
        (request(1, "../../etc/passwd", &[]), 1),
        (request(1, "manifest.json", &[]), 1),
        (request(1, "vmlinuz", &[]), 1),
        (request(1, "", &[]), 1),
        (request(2, "snponly.efi", &[]), 2),
        (b"\0\x01snponly.efi\0netascii\0".to_vec(), 0),
        (b"\0\x04\0\x01".to_vec(), 5),
    ] {
        socket.send_to(&packet, server.address).unwrap();
        let (answer, _) = receive(&socket);
        assert_eq!(&answer[..4], [0, 5, 0, code], "{}", String::from_utf8_lossy(&packet));
    }
    assert!(server.next_event().contains("there is no file \"../../etc/passwd\""));
}

#[test]
fn a_disk_booting_host_is_told_so_at_once() {
    let Some(mut server) = server() else { return };
    let socket = client(Ipv4Addr::LOCALHOST);
    socket.send_to(&request(1, "local-disk", &[("tsize", "0")]), server.address).unwrap();
    let (answer, _) = receive(&socket);
    assert_eq!(&answer[..4], [0, 5, 0, 1]);
    assert!(server.next_event().contains("own disk"));
}

#[test]
fn an_address_of_no_declared_host_hears_nothing() {
    let Some(server) = server() else { return };
    let socket = client(Ipv4Addr::new(127, 0, 0, 2));
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.send_to(&request(1, "snponly.efi", &[]), server.address).unwrap();
    assert!(socket.recv_from(&mut [0; 100]).is_err());
}

#[test]
fn one_client_cannot_take_every_place() {
    let Some(server) = server() else { return };
    let sockets: Vec<UdpSocket> = (0..5).map(|_| client(Ipv4Addr::LOCALHOST)).collect();
    let mut refused = 0;
    // As patient as may be, so that no transfer gives its place back before the last has asked.
    let patient = [("timeout", "255")];
    for socket in &sockets {
        socket.send_to(&request(1, "snponly.efi", &patient), server.address).unwrap();
        let (packet, _) = receive(socket);
        if packet[1] == 5 {
            assert!(String::from_utf8_lossy(&packet).contains("too many transfers"));
            refused += 1;
        }
    }
    assert_eq!(refused, 1);
}
