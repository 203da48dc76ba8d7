//! TFTP packets.

/// The largest block we send: 1500 bytes of Ethernet less IP (20), UDP (8) and TFTP (4) headers.
pub const MAX_BLOCK: u16 = 1468;
/// The block size without the option (RFC 1350).
pub const DEFAULT_BLOCK: u16 = 512;
/// The largest window we send.
pub const MAX_WINDOW: u16 = 64;

/// Error codes (RFC 1350 section 5, RFC 2347).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    /// See the message.
    Undefined = 0,
    /// No such file.
    NotFound = 1,
    /// Not for this client, or not for any: writing.
    AccessViolation = 2,
    /// Not a request we know.
    IllegalOperation = 4,
    /// A packet of no transfer.
    UnknownTransfer = 5,
    /// The client does not like our options; firmware that only wanted the size sends it.
    OptionsRefused = 8,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A request to read.
    Read(ReadRequest),
    /// A request to write.
    Write,
    /// Everything up to this block arrived.
    Ack(u16),
    /// The client gives up.
    Error {
        /// Its code.
        code: u16,
        /// Its words.
        message: String,
    },
}

/// A request to read a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// As sent.
    pub file: String,
    /// `octet` or something else, in lower case.
    pub mode: String,
    /// `blksize`, within what the RFC allows.
    pub block: Option<u16>,
    /// `timeout` in seconds.
    pub timeout: Option<u8>,
    /// True when the size is asked for.
    pub size: Asked,
    /// `windowsize` in blocks.
    pub window: Option<u16>,
}

/// Whether an option without a value of its own was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It was.
    Yes,
    /// It was not.
    No,
}

/// Reads one packet; `None` when it is none of TFTP's.
pub fn parse(packet: &[u8]) -> Option<Packet> {
    let (operation, body) = packet.split_first_chunk::<2>()?;
    match u16::from_be_bytes(*operation) {
        1 => read_request(body).map(Packet::Read),
        2 => Some(Packet::Write),
        4 => Some(Packet::Ack(number(body)?)),
        5 => {
            let text = body.get(2..)?;
            let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
            let text = &text[..text.len().min(200)];
            Some(Packet::Error { code: number(body)?, message: String::from_utf8_lossy(text).into_owned() })
        }
        _ => None,
    }
}

fn number(body: &[u8]) -> Option<u16> {
    body.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

fn read_request(body: &[u8]) -> Option<ReadRequest> {
    // Every string ends with NUL; what follows the last one is not a string.
    let end = body.iter().rposition(|&byte| byte == 0)?;
    let mut strings = body[..end].split(|&byte| byte == 0).map(|text| std::str::from_utf8(text).ok());
    let file = strings.next()??.to_owned();
    let mode = strings.next()??.to_ascii_lowercase();
    let mut request = ReadRequest { file, mode, block: None, timeout: None, size: Asked::No, window: None };
    while let (Some(name), Some(value)) = (strings.next(), strings.next()) {
        let (Some(name), Some(value)) = (name, value) else { continue };
        match name.to_ascii_lowercase().as_str() {
            "blksize" => request.block = value.parse::<u32>().ok().and_then(block_size),
            "timeout" => request.timeout = value.parse().ok().filter(|&seconds: &u8| seconds > 0),
            "tsize" => request.size = Asked::Yes,
            "windowsize" => request.window = value.parse().ok().filter(|&blocks: &u16| blocks > 0),
            _ => {}
        }
    }
    Some(request)
}

/// A size the RFC allows, or no option: the server may answer with a smaller one.
fn block_size(asked: u32) -> Option<u16> {
    (8..=65_464).contains(&asked).then(|| u16::try_from(asked).unwrap_or(u16::MAX))
}

/// A data packet.
pub fn data(block: u16, bytes: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(4 + bytes.len());
    packet.extend_from_slice(&3u16.to_be_bytes());
    packet.extend_from_slice(&block.to_be_bytes());
    packet.extend_from_slice(bytes);
    packet
}

/// An option acknowledgement.
pub fn option_ack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut packet = 6u16.to_be_bytes().to_vec();
    for (name, value) in options {
        packet.extend_from_slice(name.as_bytes());
        packet.push(0);
        packet.extend_from_slice(value.to_string().as_bytes());
        packet.push(0);
    }
    packet
}

/// An error packet.
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut packet = 5u16.to_be_bytes().to_vec();
    packet.extend_from_slice(&(code as u16).to_be_bytes());
    packet.extend_from_slice(message.as_bytes());
    packet.push(0);
    packet
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    pub(crate) fn rrq(file: &str, options: &[(&str, &str)]) -> Vec<u8> {
        let mut packet = vec![0, 1];
        for text in [file, "octet"].into_iter().chain(options.iter().flat_map(|(name, value)| [*name, *value])) {
            packet.extend_from_slice(text.as_bytes());
            packet.push(0);
        }
        packet
    }

    #[test]
    fn reads_requests_with_and_without_options() {
        let Some(Packet::Read(plain)) = parse(&rrq("snponly.efi", &[])) else { panic!("not read") };
        assert_eq!((plain.file.as_str(), plain.mode.as_str(), plain.block), ("snponly.efi", "octet", None));
        let options = [("TSIZE", "0"), ("blksize", "1468"), ("WindowSize", "4"), ("timeout", "3"), ("other", "x")];
        let Some(Packet::Read(full)) = parse(&rrq("a", &options)) else { panic!("not read") };
        assert_eq!((full.block, full.window, full.timeout, full.size), (Some(1468), Some(4), Some(3), Asked::Yes));
    }

    #[test]
    fn options_outside_what_the_rfcs_allow_are_not_granted() {
        let options = [("blksize", "7"), ("windowsize", "0"), ("timeout", "0")];
        let Some(Packet::Read(request)) = parse(&rrq("a", &options)) else { panic!("not read") };
        assert_eq!((request.block, request.window, request.timeout), (None, None, None));
    }

    #[test]
    fn a_request_without_its_terminators_is_not_one() {
        assert_eq!(parse(b"\0\x01"), None);
        assert_eq!(parse(b"\0\x01snponly.efi"), None);
        assert_eq!(parse(b"\0\x01snponly.efi\0octet"), None);
        assert_eq!(parse(b"\0\x02a\0octet\0"), Some(Packet::Write));
        assert_eq!(parse(b"\0\x04\x01\x02"), Some(Packet::Ack(258)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let _ = parse(&bytes);
            let mut request = vec![0, 1];
            request.extend_from_slice(&bytes);
            let _ = parse(&request);
        }
    }
}
