//! TFTP, read-only, for boot loaders held in memory.
//!
//! RFC 1350 with options (RFC 2347): block size (2348), timeout and transfer size (2349), window size (7440). Nothing else is
//! served by it: a file system is not reachable, only a short list of names. [`wire`] reads and writes packets, [`transfer`]
//! is the pure state of one transfer, [`server`] moves packets.
//!
//! * Only addresses that the boot table reserves are answered.
//! * Blocks are at most 1468 bytes: a packet then fits an Ethernet frame, and firmware that cannot reassemble fragments boots.
//! * Block numbers roll over to 0, so files beyond 65,535 blocks work.
//! * A client that aborts after the option acknowledgement (error 8; firmware asks for the size that way) is not an error.

pub mod server;
pub mod transfer;
pub mod wire;
