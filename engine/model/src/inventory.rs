//! What a server is made of, as the in-memory installer found it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::MacAddr;
use crate::pci::{PciClass, PciId};

/// Everything inspection found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// Who the machine says it is.
    pub identity: Identity,
    /// The processors.
    pub cpu: Cpu,
    /// Installed memory in bytes, as the kernel sees it.
    pub memory_bytes: u64,
    /// Block devices that an operating system could be installed on.
    pub disks: Vec<Disk>,
    /// Physical network interfaces.
    pub nics: Vec<Nic>,
    /// PCI functions.
    #[serde(default)]
    pub pci: Vec<PciDevice>,
    /// How the installer was booted.
    pub firmware: Firmware,
}

/// The identity in the machine's DMI tables (SMBIOS type 1).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Identity {
    /// System serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// System UUID, lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// System manufacturer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Product name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

impl Identity {
    /// True unless the two say that they are different machines. Vendors disagree on which serial number DMI and BMC show; the
    /// UUID is the same in both. One that matches is enough, and a machine that tells neither cannot be told apart.
    pub fn may_be(&self, other: &Identity) -> bool {
        let compare = |a: &Option<String>, b: &Option<String>| Some(a.as_ref()?.eq_ignore_ascii_case(b.as_ref()?));
        let verdicts = [compare(&self.serial, &other.serial), compare(&self.uuid, &other.uuid)];
        verdicts.contains(&Some(true)) || verdicts == [None, None]
    }

    /// Who the machine is, in words.
    pub fn describe(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        format!("serial number {}, UUID {}", part(&self.serial), part(&self.uuid))
    }
}

/// The processors, taken together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Cpu {
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// Model name of the first processor.
    pub model: String,
    /// Populated sockets.
    pub sockets: u32,
    /// Physical cores over all sockets.
    pub cores: u32,
    /// Hardware threads: what Kubernetes counts as `cpu`.
    pub threads: u32,
}

/// A whole disk (never a partition).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// Kernel name without `/dev/`, for example `nvme0n1`. May change between boots.
    pub name: String,
    /// Capacity in bytes.
    pub size_bytes: u64,
    /// `nvme`, `sata`, `sas`, `virtio`, `usb` or `other`.
    pub bus: String,
    /// True for spinning media.
    pub rotational: bool,
    /// Vendor, where the device tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World wide name: `wwn-…`, `eui.…`, `naa.…` as the kernel reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// SCSI host:channel:target:lun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hctl: Option<String>,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
}

/// A physical network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nic {
    /// Kernel name.
    pub name: String,
    /// Permanent address.
    pub mac: MacAddr,
    /// Driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Link speed in Mbit/s when the link is up and tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
    /// Whether a carrier was seen.
    pub link_up: bool,
    /// PCI address, for example `0000:01:00.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// True for the interface the installer was booted over.
    #[serde(default)]
    pub boot: bool,
}

/// One PCI function (GPUs, adapters, switches).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PciDevice {
    /// `domain:bus:device.function`.
    pub address: String,
    /// Vendor id, four hexadecimal digits.
    pub vendor: PciId,
    /// Device id, four hexadecimal digits.
    pub device: PciId,
    /// Class code, six hexadecimal digits; `0302xx` is a 3D controller.
    pub class: PciClass,
}

/// How the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// Legacy BIOS.
    #[default]
    Bios,
    /// UEFI.
    Uefi,
}
