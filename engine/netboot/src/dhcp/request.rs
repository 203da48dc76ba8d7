//! A client's packet, read defensively.
//!
//! `dhcproto`'s zero-copy view finds the options (long options joined per RFC 3396); their contents are read here, because
//! the typed decoders of that crate trust lengths the client chose, and because option 93 is a list (RFC 4578 section 2.1)
//! and option 77 comes in two forms (RFC 3004, and the bare text that iPXE and others send).

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::Message;
use dhcproto::v4::{MessageType, Opcode, OptionCode};
use vmetal_model::net::MacAddr;

/// The smallest packet with a DHCP magic cookie (RFC 2131 section 2).
const HEADER: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// What matters of a client's packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The client's hardware address: the only key of a reservation. A client identifier changes between firmware, loader,
    /// installer and operating system, and is only echoed.
    pub mac: MacAddr,
    /// Transaction.
    pub xid: u32,
    /// The 16 flag bits; the highest asks for broadcast replies.
    pub flags: u16,
    /// The address the client has and can be reached at, or 0.0.0.0.
    pub ciaddr: Ipv4Addr,
    /// The relay, or 0.0.0.0.
    pub giaddr: Ipv4Addr,
    /// DISCOVER, REQUEST ...
    pub kind: MessageType,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    /// Option 57: the longest message the client takes, in bytes.
    pub max_size: Option<u16>,
    /// Option 61, echoed (RFC 6842).
    pub client_id: Option<Vec<u8>>,
    /// Option 97: the machine's UUID, echoed (RFC 4578 section 2.3).
    pub machine_id: Option<Vec<u8>>,
    /// Option 82, echoed as the last option (RFC 3046 section 2.2).
    pub relay: Option<Vec<u8>>,
    /// What kind of program asks.
    pub client: Client,
}

/// What kind of program asks, told by the packet alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// An operating system or the installer: wants an address, not a boot file.
    Plain,
    /// PXE firmware: fetches its boot file by TFTP.
    Pxe(Vec<Arch>),
    /// UEFI HTTP boot firmware: fetches its boot file by URL.
    HttpBoot(Vec<Arch>),
    /// iPXE, in a ROM or fetched.
    Ipxe {
        /// What the machine is.
        arch: Vec<Arch>,
        /// Whether this build can fetch a kernel by HTTP and start it.
        build: IpxeBuild,
    },
}

/// What an iPXE build can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpxeBuild {
    /// Runs our script.
    Full,
    /// Lacks HTTP or a way to start Linux (some network card and hypervisor ROMs): needs our own build first.
    Crippled,
}

/// A client system architecture: a number of IANA's "Processor Architecture Types" registry (RFC 4578, RFC 5970).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Arch(pub u16);

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("BIOS"),
            6 => f.write_str("UEFI x86 32-bit"),
            7 | 9 => f.write_str("UEFI x86-64"),
            10 => f.write_str("UEFI ARM 32-bit"),
            11 => f.write_str("UEFI ARM 64-bit"),
            15 => f.write_str("UEFI x86 32-bit HTTP boot"),
            16 => f.write_str("UEFI x86-64 HTTP boot"),
            19 => f.write_str("UEFI ARM 64-bit HTTP boot"),
            other => write!(f, "architecture {other}"),
        }
    }
}

/// A packet that is not a DHCP request over Ethernet. Dropped: such packets are answered by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than the fixed part.
    #[error("{0} bytes; a DHCP message has at least 240")]
    Short(usize),
    /// A reply, or nonsense.
    #[error("not a request of a client")]
    NotARequest,
    /// Plain BOOTP, or something else on the port.
    #[error("no DHCP magic cookie")]
    NoCookie,
    /// Another kind of network, or a group address.
    #[error("hardware type {htype}, address length {hlen}; expected a unicast Ethernet address")]
    NotEthernet {
        /// The `htype` field.
        htype: u8,
        /// The `hlen` field.
        hlen: u8,
    },
    /// No option 53.
    #[error("no message type")]
    NoKind,
}

