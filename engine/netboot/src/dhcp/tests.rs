//! Scripted clients, one per rule.
#![allow(clippy::unwrap_used, reason = "tests")]

use dhcproto::v4::{Flags, Message};
use dhcproto::{Decodable, Decoder};
use vmetal_model::boot::BootTarget;

use super::request::{IpxeBuild, Malformed, parse};
use super::*;
use crate::session::{LOADER_WINDOW, MAX_ROUNDS, UNKNOWN_EVERY};
use crate::testing::{SERVER, agent_entry, disk_entry, table};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 22, 0, 11);
const SCRIPT: &[u8] = b"http://172.22.0.1:8080/boot/52-54-00-00-00-01/script.ipxe";
const UEFI: &[u8] = &[0, 7];
const BIOS: &[u8] = &[0, 0];

/// The server under test, with one host that boots the installer (MAC …:01, spare …:99) and one that boots its disk (…:02).
struct World {
    table: Table,
    sessions: Sessions,
    config: DhcpConfig,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut a = agent_entry("a", 1);
        a.macs.push(MacAddr([0x52, 0x54, 0, 0, 0, 0x99]));
        World {
            table: table(vec![a, disk_entry("b", 2)]),
            sessions: Sessions::default(),
            config: DhcpConfig {
                server: SERVER,
                prefix_len: 24,
                http: HttpBase { address: SERVER, port: 8080 },
                gateway: Some(Ipv4Addr::new(172, 22, 0, 254)),
                dns: vec![Ipv4Addr::new(9, 9, 9, 9)],
                lease: Duration::from_secs(3600),
            },
            now: crate::clock::now(),
        }
    }

    fn ask(&mut self, client: &Packet) -> Answer {
        let request = parse(&client.bytes()).unwrap();
        answer(&request, &self.table, &mut self.sessions, &self.config, self.now)
    }

    /// The reply as the client reads it, off the wire.
    fn reply(&mut self, client: &Packet) -> Message {
        let reply = self.ask(client).reply.expect("an answer");
        let bytes = reply.encode().unwrap();
        assert!((MIN_MESSAGE..=MAX_MESSAGE).contains(&bytes.len()), "{} bytes", bytes.len());
        Message::decode(&mut Decoder::new(&bytes)).unwrap()
    }

    fn who(&self) -> Who<'static> {
        Who { mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]), attempt: "attempt-of-a" }
    }
}

/// A client's packet under construction.
#[derive(Clone)]
struct Packet(Message);

impl Packet {
    fn new(kind: MessageType, number: u8) -> Self {
        let unset = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(0x1234_5678, unset, unset, unset, unset, &[0x52, 0x54, 0, 0, 0, number]);
        message.set_flags(Flags::default().set_broadcast());
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        Packet(message)
    }

    fn with(mut self, code: u8, data: &[u8]) -> Self {
        self.0.opts_mut().insert(unknown_option(code, data.to_vec()));
        self
    }

    fn kind(mut self, kind: MessageType) -> Self {
        self.0.opts_mut().insert(DhcpOption::MessageType(kind));
        self
    }

    fn pxe(arch: &[u8]) -> Self {
        Packet::new(MessageType::Discover, 1)
            .with(60, b"PXEClient:Arch:00007:UNDI:003010")
            .with(93, arch)
            .with(97, &[0; 17])
    }

    fn ipxe() -> Self {
        Packet::pxe(UEFI).with(77, b"iPXE").with(175, &[19, 1, 1, 36, 1, 1])
    }

    fn plain(kind: MessageType) -> Self {
        Packet::new(kind, 1)
    }

    fn at_address(mut self, address: Ipv4Addr) -> Self {
        self.0.set_ciaddr(address);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.encode(&mut Encoder::new(&mut bytes)).unwrap();
        bytes
    }
}

fn bytes_of(message: &Message, number: u8) -> Option<Vec<u8>> {
    let option = message.opts().get(request::code(number))?;
    Some(match option {
        DhcpOption::BootfileName(data)
        | DhcpOption::TFTPServerName(data)
        | DhcpOption::ClassIdentifier(data)
        | DhcpOption::ClientIdentifier(data)
        | DhcpOption::VendorExtensions(data)
        | DhcpOption::ClientMachineIdentifier(data) => data.clone(),
        DhcpOption::Unknown(unknown) => unknown.data().to_vec(),
        other => panic!("unexpected {other:?}"),
    })
}

