//! What the types of a configuration cannot say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{BackendKind, ConfigError, DiskBus, HostConfig, LabConfig};

fn invalid<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid(message.into()))
}

impl LabConfig {
    /// Checks what the types cannot: uniqueness, ranges, and that nothing listens outside loopback.
    ///
    /// # Errors
    /// The first thing found wrong, with the names of the hosts concerned.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.hosts.is_empty() {
            return invalid("a lab needs at least one [[hosts]] entry");
        }
        let mut names = BTreeSet::new();
        let mut macs = BTreeSet::new();
        let mut serials = BTreeSet::new();
        let mut listens = BTreeSet::new();
        for host in &self.hosts {
            host.validate()?;
            let name = &host.name;
            if !names.insert(name.clone()) {
                return invalid(format!("two hosts are named {name}"));
            }
            for mac in host.macs() {
                if !macs.insert(mac.to_string()) {
                    return invalid(format!("host {name}: another host already has the MAC address {mac}"));
                }
            }
            if !serials.insert(host.serial()) {
                return invalid(format!("host {name}: another host already has the serial number {}", host.serial()));
            }
            if host.bmc.listen.port() != 0 && !listens.insert(host.bmc.listen) {
                return invalid(format!("host {name}: another BMC already listens on {}", host.bmc.listen));
            }
            if host.backend == BackendKind::Qemu && self.network.is_none() {
                return invalid(format!("host {name} is a qemu host, which needs a [network] section"));
            }
        }
        self.validate_network()?;
        for fault in &self.faults {
            fault.validate().map_err(ConfigError::Invalid)?;
        }
        Ok(())
    }

    fn validate_network(&self) -> Result<(), ConfigError> {
        if let Some(network) = &self.network {
            let name = &network.bridge_name;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || name.len() > 15 || !name.chars().all(plain) {
                return invalid(format!(
                    "network.bridge_name {name:?}: 1 to 15 lower-case letters, digits and dashes are allowed"
                ));
            }
        }
        for forward in &self.forwards {
            let Some(network) = &self.network else {
                return invalid("[[forwards]] needs a [network] section");
            };
            if forward.listen.ip() != IpAddr::V4(network.bridge.address) {
                return invalid(format!(
                    "forwards.listen {} is not the bridge address {}; the lab has no other address in its network",
                    forward.listen, network.bridge.address
                ));
            }
            if !forward.to.ip().is_loopback() {
                return invalid(format!(
                    "forwards.to {} is not a loopback address; the lab reaches nothing else",
                    forward.to
                ));
            }
        }
        Ok(())
    }
}

impl HostConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let name = &self.name;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
            return invalid(format!("host name {name:?}: 1 to 63 lower-case letters, digits and dashes are allowed"));
        }
        if self.cpus == 0 || self.memory_mib < 64 {
            return invalid(format!("host {name}: at least 1 CPU and 64 MiB of memory are needed"));
        }
        if !self.bmc.listen.ip().is_loopback() {
            return invalid(format!(
                "host {name}: bmc.listen {} is not a loopback address; lab BMCs are for this machine only",
                self.bmc.listen
            ));
        }
        let system_id = &self.bmc.system_id;
        let id_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if system_id.is_empty() || !system_id.chars().all(id_char) {
            return invalid(format!(
                "host {name}: bmc.system_id {system_id:?} must be letters, digits, '.', '-' or '_'"
            ));
        }
        if self.bmc.username.is_empty() || self.bmc.username.contains(':') {
            return invalid(format!("host {name}: bmc.username must not be empty and must not contain a colon"));
        }
        if let Some(uuid) = &self.uuid
            && !is_uuid(uuid)
        {
            return invalid(format!("host {name}: {uuid:?} is not a UUID"));
        }
        if self.disks.iter().filter(|d| d.bus == DiskBus::Sata).count() > 6 {
            return invalid(format!("host {name}: the AHCI controller has six ports, more sata disks do not fit"));
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let serial = self.disk_serial(index);
            if disk.size_gib == 0 {
                return invalid(format!("host {name}: disk {serial} has no size"));
            }
            let serial_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if serial.is_empty() || serial.len() > 20 || !serial.chars().all(serial_char) {
                return invalid(format!(
                    "host {name}: disk serial {serial:?} must be 1 to 20 letters, digits, '-' or '_'"
                ));
            }
        }
        for (what, text) in
            [("serial_number", &self.serial()), ("manufacturer", &self.manufacturer), ("model", &self.model)]
        {
            if text.is_empty() || text.contains(',') || text.chars().any(char::is_control) {
                return invalid(format!("host {name}: {what} {text:?} must not be empty nor contain commas"));
            }
        }
        Ok(())
    }
}

pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(i, c)| match i {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}
