//! The boot table, indexed for the questions the protocols ask: whose MAC, whose address, whose token.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use vmetal_model::boot::{BootEntry, BootTable, BootTarget};
use vmetal_model::net::MacAddr;

/// One boot table with its indexes. Immutable; a new table replaces it whole.
#[derive(Debug, Default)]
pub struct Table {
    revision: u64,
    entries: Vec<BootEntry>,
    by_mac: HashMap<MacAddr, usize>,
    by_address: HashMap<Ipv4Addr, usize>,
    /// By SHA-256 of the token: a lookup does not compare secrets byte by byte.
    by_token: HashMap<[u8; 32], usize>,
}

/// Two entries claim the same thing. The engine forbids it; the first entry keeps it and the second is not served by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hosts {first:?} and {second:?} both have {what}; {first:?} keeps it: correct one of them")]
pub struct Conflict {
    /// The host that keeps it.
    pub first: String,
    /// The host that loses it.
    pub second: String,
    /// The MAC or address, with its kind.
    pub what: String,
}

impl Table {
    /// Indexes a table. Conflicting entries are reported, never mixed.
    pub fn new(table: BootTable) -> (Self, Vec<Conflict>) {
        let BootTable { revision, entries } = table;
        let mut built = Table { revision, ..Table::default() };
        let mut conflicts = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let conflict = |first: usize, what: String| Conflict {
                first: entries[first].host.clone(),
                second: entry.host.clone(),
                what,
            };
            if let Some(&first) = built.by_address.get(&entry.address) {
                conflicts.push(conflict(first, format!("address {}", entry.address)));
                continue;
            }
            built.by_address.insert(entry.address, index);
            for &mac in &entry.macs {
                match built.by_mac.get(&mac) {
                    Some(&first) if first != index => conflicts.push(conflict(first, format!("MAC {mac}"))),
                    _ => {
                        built.by_mac.insert(mac, index);
                    }
                }
            }
            if let BootTarget::Agent { token, .. } = &entry.target {
                built.by_token.insert(digest(token), index);
            }
        }
        built.entries = entries;
        (built, conflicts)
    }

    /// The store revision the table was made at.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many hosts it knows.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when it knows no host.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The host that owns an interface.
    pub fn by_mac(&self, mac: MacAddr) -> Option<&BootEntry> {
        self.by_mac.get(&mac).map(|&index| &self.entries[index])
    }

    /// The host an address is reserved for.
    pub fn by_address(&self, address: Ipv4Addr) -> Option<&BootEntry> {
        self.by_address.get(&address).map(|&index| &self.entries[index])
    }

    /// The host whose current boot attempt has this token.
    pub fn by_token(&self, token: &str) -> Option<&BootEntry> {
        self.by_token.get(&digest(token)).map(|&index| &self.entries[index])
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The newest table, shared by all servers of the process. Readers never wait.
#[derive(Debug, Clone, Default)]
pub struct Tables(Arc<ArcSwap<Table>>);

impl Tables {
    /// The newest table.
    pub fn load(&self) -> Arc<Table> {
        self.0.load_full()
    }

    /// Puts a new table in place; requests that have begun finish with the one they have.
    pub fn store(&self, table: Table) {
        self.0.store(Arc::new(table));
    }
}

/// The attempt of an entry that is to boot the installer.
pub(crate) fn attempt(entry: &BootEntry) -> Option<&str> {
    match &entry.target {
        BootTarget::Agent { attempt, .. } => Some(attempt),
        BootTarget::LocalDisk => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{agent_entry, disk_entry};

    #[test]
    fn finds_hosts_by_every_interface_by_address_and_by_current_token() {
        let mut a = agent_entry("a", 1);
        a.macs.push("52:54:00:00:00:99".parse().unwrap());
        let (table, conflicts) = Table::new(BootTable { revision: 7, entries: vec![a.clone(), disk_entry("b", 2)] });
        assert_eq!(conflicts, vec![]);
        assert_eq!((table.revision(), table.len()), (7, 2));
        for &mac in &a.macs {
            assert_eq!(table.by_mac(mac).unwrap().host, "a");
        }
        assert_eq!(table.by_address(Ipv4Addr::new(172, 22, 0, 12)).unwrap().host, "b");
        assert_eq!(table.by_token("token-of-a").unwrap().host, "a");
        assert!(table.by_token("token-of-b").is_none());
        assert!(table.by_token("").is_none());
    }

    #[test]
    fn a_mac_or_address_claimed_twice_stays_with_the_first_and_is_named() {
        let mut second = disk_entry("second", 2);
        second.macs = agent_entry("first", 1).macs;
        let mut third = disk_entry("third", 3);
        third.address = agent_entry("first", 1).address;
        let (table, conflicts) =
            Table::new(BootTable { revision: 1, entries: vec![agent_entry("first", 1), second, third.clone()] });
        assert_eq!(table.by_mac(agent_entry("first", 1).macs[0]).unwrap().host, "first");
        assert!(table.by_mac(third.macs[0]).is_none(), "a host without an address of its own is not answered");
        let texts: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("\"second\"") && texts[0].contains("MAC 52:54:00:00:00:01"), "{texts:?}");
        assert!(texts[1].contains("\"third\"") && texts[1].contains("address 172.22.0.11"), "{texts:?}");
    }
}
