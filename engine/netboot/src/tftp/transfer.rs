//! The state of one transfer: which blocks to send next. Pure; knows neither sockets nor clocks.

use bytes::Bytes;

use super::wire::{self, Asked, DEFAULT_BLOCK, MAX_BLOCK, MAX_WINDOW, ReadRequest};

/// One file on its way to one client.
#[derive(Debug)]
pub struct Transfer {
    file: Bytes,
    block: usize,
    window: u64,
    /// Blocks acknowledged, counted from the beginning without rollover.
    acked: u64,
    /// Blocks in all; the last one is shorter than the rest, and may be empty.
    blocks: u64,
    options: Option<Vec<u8>>,
    /// With a window, an acknowledgement of what was acknowledged before says that the first block of the window was lost;
    /// it is believed once per window.
    repeated: Repeated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeated {
    No,
    Yes,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Send these packets.
    Send(Vec<Vec<u8>>),
    /// Nothing to do: an old or impossible acknowledgement. Answering it would double every packet from then on.
    Ignore,
    /// The client has everything.
    Done,
}

impl Transfer {
    /// Begins a transfer with the options the client asked for, cut to what we grant.
    pub fn new(file: Bytes, request: &ReadRequest) -> Self {
        let mut granted: Vec<(&str, u64)> = Vec::new();
        let mut block = DEFAULT_BLOCK;
        if let Some(asked) = request.block {
            block = asked.min(MAX_BLOCK);
            granted.push(("blksize", block.into()));
        }
        if let Some(seconds) = request.timeout {
            granted.push(("timeout", seconds.into()));
        }
        let size = u64::try_from(file.len()).unwrap_or(u64::MAX);
        if request.size == Asked::Yes {
            granted.push(("tsize", size));
        }
        let mut window = 1;
        if let Some(asked) = request.window {
            window = asked.min(MAX_WINDOW);
            granted.push(("windowsize", window.into()));
        }
        Transfer {
            block: block.into(),
            window: window.into(),
            acked: 0,
            blocks: size / u64::from(block) + 1,
            options: (!granted.is_empty()).then(|| wire::option_ack(&granted)),
            file,
            repeated: Repeated::No,
        }
    }

    /// The packets to send first, and again whenever the client is silent for too long.
    pub fn current(&self) -> Vec<Vec<u8>> {
        match &self.options {
            Some(options) => vec![options.clone()],
            None => self.window(),
        }
    }

    /// Takes an acknowledgement.
    pub fn on_ack(&mut self, number: u16) -> Next {
        if self.options.is_some() {
            if number != 0 {
                return Next::Ignore;
            }
            self.options = None;
            return Next::Send(self.window());
        }
        // The number of the block after the last acknowledged one, without its rolled-over part.
        let ahead = u64::from(number.wrapping_sub(low(self.acked)));
        if ahead == 0 {
            if self.window > 1 && self.repeated == Repeated::No {
                self.repeated = Repeated::Yes;
                return Next::Send(self.window());
            }
            return Next::Ignore;
        }
        if ahead > self.window.min(self.blocks - self.acked) {
            return Next::Ignore;
        }
        self.acked += ahead;
        self.repeated = Repeated::No;
        if self.acked == self.blocks { Next::Done } else { Next::Send(self.window()) }
    }

    /// Bytes the client has acknowledged.
    pub fn delivered(&self) -> usize {
        usize::try_from(self.acked).unwrap_or(usize::MAX).saturating_mul(self.block).min(self.file.len())
    }

