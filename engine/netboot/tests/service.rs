//! The whole process on a network of its own: packets as they are on the wire, and an engine that goes away and comes back.
//!
//! Needs root and iproute2; otherwise skipped.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which measure real time")]

mod support;

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};
use support::{FakeEngine, agent, host};

/// Longer than anything takes that happens at all.
const PATIENT: Duration = Duration::from_mins(1);

/// Two namespaces joined by a cable: the service in one, machines in the other.
struct Net {
    name: String,
    child: Option<Child>,
    dir: tempfile::TempDir,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Net {
    fn new() -> Option<Net> {
        let name = format!("vmns-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &format!("{name}-a")]).output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: no right to make a network namespace");
            return None;
        }
        let net = Net { name: name.clone(), child: None, dir: tempfile::tempdir().unwrap() };
        ip(&format!("netns add {name}-b"));
        ip(&format!("-n {name}-a link add prov0 type veth peer name eth0 netns {name}-b"));
        ip(&format!("-n {name}-a address add 172.22.0.1/24 dev prov0"));
        ip(&format!("-n {name}-a link set prov0 up"));
        ip(&format!("-n {name}-b link set eth0 up"));
        Some(net)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn service(&self, address: &str, interface: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-a", self.name), env!("CARGO_BIN_EXE_vmetal-netboot"), "serve"]);
        command.args(["--interface", interface, "--address", address, "--gateway", "172.22.0.254", "--dns", "9.9.9.9"]);
        command.arg("--engine-socket").arg(self.dir.path().join("engine.sock"));
        command.arg("--assets").arg(self.dir.path()).arg("--images").arg(self.dir.path());
        command
    }

    fn start(&mut self) {
        let log = File::create(self.dir.path().join("log")).unwrap();
        let child = self.service("172.22.0.1/24", "prov0").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + PATIENT;
        while !self.log().contains("serving network boot") {
            assert!(Instant::now() < deadline, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs in the machines' namespace.
    fn there<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}-b", self.name)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                run()
            });
            thread.join().unwrap()
        })
    }

    /// Asks for an address as firmware would, from an interface without one.
    fn discover(&self, number: u8) -> Option<Message> {
        // Another number for each question: an answer that comes late is not one to the next.
        static NEXT: AtomicU32 = AtomicU32::new(77);
        let xid = NEXT.fetch_add(1, Ordering::Relaxed);
        self.there(|| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
            socket.bind_device(Some(b"eth0")).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68).into()).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let none = Ipv4Addr::UNSPECIFIED;
            let mut message = Message::new_with_id(xid, none, none, none, none, &[0x52, 0x54, 0, 0, 0, number]);
            message.set_flags(Flags::default().set_broadcast());
            message.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
            message.opts_mut().insert(DhcpOption::ClassIdentifier(b"PXEClient:Arch:00007:UNDI:003010".to_vec()));
            let mut bytes = Vec::new();
            message.encode(&mut Encoder::new(&mut bytes)).unwrap();
            socket.send_to(&bytes, &SocketAddrV4::new(Ipv4Addr::BROADCAST, 67).into()).unwrap();
            let mut buffer = [0; 1500];
            loop {
                let length = (&socket).read(&mut buffer).ok()?;
                let answer = Message::decode(&mut Decoder::new(&buffer[..length])).unwrap();
                if answer.xid() == xid {
                    return Some(answer);
                }
            }
        })
    }

    fn offered(&self, number: u8, address: Ipv4Addr) -> Message {
        let deadline = Instant::now() + PATIENT;
        loop {
            match self.discover(number) {
                Some(offer) if offer.yiaddr() == address => return offer,
                other => assert!(Instant::now() < deadline, "{other:?}\n{}", self.log()),
            }
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        for side in ["a", "b"] {
            let _ = Command::new("ip").args(["netns", "delete", &format!("{}-{side}", self.name)]).output();
        }
    }
}

#[test]
fn the_service_answers_from_the_newest_table_and_outlives_the_engine() {
    let Some(mut net) = Net::new() else { return };
    support::assets(net.dir.path());

    // What cannot work is said at once.
    for (address, interface, words) in [
        ("172.22.0.9/24", "prov0", "does not have the address 172.22.0.9, only 172.22.0.1"),
        ("172.22.0.1/24", "eth7", "there is no network interface \"eth7\"; found lo, prov0"),
        ("172.22.0.1", "prov0", "is not an address with a prefix length"),
    ] {
        let output = net.service(address, interface).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(words), "{text}");
    }

    // It starts before the engine does, and answers nobody.
    net.start();
    assert_eq!(net.discover(1), None);

    let engine = FakeEngine::new(vec![host("node-1", 1, agent("attempt-1", "token-1"))]);
    let socket = net.dir.path().join("engine.sock");
    let serving = engine.serve_until_dropped(&socket);
    let offer = net.offered(1, Ipv4Addr::new(172, 22, 0, 11));
    assert_eq!(offer.siaddr(), Ipv4Addr::new(172, 22, 0, 1));
    assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!(net.discover(2), None, "nobody declared it");

    // A new table takes effect without anything being reloaded.
    engine.set(vec![
        host("node-1", 1, agent("attempt-1", "token-1")),
        host("node-2", 2, agent("attempt-2", "token-2")),
        host("node-4", 4, agent("attempt-4", "token-4")),
    ]);
    net.offered(2, Ipv4Addr::new(172, 22, 0, 12));

    // The engine goes away: the last table holds.
    drop(serving);
    net.offered(1, Ipv4Addr::new(172, 22, 0, 11));
    let deadline = Instant::now() + PATIENT;
    while !net.log().contains("the engine is away") {
        assert!(Instant::now() < deadline, "{}", net.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Its first word falls into that time; a host that was heard of a moment ago would not be reported again.
    net.offered(4, Ipv4Addr::new(172, 22, 0, 14));

    // Another one comes, with another table, and hears what happened meanwhile.
    let engine = FakeEngine::new(vec![host("node-3", 3, agent("attempt-3", "token-3"))]);
    let _serving = engine.serve_until_dropped(&socket);
    net.offered(3, Ipv4Addr::new(172, 22, 0, 13));
    assert_eq!(net.discover(1), None, "no longer declared");
    let deadline = Instant::now() + PATIENT;
    while !engine.heard().iter().any(|event| event.starts_with("DHCP offer 172.22.0.14")) {
        assert!(Instant::now() < deadline, "{:?}", engine.heard());
        std::thread::sleep(Duration::from_millis(50));
    }

    // A machine that solicits routers is told that there are none to wait for.
    let advertisement = net.there(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.bind_device(Some(b"eth0")).unwrap();
        socket.set_read_timeout(Some(PATIENT)).unwrap();
        let mut buffer = [0; 1500];
        loop {
            let length = (&socket).read(&mut buffer).expect("a router advertisement");
            if buffer[0] == 134 {
                return buffer[..length].to_vec();
            }
        }
    });
    assert_eq!(
        (advertisement.len(), &advertisement[4..8]),
        (16, &[64, 0, 0, 0][..]),
        "no flags, no lifetime, no prefix"
    );

    // Asked to end, it ends.
    let child = net.child.as_mut().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let deadline = Instant::now() + PATIENT;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < deadline, "it goes on"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{}", net.log());
}
