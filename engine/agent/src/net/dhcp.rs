//! The client's half of DHCPv4 (RFC 2131, options of RFC 2132), as far as an installer needs it: DISCOVER, OFFER,
//! REQUEST, ACK. Pure functions over bytes; packets from the network are parsed with every length checked.

use std::net::Ipv4Addr;

use vmetal_model::MacAddr;

const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const BROADCAST_FLAG: u16 = 0x8000;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const OPTIONS_AT: usize = 240;
/// Old relays drop shorter messages (RFC 1542 section 2.1).
const MIN_MESSAGE: usize = 300;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;

mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const PARAMETERS: u8 = 55;
    pub(super) const MAX_SIZE: u8 = 57;
    pub(super) const VENDOR_CLASS: u8 = 60;
    pub(super) const CLIENT_ID: u8 = 61;
    pub(super) const END: u8 = 255;
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// An address is available.
    Offer,
    /// The address is ours.
    Ack,
    /// The address is not ours.
    Nak,
}

/// An address, as offered or given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Ours.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// The way out of the network, if any.
    pub router: Option<Ipv4Addr>,
    /// Who gave it.
    pub server: Ipv4Addr,
}

/// One attempt to get an address.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    mac: MacAddr,
    transaction: u32,
}

impl Client {
    /// An attempt under a transaction number that nobody else on the link uses.
    pub fn new(mac: MacAddr, transaction: u32) -> Self {
        Client { mac, transaction }
    }

    /// The message that looks for servers, `seconds` after the first.
    pub fn discover(&self, seconds: u16) -> Vec<u8> {
        self.message(1, seconds, &[])
    }

    /// The message that takes an offer.
    pub fn request(&self, offer: &Lease, seconds: u16) -> Vec<u8> {
        let address = offer.address.octets();
        let server = offer.server.octets();
        self.message(3, seconds, &[(option::REQUESTED_ADDRESS, &address), (option::SERVER, &server)])
    }

    fn message(&self, kind: u8, seconds: u16, more: &[(u8, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; OPTIONS_AT];
        message[0] = BOOT_REQUEST;
        // Ethernet, addresses of six bytes.
        message[1] = 1;
        message[2] = 6;
        message[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        message[8..10].copy_from_slice(&seconds.to_be_bytes());
        message[10..12].copy_from_slice(&BROADCAST_FLAG.to_be_bytes());
        message[28..34].copy_from_slice(&self.mac.0);
        message[236..240].copy_from_slice(&COOKIE);
        let mut put = |code: u8, value: &[u8]| {
            // All values here are far shorter than 255 bytes.
            message.extend([code, value.len() as u8]);
            message.extend(value);
        };
        put(option::MESSAGE_TYPE, &[kind]);
        // The identifier that firmware and iPXE use too, so that the server sees one client (RFC 2132 section 9.14).
        let mut id = vec![1];
        id.extend(self.mac.0);
        put(option::CLIENT_ID, &id);
        put(option::MAX_SIZE, &1500u16.to_be_bytes());
        put(option::VENDOR_CLASS, b"vmetal-agent");
        for (code, value) in more {
            put(*code, value);
        }
        put(option::PARAMETERS, &[option::MASK, option::ROUTER]);
        message.push(option::END);
        if message.len() < MIN_MESSAGE {
            message.resize(MIN_MESSAGE, 0);
        }
        message
    }

    /// What a message says, if it is an answer to this attempt.
    pub fn answer(&self, message: &[u8]) -> Option<(MessageKind, Lease)> {
        let ours = *message.first()? == BOOT_REPLY
            && message.get(4..8)? == self.transaction.to_be_bytes()
            && message.get(28..34)? == self.mac.0
            && message.get(236..OPTIONS_AT)? == COOKIE;
        if !ours {
            return None;
        }
        let options = message.get(OPTIONS_AT..)?;
        let kind = match find(options, option::MESSAGE_TYPE)? {
            [2] => MessageKind::Offer,
            [5] => MessageKind::Ack,
            [6] => MessageKind::Nak,
            _ => return None,
        };
        let address = Ipv4Addr::from(*message.get(16..)?.first_chunk::<4>()?);
        let usable = !(address.is_unspecified() || address.is_multicast() || address.is_broadcast());
        if kind != MessageKind::Nak && !usable {
            return None;
        }
        Some((
            kind,
            Lease {
                address,
                prefix: find(options, option::MASK).and_then(prefix).unwrap_or(classful(address)),
                router: find(options, option::ROUTER).and_then(first_address),
                server: find(options, option::SERVER).and_then(first_address)?,
            },
        ))
    }
}

/// The value of the first option with this code.
fn find(mut options: &[u8], code: u8) -> Option<&[u8]> {
    loop {
        let (&found, rest) = options.split_first()?;
        match found {
            option::PAD => options = rest,
            option::END => return None,
            _ => {
                let (&length, rest) = rest.split_first()?;
                let value = rest.get(..usize::from(length))?;
                if found == code {
                    return Some(value);
                }
                options = rest.get(usize::from(length)..)?;
            }
        }
    }
}

fn first_address(value: &[u8]) -> Option<Ipv4Addr> {
    value.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes))
}

fn prefix(mask: &[u8]) -> Option<u8> {
    let mask = u32::from(first_address(mask)?);
    // A mask is ones and then zeros; at most 32 of them.
    (mask.leading_ones() + mask.trailing_zeros() >= 32).then_some(mask.leading_ones() as u8)
}

