//! DHCPv4, authoritative for one network, from the boot table alone.
//!
//! [`answer`] is a pure function of packet, table, sessions and time; [`server`] moves packets. The rules, each with a
//! scripted client in the tests:
//!
//! * Only declared interfaces are answered. An address is a reservation, never a pool: there is nothing to exhaust, to ping
//!   or to offer twice, and no lease to store.
//! * The key is the hardware address. Client identifiers change between firmware, loader, installer and system.
//! * Firmware is never refused with a NAK: some of it leaves network boot for good. It is re-acknowledged with the address
//!   that is reserved. An operating system that insists on a wrong address gets the NAK that RFC 2131 section 4.3.2 asks of
//!   an authoritative server.
//! * A host with several interfaces has one address; whichever of them boots gets it, but an operating system does not get
//!   it on a second interface while the first holds it.
//! * Boot files come from exact architecture numbers, and from the session where the client does not say what it is
//!   (see [`boot`] and [`crate::session`]).
//! * Replies go to the relay, to the address a client already has, or to everyone on the link. Never by unicast to a client
//!   that has no address yet: that needs an ARP entry nobody can answer for.
//! * A PXE reply says `use the boot file named here` (option 43 sub-option 6, bit 3), so that no firmware waits for a second
//!   server; an HTTP boot reply carries nothing of PXE; iPXE is told not to wait for a ProxyDHCP server (175.176).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dhcproto::v4::{self, DhcpOption, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Encodable, Encoder};
use vmetal_model::boot::BootEntry;
use vmetal_model::net::MacAddr;

use crate::session::{Round, Sessions, Stage, Who};
use crate::table::{Table, attempt};
use boot::{BootFile, Decision, HttpBase, Refusal};
use request::{Client, Request};

pub mod boot;
pub mod request;
pub mod server;
#[cfg(test)]
mod tests;

/// The shortest BOOTP message (RFC 1542 section 2.1): some relays and firmware drop shorter ones.
const MIN_MESSAGE: usize = 300;
/// The longest message a client must take unless it says otherwise (RFC 2131 section 2), less IP and UDP headers.
const MAX_MESSAGE: usize = 576 - 28;

const RELAY_OPTION: u8 = 82;

/// What is the same for every client.
#[derive(Debug, Clone)]
pub struct DhcpConfig {
    /// Our address; also the TFTP server.
    pub server: Ipv4Addr,
    /// The network's prefix length.
    pub prefix_len: u8,
    /// Where HTTP boot files are.
    pub http: HttpBase,
    /// Default router, if the network has one.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// How long an address is granted for.
    pub lease: Duration,
}

impl DhcpConfig {
    fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0))
    }

    /// The network's broadcast address.
    fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.server) | !u32::from(self.mask()))
    }
}

/// What to do about one packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// What to send, if anything.
    pub reply: Option<Reply>,
    /// What to record.
    pub notes: Vec<Note>,
}

/// A message and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The message, without the relay's option.
    pub message: v4::Message,
    /// Option 82 as the relay sent it; goes back as the last option (RFC 3046 section 2.2).
    pub relay: Option<Vec<u8>>,
    /// Address and port.
    pub to: (Ipv4Addr, u16),
}

