//! What each network interface should boot: the table from which DHCP, TFTP and HTTP boot answers are derived. There is no
//! other configuration of network boot.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::Uid;
use crate::net::MacAddr;

/// Everything the network boot service needs to know, at one store revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BootTable {
    /// The store revision it was made at; only grows.
    pub revision: u64,
    /// One entry per known host.
    pub entries: Vec<BootEntry>,
}

/// What a follower of the boot table is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "news")]
pub enum BootNews {
    /// The whole table: what was known before is void.
    Whole(BootTable),
    /// What is different from what was told before.
    Change(BootChange),
}

/// A change of a boot table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BootChange {
    /// The store revision of the table after it.
    pub revision: u64,
    /// Entries that are new, or replace the one of the same host.
    pub entries: Vec<BootEntry>,
    /// Hosts that have no entry any more.
    pub gone: Vec<String>,
}

/// One host on the provisioning network.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    /// The host's name; also its DHCP host name.
    pub host: String,
    /// The host's identity.
    pub uid: Uid,
    /// All interfaces that belong to the host; the boot interface first.
    pub macs: Vec<MacAddr>,
    /// The reserved address.
    pub address: Ipv4Addr,
    /// What to boot.
    pub target: BootTarget,
}

/// What a host should boot.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum BootTarget {
    /// Its own disk. The host gets an address but no boot file; an iPXE script tells the firmware to go on.
    LocalDisk,
    /// The installer.
    Agent {
        /// The boot attempt.
        attempt: String,
        /// The attempt's token: goes to the kernel command line, and opens the image and agent paths.
        token: String,
    },
}

impl std::fmt::Debug for BootTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BootTarget::LocalDisk => f.write_str("LocalDisk"),
            BootTarget::Agent { attempt, .. } => write!(f, "Agent({attempt}, token redacted)"),
        }
    }
}

impl std::fmt::Debug for BootEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {} -> {:?}", self.host, self.macs, self.address, self.target)
    }
}

/// Something seen on the provisioning network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEvent {
    /// The interface.
    pub mac: MacAddr,
    /// The host it belongs to, if known.
    pub host: Option<String>,
    /// What happened, in an operator's words: `DHCP offer 172.22.0.10 (UEFI x86-64)`, `TFTP snponly.efi 180 KiB in 0.2 s`.
    pub what: String,
    /// When.
    pub at: Timestamp,
}