/// Reads one packet.
///
/// # Errors
/// [`Malformed`] when it is not a DHCP request of an Ethernet client. Unreadable options are taken as absent.
pub fn parse(packet: &[u8]) -> Result<Request, Malformed> {
    let message = Message::new(packet).map_err(|_| Malformed::Short(packet.len()))?;
    if packet.get(HEADER - 4..HEADER) != Some(&MAGIC) {
        return Err(Malformed::NoCookie);
    }
    if message.opcode() != Opcode::BootRequest {
        return Err(Malformed::NotARequest);
    }
    let (htype, hlen) = (packet[1], packet[2]);
    let mac = MacAddr(message.chaddr_checked(packet).ok_or(Malformed::NotEthernet { htype, hlen })?);
    if htype != 1 || mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
        return Err(Malformed::NotEthernet { htype, hlen });
    }
    let options = Options::collect(&message);
    let kind = options.get(53).and_then(|data| data.first()).map(|&kind| MessageType::from(kind));
    Ok(Request {
        mac,
        xid: message.xid(),
        flags: message.flags().into(),
        ciaddr: message.ciaddr(),
        giaddr: message.giaddr(),
        kind: kind.ok_or(Malformed::NoKind)?,
        requested: options.address(50),
        server: options.address(54),
        max_size: options.get(57).and_then(|data| data.try_into().ok()).map(u16::from_be_bytes),
        client_id: options.get(61).map(<[u8]>::to_vec),
        machine_id: options.get(97).map(<[u8]>::to_vec),
        relay: options.get(82).map(<[u8]>::to_vec),
        client: client(&options),
    })
}

/// `Message::chaddr` slices by the length the client wrote and would panic on a lie.
trait CheckedChaddr {
    fn chaddr_checked(&self, packet: &[u8]) -> Option<[u8; 6]>;
}

impl CheckedChaddr for Message<'_> {
    fn chaddr_checked(&self, packet: &[u8]) -> Option<[u8; 6]> {
        if self.hlen() != 6 {
            return None;
        }
        packet.get(28..34)?.try_into().ok()
    }
}

/// Options by code; repeated ones joined in order (RFC 3396).
struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    fn collect(message: &Message<'_>) -> Self {
        let mut all: Vec<(u8, Vec<u8>)> = Vec::new();
        for option in message.opts() {
            let code = u8::from(option.code());
            match all.iter_mut().find(|(known, _)| *known == code) {
                Some((_, data)) => data.extend_from_slice(option.data()),
                None => all.push((code, option.data().to_vec())),
            }
        }
        Options(all)
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == code).map(|(_, data)| data.as_slice())
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.get(code)?.try_into().ok()?;
        Some(bytes.into())
    }
}

fn client(options: &Options) -> Client {
    let class = options.get(60).unwrap_or_default();
    let arch = architectures(options.get(93), class);
    let encapsulated = options.get(175);
    if encapsulated.is_some() || options.get(77).is_some_and(user_class_is_ipxe) {
        return Client::Ipxe { arch, build: encapsulated.map_or(IpxeBuild::Full, build) };
    }
    if class.starts_with(b"HTTPClient") {
        Client::HttpBoot(arch)
    } else if class.starts_with(b"PXEClient") {
        Client::Pxe(arch)
    } else {
        Client::Plain
    }
}

/// Option 93 as the list it is; else the number in `PXEClient:Arch:00007:UNDI:003010`.
fn architectures(option: Option<&[u8]>, class: &[u8]) -> Vec<Arch> {
    match option {
        Some(list) => list.chunks_exact(2).map(|pair| Arch(u16::from_be_bytes([pair[0], pair[1]]))).collect(),
        None => {
            let number = class.split(|&byte| byte == b':').skip_while(|part| *part != b"Arch").nth(1);
            let number = number.and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse().ok());
            number.map(Arch).into_iter().collect()
        }
    }
}

fn user_class_is_ipxe(data: &[u8]) -> bool {
    let names_it = |text: &[u8]| text == b"iPXE" || text == b"gPXE";
    if names_it(data) {
        return true;
    }
    let mut rest = data;
    while let Some((&length, tail)) = rest.split_first() {
        let Some(class) = tail.get(..usize::from(length)) else { return false };
        if names_it(class) {
            return true;
        }
        rest = &tail[usize::from(length)..];
    }
    false
}

/// Reads the feature list iPXE sends inside option 175: sub-option 19 HTTP, 24 bzImage, 36 EFI.
fn build(data: &[u8]) -> IpxeBuild {
    const HTTP: u8 = 19;
    const BZIMAGE: u8 = 24;
    const EFI: u8 = 36;
    let mut features = Vec::new();
    let mut rest = data;
    while let [code, tail @ ..] = rest {
        match *code {
            0 => rest = tail,
            255 => break,
            code => {
                let Some((&length, value)) = tail.split_first() else { break };
                let Some(value) = value.get(..usize::from(length)) else { break };
                if value.iter().any(|&byte| byte != 0) {
                    features.push(code);
                }
                rest = &tail[1 + usize::from(length)..];
            }
        }
    }
    let listed = features.iter().any(|code| (16..64).contains(code));
    let starts_linux = features.contains(&BZIMAGE) || features.contains(&EFI);
    if listed && !(features.contains(&HTTP) && starts_linux) { IpxeBuild::Crippled } else { IpxeBuild::Full }
}

/// Codes the replies use that `dhcproto` has no type for.
pub(crate) fn code(number: u8) -> OptionCode {
    OptionCode::from(number)
}