impl Reply {
    /// The bytes to send, padded to the length old relays expect.
    ///
    /// # Errors
    /// When an option cannot be encoded; our own options always can.
    pub fn encode(&self) -> Result<Vec<u8>, dhcproto::error::EncodeError> {
        let mut bytes = Vec::with_capacity(512);
        self.message.encode(&mut Encoder::new(&mut bytes))?;
        if let Some(relay) = &self.relay
            && let Some(end) = bytes.pop()
        {
            for part in relay.chunks(usize::from(u8::MAX)) {
                bytes.extend([RELAY_OPTION, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
                bytes.extend_from_slice(part);
            }
            bytes.push(end);
        }
        if bytes.len() < MIN_MESSAGE {
            bytes.resize(MIN_MESSAGE, 0);
        }
        Ok(bytes)
    }
}

/// Something worth recording about one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The interface.
    pub mac: MacAddr,
    /// The host, when declared.
    pub host: Option<String>,
    /// What happened, in an operator's words.
    pub what: String,
}

/// Decides about one packet. Sessions are updated as if the reply will arrive.
pub fn answer(request: &Request, table: &Table, sessions: &mut Sessions, config: &DhcpConfig, now: Instant) -> Answer {
    let Some(entry) = table.by_mac(request.mac) else { return unknown(request, sessions, now) };
    let note = |what: String| Note { mac: request.mac, host: Some(entry.host.clone()), what };
    let quiet = |what: String| Answer { reply: None, notes: vec![note(what)] };

    match request.kind {
        MessageType::Release => {
            sessions.release(entry.address, request.mac);
            return quiet(format!("DHCP release {}", request.ciaddr));
        }
        MessageType::Decline => {
            let address = request.requested.unwrap_or(entry.address);
            return quiet(format!(
                "DHCP decline: another machine on the network already uses {address}; find it, or reserve another address"
            ));
        }
        MessageType::Discover | MessageType::Request | MessageType::Inform => {}
        _ => return Answer::default(),
    }
    // A request that names a server accepts that server's offer; another server is on the network.
    if let Some(server) = request.server.filter(|&server| server != config.server) {
        return quiet(format!("DHCP: chose the offer of another server, {server}; there must be only one here"));
    }
    let netboots = request.client != Client::Plain;
    if !netboots
        && request.kind != MessageType::Inform
        && let Some(holder) = sessions.held_by_other(entry.address, request.mac, now)
    {
        return quiet(format!("DHCP: no address for a second interface; {holder} of this host has {}", entry.address));
    }

    let mut notes = Vec::new();
    let decision = boot::decide(request, entry, sessions, &config.http, now);
    let kind = match request.kind {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request if !netboots && wrong_address(request, entry) => MessageType::Nak,
        _ => MessageType::Ack,
    };
    if kind == MessageType::Ack && request.kind == MessageType::Request {
        sessions.hold(entry.address, request.mac, now + config.lease);
        notes.extend(advance(request, entry, &decision, sessions, now).map(&note));
    }
    notes.push(note(describe(request, entry, kind, &decision)));
    let reply = Reply {
        message: build(request, entry, kind, &decision.file, config),
        relay: request.relay.clone(),
        to: destination(request, kind),
    };
    Answer { reply: Some(reply), notes }
}

fn unknown(request: &Request, sessions: &mut Sessions, now: Instant) -> Answer {
    let Some(count) = sessions.count_unknown(request.mac, now) else { return Answer::default() };
    let what = format!(
        "DHCP {} from an interface of no declared host ({}), {count} since the last report: not answered; declare a host with this MAC to serve it",
        verb(request.kind),
        who_asks(request)
    );
    Answer { reply: None, notes: vec![Note { mac: request.mac, host: None, what }] }
}

/// True when the client insists on an address that is not reserved for it.
fn wrong_address(request: &Request, entry: &BootEntry) -> bool {
    let insists_on = if request.ciaddr.is_unspecified() { request.requested } else { Some(request.ciaddr) };
    insists_on.is_some_and(|address| address != entry.address)
}

/// Moves the session along with an acknowledged lease; says so when that closes a loop.
fn advance(
    request: &Request,
    entry: &BootEntry,
    decision: &Decision,
    sessions: &mut Sessions,
    now: Instant,
) -> Option<String> {
    let who = Who { mac: request.mac, attempt: attempt(entry)? };
    let round = match &decision.file {
        BootFile::Tftp(_) | BootFile::Http(_) => sessions.begin_round(who, Stage::LoaderOffered, now),
        BootFile::Script(_) => match sessions.stage(who, now).0 {
            // The loader we delivered goes on; anything else is iPXE in a ROM, or a loader that does not fetch its script.
            Stage::LoaderOffered | Stage::LoaderServed => {
                sessions.reached(who, Stage::ScriptOffered, now);
                Round::Allowed
            }
            _ => sessions.begin_round(who, Stage::ScriptOffered, now),
        },
        BootFile::None | BootFile::Absent => Round::Allowed,
    };
    match round {
        Round::LoopFound { rounds } => Some(format!(
            "BootLoop: network boot of attempt {} began {rounds} times and the installer never called; no more boot files until the next attempt. Look at the host's console: does the loader reach {}?",
            who.attempt,
            match decision.file {
                BootFile::Script(_) => "its script, and does the kernel start",
                _ => "its DHCP request",
            }
        )),
        Round::Allowed | Round::StillLooping => None,
    }
}

fn destination(request: &Request, kind: MessageType) -> (Ipv4Addr, u16) {
    if !request.giaddr.is_unspecified() {
        (request.giaddr, v4::SERVER_PORT)
    } else if kind == MessageType::Nak || request.ciaddr.is_unspecified() {
        (Ipv4Addr::BROADCAST, v4::CLIENT_PORT)
    } else {
        (request.ciaddr, v4::CLIENT_PORT)
    }
}

fn build(request: &Request, entry: &BootEntry, kind: MessageType, file: &BootFile, config: &DhcpConfig) -> v4::Message {
    let mut message = v4::Message::new_with_id(
        request.xid,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        request.giaddr,
        &request.mac.0,
    );
    message.set_opcode(Opcode::BootReply).set_flags(request.flags.into());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(config.server));
    if let Some(id) = &request.client_id {
        options.insert(DhcpOption::ClientIdentifier(id.clone()));
    }
    if kind == MessageType::Nak {
        // A relay must broadcast it: the client may hold an address of another network.
        message.set_flags((request.flags | 0x8000).into());
        return message;
    }
    options.insert(DhcpOption::SubnetMask(config.mask()));
    options.insert(DhcpOption::BroadcastAddr(config.broadcast()));
    options.insert(DhcpOption::Hostname(entry.host.clone()));
    if let Some(gateway) = config.gateway {
        options.insert(DhcpOption::Router(vec![gateway]));
    }
    if !config.dns.is_empty() {
        options.insert(DhcpOption::DomainNameServer(config.dns.clone()));
    }
    message.set_ciaddr(request.ciaddr);
    if request.kind != MessageType::Inform {
        message.set_yiaddr(entry.address);
        let seconds = u32::try_from(config.lease.as_secs()).unwrap_or(u32::MAX);
        message.opts_mut().insert(DhcpOption::AddressLeaseTime(seconds));
    }
    boot_options(&mut message, request, file, config);
    shorten(&mut message, request);
    message
}

