//! Hosts for unit tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;

use vmetal_model::boot::{BootEntry, BootTable, BootTarget};
use vmetal_model::meta::Uid;
use vmetal_model::net::MacAddr;

use crate::table::Table;

pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(172, 22, 0, 1);

pub(crate) fn disk_entry(host: &str, number: u8) -> BootEntry {
    BootEntry {
        host: host.to_owned(),
        uid: Uid(format!("uid-of-{host}")),
        macs: vec![MacAddr([0x52, 0x54, 0, 0, 0, number])],
        address: Ipv4Addr::new(172, 22, 0, 10 + number),
        target: BootTarget::LocalDisk,
    }
}

pub(crate) fn agent_entry(host: &str, number: u8) -> BootEntry {
    BootEntry {
        target: BootTarget::Agent { attempt: format!("attempt-of-{host}"), token: format!("token-of-{host}") },
        ..disk_entry(host, number)
    }
}

pub(crate) fn table(entries: Vec<BootEntry>) -> Table {
    let (table, conflicts) = Table::new(BootTable { revision: 1, entries });
    assert_eq!(conflicts, vec![]);
    table
}