fn boot_file(message: &Message) -> Option<String> {
    bytes_of(message, 67).map(|data| String::from_utf8(data).unwrap())
}

#[test]
fn a_discover_is_offered_the_reserved_address_with_everything_a_client_needs() {
    let mut world = World::new();
    let offer = world.reply(&Packet::plain(MessageType::Discover).with(61, b"\x01id"));
    assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!((offer.yiaddr(), offer.xid()), (ADDRESS, 0x1234_5678));
    let has = |option: DhcpOption| assert_eq!(offer.opts().get((&option).into()), Some(&option));
    has(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
    has(DhcpOption::BroadcastAddr(Ipv4Addr::new(172, 22, 0, 255)));
    has(DhcpOption::Router(vec![Ipv4Addr::new(172, 22, 0, 254)]));
    has(DhcpOption::DomainNameServer(vec![Ipv4Addr::new(9, 9, 9, 9)]));
    has(DhcpOption::ServerIdentifier(SERVER));
    has(DhcpOption::AddressLeaseTime(3600));
    has(DhcpOption::Hostname("a".to_owned()));
    assert_eq!(bytes_of(&offer, 61).unwrap(), b"\x01id", "RFC 6842");
    assert_eq!(boot_file(&offer), None, "an operating system gets no boot file");
}

#[test]
fn every_way_of_requesting_is_acknowledged() {
    let mut world = World::new();
    let selecting = Packet::plain(MessageType::Request).with(54, &SERVER.octets()).with(50, &ADDRESS.octets());
    let init_reboot = Packet::plain(MessageType::Request).with(50, &ADDRESS.octets());
    let renew = Packet::plain(MessageType::Request).at_address(ADDRESS);
    for (packet, to) in [(selecting, Ipv4Addr::BROADCAST), (init_reboot, Ipv4Addr::BROADCAST), (renew, ADDRESS)] {
        let reply = world.ask(&packet).reply.unwrap();
        assert_eq!(reply.to, (to, 68));
        assert_eq!(reply.message.opts().msg_type(), Some(MessageType::Ack));
        assert_eq!(reply.message.yiaddr(), ADDRESS);
    }
}

#[test]
fn inform_is_told_options_and_no_address() {
    let mut world = World::new();
    let ack = world.reply(&Packet::plain(MessageType::Inform).at_address(ADDRESS));
    assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!(ack.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(!ack.opts().contains(OptionCode::AddressLeaseTime) && ack.opts().contains(OptionCode::SubnetMask));
}

#[test]
fn an_interface_nobody_declared_is_never_answered_and_reported_once_a_minute() {
    let mut world = World::new();
    for kind in [MessageType::Discover, MessageType::Request, MessageType::Inform] {
        let mut stranger = Packet::pxe(UEFI).kind(kind);
        stranger.0.set_chaddr(&[0x52, 0x54, 0, 0, 0, 0x77]);
        assert_eq!(world.ask(&stranger).reply, None);
    }
    let mut stranger = Packet::pxe(UEFI);
    stranger.0.set_chaddr(&[0x52, 0x54, 0, 0, 0, 0x78]);
    let first = world.ask(&stranger);
    assert_eq!(first.notes.len(), 1);
    assert!(first.notes[0].host.is_none() && first.notes[0].what.contains("declare a host"), "{first:?}");
    assert_eq!(world.ask(&stranger).notes, vec![]);
    world.now += UNKNOWN_EVERY;
    assert!(world.ask(&stranger).notes[0].what.contains(" 2 since"), "the count is told");
}

#[test]
fn boot_loaders_go_by_the_exact_architecture_number() {
    for (arch, file) in [
        (&[0, 0][..], Some("undionly.kpxe")),
        (&[0, 7], Some("snponly.efi")),
        (&[0, 9], Some("snponly.efi")),
        (&[0, 6], None),
        (&[0, 2], None),
        (&[0, 10], None),
        (&[0, 11], None),
        (&[0, 11, 0, 7], Some("snponly.efi")),
        (&[7], None),
    ] {
        let mut world = World::new();
        let packet = Packet::pxe(arch);
        let offer = world.reply(&packet);
        assert_eq!(boot_file(&offer).as_deref(), file, "{arch:?}");
        assert_eq!(offer.yiaddr(), ADDRESS, "an address in any case");
        if file.is_none() {
            let notes = world.ask(&packet).notes;
            assert!(notes[0].what.contains("no boot loader for this architecture"), "{notes:?}");
        }
    }
}

#[test]
fn the_text_of_option_60_stands_in_when_option_93_is_absent() {
    let mut world = World::new();
    let old = Packet::new(MessageType::Discover, 1).with(60, b"PXEClient:Arch:00000:UNDI:002001");
    assert_eq!(boot_file(&world.reply(&old)).as_deref(), Some("undionly.kpxe"));
    let mute = Packet::new(MessageType::Discover, 1).with(60, b"PXEClient");
    assert_eq!(boot_file(&world.reply(&mute)), None);
}

#[test]
fn pxe_gets_server_and_file_in_both_places_and_is_told_to_ask_nobody_else() {
    let mut world = World::new();
    for kind in [MessageType::Discover, MessageType::Request] {
        let reply = world.reply(&Packet::pxe(BIOS).kind(kind));
        assert_eq!(reply.siaddr(), SERVER);
        assert_eq!(reply.fname(), Some(&b"undionly.kpxe\0"[..]), "ended by NUL here");
        assert_eq!(bytes_of(&reply, 66).unwrap(), b"172.22.0.1");
        assert_eq!(bytes_of(&reply, 67).unwrap(), b"undionly.kpxe", "no NUL in the option");
        assert_eq!(bytes_of(&reply, 60).unwrap(), b"PXEClient");
        assert_eq!(bytes_of(&reply, 43).unwrap(), [6, 1, 8, 255]);
        assert_eq!(bytes_of(&reply, 97).unwrap(), [0; 17], "the machine's UUID is echoed");
    }
}

#[test]
fn http_boot_gets_its_class_and_a_url_of_address_and_single_slashes_and_nothing_of_pxe() {
    let mut world = World::new();
    let firmware = Packet::new(MessageType::Discover, 1).with(60, b"HTTPClient:Arch:00016:UNDI:003001");
    let offer = world.reply(&firmware.clone().with(93, &[0, 16]));
    assert_eq!(boot_file(&offer).unwrap(), "http://172.22.0.1:8080/boot/52-54-00-00-00-01/ipxe.efi");
    assert_eq!(bytes_of(&offer, 60).unwrap(), b"HTTPClient");
    assert_eq!(bytes_of(&offer, 43), None);
    assert_eq!((offer.siaddr(), offer.fname()), (Ipv4Addr::UNSPECIFIED, None));
    for other in [[0, 15], [0, 19], [0, 7]] {
        assert_eq!(boot_file(&World::new().reply(&firmware.clone().with(93, &other))), None, "{other:?}");
    }
}

#[test]
fn ipxe_is_known_by_any_of_its_signs_and_gets_its_script() {
    let base = || Packet::pxe(UEFI);
    for (sign, packet) in [
        ("raw user class", base().with(77, b"iPXE")),
        ("RFC 3004 user class", base().with(77, b"\x03abc\x04iPXE")),
        ("gPXE", base().with(77, b"gPXE")),
        ("option 175", base().with(175, &[176, 1, 1])),
        ("both", Packet::ipxe()),
    ] {
        let mut world = World::new();
        let offer = world.reply(&packet);
        assert_eq!(bytes_of(&offer, 67).unwrap(), SCRIPT, "{sign}");
        assert_eq!(bytes_of(&offer, 175).unwrap(), [176, 1, 1], "{sign}: do not wait for a ProxyDHCP server");
        assert_eq!(bytes_of(&offer, 43), None);
        assert_eq!(bytes_of(&offer, 60), None);
        assert_eq!(offer.fname(), None, "a URL does not go into the short field");
    }
    for other in [&b"iPX"[..], b"\x03abc", b"\xffiPXE", b""] {
        let mut world = World::new();
        assert_eq!(boot_file(&world.reply(&base().with(77, other))).as_deref(), Some("snponly.efi"), "{other:?}");
    }
}

#[test]
fn an_ipxe_without_http_is_given_ours_first() {
    let mut world = World::new();
    // A hypervisor's ROM: TFTP, DNS and ELF, but neither HTTP nor a way to start Linux.
    let crippled = Packet::pxe(BIOS).with(175, &[21, 1, 1, 23, 1, 1, 34, 1, 1]);
    assert!(matches!(parse(&crippled.bytes()).unwrap().client, Client::Ipxe { build: IpxeBuild::Crippled, .. }));
    assert_eq!(boot_file(&world.reply(&crippled)).as_deref(), Some("undionly.kpxe"));
    world.sessions.reached(world.who(), Stage::LoaderServed, world.now);
    assert_eq!(bytes_of(&world.reply(&crippled), 67).unwrap(), SCRIPT, "but never twice in a row");
}

#[test]
fn a_loader_that_does_not_say_what_it_is_gets_its_script_by_state() {
    let mut world = World::new();
    let silent = Packet::pxe(UEFI);
    assert_eq!(boot_file(&world.reply(&silent)).as_deref(), Some("snponly.efi"));
    world.sessions.reached(world.who(), Stage::LoaderServed, world.now);
    world.now += Duration::from_secs(2);
    assert_eq!(bytes_of(&world.reply(&silent), 67).unwrap(), SCRIPT);
    world.now += LOADER_WINDOW;
    assert_eq!(boot_file(&world.reply(&silent)).as_deref(), Some("snponly.efi"), "a reboot, much later");
}

#[test]
fn a_boot_loop_is_reported_once_and_broken() {
    let mut world = World::new();
    let request = Packet::pxe(UEFI).kind(MessageType::Request);
    let mut found = Vec::new();
    for _ in 0..MAX_ROUNDS + 3 {
        let answer = world.ask(&request);
        found.extend(answer.notes.into_iter().filter(|note| note.what.starts_with("BootLoop")));
        world.now += LOADER_WINDOW;
    }
    assert_eq!(found.len(), 1, "{found:?}");
    let ack = world.reply(&request);
    assert_eq!((boot_file(&ack), ack.yiaddr()), (None, ADDRESS));
    assert_eq!(bytes_of(&world.reply(&Packet::ipxe()), 67).unwrap(), SCRIPT, "a loader is told why");
    // The next attempt is another chance.
    let mut next = agent_entry("a", 1);
    next.target = BootTarget::Agent { attempt: "another".to_owned(), token: "another".to_owned() };
    world.table = table(vec![next]);
    assert_eq!(boot_file(&world.reply(&request)).as_deref(), Some("snponly.efi"));
}

#[test]
fn a_normal_boot_is_one_round_however_many_packets_it_takes() {
    let mut world = World::new();
    for _ in 0..MAX_ROUNDS {
        for _ in 0..4 {
            world.ask(&Packet::pxe(UEFI));
        }
        world.ask(&Packet::pxe(UEFI).kind(MessageType::Request));
        world.sessions.reached(world.who(), Stage::LoaderServed, world.now);
        world.ask(&Packet::ipxe());
        world.ask(&Packet::ipxe().kind(MessageType::Request));
        world.sessions.reached(world.who(), Stage::KernelServed, world.now);
        world.ask(&Packet::plain(MessageType::Request).with(50, &ADDRESS.octets()));
    }
    assert!(!world.sessions.is_looping(world.who(), world.now));
}

#[test]
fn a_host_on_its_own_disk_gets_an_address_and_firmware_is_sent_on() {
    let mut world = World::new();
    let mut firmware = Packet::pxe(UEFI);
    firmware.0.set_chaddr(&[0x52, 0x54, 0, 0, 0, 2]);
    let offer = world.reply(&firmware);
    assert_eq!(offer.yiaddr(), Ipv4Addr::new(172, 22, 0, 12));
    assert_eq!(boot_file(&offer).as_deref(), Some(boot::LOCAL_DISK), "a file that TFTP refuses at once");
    let mut http =
        Packet::new(MessageType::Discover, 2).with(60, b"HTTPClient:Arch:00016:UNDI:003001").with(93, &[0, 16]);
    http.0.set_chaddr(&[0x52, 0x54, 0, 0, 0, 2]);
    assert_eq!(boot_file(&world.reply(&http)).unwrap(), "http://172.22.0.1:8080/boot/52-54-00-00-00-02/local-disk");
    let mut ipxe = Packet::ipxe();
    ipxe.0.set_chaddr(&[0x52, 0x54, 0, 0, 0, 2]);
    assert!(boot_file(&world.reply(&ipxe)).unwrap().ends_with("/boot/52-54-00-00-00-02/script.ipxe"));
    let system = Packet::new(MessageType::Discover, 2);
    assert_eq!(boot_file(&world.reply(&system)), None);
}

#[test]
fn firmware_that_asks_for_a_wrong_address_is_acknowledged_with_its_own() {
    let mut world = World::new();
    let wrong = Ipv4Addr::new(172, 22, 0, 200);
    for packet in [Packet::pxe(UEFI), Packet::ipxe()] {
        let ack = world.reply(&packet.kind(MessageType::Request).with(50, &wrong.octets()));
        assert_eq!((ack.opts().msg_type(), ack.yiaddr()), (Some(MessageType::Ack), ADDRESS));
    }
}

#[test]
fn a_system_that_insists_on_a_wrong_address_is_refused_to_everyones_hearing() {
    let mut world = World::new();
    let wrong = Ipv4Addr::new(172, 22, 0, 200);
    let by_option = Packet::plain(MessageType::Request).with(50, &wrong.octets());
    let by_address = Packet::plain(MessageType::Request).at_address(wrong);
    for packet in [by_option, by_address] {
        let reply = world.ask(&packet).reply.unwrap();
        assert_eq!(reply.to, (Ipv4Addr::BROADCAST, 68));
        assert_eq!(reply.message.opts().msg_type(), Some(MessageType::Nak));
        assert_eq!(reply.message.yiaddr(), Ipv4Addr::UNSPECIFIED);
        assert!(reply.message.opts().get(OptionCode::SubnetMask).is_none());
    }
}

#[test]
fn another_servers_client_is_left_alone_and_that_server_is_reported() {
    let mut world = World::new();
    let answer = world.ask(&Packet::pxe(UEFI).kind(MessageType::Request).with(54, &[172, 22, 0, 66]));
    assert_eq!(answer.reply, None);
    assert!(answer.notes[0].what.contains("another server, 172.22.0.66"), "{answer:?}");
}

#[test]
fn the_client_identifier_never_changes_the_address() {
    let mut world = World::new();
    for id in [&b"\x01\x52\x54\0\0\0\x01"[..], b"\xff\x01\x02\x03", b"x"] {
        assert_eq!(world.reply(&Packet::plain(MessageType::Discover).with(61, id)).yiaddr(), ADDRESS);
    }
}

#[test]
fn any_interface_boots_but_a_system_gets_the_address_once() {
    let mut world = World::new();
    let mut spare = Packet::pxe(UEFI);
    spare.0.set_chaddr(&[0x52, 0x54, 0, 0, 0, 0x99]);
    assert_eq!(boot_file(&world.reply(&spare)).as_deref(), Some("snponly.efi"));

    world.reply(&Packet::plain(MessageType::Request).with(50, &ADDRESS.octets()));
    let mut second = Packet::plain(MessageType::Discover);
    second.0.set_chaddr(&[0x52, 0x54, 0, 0, 0, 0x99]);
    let refused = world.ask(&second);
    assert_eq!(refused.reply, None);
    assert!(refused.notes[0].what.contains("second interface"), "{refused:?}");
    assert!(world.ask(&spare).reply.is_some(), "firmware may boot from another port at any time");

    world.ask(&Packet::plain(MessageType::Release).at_address(ADDRESS));
    assert!(world.ask(&second).reply.is_some(), "free again");
    world.reply(&Packet::plain(MessageType::Request));
    world.now += world.config.lease;
    assert!(world.ask(&second).reply.is_some(), "free when the lease ends");
}

#[test]
fn decline_is_reported_and_not_answered() {
    let mut world = World::new();
    let answer = world.ask(&Packet::plain(MessageType::Decline).with(50, &ADDRESS.octets()));
    assert_eq!(answer.reply, None);
    assert!(answer.notes[0].what.contains("already uses 172.22.0.11"), "{answer:?}");
}

#[test]
fn a_relay_gets_the_reply_with_its_own_option_last() {
    let mut world = World::new();
    let relay = Ipv4Addr::new(172, 22, 0, 253);
    let mut packet = Packet::pxe(UEFI).with(175, &[176, 1, 1]);
    packet.0.set_giaddr(relay);
    let mut bytes = packet.bytes();
    bytes.pop();
    bytes.extend_from_slice(&[82, 6, 1, 4, 0, 1, 0, 2, 255]);
    let request = parse(&bytes).unwrap();
    let reply = answer(&request, &world.table, &mut world.sessions, &world.config, world.now).reply.unwrap();
    assert_eq!(reply.to, (relay, 67));
    assert_eq!(reply.message.giaddr(), relay);
    let bytes = reply.encode().unwrap();
    let end = bytes.iter().rposition(|&byte| byte == 255).unwrap();
    assert_eq!(bytes[end - 8..end], [82, 6, 1, 4, 0, 1, 0, 2]);
    assert_eq!(bytes.windows(2).filter(|pair| *pair == [82, 6]).count(), 1);
}

#[test]
fn a_reply_is_never_longer_than_the_client_takes() {
    let mut world = World::new();
    let mut entry = agent_entry("a", 1);
    entry.host = "x".repeat(63);
    world.table = table(vec![entry]);
    world.config.dns = vec![SERVER; 30];
    let greedy = Packet::ipxe().with(61, &[7; 200]);
    let reply = world.reply(&greedy);
    assert_eq!(bytes_of(&reply, 67).unwrap(), SCRIPT, "what is needed stays");
    assert!(reply.opts().get(OptionCode::DomainNameServer).is_none(), "what is not needed goes first");
    let request = parse(&greedy.with(57, &1500u16.to_be_bytes()).bytes()).unwrap();
    let reply = answer(&request, &world.table, &mut world.sessions, &world.config, world.now).reply.unwrap();
    assert!(reply.message.opts().contains(OptionCode::DomainNameServer), "unless the client takes more");
}

#[test]
fn what_is_no_request_of_an_ethernet_client_is_dropped() {
    let good = Packet::pxe(UEFI).bytes();
    assert!(parse(&good).is_ok());
    assert_eq!(parse(&good[..239]), Err(Malformed::Short(239)));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        parse(&bytes)
    };
    assert_eq!(changed(0, 2), Err(Malformed::NotARequest));
    assert_eq!(changed(236, 0), Err(Malformed::NoCookie));
    assert_eq!(
        changed(2, 255),
        Err(Malformed::NotEthernet { htype: 1, hlen: 255 }),
        "a length that would read too far"
    );
    assert_eq!(changed(1, 6), Err(Malformed::NotEthernet { htype: 6, hlen: 6 }));
    assert_eq!(changed(28, 0xff), Err(Malformed::NotEthernet { htype: 1, hlen: 6 }), "a group address");
    assert_eq!(parse(&good[..240]), Err(Malformed::NoKind));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic_parser_or_answer(
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
        header in proptest::bool::ANY,
    ) {
        let mut world = World::new();
        let mut packet = noise;
        if header {
            let mut good = Packet::pxe(UEFI).bytes();
            good.truncate(240);
            good.extend_from_slice(&packet);
            packet = good;
        }
        if let Ok(request) = parse(&packet) {
            let answer = answer(&request, &world.table, &mut world.sessions, &world.config, world.now);
            if let Some(reply) = answer.reply {
                proptest::prop_assert!(reply.encode().is_ok());
            }
        }
    }

    #[test]
    fn options_of_any_content_keep_the_reply_valid(
        options in proptest::collection::vec(
            (1u8..255, proptest::collection::vec(proptest::num::u8::ANY, 0..255)), 0..6),
        kind in 1u8..14,
    ) {
        let mut world = World::new();
        let mut packet = Packet::pxe(UEFI).bytes();
        packet.truncate(240);
        packet.extend_from_slice(&[53, 1, kind]);
        for (code, data) in options {
            packet.push(code);
            packet.push(data.len() as u8);
            packet.extend_from_slice(&data);
        }
        packet.push(255);
        if let Ok(request) = parse(&packet)
            && let Some(reply) = answer(&request, &world.table, &mut world.sessions, &world.config, world.now).reply
        {
            let bytes = reply.encode().unwrap();
            proptest::prop_assert!(parse_reply(&bytes).is_some());
        }
    }
}

/// Walks a reply's options without trusting `dhcproto`.
fn parse_reply(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes.get(240..)?;
    loop {
        match rest {
            [255, ..] => return Some(()),
            [0, tail @ ..] => rest = tail,
            [_, length, tail @ ..] => rest = tail.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}