fn boot_options(message: &mut v4::Message, request: &Request, file: &BootFile, config: &DhcpConfig) {
    let tftp = |message: &mut v4::Message, name: &str| {
        message.set_siaddr(config.server);
        message.set_fname(name.as_bytes());
        let options = message.opts_mut();
        options.insert(DhcpOption::TFTPServerName(config.server.to_string().into_bytes()));
        options.insert(DhcpOption::BootfileName(name.as_bytes().to_vec()));
        if matches!(request.client, Client::Pxe(_)) {
            options.insert(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
            // PXE 2.1 section 2.2.3: discovery control, bit 3: boot the file named here, ask no boot server.
            options.insert(DhcpOption::VendorExtensions(vec![6, 1, 8, 255]));
        }
    };
    match file {
        BootFile::None => {}
        BootFile::Tftp(name) => tftp(message, name),
        BootFile::Absent => tftp(message, boot::LOCAL_DISK),
        BootFile::Http(url) => {
            let options = message.opts_mut();
            options.insert(DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()));
            options.insert(DhcpOption::BootfileName(url.clone().into_bytes()));
        }
        BootFile::Script(url) => {
            let options = message.opts_mut();
            options.insert(DhcpOption::BootfileName(url.clone().into_bytes()));
            options.insert(unknown_option(175, vec![176, 1, 1]));
        }
    }
    if let Some(id) = &request.machine_id
        && *file != BootFile::None
    {
        message.opts_mut().insert(DhcpOption::ClientMachineIdentifier(id.clone()));
    }
}

fn unknown_option(number: u8, data: Vec<u8>) -> DhcpOption {
    DhcpOption::Unknown(UnknownOption::new(request::code(number), data))
}

/// Leaves out what a client can do without when the message would be longer than it takes.
fn shorten(message: &mut v4::Message, request: &Request) {
    let limit = request.max_size.map_or(MAX_MESSAGE, |size| usize::from(size).saturating_sub(28).max(MAX_MESSAGE));
    let limit = limit.saturating_sub(request.relay.as_ref().map_or(0, |relay| relay.len() + 2));
    let dispensable = [
        OptionCode::DomainNameServer,
        OptionCode::Hostname,
        OptionCode::ClientIdentifier,
        OptionCode::ClientMachineIdentifier,
    ];
    for code in dispensable {
        let mut bytes = Vec::new();
        if message.encode(&mut Encoder::new(&mut bytes)).is_ok() && bytes.len() <= limit {
            return;
        }
        message.opts_mut().remove(code);
    }
}

fn verb(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Discover => "discover",
        MessageType::Offer => "offer",
        MessageType::Request => "request",
        MessageType::Ack => "ack",
        MessageType::Nak => "nak",
        MessageType::Inform => "inform",
        _ => "message",
    }
}

fn who_asks(request: &Request) -> String {
    let list = |arch: &[request::Arch]| match arch {
        [] => "no architecture named".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    match &request.client {
        Client::Plain => "no network boot".to_owned(),
        Client::Pxe(arch) => format!("PXE, {}", list(arch)),
        Client::HttpBoot(arch) => list(arch),
        Client::Ipxe { arch, .. } => format!("iPXE, {}", list(arch)),
    }
}

fn describe(request: &Request, entry: &BootEntry, kind: MessageType, decision: &Decision) -> String {
    let file = match (&decision.file, &decision.refusal) {
        (_, Some(Refusal::NoLoader(_))) => {
            " without a boot file: there is no boot loader for this architecture".to_owned()
        }
        (_, Some(Refusal::Looping)) => " without a boot file: this attempt loops".to_owned(),
        (BootFile::None, None) => String::new(),
        (BootFile::Tftp(name), None) => format!(", {name}"),
        (BootFile::Http(url), None) => format!(", {url}"),
        (BootFile::Script(_), None) => ", script".to_owned(),
        (BootFile::Absent, None) => ", own disk".to_owned(),
    };
    match kind {
        MessageType::Nak => format!(
            "DHCP nak: asked for {}, but {} is reserved for this host",
            request.requested.unwrap_or(request.ciaddr),
            entry.address
        ),
        kind => format!("DHCP {} {} ({}){file}", verb(kind), entry.address, who_asks(request)),
    }
}