/// What a missing mask means (RFC 950).
fn classful(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// Puts a message into an IPv4 and UDP packet from client to server port.
pub fn datagram(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    // Messages are a few hundred bytes.
    let udp_length = (UDP_HEADER + payload.len()) as u16;
    let mut packet = vec![0; IP_HEADER];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(IP_HEADER as u16 + udp_length).to_be_bytes());
    packet[8] = 64;
    packet[9] = UDP;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    let checksum = !sum(0, &packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());

    let mut udp = Vec::with_capacity(usize::from(udp_length));
    for word in [CLIENT_PORT, SERVER_PORT, udp_length, 0] {
        udp.extend(word.to_be_bytes());
    }
    udp.extend(payload);
    let pseudo = sum(sum(sum(0, &packet[12..20]), &[0, UDP]), &udp_length.to_be_bytes());
    // Zero would mean "not computed" (RFC 768).
    let checksum = match !sum(pseudo, &udp) {
        0 => 0xffff,
        checksum => checksum,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(udp);
    packet
}

/// The content of an IPv4 and UDP packet from server to client port. Checksums are not looked at: hardware and virtual
/// links fill them in late or never, and the content is matched by transaction and address.
pub fn payload(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
    let packet = packet.get(..total)?;
    let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff;
    if first >> 4 != 4 || header < IP_HEADER || fragment != 0 || *packet.get(9)? != UDP {
        return None;
    }
    let udp = packet.get(header..)?;
    let word = |at: usize| udp.get(at..).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b));
    if word(0)? != SERVER_PORT || word(2)? != CLIENT_PORT {
        return None;
    }
    udp.get(UDP_HEADER..usize::from(word(4)?))
}

/// The Internet checksum's running sum (RFC 1071).
fn sum(start: u16, bytes: &[u8]) -> u16 {
    let mut total = u32::from(start);
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    /// A server's answer, made by hand.
    fn reply(client: &Client, kind: u8, options: &[u8]) -> Vec<u8> {
        let mut message = client.discover(0);
        message.truncate(OPTIONS_AT);
        message[0] = BOOT_REPLY;
        message[16..20].copy_from_slice(&[10, 0, 2, 15]);
        message.extend([0, option::MESSAGE_TYPE, 1, kind, option::SERVER, 4, 10, 0, 2, 2]);
        message.extend(options);
        message.push(option::END);
        message
    }

    #[test]
    fn an_exchange_gives_a_lease() {
        let client = Client::new(MAC, 0xdead_beef);
        let discover = client.discover(3);
        assert!(discover.len() >= MIN_MESSAGE);
        assert_eq!(discover[..12], [1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 3, 0x80, 0]);
        assert_eq!(find(&discover[OPTIONS_AT..], option::MESSAGE_TYPE), Some(&[1][..]));
        assert_eq!(find(&discover[OPTIONS_AT..], option::CLIENT_ID).unwrap()[1..], MAC.0);

        let options = [option::MASK, 4, 255, 255, 240, 0, option::ROUTER, 8, 10, 0, 2, 1, 10, 0, 2, 9];
        let (kind, lease) = client.answer(&reply(&client, 2, &options)).unwrap();
        let expected = Lease {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 20,
            router: Some(Ipv4Addr::new(10, 0, 2, 1)),
            server: Ipv4Addr::new(10, 0, 2, 2),
        };
        assert_eq!((kind, &lease), (MessageKind::Offer, &expected));
        let request = client.request(&lease, 4);
        assert_eq!(find(&request[OPTIONS_AT..], option::REQUESTED_ADDRESS), Some(&[10, 0, 2, 15][..]));
        assert_eq!(find(&request[OPTIONS_AT..], option::SERVER), Some(&[10, 0, 2, 2][..]));
        let (kind, lease) = client.answer(&reply(&client, 5, &[])).unwrap();
        assert_eq!((kind, lease.prefix, lease.router), (MessageKind::Ack, 8, None));
        assert_eq!(client.answer(&reply(&client, 6, &[])).unwrap().0, MessageKind::Nak);
    }

    #[test]
    fn answers_to_others_are_not_ours() {
        let client = Client::new(MAC, 1);
        let good = reply(&client, 2, &[]);
        assert!(client.answer(&good).is_some());
        assert!(Client::new(MAC, 2).answer(&good).is_none(), "transaction");
        assert!(Client::new(MacAddr([2; 6]), 1).answer(&good).is_none(), "address");
        assert!(client.answer(&client.discover(0)).is_none(), "a request");
        assert_eq!(prefix(&[255, 0, 255, 0]), None, "no mask");
    }

    #[test]
    fn packets_round_trip_with_right_checksums() {
        let packet = datagram(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"odd");
        assert_eq!(sum(0, &packet[..IP_HEADER]), 0xffff);
        let length = (packet.len() - IP_HEADER) as u16;
        let pseudo = sum(sum(sum(0, &packet[12..20]), &[0, UDP]), &length.to_be_bytes());
        assert_eq!(sum(pseudo, &packet[IP_HEADER..]), 0xffff);
        assert_eq!(payload(&packet), None, "from client to server");
        let mut answer = packet.clone();
        answer[20..24].copy_from_slice(&[0, 67, 0, 68]);
        assert_eq!(payload(&answer), Some(&b"odd"[..]));
        // Ethernet pads short packets.
        answer.extend([0; 20]);
        assert_eq!(payload(&answer), Some(&b"odd"[..]));
    }

    proptest! {
        #[test]
        fn noise_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0usize..600, cut in 0usize..600) {
            let client = Client::new(MAC, 7);
            let _ = payload(&bytes);
            let _ = client.answer(&bytes);
            let mut message = reply(&client, 2, &[option::MASK, 4, 255, 255, 255, 0]);
            if let (Some(place), Some(byte)) = (message.get_mut(at), bytes.first()) {
                *place = *byte;
            }
            message.truncate(cut.max(1));
            let _ = client.answer(&message);
        }
    }
}