    fn window(&self) -> Vec<Vec<u8>> {
        let last = self.blocks.min(self.acked + self.window);
        (self.acked + 1..=last)
            .map(|number| {
                let from = usize::try_from(number - 1).unwrap_or(usize::MAX).saturating_mul(self.block);
                let from = from.min(self.file.len());
                let to = (from + self.block).min(self.file.len());
                wire::data(low(number), &self.file[from..to])
            })
            .collect()
    }
}

/// A block number as it is sent: modulo 65,536, rolling over to 0.
fn low(number: u64) -> u16 {
    (number & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn request(block: Option<u16>, window: Option<u16>) -> ReadRequest {
        ReadRequest { file: "f".to_owned(), mode: "octet".to_owned(), block, timeout: None, size: Asked::No, window }
    }

    fn file(size: usize) -> Bytes {
        (0..size).map(|i| (i % 251) as u8).collect::<Vec<u8>>().into()
    }

    /// A client that takes blocks in order and drops those `lost` says (by count of packets seen).
    fn receive(file: &Bytes, request: &ReadRequest, mut lost: impl FnMut(usize) -> bool) -> (Vec<u8>, usize) {
        let mut transfer = Transfer::new(file.clone(), request);
        let (mut got, mut blocks, mut seen) = (Vec::new(), 0u64, 0usize);
        let mut packets = transfer.current();
        let size = usize::from(request.block.unwrap_or(512).min(MAX_BLOCK));
        if packets[0][1] == 6 {
            let Next::Send(first) = transfer.on_ack(0) else { panic!("no data after the options") };
            packets = first;
        }
        for _ in 0..1_000_000 {
            for packet in &packets {
                seen += 1;
                let number = u16::from_be_bytes([packet[2], packet[3]]);
                if !lost(seen) && number == low(blocks + 1) {
                    blocks += 1;
                    got.extend_from_slice(&packet[4..]);
                    if packet.len() - 4 < size {
                        assert_eq!(transfer.on_ack(low(blocks)), Next::Done);
                        return (got, seen);
                    }
                }
            }
            packets = match transfer.on_ack(low(blocks)) {
                Next::Send(packets) => packets,
                Next::Ignore => transfer.current(),
                Next::Done => panic!("done too early"),
            };
        }
        panic!("no end");
    }

    #[test]
    fn every_size_around_a_block_boundary_arrives_whole() {
        for size in [0, 1, 511, 512, 513, 1024, 1467, 1468, 1469, 100_000] {
            for (block, window) in [(None, None), (Some(1468), None), (Some(512), Some(4)), (Some(9000), Some(500))] {
                let file = file(size);
                assert_eq!(receive(&file, &request(block, window), |_| false).0, file, "{size} {block:?} {window:?}");
            }
        }
    }

    #[test]
    fn block_numbers_roll_over_to_zero() {
        let file = file(70_000 * 8 + 3);
        assert_eq!(receive(&file, &request(Some(8), Some(16)), |_| false).0, file);
    }

    #[test]
    fn losses_are_repaired_with_and_without_a_window() {
        let file = file(50_000);
        for window in [None, Some(8)] {
            let (got, _) = receive(&file, &request(Some(512), window), |seen| seen % 7 == 3);
            assert_eq!(got, file);
        }
    }

    #[test]
    fn a_duplicate_acknowledgement_does_not_double_the_traffic() {
        let mut transfer = Transfer::new(file(5_000), &request(None, None));
        assert!(matches!(transfer.on_ack(1), Next::Send(_)));
        assert_eq!(transfer.on_ack(1), Next::Ignore);
        assert_eq!(transfer.on_ack(0), Next::Ignore);
        assert_eq!(transfer.on_ack(9), Next::Ignore, "blocks that were never sent");
        assert_eq!(transfer.delivered(), 512);
    }

    #[test]
    fn grants_less_than_was_asked_for_and_says_so() {
        let mut asked = request(Some(9000), Some(1000));
        asked.size = Asked::Yes;
        asked.timeout = Some(2);
        let transfer = Transfer::new(file(3000), &asked);
        let text = String::from_utf8(transfer.current()[0][2..].to_vec()).unwrap();
        assert_eq!(text, "blksize\x001468\0timeout\x002\0tsize\x003000\0windowsize\x0064\0");
    }

    proptest::proptest! {
        #[test]
        fn no_acknowledgement_sends_more_than_a_window(
            acks in proptest::collection::vec(proptest::num::u16::ANY, 0..200),
            size in 0usize..20_000,
            window in 1u16..70,
        ) {
            let mut transfer = Transfer::new(file(size), &request(Some(64), Some(window)));
            for ack in acks {
                if let Next::Send(packets) = transfer.on_ack(ack) {
                    proptest::prop_assert!(packets.len() <= usize::from(window.min(MAX_WINDOW)));
                    proptest::prop_assert!(packets.iter().all(|p| p.len() <= 4 + 64));
                }
            }
        }
    }
}
